"""Pairs of datasets: each is an epoch by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Policy
from rlgen.sources import dataset, pair

POLICY = Policy(lambda batch_shape: (), lambda key, inputs, memory: (inputs, {}, memory))
DATA = pair.Pair(jnp.arange(13), {"index": jnp.arange(100, 106)})


def taken(num_updates, data=DATA):
    """What updates of 1 × 3 examples saw of either dataset, `[updates, 3]`."""
    source = pair.build(data, batch_size=3)
    state = source.init(jax.random.key(0), POLICY)
    step, seen = jax.jit(lambda *arguments: source.next(*arguments, POLICY)), []
    for index in range(num_updates):
        state, batch, stats = step(jax.random.fold_in(jax.random.key(1), index), jnp.int32(index), state)
        assert stats == () and batch.first.shape == (1, 3)
        seen.append((batch.first[0], batch.second["index"][0]))
    first, second = zip(*seen, strict=True)
    return np.array(first), np.array(second)


def test_each_dataset_has_epochs_of_its_own_length():
    first, second = taken(8)
    for epoch in (first[:4], first[4:]):
        assert len(set(epoch.ravel())) == 12
    for start in range(0, 8, 2):
        assert set(second[start : start + 2].ravel()) == set(range(100, 106))
    assert first[:4].tolist() != first[4:].tolist()
    assert len({tuple(second[start : start + 2].ravel()) for start in range(0, 8, 2)}) > 1


def test_datasets_are_shuffled_by_themselves():
    same = pair.Pair(jnp.arange(12), {"index": jnp.arange(12)})
    first, second = taken(4, same)
    assert set(first.ravel()) == set(second.ravel()) == set(range(12))
    assert (first != second).mean() > 0.5


def test_each_half_is_what_its_own_source_gives():
    source, key = pair.build(DATA, batch_size=3), jax.random.key(3)
    state = source.init(key, POLICY)
    for own, data, order in zip(jax.random.split(key), DATA, state, strict=True):
        np.testing.assert_array_equal(order, dataset.build(data, batch_size=3).init(own, POLICY))


def test_too_little_of_either_is_refused():
    with pytest.raises(ValueError, match="an update takes 2 × 4 examples; the dataset has 6"):
        pair.build(DATA, batch_size=4, num_batches=2)
