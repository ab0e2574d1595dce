"""Rows that are read, and learned from, a few at a time: the same as all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.parts import chunks

WEIGHTS, ROWS = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((5, 2), (11, 5)))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(chunks, "NUM_ROWS", 4)


def loss(weights, rows, scale):
    wide = jnp.tanh(rows @ weights)
    return scale * jnp.square(wide).mean(), {"mean": wide.mean(), "first": rows[:, 0].mean()}


def loops(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count("scan[")


@pytest.mark.parametrize("num", [3, 4, 8, 11])
def test_rows_are_read_as_all_at_once(num):
    def function(rows):
        return jnp.tanh(rows @ WEIGHTS), rows.sum(-1)

    read = jax.tree.map(np.asarray, chunks.read(function, ROWS[:num]))
    jax.tree.map(lambda part, whole: np.testing.assert_allclose(part, whole, rtol=1e-5), read, function(ROWS[:num]))
    assert loops(lambda rows: chunks.read(function, rows), ROWS[:num]) == (num > 4)


@pytest.mark.parametrize("num", [3, 4, 8, 11])
def test_the_gradient_is_that_of_all_rows(num):
    chunked = chunks.gradient(loss, WEIGHTS, ROWS[:num], 3.0)
    whole = jax.grad(loss, has_aux=True)(WEIGHTS, ROWS[:num], 3.0)
    jax.tree.map(lambda part, all_: np.testing.assert_allclose(part, all_, rtol=1e-5, atol=1e-6), chunked, whole)
    # Eleven are no whole number of chunks.
    assert loops(lambda weights: chunks.gradient(loss, weights, ROWS[:num], 3.0), WEIGHTS) == (num == 8)


def test_accelerators_take_all_at_once(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert loops(lambda rows: chunks.read(jnp.tanh, rows), ROWS) == 0
    assert loops(lambda weights: chunks.gradient(loss, weights, ROWS[:8], 3.0), WEIGHTS) == 0
