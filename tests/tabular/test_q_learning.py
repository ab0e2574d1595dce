"""Q-learning: updates by hand, and the probes, whose values it finds exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter
from rlgen.sources import rollout
from rlgen.tabular import q_learning

HYPERS = q_learning.Hypers(learning_rate=0.5, discount=0.5)
TABLE = q_learning.State(jnp.array([[1.0, 2.0], [4.0, -4.0], [0.0, 8.0]]))


@pytest.mark.parametrize(("flag", "goal"), [("", 1 + 0.5 * 4), ("truncated", 1 + 0.5 * 4), ("terminated", 1.0)])
def test_one_update_by_hand(flag, goal):
    transition = Transition(
        jnp.int32(0),
        jnp.int32(1),
        jnp.float32(1),
        jnp.int32(1),
        jnp.bool_(flag == "terminated"),
        jnp.bool_(flag == "truncated"),
        {},
    )
    state, metrics = q_learning.learn(TABLE, transition, HYPERS)
    np.testing.assert_allclose(state.q_values, [[1, 2 + 0.5 * (goal - 2)], [4, -4], [0, 8]])
    np.testing.assert_allclose(metrics, [abs(goal - 2), 2])


def test_transitions_are_learned_from_in_time_order():
    flags = jnp.zeros((2, 2), bool)
    # Time first: 2 → 0, 1 → 2 in the first step, 0 → 1, 0 → 1 in the second.
    batch = Transition(
        jnp.array([[2, 1], [0, 0]]),
        jnp.array([[1, 0], [1, 1]]),
        jnp.zeros((2, 2)),
        jnp.array([[0, 2], [1, 1]]),
        flags,
        flags,
        {},
    )
    algorithm = q_learning.build(Spec(Discrete(3), Discrete(2)), q_learning.Config())
    state, metrics = algorithm.update(jax.random.key(0), jnp.int32(0), TABLE, batch, HYPERS)
    two = 8 + 0.5 * (0.5 * 2 - 8)  # from the values of state 0 before they change
    one = 4 + 0.5 * (0.5 * two - 4)  # from the new value of state 2
    first = 2 + 0.5 * (0.5 * one - 2)
    second = first + 0.5 * (0.5 * one - first)
    np.testing.assert_allclose(state.q_values, [[1, second], [one, -4], [0, two]])
    np.testing.assert_allclose(metrics.q_value, np.mean([8, 4, 2, first]))


def test_table_starts_at_its_initial_value():
    algorithm = q_learning.build(Spec(Discrete(3), Discrete(2)), q_learning.Config())
    state = algorithm.init(jax.random.key(0), HYPERS._replace(initial_value=7.0))
    np.testing.assert_array_equal(state.q_values, np.full((3, 2), 7, np.float32))


def test_policy_is_greedy_or_explores_by_its_schedule():
    algorithm = q_learning.build(Spec(Discrete(3), Discrete(2)), q_learning.Config())
    hypers = HYPERS._replace(epsilon_start=1.0, epsilon_end=0.2, horizon=10.0)
    obs, shares = jnp.tile(jnp.arange(3), 2000), []
    for step, explore in ((0, False), (0, True), (5, True), (20, True)):
        policy = algorithm.policy(jnp.int32(step), TABLE, hypers, explore=explore)
        action, _, _ = policy.apply(jax.random.key(step), obs, policy.memory(obs.shape))
        shares.append(float((action != jnp.array([1, 0, 1])[obs]).mean()))
    np.testing.assert_allclose(shares, [0, 0.5, 0.3, 0.1], atol=0.03)


@pytest.mark.parametrize("spec", [Spec(Box((1,)), Discrete(2)), Spec(Discrete(2), Box((1,)))])
def test_what_is_no_table_is_refused(spec):
    with pytest.raises(ValueError, match="needs a table"):
        q_learning.build(spec, q_learning.Config())


def test_values_of_every_action_are_found_exactly(probe):
    env, num = adapter.make(probe), len(probe.observations)
    hypers = q_learning.Hypers(0.5, discount=0.5, initial_value=5.0, epsilon_start=1.0, epsilon_end=1.0, horizon=1.0)
    run = train.make(q_learning.build(env.spec, q_learning.Config()), rollout.build(env, num_envs=4, length=4))

    @jax.jit
    @jax.vmap
    def trained(key):
        state = run.init(key, hypers)
        return train.window(run)(key, jnp.int32(0), jnp.int32(200), state, hypers)[0].algorithm.q_values

    expected = np.stack([probe.action_values(0.5, np.full(num, action)) for action in range(2)], -1)
    got = trained(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), atol=1e-4)
