"""Uniform experience replay in a ring, updated in place.

The ring holds rows of `B` environments in time order, and the row to write follows from `step` alone.  `step` is no
part of a sweep's batch, so however many seeds are vmapped there is one index for all of them and the write stays in
place; an index kept in the state would become one index a seed and a scatter over the whole buffer.

Shape legend: `R` rows of the ring, `T` rows added at a time, `B` environments, `M` examples sampled.
"""

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key, Tree


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


def sample(key: Key, storage: Tree, rows: Array, batch_size: int) -> Tree:
    """Draws transitions with replacement and equal chance.

    Args:
        key: consumed.
        storage: leaves `[R, B, ...]`.
        rows: how many rows hold experience.
        batch_size: `M`.

    Returns:
        Leaves `[M, ...]`.
    """
    num_envs = jax.tree.leaves(storage)[0].shape[1]
    index = jax.random.randint(key, (batch_size,), 0, rows * num_envs)

    def pick(leaf):
        return leaf.reshape(-1, *leaf.shape[2:]).at[index].get(mode="promise_in_bounds")

    return jax.tree.map(pick, storage)
