"""Bandits: how arms are drawn, pay and drift, and where an episode ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen.core import Discrete
from rlgen.envs import adapter, bandits

NUM = 4000


@functools.partial(jax.jit, static_argnums=0)
def drawn(native):
    """Values of the arms of `NUM` episodes, `[NUM, A]`."""
    keys = jax.random.split(jax.random.key(0), NUM)
    return jax.vmap(native.reset_env, in_axes=(0, None))(keys, native.default_params)[1].values


@functools.partial(jax.jit, static_argnums=0)
def stepped(native, values, action):
    """What `NUM` independent steps from one state give."""
    state = bandits.BanditState(time=jnp.int32(0), values=jnp.asarray(values))
    keys = jax.random.split(jax.random.key(1), NUM)
    return jax.vmap(native.step_env, in_axes=(0, None, None, None))(keys, state, action, native.default_params)


def is_normal(sample, mean, deviation):
    return scipy.stats.kstest(np.ravel(sample), "norm", (mean, deviation)).pvalue > 0.01


def test_gaussian_arms_are_drawn_around_their_mean():
    assert is_normal(drawn(bandits.Bandit(3, mean=4.0, deviation=0.5)), 4.0, 0.5)
    assert is_normal(drawn(bandits.Bandit(3)), 0.0, 1.0)
    columns = drawn(bandits.Bandit(3)).T
    assert np.abs(np.corrcoef(columns) - np.eye(3)).max() < 0.05


def test_bernoulli_arms_are_drawn_uniformly():
    assert scipy.stats.kstest(np.ravel(drawn(bandits.Bandit(3, kind="bernoulli"))), "uniform").pvalue > 0.01


@pytest.mark.parametrize("arm", [0, 1])
def test_gaussian_arms_pay_with_unit_variance(arm):
    _, state, reward, terminated, _ = stepped(bandits.Bandit(2), [-1.0, 3.0], jnp.int32(arm))
    assert is_normal(reward, [-1.0, 3.0][arm], 1.0)
    np.testing.assert_array_equal(state.values, np.tile(np.float32([-1, 3]), (NUM, 1)))
    assert not terminated.any()


@pytest.mark.parametrize(("arm", "share"), [(0, 0.2), (1, 0.9)])
def test_bernoulli_arms_pay_one_with_their_probability(arm, share):
    reward = np.asarray(stepped(bandits.Bandit(2, kind="bernoulli"), [0.2, 0.9], jnp.int32(arm))[2])
    assert set(reward.tolist()) == {0.0, 1.0}
    assert scipy.stats.binomtest(int(reward.sum()), NUM, share).pvalue > 0.01


def test_drifting_arms_start_alike_and_part():
    native = bandits.Bandit(2, mean=0.5, drift=0.3)
    np.testing.assert_array_equal(drawn(native), np.full((NUM, 2), 0.5, np.float32))
    _, state, reward, _, _ = stepped(native, [1.0, 2.0], jnp.int32(0))
    steps = state.values - jnp.array([1.0, 2.0])
    assert is_normal(steps, 0.0, 0.3)
    # Arms drift independently of each other and of the reward, which is paid before.
    assert np.abs(np.corrcoef([*steps.T, reward]) - np.eye(3)).max() < 0.05
    assert is_normal(reward, 1.0, 1.0)
    assert is_normal(drawn(bandits.Bandit(2, deviation=2.0, drift=0.3)), 0.0, 2.0)


def test_a_run_is_one_episode_cut_by_its_time_limit():
    env = adapter.make(bandits.Bandit(5, max_steps=2))
    assert (env.name, env.spec.observation, env.spec.action) == ("Bandit", Discrete(1), Discrete(5))
    assert (adapter.make(bandits.Bandit()).max_steps, env.max_steps) == (1000, 2)
    step = jax.jit(env.step)
    state, obs = env.reset(jax.random.key(0), 3)
    values = state.values
    assert obs.tolist() == [0, 0, 0]
    assert len(np.unique(values)) == 15
    for time, cut in enumerate([False, True, False]):
        state, got = step(jax.random.key(time), state, jnp.array([0, 1, 4]))
        assert got.truncated.tolist() == [cut] * 3
        assert not got.terminated.any()
        assert np.array_equal(state.values, values) == (time == 0)


@pytest.mark.parametrize("arguments", [{}, {"kind": "bernoulli"}, {"drift": 0.1}])
def test_state_keeps_strong_dtypes(arguments):
    native = bandits.Bandit(3, **arguments)
    params = native.default_params
    obs, before = jax.eval_shape(native.reset, jax.random.key(0), params)
    after_obs, after, reward, terminated, truncated, _ = jax.eval_shape(
        native.step, jax.random.key(0), before, jnp.int32(1), params
    )
    leaves = jax.tree.leaves((before, after, obs, after_obs, reward))
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(before)] == [((), jnp.int32), ((3,), jnp.float32)]
    assert jax.tree.map(lambda leaf: leaf.dtype, before) == jax.tree.map(lambda leaf: leaf.dtype, after)
    assert not any(leaf.weak_type for leaf in leaves)
    assert reward.dtype == jnp.float32
    assert terminated.dtype == truncated.dtype == jnp.bool_
    _, state = native.reset(jax.random.key(0))
    assert native.state_space(params).contains(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cauchy"}, "not among"),
        ({"num_arms": 0}, "impossible"),
        ({"deviation": -1.0}, "impossible"),
        ({"drift": -0.1}, "impossible"),
        ({"kind": "bernoulli", "mean": 0.5}, "drawn uniformly"),
        ({"kind": "bernoulli", "drift": 0.5}, "drawn uniformly"),
    ],
)
def test_impossible_bandits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bandits.Bandit(**arguments)
