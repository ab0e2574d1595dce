"""Q-learning: updates by hand, and the probes, whose values it finds exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, tables
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


TABLES = jnp.array([[[1.0, 2.0], [4.0, -4.0], [0.0, 8.0]], [[3.0, 0.0], [-6.0, 1.0], [2.0, 2.0]]])


def step_to(obs, action, reward, next_obs):
    flag = jnp.bool_(False)
    return Transition(jnp.int32(obs), jnp.int32(action), jnp.float32(reward), jnp.int32(next_obs), flag, flag, {})


@pytest.mark.parametrize(("chosen", "value", "next_value"), [(0, 2, -6), (1, 0, -4)])
def test_double_learns_at_the_value_that_the_other_table_gives(chosen, value, next_value):
    state = q_learning.DoubleState(TABLES)
    new, metrics = q_learning.learn_double(jnp.int32(chosen), state, step_to(0, 1, 1, 1), HYPERS)
    error = 1 + 0.5 * next_value - value
    expected = np.array(TABLES)
    expected[chosen, 0, 1] += 0.5 * error
    np.testing.assert_allclose(new.tables, expected)
    np.testing.assert_allclose(new.q_values, expected.mean(0))
    np.testing.assert_allclose(metrics, [abs(error), value])


@pytest.mark.parametrize("chosen", [0, 1])
def test_double_with_equal_tables_has_the_target_of_one(chosen):
    state = q_learning.DoubleState(jnp.stack([TABLE.q_values] * 2))
    new, metrics = q_learning.learn_double(jnp.int32(chosen), state, step_to(2, 1, 1, 0), HYPERS)
    single, single_metrics = q_learning.learn(TABLE, step_to(2, 1, 1, 0), HYPERS)
    np.testing.assert_array_equal(new.tables[chosen], single.q_values)
    np.testing.assert_array_equal(new.tables[1 - chosen], TABLE.q_values)
    np.testing.assert_array_equal(metrics, single_metrics)


def test_double_learns_into_either_table_by_a_fair_coin_for_each_transition():
    algorithm = q_learning.build(Spec(Discrete(4), Discrete(2)), q_learning.Config(double=True))
    hypers = HYPERS._replace(learning_rate=1.0, discount=0.0)
    num, obs = 2000, jnp.arange(4).reshape(2, 2)
    zeros, flags = jnp.zeros((2, 2), jnp.int32), jnp.zeros((2, 2), bool)
    batch = Transition(obs, zeros, jnp.ones((2, 2)), zeros, flags, flags, {})
    state = algorithm.init(jax.random.key(0), hypers)
    learned = jax.vmap(lambda key: algorithm.update(key, jnp.int32(0), state, batch, hypers)[0].tables[..., 0])
    tables = np.asarray(jax.jit(learned)(jax.random.split(jax.random.key(1), num)))
    np.testing.assert_array_equal(tables.sum(1), 1)
    outcomes = np.bincount((tables[:, 0] @ [1, 2, 4, 8]).astype(int), minlength=16)
    np.testing.assert_allclose(outcomes / num, 1 / 16, atol=0.02)


def test_actions_that_a_state_lacks_are_neither_taken_nor_valued():
    spec, config = Spec(Discrete(3), Discrete(2)), q_learning.Config(num_actions=(1, 2, 1))
    algorithm = q_learning.build(spec, config)
    hypers = HYPERS._replace(epsilon_start=0.5, epsilon_end=0.5, horizon=1.0)
    for explore in (True, False):
        policy = algorithm.policy(jnp.int32(0), TABLE, hypers, explore=explore)
        action = policy.apply(jax.random.key(0), jnp.tile(jnp.arange(3), 100), ())[0].reshape(100, 3)
        np.testing.assert_array_equal(action[:, [0, 2]], 0)
    learned, _ = q_learning.learn(TABLE, step_to(1, 0, 1, 2), HYPERS, num_actions=config.num_actions)
    np.testing.assert_allclose(learned.q_values[1, 0], 4 + 0.5 * (1 + 0.5 * 0 - 4))
    state = q_learning.DoubleState(TABLES)
    double, _ = q_learning.learn_double(jnp.int32(0), state, step_to(1, 0, 1, 2), HYPERS, num_actions=(1, 2, 1))
    np.testing.assert_allclose(double.tables[0, 1, 0], 4 + 0.5 * (1 + 0.5 * 2 - 4))
    for wrong in ((1, 2), (1, 3, 1)):
        with pytest.raises(ValueError, match="does not fit"):
            q_learning.build(spec, q_learning.Config(num_actions=wrong))


def test_ties_are_broken_by_chance_while_exploring_only():
    algorithm = q_learning.build(Spec(Discrete(1), Discrete(3)), q_learning.Config())
    table, obs = q_learning.State(jnp.array([[1.0, 2.0, 2.0]])), jnp.zeros(3000, jnp.int32)
    hypers = HYPERS._replace(epsilon_start=0.0, epsilon_end=0.0, horizon=1.0)
    for explore, shares in ((True, [0, 0.5, 0.5]), (False, [0, 1, 0])):
        action = algorithm.policy(jnp.int32(0), table, hypers, explore=explore).apply(jax.random.key(0), obs, ())[0]
        np.testing.assert_allclose(np.bincount(action, minlength=3) / 3000, shares, atol=0.04)


def test_double_overestimates_less():
    env = adapter.make(tables.maximisation_bias())
    hypers = q_learning.Hypers(0.1, epsilon_start=0.1, epsilon_end=0.1, horizon=1.0)

    def learned(double):
        config = q_learning.Config(double=double, num_actions=(2, 10, 1))
        run = train.make(q_learning.build(env.spec, config), rollout.build(env, num_envs=1, length=1))

        @jax.jit
        @jax.vmap
        def one(key):
            state, report = train.window(run)(key, jnp.int32(0), jnp.int32(200), run.init(key, hypers), hypers)
            return state.algorithm.q_values[0, tables.LEFT], report.stats.total_length / report.stats.episodes - 1

        return [float(leaf.mean()) for leaf in one(jax.random.split(jax.random.key(0), 200))]

    (value, left), (double_value, double_left) = learned(False), learned(True)
    assert value > 0.02  # the truth is -0.1
    assert double_value < value - 0.02
    assert double_left < left - 0.2
