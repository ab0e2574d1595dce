"""A linear system: its best policy by brute force, and its steps by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs import adapter, lqr


def cost_of(env, gain, discount, place, num_steps=400):
    """Discounted cost of a linear policy without disturbance, by going on for long."""
    total = 0.0
    for step in range(num_steps):
        action = gain.T @ place
        total += discount**step * (place @ env.state_cost @ place + action @ env.action_cost @ action)
        place = env.transition @ place + env.control @ action
    return total


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_worth_is_the_sum_of_costs_and_no_gain_is_better(discount):
    env, rng = lqr.LinearQuadratic(seed=3, size=3, num_controls=2), np.random.default_rng(0)
    gain, place = env.gain(discount), rng.normal(size=3)
    best = cost_of(env, gain, discount, place)
    np.testing.assert_allclose(place @ env.worth(gain, discount) @ place, best, rtol=1e-6)
    for _ in range(20):
        assert cost_of(env, gain + 0.05 * rng.normal(size=gain.shape), discount, place) > best


def test_the_expected_return_is_the_mean_over_episodes():
    env, rng = lqr.LinearQuadratic(seed=3, size=3, num_controls=2, noise=0.3), np.random.default_rng(0)
    gain, places = env.gain(0.9), rng.normal(size=(100_000, 3))
    returns = np.zeros(len(places))
    for _ in range(env.max_steps):
        actions = places @ gain
        returns -= np.einsum("ni,ij,nj->n", places, env.state_cost, places)
        returns -= np.einsum("ni,ij,nj->n", actions, env.action_cost, actions)
        places = places @ env.transition.T + actions @ env.control.T + env.noise * rng.normal(size=places.shape)
    error = returns.std() / np.sqrt(len(returns))
    assert abs(env.expected_return(gain) - returns.mean()) < 4 * error < 0.01 * abs(returns.mean())


def test_a_step_by_hand_and_the_end_by_the_time_limit():
    native = lqr.LinearQuadratic(noise=0.0, max_steps=2)
    spec = adapter.make(native).spec
    assert spec.observation.shape == (2,) and spec.action.shape == (1,)
    params, action = native.default_params, jnp.array([0.5])
    obs, state = native.reset(jax.random.key(0), params)
    after, state, reward, *ends, _ = native.step(jax.random.key(1), state, action, params)
    np.testing.assert_allclose(reward, -(obs @ obs + 0.1 * 0.25), rtol=1e-5)
    np.testing.assert_allclose(after, native.transition @ obs + native.control[:, 0] * 0.5, rtol=1e-4)
    assert not any(ends)
    _, _, _, *ends, _ = native.step(jax.random.key(2), state, action, params)
    assert list(map(bool, ends)) == [False, True]
