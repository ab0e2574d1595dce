"""Losses, against optax, rlax and figures by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax

from rlgen.parts import losses

ERROR = jnp.linspace(-3.0, 3.0, 13)


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
def test_huber_equals_optax(delta):
    np.testing.assert_allclose(losses.huber(ERROR, delta), optax.huber_loss(ERROR, delta=delta), rtol=1e-6)
    np.testing.assert_allclose(losses.huber(ERROR, delta), rlax.huber_loss(ERROR, delta), rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda error: losses.huber(error, delta)))(ERROR + 0.01)
    np.testing.assert_allclose(slope, np.clip(ERROR + 0.01, -delta, delta), rtol=1e-5)


def test_squared_is_half_the_square():
    np.testing.assert_allclose(losses.squared(ERROR), optax.l2_loss(ERROR))


def test_clipped_surrogate_equals_rlax():
    ratio = jnp.exp(jax.random.normal(jax.random.key(0), (64,)))
    advantage = jax.random.normal(jax.random.key(1), (64,))
    expected = rlax.clipped_surrogate_pg_loss(ratio, advantage, 0.2)
    np.testing.assert_allclose(losses.clipped_surrogate(ratio, advantage, 0.2).mean(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [(1.0, 2, -2, -2), (1.5, 2, -2.4, 0), (0.5, 2, -1, -2), (1.5, -2, 3, 2), (0.5, -2, 1.6, 0)],
)
def test_clipped_surrogate_is_the_pessimistic_one(ratio, advantage, loss, slope):
    value, grad = jax.value_and_grad(losses.clipped_surrogate)(ratio, float(advantage), 0.2)
    np.testing.assert_allclose((value, grad), (loss, slope), rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (1.1, 2.0, 0.405, -0.9),  # within the clip: the plain error
        (1.5, 2.0, 0.32, 0.0),  # moved too far towards the target: held at 1.2
        (0.5, 2.0, 1.125, -1.5),  # moved away from the target: the plain error is the larger
        (3.0, 2.0, 0.5, 1.0),  # overshot: the plain error is the larger
    ],
)
def test_clipped_value_is_the_larger_error(value, target, loss, slope):
    got, grad = jax.value_and_grad(losses.clipped_value)(value, 1.0, target, 0.2)
    np.testing.assert_allclose((got, grad), (loss, slope), rtol=1e-5, atol=1e-6)
