"""Draws minibatches from two datasets that are not paired, each in epochs shuffled by itself.

Shape legend: `D` examples of a dataset, `K` minibatches an update, `B` examples a minibatch.
"""

import functools
from typing import NamedTuple

import jax

from rlgen.core import Array, Key, Policy, Source, Tree
from rlgen.sources import dataset


class Pair(NamedTuple):
    """Something of either dataset."""

    first: Tree
    second: Tree


def init(key: Key, policy: Policy, *, sources: Pair) -> Pair:
    """Draws the order of either's first epoch, `[D]` int32.  The key is consumed."""
    return Pair(*(source.init(own, policy) for own, source in zip(jax.random.split(key), sources, strict=True)))


def next_batch(key: Key, step: Array, state: Pair, policy: Policy, *, sources: Pair):
    """Takes the next `K × B` examples of either epoch.  The key is consumed.

    Returns:
        `(orders, Pair of batches [K, B, ...], ())`.
    """
    taken = [
        source.next(own, step, order, policy)
        for own, source, order in zip(jax.random.split(key), sources, state, strict=True)
    ]
    return Pair(*(order for order, _, _ in taken)), Pair(*(batch for _, batch, _ in taken)), ()


def build(data: Pair, *, batch_size: int, num_batches: int = 1) -> Source:
    """Builds a source of minibatches from two datasets.

    Args:
        data: leaves `[D, ...]`, of another `D` in either dataset.
        batch_size: `B`.
        num_batches: `K`, for algorithms that take several steps an update.

    Returns:
        A `Source` of `Pair`s of `[K, B, ...]` batches without stats.

    Raises:
        ValueError: if a dataset is smaller than one update's worth.
    """
    sources = Pair(*(dataset.build(each, batch_size=batch_size, num_batches=num_batches) for each in data))
    return Source(init=functools.partial(init, sources=sources), next=functools.partial(next_batch, sources=sources))
