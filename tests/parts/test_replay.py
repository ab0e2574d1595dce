"""The replay ring, against a deque, and how its writes compile under vmap."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgen.parts import replay

add = jax.jit(replay.add)


def rows_of(step, num_rows, num_envs):
    """Numbers that occur once: `[T, B]` in one leaf and twice those, `[T, B, 2]`, in another."""
    first = 1 + step * num_rows * num_envs
    number = np.arange(first, first + num_rows * num_envs, dtype=np.float32).reshape(num_rows, num_envs)
    return {"scalar": number.astype(np.int32), "vector": np.stack([number, -number], -1)}


def empty(capacity, num_envs, num_rows):
    example = {"scalar": jnp.int32(5), "vector": jnp.ones(2)}
    return replay.init(example, capacity=capacity, num_envs=num_envs, num_rows=num_rows)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 11))
def test_ring_holds_what_a_deque_holds(num_rows, num_envs, num_writes, num_adds):
    storage = empty(num_rows * num_envs * num_writes, num_envs, num_rows)
    expected = collections.deque(maxlen=num_rows * num_writes)
    for step in range(num_adds):
        batch = rows_of(step, num_rows, num_envs)
        storage = add(storage, jnp.int32(step), batch)
        expected.extend(zip(batch["scalar"].tolist(), batch["vector"].tolist(), strict=True))
        assert int(replay.filled(storage, jnp.int32(step), num_rows)) == len(expected)
        held = sorted(zip(storage["scalar"].tolist(), storage["vector"].tolist(), strict=True))
        zeros = [row for row in held if row not in expected]
        assert [row for row in held if row in expected] == sorted(expected)
        assert len(zeros) == num_rows * num_writes - len(expected)
        assert not np.any([row[0] for row in zeros])
    assert (storage["scalar"].dtype, storage["vector"].dtype) == (jnp.int32, jnp.float32)


def test_write_starts_over_at_the_seam():
    storage = empty(12, 2, 2)  # six rows, three writes
    for step in range(4):
        storage = add(storage, jnp.int32(step), rows_of(step, 2, 2))
    np.testing.assert_array_equal(storage["scalar"][:, 0], [13, 15, 5, 7, 9, 11])


def test_filled_stays_right_in_a_long_run():
    storage = empty(64, 2, 16)
    assert int(replay.filled(storage, jnp.int32(2**31 - 2), 16)) == 32


def test_sampling_is_uniform_over_what_is_filled():
    storage = empty(12, 2, 2)
    for step in range(2):
        storage = add(storage, jnp.int32(step), rows_of(step, 2, 2))
    rows = replay.filled(storage, jnp.int32(1), 2)
    drawn = jax.jit(replay.sample, static_argnums=3)(jax.random.key(0), storage, rows, 8000)
    np.testing.assert_array_equal(drawn["vector"][:, 0], drawn["scalar"])
    np.testing.assert_array_equal(drawn["vector"][:, 1], -drawn["scalar"])
    numbers, counts = np.unique(drawn["scalar"], return_counts=True)
    assert numbers.tolist() == list(range(1, 9))
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def index_ranks(step_axis):
    """Ranks of the indices at which a vmapped write goes into the ring; 1 where one index serves all lanes."""
    storage, batch = (
        jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), tree) for tree in (empty(12, 2, 2), rows_of(0, 2, 2))
    )
    step = jnp.zeros(3, jnp.int32) if step_axis == 0 else jnp.int32(0)
    program = jax.make_jaxpr(jax.vmap(replay.add, in_axes=(0, step_axis, 0)))(storage, step, batch)
    return [equation.invars[1].aval.ndim for equation in program.eqns if equation.primitive.name == "scatter"]


def test_write_has_one_index_for_all_lanes_under_vmap():
    # jax writes a vmapped slice as a scatter; with one index it stays one contiguous write in place.
    assert index_ranks(None) == [1, 1]
    assert index_ranks(0) == [2, 2]


@pytest.mark.parametrize("capacity", [0, 10])
def test_a_capacity_that_writes_would_not_fill_is_refused(capacity):
    with pytest.raises(ValueError, match=f"capacity {capacity} is no multiple of 2 steps × 2 environments"):
        empty(capacity, 2, 2)
