"""Uniform experience replay in a ring, updated in place.

The ring holds rows of `B` environments in time order, and the row to write follows from `step` alone.  `step` is no
part of a sweep's batch, so however many seeds are vmapped there is one index for all of them and the write stays in
place; an index kept in the state would become one index a seed and a scatter over the whole buffer.

Shape legend: `R` rows of the ring, `T` rows added at a time, `B` environments, `M` examples sampled.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key, Transition, Tree


def init(example: Tree, *, capacity: int, num_envs: int, num_rows: int) -> Tree:
    """Makes an empty ring.

    Args:
        example: one transition without a batch axis: shapes and dtypes are read, values are not.
        capacity: transitions in all, `R * B`.
        num_envs: `B`.
        num_rows: `T`, rows that each `add` writes.

    Returns:
        Storage with leaves `[R, B, ...]`.

    Raises:
        ValueError: if the capacity is no multiple of `T * B`, so that a write would cross the ring's seam.
    """
    if capacity < 1 or capacity % (num_envs * num_rows):
        raise ValueError(f"capacity {capacity} is no multiple of {num_rows} steps × {num_envs} environments an update")
    shape = (capacity // num_envs, num_envs)
    return jax.tree.map(lambda leaf: jnp.zeros(shape + jnp.shape(leaf), jnp.result_type(leaf)), example)


def add(storage: Tree, step: Array, batch: Tree) -> Tree:
    """Writes the rows of update `step` over the oldest ones.

    Args:
        storage: leaves `[R, B, ...]`.
        step: updates done before, scalar.
        batch: leaves `[T, B, ...]`.

    Returns:
        The storage.
    """
    num_rows, rows_at_a_time = (jax.tree.leaves(tree)[0].shape[0] for tree in (storage, batch))
    position = (step % (num_rows // rows_at_a_time)) * rows_at_a_time
    return jax.tree.map(
        lambda old, new: lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), position, axis=0), storage, batch
    )


def filled(storage: Tree, step: Array, num_rows: int) -> Array:
    """How many of the ring's rows hold experience after the write of update `step`, scalar int32."""
    ring_rows = jax.tree.leaves(storage)[0].shape[0]
    # The minimum is taken before the product, which a long run would overflow.
    return jnp.minimum(step + 1, ring_rows // num_rows) * num_rows


def newest(storage: Tree, step: Array, num_rows: int) -> Array:
    """The row that the write of update `step` filled last, scalar int32."""
    ring_rows = jax.tree.leaves(storage)[0].shape[0]
    return (step % (ring_rows // num_rows)) * num_rows + num_rows - 1


def draw(key: Key, storage: Tree, rows: Array, batch_size: int) -> Array:
    """Draws slots with replacement and equal chance.

    Args:
        key: consumed.
        storage: leaves `[R, B, ...]`.
        rows: how many rows hold experience.
        batch_size: `M`.

    Returns:
        Slots, row times `B` plus environment, `[M]` int32.
    """
    num_envs = jax.tree.leaves(storage)[0].shape[1]
    return jax.random.randint(key, (batch_size,), 0, rows * num_envs)


def take(storage: Tree, index: Array) -> Tree:
    """Reads slots `[*N]`: leaves `[*N, ...]`."""

    def pick(leaf):
        return leaf.reshape(-1, *leaf.shape[2:]).at[index].get(mode="promise_in_bounds")

    return jax.tree.map(pick, storage)


class Steps(NamedTuple):
    """What several steps in a row came to."""

    obs: Tree  # [M, *observation], before the first
    action: Tree  # [M, *action], the first
    reward: Array  # [M], discounted sum
    discount: Array  # [M], of the value of `next_obs`; 0 where it terminated
    next_obs: Tree  # [M, *observation], after the last


def as_kept(storage: Transition, first: Array, last: Array) -> tuple[Tree, Tree]:
    """Reads what was observed before steps at slots `[M]` and after steps at others, where both are kept whole."""
    return take(storage.obs, first), take(storage.next_obs, last)


def multi_step(
    storage: Transition,
    index: Array,
    last_row: Array,
    discount: Array | float,
    num_steps: int,
    observed: Callable[[Transition, Array, Array], tuple[Tree, Tree]] = as_kept,
) -> Steps:
    """Adds up rewards from some slots on.

    The sum ends early with an episode, terminated or truncated, and at the newest row, behind which the ring's oldest
    lies; from there on it is left to the value of what was observed then.

    Args:
        storage: leaves `[R, B, ...]`.
        index: slots of the first steps, `[M]`.
        last_row: the newest row.
        discount: `γ`.
        num_steps: steps at most.
        observed: how observations are read.

    Returns:
        Leaves `[M, ...]`.
    """
    num_rows, num_envs = storage.reward.shape
    rows = (index[:, None] // num_envs + jnp.arange(num_steps)) % num_rows
    slots = rows * num_envs + index[:, None] % num_envs  # [M, num_steps]
    reward, terminated, truncated = (
        take(leaf, slots) for leaf in (storage.reward, storage.terminated, storage.truncated)
    )
    ends = terminated | truncated | (rows == last_row)
    before = jnp.cumsum(ends, axis=1) - ends  # ends that lie behind
    counted = before == 0
    powers = jnp.asarray(discount) ** jnp.arange(num_steps)
    last = counted.sum(axis=1, keepdims=True) - 1
    final = jnp.take_along_axis(slots, last, axis=1)[:, 0]
    ended = jnp.take_along_axis(terminated, last, axis=1)[:, 0]
    onward = jnp.where(ended, 0.0, discount * powers[last[:, 0]])
    obs, next_obs = observed(storage, index, final)
    total = jnp.sum(powers * reward, axis=1, where=counted)
    return Steps(obs, take(storage.action, index), total, onward, next_obs)
