"""Running moments and scaled rewards, against NumPy over everything at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.parts import normalise


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_moments_equal_numpy_over_all_batches(shape):
    rng = np.random.default_rng(0)
    batches = [rng.normal(5, 2, (*lead, *shape)).astype(np.float32) for lead in ((40, 4), (7, 1), (160,))]
    seen = normalise.moments(shape)
    for batch in batches:
        seen = normalise.merge(seen, batch)
    whole = np.concatenate([batch.reshape(-1, *shape) for batch in batches])
    np.testing.assert_allclose(seen.mean, whole.mean(0), rtol=1e-4)
    np.testing.assert_allclose(seen.variance, whole.var(0), rtol=1e-3)
    np.testing.assert_allclose(seen.weight, len(whole), rtol=1e-4)


def test_moments_keep_their_precision_far_from_zero():
    seen = normalise.moments()
    for _ in range(50):
        seen = normalise.merge(seen, jnp.array([999.0, 1_001.0] * 100))
    np.testing.assert_allclose([seen.mean, seen.variance], [1_000, 1], rtol=2e-2)


@pytest.mark.parametrize("num", [1, 40])
def test_moments_follow_what_changes_however_much_was_seen(num):
    seen = normalise.Moments(jnp.float32(1.0), jnp.float32(1.0), jnp.float32(1e9))
    merge = jax.jit(lambda seen: jax.lax.fori_loop(0, 300_000, lambda _, old: normalise.merge(old, batch), seen))
    batch = jnp.full(num, 1.1)
    np.testing.assert_allclose(merge(seen).mean, 1.1, atol=0.01)


def test_standardised_values_have_mean_0_variance_1_and_a_limit():
    values = jnp.asarray(np.random.default_rng(1).normal(-3, 7, (500, 2)), jnp.float32)
    seen = normalise.merge(normalise.moments((2,)), values)
    got = normalise.standardise(values, seen)
    np.testing.assert_allclose(got.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(got.var(0), 1, atol=1e-3)
    extreme = normalise.standardise(jnp.array([[1e6, -1e6]]), seen)
    np.testing.assert_array_equal(extreme, [[normalise.LIMIT, -normalise.LIMIT]])


def test_rewards_are_divided_by_the_deviation_of_the_running_return():
    rng = np.random.default_rng(2)
    discount, num_envs = 0.8, 3
    state, running, seen = normalise.returns(num_envs), np.zeros(num_envs), []
    for _ in range(3):
        reward = rng.normal(1, 5, (20, num_envs)).astype(np.float32)
        done = rng.random((20, num_envs)) < 0.2
        for reward_t, done_t in zip(reward, done, strict=True):
            running = reward_t + discount * running
            seen.append(running)
            running = np.where(done_t, 0, running)
        state, scaled = normalise.scale_rewards(state, jnp.asarray(reward), jnp.asarray(done), discount)
        np.testing.assert_allclose(scaled, reward / np.std(seen), rtol=1e-3)
        np.testing.assert_allclose(state.running, running, rtol=1e-4, atol=1e-5)
    state, scaled = normalise.scale_rewards(state, jnp.full((1, num_envs), -1e4), jnp.zeros((1, num_envs), bool), 0.8)
    assert (np.abs(scaled) <= normalise.LIMIT).all()


def test_advantages_on_their_own_scale_or_on_a_known_one():
    advantage = np.random.default_rng(0).normal(5, 2, (4, 10)).astype(np.float32)
    rescaled = normalise.rescale(advantage)
    np.testing.assert_allclose((rescaled.mean(), rescaled.std()), (0, 1), atol=1e-5)
    np.testing.assert_allclose(normalise.rescale(advantage[:2], normalise.scale(advantage)), rescaled[:2], rtol=1e-6)
    np.testing.assert_array_equal(normalise.rescale(jnp.full(3, 2.0)), 0)
