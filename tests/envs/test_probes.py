"""Probes: what they say of themselves, against closed forms and against simulation through the adapter."""

import functools
from typing import Any, NamedTuple

import gymnax.wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, MultiDiscrete
from rlgen.envs import adapter, probes

LENGTH = 3
DISCOUNT = 0.9


class Case(NamedTuple):
    make: Any
    observations: list[float]
    values: list[float]
    best: list[Any]
    other: list[Any]  # an action in each situation that is not the best one, or as good
    other_values: list[float]


HORIZON = [(1 - DISCOUNT**left) / (1 - DISCOUNT) for left in range(LENGTH, 0, -1)]
CASES = {
    "constant": Case(probes.constant_reward, [0], [1], [0], [1], [1]),
    "observation": Case(probes.reward_by_observation, [-1, 1], [-1, 1], [0, 0], [1, 1], [-1, 1]),
    "delayed": Case(probes.delayed_reward, [0, 1], [DISCOUNT, 1], [0, 0], [1, 1], [DISCOUNT, 1]),
    "action": Case(probes.reward_by_action, [0], [1], [1], [0], [-1]),
    "both": Case(probes.reward_by_observation_and_action, [-1, 1], [1, 1], [0, 1], [1, 0], [-1, -1]),
    "continuous": Case(probes.continuous_action, [-1, 1], [0, 0], [-0.5, 0.5], [0.5, 1], [-1, -0.25]),
    "several": Case(probes.several_choices, [-1, 1], [2, 2], [(0, 1), (2, 0)], [(1, 1), (0, 1)], [0, -2]),
    "truncated": Case(functools.partial(probes.truncated, LENGTH), [0], [1 / (1 - DISCOUNT)], [0], [1], [10]),
    "terminated": Case(
        functools.partial(probes.terminated, LENGTH), [0, 1 / 3, 2 / 3], HORIZON, [0] * 3, [1] * 3, HORIZON
    ),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request):
    return request.param


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def simulate(probe, actions, num_steps=4 * LENGTH, num_envs=16):
    """Steps with `actions[b, o]` done by copy `b` in situation `o`: what was observed and what it gave, `[T, B]`."""
    env = adapter.make(probe)

    def step(carry, key):
        state, obs = carry
        state, got = env.step(key, state, actions[jnp.arange(num_envs), obs])
        return (state, got.obs), (obs, got)

    carry = env.reset(jax.random.key(5), num_envs)
    return jax.lax.scan(step, carry, jax.random.split(jax.random.key(6), num_steps))[1]


def actions_of(probe, numbers):
    discrete = isinstance(adapter.space_of(probe.action_space()), Discrete | MultiDiscrete)
    return jnp.asarray(numbers, jnp.int32) if discrete else jnp.asarray(numbers, jnp.float32)[:, None]


def test_values_and_actions_are_as_written(case):
    for probe in (case.make(), case.make(tabular=True)):
        best = actions_of(probe, case.best)
        np.testing.assert_array_equal(probe.best_actions, best)
        np.testing.assert_allclose(probe.values(DISCOUNT), case.values)
        np.testing.assert_allclose(probe.action_values(DISCOUNT, best), case.values)
        other = probe.action_values(DISCOUNT, actions_of(probe, case.other))
        np.testing.assert_allclose(other, case.other_values)
        assert (other <= probe.values(DISCOUNT)).all()


def test_features_and_indices_are_the_observations(case):
    probe, tabular = case.make(), case.make(tabular=True)
    np.testing.assert_allclose(probe.observations, np.array(case.observations, np.float32)[:, None])
    assert tabular.observations.tolist() == list(range(len(case.observations)))
    assert adapter.make(probe).spec.observation == Box((1,), -1.0, 1.0)
    assert adapter.make(tabular).spec.observation == Discrete(len(case.observations))


def test_simulation_earns_the_values(case):
    probe, half = case.make(tabular=True), 8
    # Half of the copies do the best, the others do otherwise.
    actions = jnp.repeat(jnp.stack([actions_of(probe, case.best), actions_of(probe, case.other)]), half, axis=0)
    obs, steps = jax.tree.map(np.asarray, simulate(probe, actions))
    values, other_values = np.array(case.values), np.array(case.other_values)
    following = ~steps.terminated * DISCOUNT * values[steps.next_obs]
    expected = np.concatenate([values[obs[:, :half]], other_values[obs[:, half:]]], axis=1)
    np.testing.assert_allclose(steps.reward + following, expected, rtol=1e-6)
    assert set(obs[:, :half].flat) == set(obs[:, half:].flat) == set(range(len(values)))
    # Returns of the best actions, bootstrapped where an episode is cut and where the simulation stops.
    returns = values[steps.next_obs[-1]]
    for time in reversed(range(len(obs))):
        following = np.where(steps.truncated[time], values[steps.next_obs[time]], returns)
        returns = steps.reward[time] + DISCOUNT * ~steps.terminated[time] * following
        np.testing.assert_allclose(returns[:half], values[obs[time, :half]], rtol=1e-6)
    assert steps.truncated.any() == (probe.name == "Truncated")
    assert steps.terminated.any() == (probe.name != "Truncated")


def test_truncation_and_termination_are_told_apart():
    cut = adapter.make(probes.truncated(LENGTH))
    end = adapter.make(probes.terminated(LENGTH))
    for env, flags in ((cut, ("truncated", "terminated")), (end, ("terminated", "truncated"))):
        step = jax.jit(env.step)
        state, _ = env.reset(jax.random.key(0), 2)
        for time in range(2 * LENGTH):
            state, got = step(jax.random.key(time), state, jnp.zeros(2, jnp.int32))
            is_last = (time + 1) % LENGTH == 0
            assert (getattr(got, flags[0]) == is_last).all()
            assert not getattr(got, flags[1]).any()
            np.testing.assert_allclose(got.reward, 1)
            now = time % LENGTH
            shown = min(now + 1, LENGTH - 1) / LENGTH if env is end else 0
            np.testing.assert_allclose(got.next_obs, shown, rtol=1e-6)
            np.testing.assert_allclose(got.obs, 0 if is_last else shown, rtol=1e-6)


def test_state_says_whether_the_episode_has_terminated():
    probe = probes.delayed_reward()
    _, state = probe.reset_env(jax.random.key(0), probe.default_params)
    for is_over in (False, True):
        _, state, _, terminated, _ = probe.step_env(jax.random.key(0), state, 0, probe.default_params)
        assert bool(terminated) == bool(probe.is_terminated(state, probe.default_params)) == is_over


def test_starts_are_equally_likely():
    env = adapter.make(probes.reward_by_observation(tabular=True))
    _, obs = env.reset(jax.random.key(2), 400)
    assert 150 < int(obs.sum()) < 250


def test_state_keeps_strong_dtypes(case):
    for probe in (case.make(), case.make(tabular=True)):
        params = probe.default_params
        action = actions_of(probe, case.best)[0]
        _, before = jax.eval_shape(probe.reset, jax.random.key(0), params)
        obs, after, reward, _, _, _ = jax.eval_shape(probe.step, jax.random.key(0), before, action, params)
        assert (before, before.ended.dtype) == (after, jnp.bool_)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves((before, after, obs, reward)))
        assert (obs.dtype, reward.dtype) == (probe.observations.dtype, jnp.float32)


@pytest.mark.parametrize("name", ["both", "continuous"])
def test_wrappers_of_gymnax_accept_them(name):
    probe = CASES[name].make()
    discrete = name == "both"
    inner = gymnax.wrappers.StickyActionWrapper(probe, 0.0) if discrete else probe
    wrapped = gymnax.wrappers.FlattenObservationWrapper(gymnax.wrappers.LogWrapper(inner))
    assert wrapped.observation_space(probe.default_params).shape == (1,)
    obs, state = wrapped.reset(jax.random.key(0))
    action = probe.best_actions[int(obs[0] > 0)]
    _, state, reward, terminated, _, info = wrapped.step(jax.random.key(1), state, action)
    assert (float(reward), bool(terminated)) == (CASES[name].values[0], True)
    assert float(info["returned_episode_returns"]) == CASES[name].values[0]
    host = gymnax.wrappers.GymnaxToGymWrapper(probe, seed=0)
    assert host.observation_space.contains(np.asarray(host.reset(seed=1)[0]))
    assert host.action_space.contains(np.asarray(action)[()] if discrete else np.asarray(action))
    assert bool(host.step(action)[2])
