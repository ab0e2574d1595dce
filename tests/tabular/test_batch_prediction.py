"""Batch prediction: the most likely process, average returns, and the figure in which the former predicts better."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Discrete, Spec, Transition
from rlgen.envs import tables
from rlgen.tabular import batch_prediction

SPEC = Spec(Discrete(5), Discrete(2))
HYPERS = batch_prediction.Hypers(discount=0.9, initial_value=0.5)


@functools.cache
def build(method, num_sweeps, num_envs):
    config = batch_prediction.Config(num_envs, method=method, num_sweeps=num_sweeps)
    algorithm = batch_prediction.build(SPEC, config)
    return algorithm, jax.jit(algorithm.update)


def run(method, batch, hypers=HYPERS, num_sweeps=200, length=None):
    algorithm, update = build(method, num_sweeps, batch.reward.shape[1])
    state, metrics = algorithm.init(jax.random.key(0), hypers), None
    length = length or len(batch.reward)
    for start in range(0, len(batch.reward), length):
        piece = jax.tree.map(lambda leaf: leaf[start : start + length], batch)  # noqa: B023
        state, metrics = update(jax.random.key(0), jnp.int32(0), state, piece, hypers)
    return state, metrics


def test_td_finds_the_values_of_the_most_likely_process(make_batch):
    batch = make_batch(0, 100, 2)
    obs, _, reward, next_obs, terminated = (leaf.reshape(-1) for leaf in batch[:5])
    counts, rewards = np.zeros((5, 5)), np.zeros(5)
    np.add.at(counts, (obs, next_obs), ~terminated)
    np.add.at(rewards, obs, reward)
    visits = np.bincount(obs, minlength=5)
    exact = np.linalg.solve(np.eye(5) - 0.9 * counts / visits[:, None], rewards / visits)
    state, metrics = run("td", batch)
    np.testing.assert_allclose(batch_prediction.values(state), exact, rtol=1e-4, atol=1e-5)
    assert metrics.error < 1e-5
    jax.tree.map(np.testing.assert_array_equal, state.episodes, jax.tree.map(np.zeros_like, state.episodes))


def test_monte_carlo_finds_the_average_return(make_batch):
    batch = make_batch(1, 200, 1, truncate=0)
    lists, goal, first = [[] for _ in range(5)], 0.0, np.flatnonzero(batch.terminated[:, 0])[-1]
    for t in range(first, -1, -1):  # what comes after has no return yet
        goal = batch.reward[t, 0] + 0.9 * goal * (not batch.terminated[t, 0])
        lists[batch.obs[t, 0]].append(goal)
    state, metrics = run("monte_carlo", batch, num_sweeps=1)
    np.testing.assert_allclose(state.values, [np.mean(each) for each in lists], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state.experience.visits, [len(each) for each in lists])
    assert metrics.error < 1e-5


@pytest.mark.parametrize("method", ["td", "monte_carlo"])
def test_limits_do_not_depend_on_how_experience_comes(make_batch, method):
    batch = make_batch(2, 60, 2)
    whole, _ = run(method, batch)
    part, _ = run(method, batch, length=6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), whole, part)
    slow, _ = run(method, batch, HYPERS._replace(learning_rate=0.3, initial_value=-2.0))
    np.testing.assert_allclose(slow.values, whole.values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["td", "monte_carlo"])
def test_truncated_episodes_are_completed_by_a_value(method):
    # From state 0 to state 1, cut there; state 1 is worth 3 by its own episode.
    leaves = [[0], [1]], [[0], [0]], [[1.0], [3.0]], [[1], [1]], [[False], [True]], [[True], [False]]
    state, _ = run(method, Transition(*map(np.array, leaves), {}))
    np.testing.assert_allclose(state.values, [1 + 0.9 * 3, 3, 0.5, 0.5, 0.5], rtol=1e-6)


def test_sweeps_by_hand():
    leaves = [[0], [1], [0]], [[0]] * 3, [[1.0], [3.0], [2.0]], [[1], [1], [1]], [[False], [True], [False]]
    batch = Transition(*map(np.array, leaves), np.array([[False], [False], [True]]), {})
    state, metrics = run("td", batch, HYPERS._replace(learning_rate=0.5), num_sweeps=2)
    zero, one = 0.5, 0.5
    for _ in range(2):
        zero, one = zero + 0.5 * ((1 + 2) / 2 + 0.9 * one - zero), one + 0.5 * (3 - one)
    np.testing.assert_allclose(state.values, [zero, one, 0.5, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(metrics.error, max(abs(1.5 + 0.9 * one - zero), abs(3 - one)), rtol=1e-5)


def test_td_predicts_better_than_monte_carlo(train_on):
    reference = tuple((np.arange(5) + 1) / 6)
    hypers, errors = batch_prediction.Hypers(initial_value=0.5), {}
    for method in ("td", "monte_carlo"):
        config = batch_prediction.Config(rollout_length=100, method=method, num_sweeps=100, reference=reference)
        _, metrics = train_on(batch_prediction, tables.random_walk(5, (0.0, 1.0)), config, hypers, 9, 64)
        errors[method] = float(metrics.error.mean())
    assert 0.02 < errors["td"] < 0.8 * errors["monte_carlo"] < 0.1


def test_policy_is_the_behaviour():
    algorithm = batch_prediction.build(SPEC, batch_prediction.Config(behaviour=(0.2, 0.8)))
    state = algorithm.init(jax.random.key(0), HYPERS)
    for explore in (True, False):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore)
        action, _, _ = policy.apply(jax.random.key(1), jnp.zeros(4000, jnp.int32), policy.memory((4000,)))
        np.testing.assert_allclose(action.mean(), 0.8, atol=0.03)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="neither td nor"):
        batch_prediction.build(SPEC, batch_prediction.Config(method="tdd"))
    with pytest.raises(ValueError, match="policy that gathers"):
        batch_prediction.build(SPEC, batch_prediction.Config(target=(0.2, 0.8)))
