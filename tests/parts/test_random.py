"""The unrolled generator gives the numbers of jax's own, to the last bit; orders are drawn evenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen.parts import random

SEEDS = (0, 1, 2**31 - 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "function",
    [
        lambda key: jax.random.key_data(jax.random.split(key, (3, 2))),
        lambda key: jax.random.key_data(jax.random.fold_in(key, 7)),
        lambda key: jax.random.key_data(jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(5))),
        lambda key: jax.random.bits(key, (3, 5), "uint8"),
        lambda key: jax.random.bits(key, (7,), "uint16"),
        lambda key: jax.random.bits(key, (4, 3), "uint32"),
        lambda key: jax.random.normal(key, (4, 3)),
        lambda key: jax.random.permutation(key, 17),
        lambda key: jax.vmap(lambda k: jax.random.uniform(k, (3,)))(jax.random.split(key, 4)),
        lambda key: jax.random.randint(key, (), -3, 9),
        lambda key: jax.vmap(lambda k: jax.random.normal(k, (20,)))(jax.random.split(key, 4)),
    ],
    ids=["split", "fold_in", "vmapped fold_in", "8", "16", "32", "normal", "permutation", "vmap", "scalar", "many"],
)
def test_bits_are_those_of_jax(function, seed):
    ours, theirs = function(random.key(seed)), function(jax.random.key(seed))
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_no_loop_is_left():
    def draw(key):
        return jax.random.uniform(jax.random.split(key)[0], (2,))

    assert "while" not in jax.jit(draw).lower(random.key(0)).as_text()
    assert "while" in jax.jit(draw).lower(jax.random.key(0)).as_text()  # or the module is no longer needed


@pytest.mark.parametrize(("num", "is_kept"), [(4, False), (128, True)])
def test_the_key_of_a_draw_of_many_numbers_is_kept(num, is_kept):
    def draw(key):
        return jax.random.normal(jax.random.split(key)[0], (num,))

    assert ("optimization_barrier" in jax.jit(draw).lower(random.key(0)).as_text()) == is_kept


def test_too_many_numbers_are_refused():
    with pytest.raises(ValueError, match="at most 2³² numbers"):
        jax.jit(lambda key: jax.random.bits(key, (2**16, 2**16), "uint32")).lower(random.key(0))


def test_all_orders_are_equally_likely():
    draw = jax.jit(jax.vmap(lambda key: random.permutation(key, 4)))
    _, counts = np.unique(draw(jax.random.split(random.key(0), 24_000)), axis=0, return_counts=True)
    assert counts.size == 24
    assert scipy.stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("num", [1, 2, 512, 1025, 2**17])  # of one round and of more
def test_an_order_holds_everything_once(num):
    order = random.permutation(random.key(1), num)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(num))
    if num > 2:
        assert abs(np.corrcoef(order, np.arange(num))[0, 1]) < 4 / np.sqrt(num)


def test_ties_are_left_to_the_round_before(monkeypatch):
    num = 2000
    words = jax.random.bits(random.key(2), (num,))
    monkeypatch.setattr(random.jax.random, "bits", lambda key, shape: jnp.stack([words, jnp.zeros_like(words)]))
    np.testing.assert_array_equal(random.permutation(random.key(0), num), np.argsort(words << 11, kind="stable"))
