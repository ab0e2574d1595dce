"""Convolutions, and their gradients, against flax's and XLA's."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.parts import convolution


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize(
    ("features", "kernel_size", "stride", "padding"),
    [
        (5, (3, 3), 1, 0),
        (5, (3, 2), 2, 1),
        (5, (4, 3), 3, 2),
        (5, (3, 3), 2, 1),
        (3, (3, 2), 1, 0),
        (3, (2, 3), 1, 1),
        (3, (4, 4), 2, 1),
    ],
)
def test_conv_equals_flax(size, features, kernel_size, stride, padding):
    generator = np.random.default_rng(0)
    image = generator.standard_normal((2, 3, *size, 4), np.float32)
    ours = convolution.Conv(features, kernel_size, stride, padding)
    theirs = nn.Conv(features, kernel_size, strides=stride, padding=padding)
    kernel = jax.eval_shape(ours.init, jax.random.key(1), image)["params"]["Dense_0"]["kernel"]
    dense = {
        "kernel": generator.standard_normal(kernel.shape, np.float32),
        "bias": np.arange(features, dtype=np.float32),
    }

    def mine(dense, image):
        return ours.apply({"params": {"Dense_0": dense}}, image)

    def flax(dense, image):
        known = {"kernel": dense["kernel"].reshape(*kernel_size, 4, features), "bias": dense["bias"]}
        return theirs.apply({"params": known}, image)

    @functools.partial(jax.jit, static_argnums=0)
    def outputs_and_slopes(layer):
        outputs, transpose = jax.vjp(layer, dense, image)
        return outputs, transpose(jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape))

    chex.assert_trees_all_close(outputs_and_slopes(mine), outputs_and_slopes(flax), rtol=1e-4, atol=1e-5)


def test_doubling_equals_a_transposed_convolution():
    inputs = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    ours, params = jax.jit(convolution.Doubling(6).init_with_output)(jax.random.key(1), inputs)
    kernel = params["params"]["Conv_0"]["Dense_0"]["kernel"]
    # Rows of the kernel are places of the 2×2 window × channels, its columns pixels of the 2×2 block × features.
    window = np.asarray(kernel).reshape(2, 2, 4, 2, 2, 6)
    # Of a 4×4 kernel over doubled pixels, the window's place and the block's pixel choose row and column.
    spread = np.zeros((4, 4, 4, 6), np.float32)
    for row in range(2):
        for column in range(2):
            for down in range(2):
                for right in range(2):
                    spread[2 * down + row, 2 * right + column] = window[down, right, :, row, column]
    theirs = jax.lax.conv_general_dilated(
        inputs,
        jnp.asarray(spread),
        (1, 1),
        [(2, 2), (2, 2)],
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert ours.shape == (2, 6, 10, 6)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
