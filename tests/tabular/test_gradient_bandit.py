"""Gradient bandit: its expected update is the gradient, its baseline only takes away variance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, bandits
from rlgen.sources import rollout
from rlgen.tabular import gradient_bandit

SPEC = Spec(Discrete(2), Discrete(3))
PREFERENCES = jnp.array([[0.5, -1.0, 0.2], [0.0, 2.0, 1.0]])
REWARDS = jnp.array([[4.0, 7.0, 5.0], [-1.0, 3.0, 0.0]])  # by observation and action
HYPERS = gradient_bandit.Hypers(learning_rate=0.3)
PLAIN = gradient_bandit.State(PREFERENCES, ())
BASED = gradient_bandit.State(PREFERENCES, gradient_bandit.Baseline(jnp.array([5.0, 1.0]), jnp.array([3, 1])))


def transitions(obs, action, reward):
    obs = jnp.asarray(obs)
    flags = jnp.zeros(obs.shape, bool)
    return Transition(obs, jnp.asarray(action), jnp.asarray(reward, jnp.float32), obs, flags, flags, {})


def expected_reward(preferences, obs):
    """Mean over observations `[N]` of the expected reward of the softmax."""
    return (jax.nn.softmax(preferences[obs]) * REWARDS[obs]).sum(-1).mean()


@jax.jit
def moments(state, obs):
    """Mean and total variance of the update over everything that the policy may do at observations `[N]`."""
    policy = jax.nn.softmax(PREFERENCES)
    actions = jnp.array(list(itertools.product(range(3), repeat=len(obs))))
    chance = policy[obs, actions].prod(-1)

    def moved(action):
        after, _ = gradient_bandit.learn(state, transitions(obs, action, REWARDS[obs, action]), HYPERS)
        return after.preferences - PREFERENCES

    moves = jax.vmap(moved)(actions)
    mean = jnp.tensordot(chance, moves, 1)
    return mean, chance @ ((moves - mean) ** 2).sum((1, 2))


@pytest.mark.parametrize("obs", [[1], [0, 1, 0]])
@pytest.mark.parametrize("state", [PLAIN, BASED], ids=["plain", "baseline"])
def test_expected_update_is_the_gradient_of_the_expected_reward(state, obs):
    gradient = jax.jit(jax.grad(expected_reward))(PREFERENCES, jnp.array(obs))
    np.testing.assert_allclose(moments(state, jnp.array(obs))[0], HYPERS.learning_rate * gradient, atol=1e-6)


def test_a_baseline_near_the_rewards_takes_away_variance():
    obs = jnp.array([0])
    assert moments(BASED, obs)[1] < 0.1 * moments(PLAIN, obs)[1]


@pytest.mark.parametrize(("state", "advantage"), [(PLAIN, 7.0), (BASED, 2.0)], ids=["plain", "baseline"])
def test_one_update_by_hand(state, advantage):
    after, metrics = gradient_bandit.learn(state, transitions([0], [1], [7.0]), HYPERS)
    policy = np.exp([0.5, -1.0, 0.2]) / np.exp([0.5, -1.0, 0.2]).sum()
    moved = 0.3 * advantage * (np.array([0, 1, 0]) - policy)
    np.testing.assert_allclose(after.preferences, [PREFERENCES[0] + moved, PREFERENCES[1]], rtol=1e-5)
    np.testing.assert_allclose(metrics, [advantage, scipy.stats.entropy(policy)], rtol=1e-5)


def test_baselines_are_the_averages_of_the_rewards_before():
    algorithm = gradient_bandit.build(SPEC, gradient_bandit.Config())
    generator, update = np.random.default_rng(0), jax.jit(algorithm.update)
    obs, reward = generator.integers(2, size=(4, 2, 3)), generator.normal(size=(4, 2, 3)).astype(np.float32)
    state = algorithm.init(jax.random.key(0), HYPERS)
    for index in range(4):
        batch = transitions(obs[index], np.zeros((2, 3), int), reward[index])
        before = np.where(state.baseline.counts > 0, state.baseline.mean_rewards, np.nan)[obs[index]]
        state, metrics = update(jax.random.key(0), jnp.int32(index), state, batch, HYPERS)
        np.testing.assert_allclose(metrics.advantage, np.nan_to_num(reward[index] - before).mean(), atol=1e-6)
        for which in range(2):
            seen = obs[: index + 1] == which
            assert state.baseline.counts[which] == seen.sum()
            if seen.any():
                np.testing.assert_allclose(
                    state.baseline.mean_rewards[which], reward[: index + 1][seen].mean(), atol=1e-6
                )


def test_what_is_seen_first_only_starts_its_baseline():
    algorithm = gradient_bandit.build(SPEC, gradient_bandit.Config())
    start = algorithm.init(jax.random.key(0), HYPERS)
    np.testing.assert_array_equal(start.preferences, np.zeros((2, 3)))
    batch = transitions([[1]], [[2]], [[4.0]])
    state, _ = algorithm.update(jax.random.key(0), jnp.int32(0), start, batch, HYPERS)
    np.testing.assert_array_equal(state.preferences, start.preferences)
    np.testing.assert_array_equal(state.baseline.mean_rewards, [0, 4])
    plain = gradient_bandit.build(SPEC, gradient_bandit.Config(baseline=False))
    start = plain.init(jax.random.key(0), HYPERS)
    state, _ = plain.update(jax.random.key(0), jnp.int32(0), start, batch, HYPERS)
    np.testing.assert_allclose(state.preferences, [[0, 0, 0], [-0.4, -0.4, 0.8]], rtol=1e-6)
    assert state.baseline == ()


def test_policy_is_the_softmax_or_its_mode():
    algorithm = gradient_bandit.build(SPEC, gradient_bandit.Config())
    obs = jnp.tile(jnp.arange(2), (6000, 1))
    explored, mode = (
        algorithm.policy(jnp.int32(0), BASED, HYPERS, explore=explore).apply(jax.random.key(1), obs, ())[0]
        for explore in (True, False)
    )
    assert (mode == jnp.array([0, 1])).all()
    for which in range(2):
        expected = 6000 * jax.nn.softmax(PREFERENCES[which].astype(float))
        observed = np.bincount(explored[:, which], minlength=3)
        assert scipy.stats.chisquare(observed, np.asarray(expected, float), sum_check=False).pvalue > 0.01


def test_the_baseline_helps_where_rewards_are_far_from_zero():
    env = adapter.make(bandits.Bandit(10, mean=4.0))
    source = rollout.build(env, num_envs=1, length=1)
    keys = jax.random.split(jax.random.key(0), 150)

    def shares(baseline):
        run = train.make(gradient_bandit.build(env.spec, gradient_bandit.Config(baseline=baseline)), source)
        hypers = gradient_bandit.Hypers(learning_rate=0.1)

        def chance_of_best(key):
            state = run.init(key, hypers)
            best = state.source.env.values.argmax(-1)[0]
            state, _ = train.window(run)(key, jnp.int32(0), jnp.int32(300), state, hypers)
            return jax.nn.softmax(state.algorithm.preferences[0])[best]

        return float(jax.jit(jax.vmap(chance_of_best))(keys).mean())

    with_baseline, without = shares(True), shares(False)
    assert with_baseline > 0.6 > 0.55 > without > 0.25


@pytest.mark.parametrize("spec", [Spec(Box((1,)), Discrete(2)), Spec(Discrete(2), Box((1,)))])
def test_what_is_no_table_is_refused(spec):
    with pytest.raises(ValueError, match="needs a table"):
        gradient_bandit.build(spec, gradient_bandit.Config())
