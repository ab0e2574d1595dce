"""Rescaled values: the definition, the inverse, slopes, and parity with rlax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rlgen.parts import rescaling

# Of either sign, from next to nothing to a great deal.
VALUES = np.concatenate([sign * np.logspace(-6, 6, 61) for sign in (-1, 1)] + [[0.0]]).astype(np.float32)
EPSILONS = (0.0, 1e-6, 1e-3, 0.1, 1.0)


def rescaled_in_double(value, epsilon):
    value = value.astype(np.float64)
    return np.sign(value) * (np.sqrt(np.abs(value) + 1) - 1) + epsilon * value


def test_by_hand():
    np.testing.assert_allclose(rescaling.rescale(jnp.array([0.0, 3.0, -3.0, 8.0]), 0.5), [0.0, 2.5, -2.5, 6.0])
    np.testing.assert_allclose(rescaling.restore(jnp.array([0.0, 2.5, -2.5, 6.0]), 0.5), [0.0, 3.0, -3.0, 8.0])
    np.testing.assert_allclose(rescaling.restore(jnp.array([1.0, -2.0]), 0.0), [3.0, -8.0])


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_to_the_last_digits_of_a_float(epsilon):
    expected = rescaled_in_double(VALUES, epsilon)
    np.testing.assert_allclose(rescaling.rescale(VALUES, epsilon), expected, rtol=1e-6)
    np.testing.assert_allclose(rescaling.restore(expected.astype(np.float32), epsilon), VALUES, rtol=2e-6)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_each_is_the_inverse_of_the_other(epsilon):
    np.testing.assert_allclose(rescaling.restore(rescaling.rescale(VALUES, epsilon), epsilon), VALUES, rtol=2e-6)
    small = VALUES[np.abs(VALUES) < 1e3]
    np.testing.assert_allclose(rescaling.rescale(rescaling.restore(small, epsilon), epsilon), small, rtol=2e-6)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
def test_agrees_with_rlax(epsilon):
    np.testing.assert_allclose(
        rescaling.rescale(VALUES, epsilon), rlax.signed_hyperbolic(VALUES, epsilon), atol=1e-6, rtol=1e-5
    )
    values = VALUES[(np.abs(VALUES) > 0.1) & (np.abs(VALUES) < 1e4)]  # elsewhere rlax loses digits
    np.testing.assert_allclose(rescaling.restore(values, epsilon), rlax.signed_parabolic(values, epsilon), rtol=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.1])
def test_slopes_are_those_of_the_formula_at_zero_too(epsilon):
    values = VALUES[np.abs(VALUES) < 1e3]
    slope = 0.5 / np.sqrt(np.abs(values) + 1) + epsilon
    np.testing.assert_allclose(jax.vmap(jax.grad(rescaling.rescale), (0, None))(values, epsilon), slope, rtol=1e-5)
    inverse = jax.vmap(jax.grad(rescaling.restore), (0, None))(rescaling.rescale(values, epsilon), epsilon)
    np.testing.assert_allclose(inverse, 1 / slope, rtol=1e-5)
