"""Stacked frames across resets, and Pong against gymnax's and against ways to win it."""

import functools

import gymnax.wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.environments.misc import pong as gymnax_pong

from rlgen.core import Box
from rlgen.envs import adapter, frames, memory
from rlgen.envs.frames import DOWN, STAY, UP, FrameStack, Pong
from rlgen.parts import networks

HEIGHT, WIDTH = 30, 40


class Counter(environment.Environment):
    """Shows its number, drawn at a reset and one more each step, in any shape; stops at multiples of five."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def observe(self, key, state, action, params):
        channels = np.arange(np.prod(self.shape, dtype=int)).reshape(self.shape) / 1000
        return state.time * 0 + jnp.float32(state.number) + jnp.asarray(channels, jnp.float32)

    def reset_env(self, key, params):
        state = CounterState(jnp.int32(0), 100 + (jax.random.bits(key) % 500).astype(jnp.int32))
        return self.observe(key, state, None, params), state

    def step_env(self, key, state, action, params):
        state = CounterState(state.time + 1, state.number + 1)
        return self.observe(key, state, action, params), state, jnp.float32(1), self.is_terminated(state, params), {}

    def is_terminated(self, state, params):
        return state.number % 5 == 0

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=7)

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params):
        low = jnp.zeros(self.shape).at[..., :1].set(-1.0) if len(self.shape) in (1, 3) else 0.0
        return spaces.Box(low, 1000.0, self.shape)


@struct.dataclass
class CounterState(environment.EnvState):
    time: jax.Array
    number: jax.Array


def history(env, actions, num_envs, key=0):
    """First observation, and steps `[T, B]` with the states after them."""

    def body(state, inputs):
        key, action = inputs
        state, got = env.step(key, state, action)
        return state, (got, state)

    def roll():
        state, obs = env.reset(jax.random.key(key), num_envs)
        keys = jax.random.split(jax.random.key(key + 1), len(actions))
        return obs, *jax.lax.scan(body, state, (keys, jnp.asarray(actions, jnp.int32)))[1]

    return jax.tree.map(np.asarray, jax.jit(roll)())


def channels(obs):
    """Observations `[N, *observation]` with an axis to stack along."""
    return obs[..., None] if obs.ndim - 1 in (0, 2) else obs


def stacked(first, steps, num_frames):
    """The frames that steps of an environment without a stack should give: after resets and before them."""
    obs, next_obs = (np.array([channels(one) for one in leaf]) for leaf in (steps.obs, steps.next_obs))
    recent = [[one] * num_frames for one in channels(first)]
    after, before = [], []
    for time in range(len(steps.reward)):
        ended = steps.terminated[time] | steps.truncated[time]
        before.append([])
        for copy, past in enumerate(recent):
            seen = [*past[1:], next_obs[time, copy]]
            before[-1].append(np.concatenate(seen, -1))
            recent[copy] = [obs[time, copy]] * num_frames if ended[copy] else seen
        after.append([np.concatenate(past, -1) for past in recent])
    return np.array(after), np.array(before)


SHAPES = {(): (3,), (4, 5): (4, 5, 3), (4, 5, 2): (4, 5, 6)}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_frames_follow_one_another_and_start_anew_with_an_episode(shape):
    native = Counter(shape)
    env, single = adapter.make(FrameStack(native, 3)), adapter.make(native)
    actions = np.zeros((17, 4))
    first, got, states = history(env, actions, 4)
    plain_first, plain, _ = history(single, actions, 4)
    assert first.shape[1:] == env.spec.observation.shape == SHAPES[shape]
    assert plain.terminated.any()
    after, before = stacked(plain_first, plain, 3)
    np.testing.assert_array_equal(got.obs, after)
    np.testing.assert_array_equal(got.next_obs, before)
    np.testing.assert_array_equal(states.frames, after)
    np.testing.assert_array_equal(first, np.tile(channels(plain_first), 3))
    assert (env.native.newest(got.next_obs) == plain.next_obs).all()
    for field in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(got, field), getattr(plain, field))


def test_bounds_are_stacked_too():
    env, shape = adapter.make(FrameStack(Counter((2,)), 2)), (4,)
    assert env.spec.observation == Box(shape, (-1.0, 0.0, -1.0, 0.0), 1000.0)
    assert adapter.make(FrameStack(Counter((2, 2)), 2)).spec.observation == Box((2, 2, 2), 0.0, 1000.0)


def test_a_limit_cuts_a_stack_as_it_cuts_what_is_within():
    env = adapter.make(FrameStack(memory.masked_cartpole(), 2), max_steps_in_episode=4)
    assert env.max_steps == 4
    _, got, _ = history(env, np.arange(8)[:, None] % 2, 1)
    assert np.flatnonzero(got.truncated).tolist() == [3, 7]
    assert not got.terminated.any()
    np.testing.assert_array_equal(got.next_obs[3, 0, :2], got.next_obs[2, 0, 2:])
    np.testing.assert_array_equal(got.obs[3, 0, :2], got.obs[3, 0, 2:])
    assert (got.obs[3] != got.next_obs[3]).all()


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(TypeError, match="RepeatPrevious observes Discrete"):
        FrameStack(memory.repeat_previous())
    with pytest.raises(ValueError, match="num_frames is 0"):
        FrameStack(Counter(()), 0)


def test_pong_is_a_grey_image_a_frame():
    env = adapter.make(frames.pong())
    assert env.name == "Pong"
    assert env.spec.observation == Box((HEIGHT, WIDTH, 2), 0.0, 1.0)
    assert env.max_steps == 1000
    first, got, states = history(env, np.random.default_rng(0).integers(0, 3, (90, 8)), 8)
    assert (first[..., 0] == first[..., 1]).all()
    assert set(np.unique(got.next_obs)) == {0.0, frames.PADDLE, frames.BALL}
    ongoing = ~(got.terminated | got.truncated)
    native = states.native
    for time, copy in np.argwhere(ongoing):
        image = got.obs[time, copy, ..., -1]
        ball = native.ball_position[time, copy].astype(int)
        assert np.argwhere(image == frames.BALL).tolist() == [ball.tolist()]
        for column, centre in zip((0, WIDTH - 1), native.paddle_centers[time, copy].astype(int), strict=True):
            lit = np.flatnonzero(image[:, column] == frames.PADDLE)
            assert set(lit) == set(range(centre - 2, centre + 3)) - ({ball[0]} if ball[1] == column else set())
    torso = networks.torso("cnn", (16,), "relu", env.spec.observation)
    features, _ = jax.eval_shape(torso.init_with_output, jax.random.key(0), first)
    assert features.shape == (8, 16)


@functools.cache
def served():
    return jax.jit(Pong().reset_env)(jax.random.key(0), gymnax_pong.EnvParams())[1]


def paddles_and_ball(**fields):
    """A state of Pong with the given fields."""
    return served().replace(
        **{name: np.asarray(value, getattr(served(), name).dtype) for name, value in fields.items()}
    )


@functools.cache
def step_of_pong():
    """`(state, action) -> (obs, state, reward, terminated, info)`, compiled once."""
    native, params = Pong(), gymnax_pong.EnvParams()
    step = jax.jit(lambda state, action: native.step_env(jax.random.key(0), state, action, params))
    return lambda state, action: step(state, jnp.int32(action))


def test_pong_moves_as_that_of_gymnax_where_there_is_a_wall():
    ours, theirs, params = Pong(), gymnax_pong.Pong(), gymnax_pong.EnvParams()
    generator = np.random.default_rng(1)
    num = 2000
    states = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (num, *leaf.shape)), served()).replace(
        paddle_centers=generator.integers(2, 28, (num, 2)).astype(np.float32),
        ball_position=np.stack(
            [generator.integers(0, 30, num), generator.choice([0, 1, 2, 18, 37, 38, 39], num)], 1
        ).astype(np.float32),
        ball_velocity=np.stack([generator.integers(-3, 4, num), generator.choice([-1, 1], num)], 1).astype(np.int32),
    )
    actions = jnp.asarray(generator.integers(0, 3, num))
    (obs, after, reward, ended, _), (_, expected, _, expected_ended, _) = (
        jax.device_get(jax.jit(jax.vmap(env.step_env, (None, 0, 0, None)))(jax.random.key(0), states, actions, params))
        for env in (ours, theirs)
    )
    below = np.asarray(states.ball_position[:, 0] + states.ball_velocity[:, 0]) >= 0
    assert 30 < (~below).sum() < num / 2
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[below], b[below]), after, expected)
    np.testing.assert_array_equal(ended[below], expected_ended[below])
    column = np.asarray(after.ball_position[:, 1])
    np.testing.assert_array_equal(reward, np.where(column < 0, -1, np.where(column > 39, 1, 0)))
    assert set(np.asarray(reward)) == {-1.0, 0.0, 1.0}
    assert obs.shape == (num, HEIGHT, WIDTH)
    assert (np.asarray(after.ball_position[:, 0]) >= 0).all()


def test_the_wall_above_mirrors_the_wall_below():
    step = step_of_pong()
    for row, slope in ((0, -1), (1, -3), (2, -2), (2, -3)):
        up = paddles_and_ball(ball_position=(row, 20), ball_velocity=(slope, 1))
        down = paddles_and_ball(ball_position=(HEIGHT - 1 - row, 20), ball_velocity=(-slope, 1))
        after, mirrored = (step(state, STAY)[1] for state in (up, down))
        assert float(after.ball_position[0]) == abs(row + slope)
        assert float(mirrored.ball_position[0]) == HEIGHT - 1 - abs(row + slope)
        expected = -slope if row + slope < 0 else slope
        assert after.ball_velocity.tolist() == [expected, 1]
        assert mirrored.ball_velocity.tolist() == [-expected, 1]


def test_serves_differ():
    keys = jax.random.split(jax.random.key(0), 3000)
    _, states = jax.jit(jax.vmap(Pong().reset_env, in_axes=(0, None)))(keys, gymnax_pong.EnvParams())
    row, column = np.asarray(states.ball_position, int).T
    slope, side = np.asarray(states.ball_velocity).T
    assert (column == WIDTH // 2).all()
    serves = np.bincount(6 * row + 2 * (slope + 1) + (side + 1) // 2, minlength=180)
    assert len(serves) == 180
    assert serves.min() > 0
    for values in (row, slope, side):
        counts = np.unique(values, return_counts=True)[1] / 3000
        np.testing.assert_allclose(counts, 1 / len(counts), atol=5 * np.sqrt(1 / len(counts) / 3000))


# A way to win a serve: (row, slope, side), then actions and for how many steps, the last of which wins.
WINS = [
    ((15, 0, -1), ((STAY, 17), (UP, 2), (STAY, 74), (UP, 1), (STAY, 38))),
    ((15, 0, 1), ((STAY, 53), (UP, 2), (STAY, 72), (UP, 1), (STAY, 40))),
    ((3, -1, -1), ((STAY, 88), (UP, 3), (STAY, 41))),
    ((3, 1, 1), ((STAY, 42), (UP, 13), (STAY, 39))),
]


def test_serves_can_be_won():
    native, params = Pong(), gymnax_pong.EnvParams()
    serves = np.array([serve for serve, _ in WINS])
    ways = [np.concatenate([np.full(count, action) for action, count in way]) for _, way in WINS]
    states = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(WINS), *leaf.shape)), served()).replace(
        ball_position=np.stack([serves[:, 0], [20] * len(WINS)], 1).astype(np.float32),
        ball_velocity=serves[:, 1:].astype(np.int32),
    )
    actions = np.array([np.pad(way, (0, 168 - len(way))) for way in ways])
    step = jax.vmap(native.step_env, in_axes=(None, 0, 0, None))

    def body(states, action):
        _, states, reward, terminated, _ = step(jax.random.key(0), states, action, params)
        return states, (reward, terminated)

    reward, terminated = map(np.asarray, jax.jit(lambda: jax.lax.scan(body, states, jnp.asarray(actions.T))[1])())
    for copy, way in enumerate(ways):
        assert terminated[:, copy].argmax() == len(way) - 1
        assert reward[: len(way), copy].tolist() == [0.0] * (len(way) - 1) + [1.0]


def test_up_is_up_and_a_miss_loses():
    step = step_of_pong()
    state = paddles_and_ball(paddle_centers=(15, 15))
    centres = [float(step(state, action)[1].paddle_centers[0]) for action in (STAY, UP, DOWN)]
    assert centres == [15, 14, 16]
    state = paddles_and_ball(paddle_centers=(15, 15), ball_position=(5, 0), ball_velocity=(0, -1))
    _, _, reward, terminated, _ = step(state, STAY)
    assert (float(reward), bool(terminated)) == (-1, True)


def test_two_frames_tell_what_one_does_not():
    step = step_of_pong()
    stack = FrameStack(Pong())
    look, shown = jax.jit(stack.step_env), jax.jit(stack.native.get_obs)
    pictures = []
    for slope, side in ((1, 1), (1, -1), (-2, 1)):
        before = paddles_and_ball(ball_position=(15 - slope, 20 - side), ball_velocity=(slope, side))
        inner = np.stack([shown(before)] * 2, axis=-1)
        state = frames.FrameState(time=np.int32(0), native=before, frames=inner)
        assert step(before, STAY)[1].ball_position.tolist() == [15, 20]
        pictures.append(np.asarray(look(jax.random.key(0), state, STAY, stack.default_params)[0]))
    balls = [picture[..., 1] == frames.BALL for picture in pictures]
    assert (balls[0] == balls[1]).all()
    assert (balls[0] == balls[2]).all()
    assert len({(picture[..., 0] == frames.BALL).tobytes() for picture in pictures}) == 3


def test_wrappers_of_gymnax_and_strong_dtypes():
    native = frames.pong()
    params = native.default_params
    wrapped = gymnax.wrappers.FlattenObservationWrapper(gymnax.wrappers.LogWrapper(native))
    assert wrapped.observation_space(params).shape == (HEIGHT * WIDTH * 2,)
    obs, state = jax.eval_shape(wrapped.reset, jax.random.key(0), params)
    seen, after, reward, *_, info = jax.eval_shape(wrapped.step, jax.random.key(1), state, jnp.int32(0), params)
    assert obs.shape == seen.shape == info["final_observation"].shape == (HEIGHT * WIDTH * 2,)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert (reward.shape, reward.dtype) == ((), jnp.float32)
    for env in (adapter.make(native), adapter.make(FrameStack(memory.masked_cartpole()))):
        before, obs = jax.eval_shape(lambda key, env=env: env.reset(key, 3), jax.random.key(0))
        after, got = jax.eval_shape(env.step, jax.random.key(1), before, jnp.zeros(3, jnp.int32))
        assert jax.tree.leaves(after) == jax.tree.leaves(before)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves((after, got)))
        assert got.obs.dtype == obs.dtype == jnp.float32
