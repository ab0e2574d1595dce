"""Frames in a ring: every stack read is the one that was observed, at all ages of the ring."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Transition
from rlgen.parts import frames, replay

ROWS, ENVS, TOGETHER = 12, 2, 3  # rows of the ring, environments, rows written at a time
SHAPE = (2, 3, 1)


def history(num_frames, num_steps, seed=0):
    """Steps of environments whose stacks begin with a repeated frame, `[num_steps, ENVS]`."""
    rng = np.random.default_rng(seed)
    frame = lambda: rng.integers(0, 256, SHAPE).astype(np.float32) / np.float32(255)  # noqa: E731
    columns = []
    for _ in range(ENVS):
        seen, steps = [frame()] * num_frames, []
        for _ in range(num_steps):
            obs = np.concatenate(seen, -1)
            seen = [*seen[1:], frame()]
            ends = rng.random(2) < 0.15
            steps.append((obs, np.concatenate(seen, -1), *ends))
            if ends.any():
                seen = [frame()] * num_frames
        columns.append(steps)
    obs, next_obs, terminated, truncated = (
        np.stack([[step[part] for step in column] for column in columns], 1) for part in range(4)
    )
    count = np.arange(num_steps * ENVS, dtype=np.int32).reshape(num_steps, ENVS)
    return Transition(obs, count, count.astype(np.float32), next_obs, terminated, truncated, {})


@functools.partial(jax.jit, static_argnums=2)
def written(steps, updates, num_frames):
    """A ring of whole stacks and one of frames, after as many updates."""
    small = steps._replace(obs=frames.newest(steps.obs, num_frames), next_obs=frames.newest(steps.next_obs, num_frames))

    def ring(each):
        def write(step, ring):
            batch = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, step * TOGETHER, TOGETHER), each)
            return replay.add(ring, step, batch)

        example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[2:], leaf.dtype), each)
        empty = replay.init(example, capacity=ROWS * ENVS, num_envs=ENVS, num_rows=TOGETHER)
        return jax.lax.fori_loop(0, updates, write, empty)

    return ring(steps), ring(small)


def read(whole, small, last_row, full, num_frames):
    """What every slot shows, of frames and of stacks that were kept whole; compiled, a division would lose bits."""
    index = readable(last_row, full, num_frames)
    return frames.stack(small, index, full, num_frames), replay.as_kept(whole, index, index)


def readable(last_row, full, num_frames):
    """Slots whose stacks are all there."""
    index = np.arange(ROWS * ENVS)
    return index[np.asarray(frames.readable(index, last_row, full, (ROWS, ENVS), num_frames))]


@pytest.mark.parametrize("updates", [1, 3, 4, 6, 11])
@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_stacks_are_read_as_they_were_observed(num_frames, updates):
    whole, small = written(history(num_frames, 11 * TOGETHER), updates, num_frames)
    rows, last_row = (function(whole, updates - 1, TOGETHER) for function in (replay.filled, replay.newest))
    assert small.obs.dtype == jnp.uint8 and small.obs.nbytes * 4 * num_frames == whole.obs.nbytes
    (obs, next_obs), expected = jax.device_get(read(whole, small, last_row, rows == ROWS, num_frames))
    filled = slice(int(rows) * ENVS)
    np.testing.assert_array_equal(obs[filled], expected[0][filled])
    np.testing.assert_array_equal(next_obs[filled], expected[1][filled])


@pytest.mark.parametrize("num_steps", [1, 3])
def test_several_steps_end_with_the_stack_after_the_last(num_steps):
    whole, small = written(history(3, 7 * TOGETHER), 7, 3)

    full, last_row = jnp.bool_(True), replay.newest(whole, 6, TOGETHER)
    index = readable(last_row, full, 3)
    observed = functools.partial(frames.observed, full=full, num_frames=3)
    expected = replay.multi_step(whole, index, last_row, 0.9, num_steps)
    jax.tree.map(
        np.testing.assert_array_equal, replay.multi_step(small, index, last_row, 0.9, num_steps, observed), expected
    )


def test_only_slots_behind_whose_stack_nothing_is_kept_cannot_be_read():
    # Row 5 is the oldest: it and row 6 have too little behind them.
    assert set(range(ROWS * ENVS)) - set(readable(jnp.int32(4), jnp.bool_(True), 3)) == {10, 11, 12, 13}
    assert len(readable(jnp.int32(ROWS - 1), jnp.bool_(False), 3)) == ROWS * ENVS


@pytest.mark.parametrize(
    "space",
    [Box((4, 4, 3), 0, 1), Box((4, 4), 0, 1), Box((4, 4, 2), 0, 255, "uint8"), Box((4, 4, 2), -1, 1), Discrete(3)],
)
def test_other_observations_are_refused(space):
    with pytest.raises(ValueError, match=r"config\.num_frames=2 takes images of float32 between 0 and 1"):
        frames.frame_shape(space, 2)


def test_a_frame_has_its_share_of_the_last_axis():
    assert frames.frame_shape(Box((4, 5, 6), 0, 1), 3) == (4, 5, 2)
