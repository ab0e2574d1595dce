"""Draws minibatches from arrays that lie on the device, in epochs shuffled anew.

Each epoch visits every example at most once; the few that do not fill a batch are left out of that epoch.

Shape legend: `D` examples, `K` minibatches an update, `B` examples a minibatch.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key, Policy, Source, Tree
from rlgen.parts import random


def init(key: Key, policy: Policy, *, num_examples: int) -> Array:
    """Draws the order of the first epoch, `[D]` int32.  The key is consumed."""
    del policy
    return random.permutation(key, num_examples)


def next_batch(key: Key, step: Array, state: Array, policy: Policy, *, data: Tree, shape: tuple[int, int]):
    """Takes the next `K × B` examples of the epoch, whose order is the state.  The key is consumed.

    Returns:
        `(order, batch [K, B, ...], ())`.
    """
    del policy
    num_batches, batch_size = shape
    size = num_batches * batch_size
    position = step % (state.shape[0] // size)
    # `step` is no part of a sweep's batch, so this stays a branch and shuffles once an epoch.
    order = lax.cond(
        (position == 0) & (step > 0), lambda: state[random.permutation(key, state.shape[0])], lambda: state
    )
    rows = lax.dynamic_slice_in_dim(order, position * size, size).reshape(shape)
    return order, jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), data), ()


def build(data: Tree, *, batch_size: int, num_batches: int = 1) -> Source:
    """Builds a source of minibatches.

    Args:
        data: leaves `[D, ...]`, shared by every lane of a sweep.
        batch_size: `B`.
        num_batches: `K`, for algorithms that take several steps an update.

    Returns:
        A `Source` of `[K, B, ...]` batches without stats.

    Raises:
        ValueError: if the data is smaller than one update's worth.
    """
    num_examples = jax.tree.leaves(data)[0].shape[0]
    if num_examples < batch_size * num_batches:
        raise ValueError(f"an update takes {num_batches} × {batch_size} examples; the dataset has {num_examples}")
    return Source(
        init=functools.partial(init, num_examples=num_examples),
        next=functools.partial(next_batch, data=data, shape=(num_batches, batch_size)),
    )
