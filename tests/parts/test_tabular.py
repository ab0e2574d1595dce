"""What tabular methods share: values under the ε-greedy policy, and memories that stay apart."""

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import Transition
from rlgen.parts import tabular


def test_expected_value_averages_over_the_policy():
    np.testing.assert_allclose(tabular.expected_value(jnp.array([[0.0, 4.0], [1.0, 1.0]]), 0.5), [3, 1])


def test_nothing_follows_a_terminal_state_and_a_cut_episode_goes_on():
    q_values = jnp.array([[0.0, 4.0], [1.0, 1.0]])

    def value(terminated, truncated):
        flags = jnp.bool_(terminated), jnp.bool_(truncated)
        step = Transition(jnp.int32(1), jnp.int32(0), jnp.float32(1), jnp.int32(0), *flags, {})
        return float(tabular.bootstrap(q_values, step, 0.5))

    assert (value(True, False), value(False, True), value(False, False)) == (0.0, 3.0, 3.0)


def test_fold_goes_in_time_order_and_keeps_memories_apart():
    reward = jnp.arange(6.0).reshape(3, 2)
    index, no = jnp.zeros((3, 2), jnp.int32), jnp.zeros((3, 2), bool)
    batch = Transition(index, index, reward, index, no, no, {})

    def rule(seen, memory, step):
        return 10 * seen + step.reward, memory + step.reward, step.reward

    seen, memory, mean = jax.jit(lambda batch: tabular.fold(rule, jnp.float32(0), jnp.zeros(2), batch))(batch)
    assert float(seen) == 12345.0 and float(mean) == 2.5
    np.testing.assert_array_equal(memory, [0 + 2 + 4, 1 + 3 + 5])
