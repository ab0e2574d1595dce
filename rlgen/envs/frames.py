"""Environments seen as images: stacked frames, and Pong.

Sources: stacking the last frames, so that what moves can be told from what stands, is from arXiv:1312.5602; Pong is
gymnax's `Pong-misc`, two paddles and a ball on a field of 30 by 40 cells, the left paddle being the agent's.

Departures of `Pong` from gymnax's, whose paddles, ball and opponent it keeps:

* gymnax shows where the ball was a step ago in a channel of its own.  Here a frame is one grey image of this moment
  alone, so that the way of the ball takes two frames to see.
* gymnax has no upper wall: a ball that goes up leaves the field for good.  Here it bounces there as it does below.
* gymnax serves straight at the opponent from the centre, always, and standing still then rallies for ever.  Here the
  row, the slope and the side of the serve are drawn.
* gymnax earns 1 a step until either side misses, whichever it is.  Here a step earns 1 if the ball passes the
  opponent, -1 if it passes the agent, else 0, and an episode is one point.

Shape legend: `H W C` image of an observation, `F` frames.
"""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.environments.misc import pong as gymnax_pong

from rlgen.core import Array, Key

STAY, UP, DOWN = range(3)
BALL, PADDLE = 1.0, 0.5  # brightness


@struct.dataclass
class FrameState(environment.EnvState):
    """State of the environment within, and what was last seen of it."""

    time: Any  # int32 steps since the start of the episode
    native: Any
    frames: Any  # [..., C * F], oldest first


class FrameStack(environment.Environment[FrameState, Any]):
    """Shows the last observations of an environment together, stacked along the last axis and oldest first.

    The last axis of `[H, W, C]` and `[C]` becomes `C * F` long; `[H, W]` and a scalar, which have no features, gain an
    axis of length `F`.  An episode begins with `F` times its first observation.

    Attributes:
        native: the environment within, whose parameters are this one's too.
        num_frames: `F`.
    """

    def __init__(self, native: environment.Environment, num_frames: int = 2):
        """Binds the environment.

        Args:
            native: an environment that observes a `Box`.
            num_frames: how many observations are shown together.

        Raises:
            TypeError: if the environment does not observe a `Box`.
            ValueError: if there is no frame.
        """
        super().__init__()
        space = native.observation_space(native.default_params)
        if not isinstance(space, spaces.Box):
            raise TypeError(f"{native.name} observes {space!r}; frames are stacked of a Box only")
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}, not 1 or more")
        self.native = native
        self.num_frames = num_frames
        self._dtype = space.dtype
        self._has_features = len(space.shape) not in (0, 2)

    def reset_env(self, key: Key, params: Any) -> tuple[Array, FrameState]:
        """Starts an episode; the key is consumed."""
        obs, state = self.native.reset_env(key, params)
        frames = self._repeated(obs).astype(self._dtype)
        return frames, FrameState(time=state.time, native=state, frames=frames)

    def step_env(
        self, key: Key, state: FrameState, action: int | float | Array, params: Any
    ) -> tuple[Array, FrameState, Array, Array, dict[Any, Any]]:
        """Steps the environment within, which does not reset itself here; the key is consumed."""
        obs, native, reward, terminated, info = self.native.step_env(key, state.native, action, params)
        frame = self._with_features(obs).astype(self._dtype)
        frames = jnp.concatenate([state.frames[..., frame.shape[-1] :], frame], axis=-1)
        return frames, FrameState(time=native.time, native=native, frames=frames), reward, terminated, info

    def observe(self, key: Key, state: FrameState, action: Any, params: Any) -> Array:
        """The frames, `[..., C * F]`."""
        del key, action, params
        return state.frames

    def is_terminated(self, state: FrameState, params: Any) -> Array:
        """Whether the environment within has terminated."""
        return self.native.is_terminated(state.native, params)

    def is_truncated(self, state: FrameState, params: Any) -> Array:
        """Whether the environment within is past its time limit."""
        return self.native.is_truncated(state.native, params)

    def newest(self, frames: Any) -> Any:
        """What the environment within observed last.

        Args:
            frames: `[*N, ..., C * F]`, an array of jax or NumPy.

        Returns:
            `[*N, *observation]` of the environment within.
        """
        return frames[..., -(frames.shape[-1] // self.num_frames) :] if self._has_features else frames[..., -1]

    def _with_features(self, obs: Array) -> Array:
        """Gives a scalar and an image `[H, W]` a last axis to be stacked along."""
        return obs if self._has_features else obs[..., None]

    def _repeated(self, obs: Array) -> Array:
        return jnp.tile(self._with_features(obs), self.num_frames)

    @property
    def default_params(self) -> Any:
        """Those of the environment within."""
        return self.native.default_params

    @property
    def name(self) -> str:
        """Name of the environment within."""
        return self.native.name

    @property
    def num_actions(self) -> int:
        """Number of actions of the environment within."""
        return self.native.num_actions

    def action_space(self, params: Any = None) -> spaces.Space:
        """Actions of the environment within."""
        return self.native.action_space(self.default_params if params is None else params)

    def observation_space(self, params: Any) -> spaces.Box:
        """Stacked frames."""
        space = self.native.observation_space(params)
        low, high = (self._repeated(jnp.broadcast_to(bound, space.shape)) for bound in (space.low, space.high))
        return spaces.Box(low, high, low.shape, space.dtype)

    def state_space(self, params: Any) -> spaces.Dict:
        """State of the environment within, and frames."""
        time = spaces.Discrete(params.max_steps_in_episode + 1)
        native = self.native.state_space(params)
        return spaces.Dict({"time": time, "native": native, "frames": self.observation_space(params)})


class Pong(gymnax_pong.Pong):
    """Pong in which every point is another, seen as one grey image `[H, W]`: the ball bright, the paddles dimmer."""

    def reset_env(self, key: Key, params: gymnax_pong.EnvParams) -> tuple[Array, gymnax_pong.EnvState]:
        """Serves from the middle column; the key is consumed."""
        row_key, slope_key, side_key = jax.random.split(key, 3)
        row = jax.random.randint(row_key, (), 0, self.height)
        slope = jax.random.randint(slope_key, (), -1, 2)
        side = jnp.where(jax.random.bernoulli(side_key), 1, -1)
        ball = jnp.stack([row, self.width // 2]).astype(jnp.float32)
        _, state = super().reset_env(key, params)
        state = dataclasses.replace(
            state,
            ball_position=ball,
            last_ball_position=ball,
            ball_velocity=jnp.stack([slope, side * params.ball_x_speed]).astype(jnp.int32),
            time=jnp.int32(0),
            terminal=jnp.bool_(False),
        )
        return self.get_obs(state), state

    def step_env(
        self, key: Key, state: gymnax_pong.EnvState, action: int | float | Array, params: gymnax_pong.EnvParams
    ) -> tuple[Array, gymnax_pong.EnvState, Array, Array, dict[Any, Any]]:
        """Moves paddles and ball; the key is not used."""
        before = state.ball_position
        half, turn = self.paddle_half_height, cast(Any, jnp.asarray(action))
        state = gymnax_pong.move_paddles(turn, params.paddle_y_speed, state, half, self.height, params.use_ai_policy)
        state = _reflect_above(gymnax_pong.reflect_on_borders(gymnax_pong.move_ball(state), self.height))
        state = gymnax_pong.reflect_on_paddle(state, self.width, half, params)
        state = dataclasses.replace(state, last_ball_position=before, time=state.time + 1)
        column = state.ball_position[1]
        reward = (column >= self.width).astype(jnp.float32) - (column < 0).astype(jnp.float32)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}

    def get_obs(self, state: gymnax_pong.EnvState, params: Any = None, key: Key | None = None) -> Array:
        """Paddles and ball of this moment, `[H, W]` float32; a ball that has left lies on the edge."""
        channels = super().get_obs(state, params, key)
        return jnp.maximum(PADDLE * channels[..., 0], BALL * channels[..., 1])

    def observation_space(self, params: gymnax_pong.EnvParams) -> spaces.Box:
        """Grey images."""
        del params
        return spaces.Box(0.0, 1.0, (self.height, self.width))

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "Pong"


def _reflect_above(state: gymnax_pong.EnvState) -> gymnax_pong.EnvState:
    """Bounces the ball off the wall above, as gymnax does it off the one below."""
    row, slope = state.ball_position[0], state.ball_velocity[0]
    is_over = row < 0
    return dataclasses.replace(
        state,
        ball_position=state.ball_position.at[0].set(jnp.where(is_over, -row, row)),
        ball_velocity=state.ball_velocity.at[0].set(jnp.where(is_over, -slope, slope)),
    )


def pong(num_frames: int = 2) -> FrameStack:
    """Makes Pong from stacked frames, `[30, 40, num_frames]`.

    The actions are `STAY`, `UP` and `DOWN`.  The opponent follows the ball by one row a step, as fast as the agent's
    paddle; a paddle turns the ball by where it is hit, and a steep ball outruns the opponent.  Every serve can be
    won, within 58 to 206 steps, so the best return is 1.  Playing at random earns about -0.83, standing still -0.87 and
    keeping the paddle at the ball's height -0.01.  One frame does not tell which way the ball goes; two do, save in
    the moment of a serve, and its slope too, save in that of some bounces.

    Args:
        num_frames: how many frames are shown together.

    Returns:
        The environment, whose time limit is 1000 steps.
    """
    return FrameStack(Pong(), num_frames)
