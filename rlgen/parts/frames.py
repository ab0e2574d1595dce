"""Images kept small in a ring: eight bits a pixel, and of stacked frames the newest one alone.

An observation that stacks the last frames (arXiv:1312.5602) shows each of them in several observations in a row.  Here
a ring keeps a frame where it was the newest, as uint8, and stacks are put together again from the rows before when they
are read: an episode begins with its first frame repeated, and nothing is read across an episode's end or behind the
ring's oldest row.  What was observed after a step is kept likewise, because the row after an episode's last step shows
the next episode.

Shape legend: `R` rows of the ring, `B` environments, `M` slots read, `F` frames, `H W C` image of one frame.
"""

import jax.numpy as jnp

from rlgen.core import Array, Box, Space, Transition
from rlgen.parts import replay

_WHITE = 255.0


def frame_shape(space: Space, num_frames: int) -> tuple[int, ...]:
    """Gives the shape of one frame of an observation.

    Args:
        space: of observations `[H, W, F * C]`.
        num_frames: `F`.

    Returns:
        `(H, W, C)`.

    Raises:
        ValueError: if observations are no images between 0 and 1 of so many frames.
    """
    fits = isinstance(space, Box) and len(space.shape) == 3 and (space.low, space.high) == (0, 1)
    if not fits or space.dtype != "float32" or space.shape[-1] % num_frames:
        raise ValueError(
            f"config.num_frames={num_frames} takes images of float32 between 0 and 1 whose last axis it divides; got"
            f" observations in {space}"
        )
    height, width, channels = space.shape
    return height, width, channels // num_frames


def newest(obs: Array, num_frames: int) -> Array:
    """Gives the newest frame of stacks `[*N, H, W, F * C]` in eight bits, `[*N, H, W, C]` uint8."""
    channels = obs.shape[-1] // num_frames
    return jnp.round(obs[..., -channels:] * _WHITE).astype(jnp.uint8)


def readable(index: Array, last_row: Array, full: Array, shape: tuple[int, int], num_frames: int) -> Array:
    """Says of slots whether their stack is all there, or may reach behind the oldest row.

    Args:
        index: slots, row times `B` plus environment, `[M]`.
        last_row: the newest row, scalar; behind it lies the oldest.
        full: whether all rows hold experience; until then the first row begins the first episodes.
        shape: `(R, B)`.
        num_frames: `F`.

    Returns:
        `[M]` bool.
    """
    num_rows, num_envs = shape
    age = (index // num_envs - last_row - 1) % num_rows
    return ~full | (age >= num_frames - 1)


def stack(storage: Transition, index: Array, full: Array, num_frames: int) -> tuple[Array, Array]:
    """Reads what was observed before and after some steps.

    Args:
        storage: a ring whose observations `[R, B, H, W, C]` are frames, uint8.
        index: slots, `[M]`; frames are of another time where they are not `readable`.
        full: whether all rows hold experience.
        num_frames: `F`.

    Returns:
        `(obs, next_obs)`, `[M, H, W, F * C]` float32 between 0 and 1.
    """
    num_rows, num_envs = storage.reward.shape
    rows = index[:, None] // num_envs - jnp.arange(num_frames)
    slots = (rows % num_rows) * num_envs + index[:, None] % num_envs  # [M, F], the newest first
    ends = replay.take(storage.terminated | storage.truncated, slots) | ((rows < 0) & ~full)
    # The step itself may end its episode; what lies before another's end is foreign, and so is all before that.
    foreign = jnp.cumsum(ends.at[:, 0].set(False), axis=1) > 0
    reach = (~foreign).sum(axis=1, keepdims=True) - 1
    kept = jnp.take_along_axis(slots, jnp.minimum(jnp.arange(num_frames), reach), axis=1)
    frames = replay.take(storage.obs, kept[:, ::-1])  # [M, F, H, W, C], the oldest first
    after = jnp.concatenate([frames[:, 1:], replay.take(storage.next_obs, index)[:, None]], axis=1)
    return _joined(frames), _joined(after)


def observed(storage: Transition, first: Array, last: Array, *, full: Array, num_frames: int) -> tuple[Array, Array]:
    """Reads what was observed before steps at slots `[M]` and after steps at others: see `stack`."""
    return stack(storage, first, full, num_frames)[0], stack(storage, last, full, num_frames)[1]


def _joined(frames: Array) -> Array:
    """Puts frames `[M, F, H, W, C]` side by side along the last axis, as numbers up to 1."""
    several = jnp.moveaxis(frames, 1, -2)
    return several.reshape(*several.shape[:-2], -1).astype(jnp.float32) / _WHITE
