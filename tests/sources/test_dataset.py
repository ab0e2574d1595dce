"""Datasets: what an epoch visits and when it is shuffled; and the source that never changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Policy
from rlgen.sources import constant, dataset

POLICY = Policy(lambda batch_shape: (), lambda key, inputs, memory: (inputs, {}, memory))
DATA = {"index": jnp.arange(13), "square": jnp.arange(13.0) ** 2}


def epochs(seed, num_epochs):
    """What updates of 2 × 3 examples saw, `[epochs, 12]`."""
    source = dataset.build(DATA, batch_size=3, num_batches=2)
    state = source.init(jax.random.key(seed), POLICY)
    step, seen = jax.jit(lambda *arguments: source.next(*arguments, POLICY)), []
    for index in range(2 * num_epochs):
        state, batch, stats = step(jax.random.fold_in(jax.random.key(seed), index), jnp.int32(index), state)
        assert stats == ()
        assert batch["index"].shape == (2, 3)
        np.testing.assert_array_equal(batch["square"], batch["index"] ** 2)
        seen.append(np.asarray(batch["index"]).ravel())
    return np.array(seen).reshape(num_epochs, 12)


def test_an_epoch_visits_every_example_once_and_is_shuffled_anew():
    seen = epochs(0, 6)
    assert all(len(set(epoch)) == 12 for epoch in seen)
    assert len({tuple(epoch) for epoch in seen}) == 6
    # The example left out is another one from epoch to epoch.
    assert set(seen.ravel()) == set(range(13))
    assert len({13 * 6 - sum(epoch) for epoch in seen}) > 1


def test_seeds_have_their_own_order():
    assert epochs(0, 1).tolist() != epochs(1, 1).tolist()


def test_too_little_data_is_refused():
    with pytest.raises(ValueError, match="an update takes 3 × 5 examples; the dataset has 13"):
        dataset.build(DATA, batch_size=5, num_batches=3)


def test_constant_gives_the_same_batch():
    source = constant.build(DATA)
    state = source.init(jax.random.key(0), POLICY)
    for index in range(2):
        state, batch, stats = source.next(jax.random.key(index), jnp.int32(index), state, POLICY)
        assert batch is DATA
        assert stats == ()
