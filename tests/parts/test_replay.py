"""The replay ring, against a deque, and how its writes compile under vmap."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgen.core import Transition
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
    drawn = replay.take(storage, replay.draw(jax.random.key(0), storage, rows, 8000))
    np.testing.assert_array_equal(drawn["vector"][:, 0], drawn["scalar"])
    np.testing.assert_array_equal(drawn["vector"][:, 1], -drawn["scalar"])
    numbers, counts = np.unique(drawn["scalar"], return_counts=True)
    assert numbers.tolist() == list(range(1, 9))
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def summed(history, newest, slot, discount, num_steps):
    """What several steps come to, read off the history of one environment, newest last."""
    at = next(i for i, step in enumerate(history) if step["slot"] == slot)
    total, power = 0.0, 1.0
    for step in history[at : at + num_steps]:
        total, power = total + power * step["reward"], power * discount
        if step["terminated"] or step["truncated"] or step["row"] == newest:
            break
    return total, 0.0 if step["terminated"] else power, step["next_obs"]


@pytest.mark.parametrize("num_steps", [1, 3, 6])
def test_several_steps_end_with_the_episode_and_at_the_seam(num_steps):
    num_rows, num_envs, num_adds = 8, 2, 13  # the ring is over-written, and the newest row is in its middle
    rng = np.random.default_rng(0)
    example = Transition(*(jnp.float32(0),) * 4, jnp.bool_(False), jnp.bool_(False), {})
    storage = replay.init(example, capacity=num_rows * num_envs, num_envs=num_envs, num_rows=1)
    histories = [collections.deque(maxlen=num_rows) for _ in range(num_envs)]
    for step in range(num_adds):
        obs, action, reward, next_obs = rng.normal(size=(4, 1, num_envs)).astype(np.float32)
        ends = rng.random((2, 1, num_envs)) < 0.2
        batch = Transition(obs, action, reward, next_obs, ends[0], ends[1] & ~ends[0], {})
        storage = add(storage, jnp.int32(step), batch)
        row = step % num_rows
        for env, history in enumerate(histories):
            one = {name: getattr(batch, name)[0, env] for name in ("reward", "terminated", "truncated", "next_obs")}
            history.append({**one, "row": row, "slot": row * num_envs + env})
    newest = replay.newest(storage, jnp.int32(num_adds - 1), 1)
    assert int(newest) == (num_adds - 1) % num_rows
    slots = jnp.arange(num_rows * num_envs)
    got = jax.jit(replay.multi_step, static_argnums=4)(storage, slots, newest, 0.5, num_steps)
    expected = [summed(list(histories[slot % num_envs]), newest, slot, 0.5, num_steps) for slot in range(16)]
    for ours, theirs in zip((got.reward, got.discount, got.next_obs), zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(got.obs, storage.obs.ravel())
    np.testing.assert_array_equal(got.action, storage.action.ravel())
    cut = len({float(discount) for discount in got.discount})
    assert cut >= min(num_steps, 3) + 1  # some windows were whole, some short, some terminated


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
