"""Environments for memory: what perfect, memoryless and blind players earn, masks, and how episodes end."""

import functools
import itertools

import gymnax.wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete
from rlgen.envs import adapter, memory


def players(env):
    """Answers of a player that remembers, of one that repeats what it sees, and of one that says 1, `[B]` each."""
    past, delay = [], env.native.delay

    def answers(obs):
        past.append(np.asarray(obs))
        return past[-1 - delay] if len(past) > delay else obs, obs, np.ones_like(obs)

    return answers


@functools.cache
def stepper(*sizes):
    env = adapter.make(memory.repeat_previous(*sizes))
    return env, jax.jit(env.step)


@functools.cache
def game(num_symbols, delay, max_steps, num_envs=64):
    """One episode of each player over the same symbols: what was shown `[T, B]`, and steps `[T][player]`."""
    env, step = stepper(num_symbols, delay, max_steps)
    answers = players(env)
    start, obs = env.reset(jax.random.key(0), num_envs)
    states, seen, steps = [start] * 3, [obs], []
    for time in range(max_steps):
        key = jax.random.fold_in(jax.random.key(1), time)
        states, got = zip(
            *(step(key, state, jnp.asarray(a)) for state, a in zip(states, answers(seen[-1]), strict=True)), strict=True
        )
        steps.append(got)
        seen.append(got[0].obs)
    return env, np.array([obs, *(got[0].next_obs for got in steps)]), steps


GAMES = [(4, 4, 32), (3, 3, 4), (5, 0, 6)]


@pytest.mark.parametrize("sizes", GAMES)
def test_rewards_are_those_of_the_definition(sizes):
    num_symbols, delay, max_steps = sizes
    env, shown, steps = game(*sizes)
    assert env.spec.observation == env.spec.action == Discrete(num_symbols)
    assert set(shown.flat) == set(range(num_symbols))
    unit = 1 / (max_steps - delay)
    for time, got in enumerate(steps):
        asked = shown[time - delay] if time >= delay else None
        for played, answer in zip(got[1:], (shown[time], 1), strict=True):
            expected = np.zeros(64) if asked is None else np.where(asked == answer, unit, -unit)
            np.testing.assert_allclose(played.reward, expected, rtol=1e-6)
    returns = sum(np.asarray(got[0].reward, np.float64) for got in steps)
    np.testing.assert_allclose(returns, 1, rtol=1e-5)  # the player that remembers


@pytest.mark.parametrize("sizes", GAMES)
def test_an_episode_of_the_game_terminates_and_is_not_cut(sizes):
    env, shown, steps = game(*sizes)
    assert env.max_steps == sizes[2] == len(steps)
    for time, got in enumerate(steps):
        is_last = time == len(steps) - 1
        assert (np.asarray(got[0].terminated) == is_last).all()
        assert not np.asarray(got[0].truncated).any()
        assert (np.asarray(got[0].obs) == np.asarray(got[0].next_obs)).all() == (not is_last)
    assert (shown[-1] != np.asarray(steps[-1][0].obs)).any()  # the last symbol is not the first of the next episode


def memoryless_return(num_symbols, delay, max_steps, answers):
    """Expected return of each policy `answers[:, symbol]`, by simulation of all ways in which symbols can come."""
    env = memory.RepeatPrevious(num_symbols, delay, max_steps)
    ways = jnp.array(list(itertools.product(range(num_symbols), repeat=max_steps)))

    def play(answer, way):
        def body(state, symbol):
            state = state.replace(symbols=state.symbols.at[-1].set(symbol))
            _, state, reward, _, _ = env.step_env(jax.random.key(0), state, answer[symbol], env.default_params)
            return state, reward

        start = memory.RepeatPreviousState(time=jnp.int32(0), symbols=jnp.zeros(delay + 1, jnp.int32))
        return jax.lax.scan(body, start, way)[1].sum()

    return jax.jit(jax.vmap(lambda answer: jax.vmap(play, in_axes=(None, 0))(answer, ways).mean()))(answers)


def test_without_memory_no_policy_earns_more_than_another():
    answers = jnp.array([[0, 1, 2], [1, 2, 0], [2, 2, 2]])
    np.testing.assert_allclose(memoryless_return(3, 1, 3, answers), 2 / 3 - 1, rtol=1e-5)
    # Where nothing is to be remembered, it does matter what is answered.
    np.testing.assert_allclose(memoryless_return(3, 0, 2, answers), [1, -1, -1 / 3], rtol=1e-5)


def test_symbols_are_uniform_and_independent():
    _, shown, _ = game(4, 4, 32, num_envs=64)
    pairs = np.bincount((4 * shown[:-1] + shown[1:]).ravel(), minlength=16) / shown[1:].size
    np.testing.assert_allclose(pairs, 1 / 16, atol=5 * np.sqrt(1 / 16 * 15 / 16 / shown[1:].size))


def test_nothing_of_an_episode_counts_in_the_next():
    env, step = stepper(3, 3, 4)
    state, obs = env.reset(jax.random.key(3), 64)
    for time in range(8):
        state, got = step(jax.random.fold_in(jax.random.key(4), time), state, obs)
        obs = got.obs
        assert (np.asarray(state.time) == (time + 1) % 4).all()
        assert (np.asarray(got.reward) == 0).all() == (time % 4 < 3)
        np.testing.assert_array_equal(state.symbols[:, -1], obs)


def test_a_limit_below_the_length_cuts():
    env = adapter.make(memory.repeat_previous(3, 2, 8), max_steps_in_episode=5)
    state, obs = env.reset(jax.random.key(0), 2)
    step = jax.jit(env.step)
    for time in range(5):
        state, got = step(jax.random.key(time), state, obs)
        assert (np.asarray(got.truncated) == (time == 4)).all()
        assert not np.asarray(got.terminated).any()


@pytest.mark.parametrize("sizes", [(1, 1, 4), (2, -1, 4), (2, 4, 4)])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(ValueError, match=f"num_symbols={sizes[0]}, delay={sizes[1]}, max_steps={sizes[2]}"):
        memory.repeat_previous(*sizes)


def rollouts(env, policy, num_steps, num_envs=8):
    """Steps `[T, B]` and states after them, with keys that do not depend on the environment."""

    def body(state, key):
        action_key, step_key = jax.random.split(key)
        action = policy(action_key, state)
        state, got = env.step(step_key, state, action)
        return state, (got, state)

    def roll():
        state, obs = env.reset(jax.random.key(2), num_envs)
        return obs, jax.lax.scan(body, state, jax.random.split(jax.random.key(3), num_steps))[1]

    return jax.tree.map(np.asarray, jax.jit(roll)())


def random_push(key, state):
    return jax.random.randint(key, state.time.shape, 0, 2)


def balance(key, state):
    """A linear rule that keeps the pole up for ever."""
    del key
    return (0.1 * state.x + 0.2 * state.x_dot + state.theta + 0.5 * state.theta_dot > 0).astype(jnp.int32)


def test_masked_cartpole_is_cartpole_without_velocities():
    masked, whole = adapter.make(memory.masked_cartpole()), adapter.make("CartPole-v1")
    assert masked.max_steps == whole.max_steps == 500
    low, high = (tuple(np.asarray(getattr(whole.spec.observation, side))[[0, 2]]) for side in ("low", "high"))
    assert masked.spec.observation == Box((2,), low, high)
    (first, (steps, states)), (whole_first, (whole_steps, whole_states)) = (
        rollouts(env, random_push, 60) for env in (masked, whole)
    )
    np.testing.assert_array_equal(first, whole_first[:, [0, 2]])
    np.testing.assert_array_equal(steps.obs, whole_steps.obs[..., [0, 2]])
    np.testing.assert_array_equal(steps.next_obs, whole_steps.next_obs[..., [0, 2]])
    for field in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(steps, field), getattr(whole_steps, field))
    jax.tree.map(np.testing.assert_array_equal, states, whole_states)
    assert steps.terminated.any()
    assert not steps.truncated.any()


def test_masked_cartpole_is_cut_at_its_limit_and_shows_the_last_moment():
    env = adapter.make(memory.masked_cartpole(max_steps=20))
    _, (steps, states) = rollouts(env, balance, 40)
    assert not steps.terminated.any()
    assert np.flatnonzero(steps.truncated.any(1)).tolist() == [19, 39]
    assert steps.truncated[[19, 39]].all()
    assert (steps.reward == 1).all()
    before = jax.tree.map(lambda leaf: leaf[18], states)
    reached = np.stack([before.x + 0.02 * before.x_dot, before.theta + 0.02 * before.theta_dot], axis=-1)
    np.testing.assert_allclose(steps.next_obs[19], reached, rtol=1e-5)
    assert (steps.next_obs[19] != steps.obs[19]).all()


@pytest.mark.parametrize("native", [memory.repeat_previous(), memory.masked_cartpole()], ids=["symbols", "poles"])
def test_wrappers_of_gymnax_and_strong_dtypes(native):
    params = native.default_params
    logged = gymnax.wrappers.LogWrapper(native)
    _, state = logged.reset(jax.random.key(0), params)
    total, length, done = 0.0, 0, False
    while not done:
        key = jax.random.fold_in(jax.random.key(1), length)
        _, state, reward, terminated, truncated, info = logged.step(key, state, jnp.int32(1), params)
        total, length, done = total + float(reward), length + 1, bool(terminated | truncated)
    assert bool(terminated) != bool(truncated)
    np.testing.assert_allclose(info["returned_episode_returns"], total, rtol=1e-5)
    assert int(info["returned_episode_lengths"]) == length
    env = adapter.make(native)
    before, obs = jax.eval_shape(lambda key: env.reset(key, 3), jax.random.key(0))
    after, got = jax.eval_shape(env.step, jax.random.key(1), before, jnp.zeros(3, jnp.int32))
    assert jax.tree.leaves(after) == jax.tree.leaves(before)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((after, got)))
    assert (got.obs.shape, got.obs.dtype) == (obs.shape, env.spec.observation.dtype)


def test_the_memory_chain_of_gymnax_needs_memory():
    length = 4
    env = adapter.make("MemoryChain-bsuite", memory_length=length, max_steps_in_episode=length + 1)
    step = jax.jit(env.step)
    start, first = env.reset(jax.random.key(0), 64)
    context = np.sign(np.asarray(first)[:, 2])
    assert set(context) == {-1.0, 1.0}
    for flip in (False, True):
        state, obs, total = start, first, 0.0
        for time in range(length + 1):
            if time >= 2:  # shown at the reset and once more
                assert len(np.unique(np.asarray(obs), axis=0)) == 1
            state, got = step(jax.random.key(time), state, jnp.asarray((context > 0) ^ flip, jnp.int32))
            obs, total = got.next_obs, total + got.reward
            assert (np.asarray(got.terminated) == (time == length)).all()
            assert not np.asarray(got.truncated).any()
        np.testing.assert_allclose(total, -1.0 if flip else 1.0)
