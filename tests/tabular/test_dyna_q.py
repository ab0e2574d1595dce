"""Dyna-Q and prioritised sweeping: planning by hand, what it reduces to, and the optimal values of a maze."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import Discrete, Spec, Transition
from rlgen.envs import adapter, grid
from rlgen.sources import rollout
from rlgen.tabular import dyna_q, q_learning

CHAIN = Spec(Discrete(4), Discrete(2))
HYPERS = dyna_q.Hypers(0.5, 0.5, epsilon_start=0.1, epsilon_end=0.1, horizon=1.0)


def walk(pairs, successors, rewards, terminated=()):
    """One environment's steps, `[T, 1]`."""
    obs, action = np.array(pairs).T
    flags = np.isin(np.arange(len(obs)), terminated)
    leaves = obs, action, np.float32(rewards), np.array(successors), flags, np.zeros_like(flags)
    return Transition(*(jnp.asarray(leaf)[:, None] for leaf in leaves), {})


def taught(steps, hypers):
    """The first state of prioritised sweeping, with a model that was told of the steps."""
    state = dyna_q.init(jax.random.key(0), hypers, shape=(4, 2), prioritised=True)
    model = state.model
    for t in range(len(steps.reward)):
        model = dyna_q.record(model, jax.tree.map(lambda leaf: leaf[t, 0], steps), jnp.int32(t))  # noqa: B023
    return state._replace(model=model)


sweep = jax.jit(dyna_q.sweep, static_argnames="config")

# States 0, 1 and 2 in a row, then the end, which is worth 8; action 1 stays where it is.
ROW = walk([(0, 0), (1, 0), (2, 0)], [1, 2, 3], [0, 0, 8], terminated=[2])


def test_without_planning_it_is_q_learning(table_spec, experience, feed):
    hypers = HYPERS._replace(initial_value=0.3)
    got = feed(dyna_q, table_spec, dyna_q.Config(num_envs=2, num_planning=0), hypers, experience)
    single = q_learning.Hypers(0.5, 0.5, initial_value=0.3)
    expected = feed(q_learning, table_spec, q_learning.Config(num_envs=2), single, experience)
    np.testing.assert_allclose(got.q_values, expected.q_values, atol=1e-6)


def test_the_model_keeps_what_happened_last(table_spec, experience, feed):
    model = feed(dyna_q, table_spec, dyna_q.Config(num_envs=2), HYPERS, experience, length=8).model
    last = {}
    for t in range(24):
        for env in range(2):
            obs, action, *outcome = (np.asarray(leaf)[t, env] for leaf in experience[:5])
            last[int(obs), int(action)] = *outcome, 2 * t + env
    for pair in np.ndindex(4, 3):
        assert bool(model.tried[pair]) == (pair in last)
        reward, successor, terminated, time = last.get(pair, (0, pair[0], False, 0))
        said = (table[pair] for table in (model.reward, model.successor, model.terminated, model.time))
        np.testing.assert_array_equal(list(said), [reward, successor, terminated, time])


def test_planning_repeats_the_only_step_known(feed):
    state = feed(dyna_q, CHAIN, dyna_q.Config(num_planning=3), HYPERS, walk([(2, 1)], [2], [1.0]))
    value = 0.0
    for _ in range(4):
        value += 0.5 * (1 + 0.5 * value - value)
    np.testing.assert_allclose(state.q_values[2], [0, value], rtol=1e-6)
    assert state.q_values[:2].sum() == 0


def test_bonus_grows_with_the_root_of_the_time_since_the_last_try():
    state = dyna_q.init(jax.random.key(0), HYPERS, shape=(4, 2), prioritised=False)
    model = dyna_q.record(state.model, jax.tree.map(lambda leaf: leaf[2, 0], ROW), jnp.int32(3))
    hypers = HYPERS._replace(bonus=0.1)
    said = dyna_q.recall(model, jnp.array([2, 1]), jnp.array([0, 1]), jnp.int32(7), hypers)
    np.testing.assert_allclose(said.reward, [8 + 0.1 * 2, 0.1 * np.sqrt(7)], rtol=1e-6)
    np.testing.assert_array_equal(said.next_obs, [3, 1])
    np.testing.assert_array_equal(said.terminated, [True, False])


@pytest.mark.parametrize("untried", [False, True])
def test_planning_draws_a_state_seen_and_an_action_known_there(untried):
    # With step size one, no discount and reward one, every pair that is drawn has the value one.
    hypers = HYPERS._replace(learning_rate=1.0, discount=0.0)
    shape, draws = (4, 3), 6000
    tried = jnp.zeros(shape, bool).at[jnp.array([1, 1, 3]), jnp.array([0, 2, 1])].set(True)
    empty = dyna_q.init(jax.random.key(0), hypers, shape=shape, prioritised=False)
    model = empty.model._replace(tried=tried, reward=jnp.ones(shape))
    seen = dyna_q.Seen(jnp.array([3, 1, 0, 0]), jnp.int32(2))

    @jax.jit
    @jax.vmap
    def drawn(key):
        time = jnp.int32(0)
        return dyna_q.plan(key, empty.q_values, model, seen, time, hypers, num_planning=1, untried=untried)

    shares = np.asarray(drawn(jax.random.split(jax.random.key(1), draws)).mean(0))
    with jax.debug_key_reuse(True):  # dependent draws may look independent
        jax.make_jaxpr(drawn)(jax.random.split(jax.random.key(1), draws))
    known = np.where(untried, np.isin(np.arange(4), [1, 3])[:, None], tried)
    np.testing.assert_allclose(shares, 0.5 * known / np.maximum(known.sum(1, keepdims=True), 1), atol=0.03)


def test_prioritised_sweeping_carries_a_reward_back_along_its_way(feed):
    hypers = HYPERS._replace(learning_rate=1.0)
    for num, expected in ((2, [0, 4, 8]), (9, [2, 4, 8])):
        state = feed(dyna_q, CHAIN, dyna_q.Config(num_planning=num, prioritised=True), hypers, ROW)
        np.testing.assert_array_equal(state.q_values[:3, 0], expected)
        np.testing.assert_array_equal(state.q_values[:, 1], 0)
    np.testing.assert_array_equal(state.picks, 0)


def test_prioritised_sweeping_takes_the_largest_error_first_and_drops_the_small(feed):
    hypers = HYPERS._replace(learning_rate=1.0)
    steps = walk([(0, 1), (1, 1), (2, 1)], [3, 3, 3], [1.0, 5.0, 3.0], terminated=[0, 1, 2])
    config = dyna_q.Config(num_planning=1, prioritised=True, threshold=2.0)
    state = feed(dyna_q, CHAIN, config, hypers, steps)
    # The first is below the threshold, so the second finds nothing before it.
    np.testing.assert_array_equal(state.q_values[:3, 1], [0, 5, 3])
    state = taught(steps, hypers)
    waiting = jnp.zeros((4, 2)).at[:3, 1].set(jnp.array([1.0, 5.0, 3.0]))
    q_values, left = sweep(state.q_values, state.model, waiting, jnp.int32(3), hypers, config=config)
    np.testing.assert_array_equal(q_values[:3, 1], [0, 5, 0])
    np.testing.assert_array_equal(left[:3, 1], [1, 0, 3])


def test_a_pair_that_waits_keeps_the_larger_priority():
    hypers, config = HYPERS._replace(learning_rate=1.0), dyna_q.Config(num_planning=1, prioritised=True)
    state = taught(ROW, hypers)
    for before, after in ((3.0, 4.0), (6.0, 6.0)):  # the last step carries back 0.5 × 8 to the one before
        waiting = jnp.zeros((4, 2)).at[jnp.array([1, 2]), 0].set(jnp.array([before, 7.0]))
        _, left = sweep(state.q_values, state.model, waiting, jnp.int32(3), hypers, config=config)
        np.testing.assert_array_equal(left, jnp.zeros((4, 2)).at[1, 0].set(after))
    # Nothing leads to the pair of priority 9, which is planned at, while the one tried again waits as before or more.
    waiting = jnp.zeros((4, 2)).at[jnp.array([1, 3]), jnp.array([0, 1])].set(jnp.array([2.0, 9.0]))
    learn = jax.jit(dyna_q.learn, static_argnames="config")
    for reward, after in ((0.0, 2.0), (1.0, 2.0), (-5.0, 5.0)):
        again = jax.tree.map(lambda leaf: leaf[0, 0], walk([(1, 0)], [2], [reward]))
        empty = dyna_q.init(jax.random.key(0), hypers, shape=(4, 2), prioritised=True)._replace(picks=waiting)
        got, _ = learn(jax.random.key(0), empty, again, jnp.int32(0), hypers, config=config)
        np.testing.assert_array_equal(got.picks, jnp.zeros((4, 2)).at[1, 0].set(after))


def test_where_nothing_waits_nothing_is_planned():
    # The first pair of the table is the largest of no priorities, and a step with an error leads to it.
    hypers, config = HYPERS._replace(learning_rate=1.0), dyna_q.Config(prioritised=True)
    state = taught(walk([(0, 0), (1, 0)], [0, 0], [2.0, 3.0]), hypers)
    q_values, left = sweep(state.q_values, state.model, state.picks, jnp.int32(2), hypers, config=config)
    np.testing.assert_array_equal(q_values, 0)
    np.testing.assert_array_equal(left, 0)


@pytest.mark.parametrize("terminated", [False, True])
def test_nothing_is_carried_back_over_the_end_of_an_episode(terminated):
    hypers, config = HYPERS._replace(learning_rate=1.0), dyna_q.Config(prioritised=True)
    steps = walk([(0, 0), (1, 1)], [1, 3], [0.0, 8.0], terminated=[0, 1] if terminated else [1])
    state = taught(steps, hypers)
    waiting = jnp.zeros((4, 2)).at[1, 1].set(8.0)
    _, left = sweep(state.q_values, state.model, waiting, jnp.int32(2), hypers, config=config)
    np.testing.assert_array_equal(left, jnp.zeros((4, 2)).at[0, 0].set(0 if terminated else 0.5 * 8))


@pytest.mark.parametrize(
    ("prioritised", "num_planning", "learning_rate"), [(False, 0, 0.2), (False, 10, 0.2), (True, 10, 1.0)]
)
def test_planning_finds_the_shortest_way_from_few_steps(prioritised, num_planning, learning_rate):
    env = adapter.make(grid.four_by_three(move_probability=1.0, living_reward=0.0))
    config = dyna_q.Config(num_planning=num_planning, prioritised=prioritised)
    run = train.make(dyna_q.build(env.spec, config), rollout.build(env, num_envs=1, length=1))
    hypers = dyna_q.Hypers(learning_rate, 0.9, epsilon_start=1.0, epsilon_end=0.1, horizon=200.0)

    @jax.jit
    @jax.vmap
    def best(key):
        state = train.window(run)(key, jnp.int32(0), jnp.int32(400), run.init(key, hypers), hypers)[0]
        return state.algorithm.q_values[8].max()

    error = np.abs(np.asarray(best(jax.random.split(jax.random.key(0), 8))) - 0.9**4)
    # The goal is five steps away.
    assert error.max() < 0.01 if num_planning else error.mean() > 0.05


def test_what_could_not_learn_is_refused():
    with pytest.raises(ValueError, match="num_planning=0"):
        dyna_q.Config(num_planning=0, prioritised=True)
    with pytest.raises(ValueError, match="threshold=-1"):
        dyna_q.Config(threshold=-1.0)
