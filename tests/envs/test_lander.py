"""LunarLander beside Gymnasium's: what bodies do in flight and on the ground, actions, rewards and ends."""

import functools
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlgen import evaluate
from rlgen.core import Box, Discrete, Policy
from rlgen.envs import adapter, lander

with warnings.catch_warnings():  # Box2D's wrapper cannot bear its own warnings as errors
    warnings.simplefilter("ignore")
    from gymnasium.envs.box2d import lunar_lander as original

FLAT = np.full(11, 0.99 * lander.PAD, np.float32)
CALM = np.zeros(2, np.float32)
GAME = lander.LunarLander()


class Recorded:
    """A random generator that keeps what it gave, or gives what it is told."""

    def __init__(self, seed, told=()):
        self.generator, self.told, self.given = np.random.default_rng(seed), list(told), []

    def uniform(self, low, high, size=None):
        self.given.append(self.told.pop(0) if self.told else self.generator.uniform(low, high, size))
        return self.given[-1]

    def dispersion(self):
        return np.array(self.given[-2:], np.float32)


@jax.jit
def advance(state, thrust, dispersion):
    state = lander.advance(state, thrust, dispersion)
    return state, lander.observation(state)


def step(state, action, dispersion):
    """A step of ours; arrays of two are powers of engines."""
    return advance(state, lander.thrust(jnp.asarray(action), np.ndim(action) == 1), dispersion)


def play(state, action, max_steps=lander.MAX_STEPS):
    """A step of the environment, as gymnax does it."""
    params = GAME.default_params.replace(max_steps_in_episode=jnp.int32(max_steps))
    return GAME.step(jax.random.key(0), state, jnp.int32(action), params)


def pair(seed, is_continuous=False, told=()):
    """The original and ours, above the same hills and pushed alike."""
    env = gymnasium.make("LunarLander-v3", continuous=is_continuous).unwrapped
    env._np_random = Recorded(seed, told)
    obs, _ = env.reset()
    rough, *push = env._np_random.given[:3]
    rough[3:8] = lander.PAD
    heights = 0.33 * np.array([rough[i - 1] + rough[i] + rough[i + 1] for i in range(11)])
    return env, obs, lander.start(jnp.array(push, jnp.float32) / 1000, jnp.array(heights, jnp.float32))


def together(env, state, actions):
    """Observations, rewards and ends of the original, and observations of ours, up to the original's end."""
    rows = []
    for action in actions:
        obs, reward, terminated, _, _ = env.step(action)
        state, own = step(state, action, env._np_random.dispersion())
        rows.append((obs, np.asarray(own), reward, terminated))
        if terminated:
            break
    return [np.array(column) for column in zip(*rows, strict=True)]


def episodes(num, is_continuous=False):
    """Returns and lengths of episodes of the heuristic policy."""
    env = adapter.make(lander.LunarLander(is_continuous))
    act = jax.vmap(functools.partial(lander.heuristic, is_continuous=is_continuous))
    policy = Policy(lambda batch_shape: (), lambda key, obs, memory: (act(obs), {}, memory))
    played = jax.jit(lambda key: evaluate.episodes(key, policy, env, num))(jax.random.key(0))
    return [np.asarray(numbers) for numbers in played]


@pytest.mark.parametrize("seed", range(4))
def test_an_episode_starts_as_the_original(seed):
    _, obs, state = pair(seed)
    np.testing.assert_allclose(lander.observation(state), obs, atol=1e-5)
    assert state.time == 0


@pytest.mark.parametrize("is_continuous", [False, True])
def test_flight_is_the_originals_step_by_step(is_continuous):
    for seed in range(3):
        env, _, state = pair(seed, is_continuous)
        random = np.random.default_rng(seed)
        actions = random.uniform(-1, 1, (50, 2)).astype(np.float32) if is_continuous else random.integers(0, 4, 50)
        theirs, own, _, terminated = together(env, state, actions)
        in_flight = ~theirs[:, 6:].any(1) & ~terminated
        assert in_flight.sum() > 30
        # A leg's stop is met a step sooner or later, for a difference of 1e-4 in its angle.
        error = np.abs(own - theirs)[in_flight].max(0)
        assert (error < [1e-3, 1e-3, 1e-3, 1e-3, 2e-3, 1e-2, 1e-9, 1e-9]).all(), error
        np.testing.assert_allclose(own[:10], theirs[:10], atol=1e-4)


def test_legs_touch_when_the_originals_do():
    for seed in range(1, 6):
        env, obs, state = pair(seed)
        flags = []
        while not np.any(obs[6:]):
            action = original.heuristic(env, obs)
            obs, _, terminated, _, _ = env.step(action)
            state, own = step(state, action, env._np_random.dispersion())
            flags.append((obs[6:], np.asarray(own[6:])))
            assert not terminated
        for theirs, own in flags:
            np.testing.assert_array_equal(own, theirs)


def test_a_fall_crashes_as_the_originals():
    for seed in range(4):
        env, _, state = pair(seed)
        theirs, _, reward, terminated = together(env, state, [0] * 300)
        assert terminated[-1] and reward[-1] == -100
        state = pair(seed)[2]
        for time in range(len(theirs)):
            state, _ = step(state, 0, CALM)
            assert bool(state.is_crashed) == bool(terminated[time]), time


@pytest.mark.parametrize("speed", [20.0, 50.0, 80.0, 200.0])
def test_no_fall_is_too_fast_to_crash(speed):
    state = lander.start(jnp.zeros(2), jnp.asarray(FLAT))
    for height in (12.0, 12.7, 13.1):
        falling = state.replace(pose=state.pose.at[1].set(height), speeds=state.speeds.at[:, 1].set(-speed))
        for _ in range(60):
            falling, _ = step(falling, 0, CALM)
            if falling.is_crashed:
                break
        assert falling.is_crashed


def test_a_lander_out_of_view_is_lost():
    state = lander.start(jnp.zeros(2), jnp.asarray(FLAT))
    for x, speed in ((19.99, 1.0), (0.01, -1.0)):
        moved = state.replace(pose=state.pose.at[0].set(x), speeds=state.speeds.at[:, 0].set(speed))
        _, _, reward, terminated, _, info = play(moved, 0)
        assert abs(info["final_observation"][0]) >= 1 and terminated and reward == -100
    _, _, reward, terminated, _, _ = play(state, 0)
    assert not terminated and reward != -100


def test_a_lander_that_rests_has_landed():
    state = lander.start(jnp.zeros(2), jnp.asarray(FLAT))
    pose = jnp.array([10.0, float(FLAT[0]) + 0.64, 0.0, 0.35, -0.35])
    state, rewards, terminated = state.replace(pose=pose, speeds=jnp.zeros((3, 3))), [], False
    while not terminated:
        _, state, reward, terminated, _, info = play(state, 0)
        rewards.append(float(reward))
    assert lander.QUIET_STEPS < len(rewards) < 100
    assert rewards[-1] == 100 and 15 < sum(rewards[:-1]) < 25  # ten for each leg
    np.testing.assert_array_equal(info["final_observation"][6:], 1)
    np.testing.assert_allclose(info["final_observation"][2:6], 0, atol=1e-2)


def test_rewards_are_the_originals_on_its_transitions():
    env, before, _ = pair(3)
    env._np_random.generator = np.random.default_rng(0)
    for action in [0, 1, 2, 3] * 8:
        after, reward, terminated, _, _ = env.step(action)
        power = lander.thrust(jnp.int32(action), False)
        own = lander.shaping(after) - lander.shaping(before) - 0.3 * power.main - 0.03 * power.side
        np.testing.assert_allclose(own, reward, atol=1e-3)
        before = after
        assert not terminated
    # By hand: 3-4-5 triangles, and one leg down.
    assert lander.shaping(jnp.array([0.3, 0.4, 0.6, 0.8, -0.5, 9.0, 0.0, 1.0])) == pytest.approx(-50 - 100 - 50 + 10)


def test_rewards_come_with_steps():
    obs, state = GAME.reset(jax.random.key(1), GAME.default_params)
    for action, fuel in ((0, 0.0), (1, 0.03), (2, 0.3), (3, 0.03)):
        after, _, reward, _, _, _ = play(state, action)
        np.testing.assert_allclose(reward, lander.shaping(after) - lander.shaping(obs) - fuel, atol=1e-4)


CONTINUOUS = [
    ((0.0, 0.0), (0.0, 0.0, 0.0)),
    ((-0.7, 0.5), (0.0, 0.0, 1.0)),  # at its edge a dead zone still holds
    ((1e-6, -0.5), (0.5, 0.0, -1.0)),
    ((0.5, 0.75), (0.75, 0.75, 1.0)),
    ((1.0, -1.0), (1.0, 1.0, -1.0)),
    ((3.0, -9.0), (1.0, 1.0, -1.0)),  # clipped
]


@pytest.mark.parametrize(("action", "expected"), CONTINUOUS)
def test_continuous_engines_have_dead_zones(action, expected):
    np.testing.assert_allclose(lander.thrust(jnp.array(action), True), expected, atol=1e-5)


def test_discrete_engines_fire_one_at_a_time():
    powers = [lander.thrust(jnp.int32(action), False) for action in range(4)]
    assert [float(power.main) for power in powers] == [0, 0, 1, 0]
    assert [float(power.side) for power in powers] == [0, 1, 0, 1]
    assert [float(powers[action].direction) for action in (1, 3)] == [-1, 1]


def test_engines_push_where_the_original_says():
    """By hand, for a lander that lies on its left side, and one that stands."""
    side, main = lander.thrust(jnp.int32(3), False), lander.thrust(jnp.int32(2), False)
    lying, upright = jnp.float32(np.pi / 2), jnp.float32(0)
    push = lander.engines(lying, side, jnp.zeros(2))
    np.testing.assert_allclose([push.x, push.y, push.turns[0]], [0, 0.24, -0.24 * 17 / 30], atol=1e-6)
    push = lander.engines(upright, side, jnp.zeros(2))
    np.testing.assert_allclose([push.x, push.y, push.turns[0]], [0.24, 0, -0.24 * 14 / 30], atol=1e-6)
    push = lander.engines(upright, main, jnp.array([0.3, 0.6]))
    np.testing.assert_allclose([push.x, push.y, push.turns[0]], [13 * 0.02, 13 * (4 / 30 + 0.02), 0], atol=1e-6)


def test_the_ground_is_drawn_as_the_originals():
    heights = np.asarray(jax.vmap(lander.hills)(jax.random.split(jax.random.key(0), 2000)))
    np.testing.assert_allclose(heights[:, 4:7], 0.99 * lander.PAD, rtol=1e-5)
    random = np.random.default_rng(0)
    rough = random.uniform(0, lander.HEIGHT / 2, (2000, 12))
    rough[:, 3:8] = lander.PAD
    theirs = np.array([[0.33 * (row[i - 1] + row[i] + row[i + 1]) for i in range(11)] for row in rough])
    for corner in (0, 1, 2, 3, 7, 8, 9, 10):
        assert stats.ks_2samp(heights[:, corner], theirs[:, corner]).pvalue > 1e-3, corner


def test_spaces_are_the_originals():
    for is_continuous in (False, True):
        theirs = gymnasium.make("LunarLander-v3", continuous=is_continuous)
        env = adapter.make(lander.LunarLander(is_continuous))
        assert env.max_steps == theirs.spec.max_episode_steps
        assert env.name == ("LunarLanderContinuous" if is_continuous else "LunarLander")
        assert isinstance(env.spec.observation, Box) and env.spec.observation.shape == (8,)
        np.testing.assert_allclose(env.spec.observation.low, theirs.observation_space.low)
        np.testing.assert_allclose(env.spec.observation.high, theirs.observation_space.high)
        assert env.spec.action == (Box((2,), -1.0, 1.0) if is_continuous else Discrete(4))


def test_a_time_limit_truncates():
    _, state = GAME.reset(jax.random.key(0), GAME.default_params)
    for time in range(1, 7):
        _, state, _, terminated, truncated, _ = play(state, 0, max_steps=3)
        assert not terminated and truncated == (time % 3 == 0) and state.time == time % 3


def test_the_heuristic_policy_lands():
    totals, lengths = episodes(20)
    assert (totals >= 200).mean() >= 0.7 and np.median(totals) > 240
    assert 150 < np.median(lengths) < 300


@pytest.mark.learning
@pytest.mark.parametrize("is_continuous", [False, True])
def test_the_heuristic_policy_earns_what_it_does_in_the_original(is_continuous):
    env, theirs = gymnasium.make("LunarLander-v3", continuous=is_continuous), []
    for seed in range(500):
        obs, _ = env.reset(seed=seed)
        total, length, is_over = 0.0, 0, False
        while not is_over:
            obs, reward, terminated, truncated, _ = env.step(original.heuristic(env, obs))
            total, length, is_over = total + float(reward), length + 1, terminated or truncated
        theirs.append((total, length))
    totals, lengths = np.array(theirs).T
    own_totals, own_lengths = episodes(2000, is_continuous)
    assert stats.ks_2samp(totals, own_totals).statistic < 0.1
    assert stats.ks_2samp(lengths, own_lengths).statistic < 0.12
    assert abs((totals >= 200).mean() - (own_totals >= 200).mean()) < 0.05
