"""Networks: weights, shapes and refusals."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete
from rlgen.parts import convolution, networks


@pytest.mark.parametrize("core", networks.CORES)
def test_a_memory_may_be_donated(core):
    """Which two names for one buffer could not be."""
    leaves = jax.tree.leaves(networks.initial_memory(core, 3, (2,)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_encode():
    np.testing.assert_array_equal(networks.encode(jnp.array([2, 0]), Discrete(3)), [[0, 0, 1], [1, 0, 0]])
    pixels = networks.encode(jnp.array([0, 255], jnp.uint8), Box((2,), 0, 255, "uint8"))
    np.testing.assert_array_equal(pixels, np.array([0, 255], np.float32))
    assert pixels.dtype == jnp.float32


def test_mlp_has_orthogonal_weights_and_an_activation_after_each_layer():
    net = networks.MLP((3, 2), "tanh", num_axes=2)
    inputs = np.random.default_rng(0).standard_normal((5, 4, 2), np.float32)
    output, params = jax.device_get(jax.jit(net.init_with_output)(jax.random.key(1), inputs))
    kernels = [params["params"][f"Dense_{i}"]["kernel"] for i in range(2)]
    for kernel in kernels:
        np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(kernel.shape[1]), atol=1e-5)
    expected = np.tanh(np.tanh(inputs.reshape(5, 8) @ kernels[0]) @ kernels[1])
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "space", "shape"),
    [
        ("mlp", Discrete(3), (3,)),
        ("mlp", Box((4,)), (4,)),
        ("mlp", Box((6, 5, 2)), (6, 5, 2)),
        ("cnn", Box((6, 5, 2)), (6, 5, 2)),
    ],
)
def test_torso_reads_observations_of_any_batch_shape(kind, space, shape):
    net = networks.torso(kind, (7, 5), "relu", space)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape)))
    for batch_shape in ((2,), (3, 2)):
        assert jax.eval_shape(net.apply, params, jnp.zeros((*batch_shape, *shape))).shape == (*batch_shape, 5)


def test_cnn_is_minatars():
    net = networks.torso("cnn", (128,), "relu", Box((10, 10, 4)))
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 10, 10, 4)))
    sizes = sorted(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert sizes == sorted([3 * 3 * 4 * 16, 16, 8 * 8 * 16 * 128, 128])


@pytest.mark.parametrize(("kind", "num_norms"), [("mlp", 2), ("cnn", 3)])
def test_layer_norm_changes_no_other_weight(kind, num_norms):
    def weights(layer_norm):
        net = networks.torso(kind, (7, 5), "relu", Box((6, 5, 2)), layer_norm=layer_norm)
        return jax.tree_util.tree_flatten_with_path(jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 6, 5, 2))))[0]

    plain, normalised = weights(False), weights(True)
    norms = [path for path, _ in normalised if "LayerNorm" in jax.tree_util.keystr(path)]
    assert len(norms) == 2 * num_norms  # a scale and a bias each
    rest = [(path, leaf) for path, leaf in normalised if path not in norms]
    assert [path for path, _ in rest] == [path for path, _ in plain]
    for (_, left), (_, right) in zip(rest, plain, strict=True):
        np.testing.assert_array_equal(left, right)


def test_uniform_layers_begin_within_the_root_of_their_inputs():
    net = networks.torso("mlp", (400, 300), "relu", Box((4,)), "uniform")
    layers = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 4)))["params"]
    for layer, num_inputs in (("Dense_0", 4), ("Dense_1", 400)):
        for leaf in layers[layer].values():
            bound = 1 / math.sqrt(num_inputs)
            assert 0.95 * bound < jnp.abs(leaf).max() <= bound
            np.testing.assert_allclose(leaf.std(), bound / math.sqrt(3), rtol=0.1)


def normalise(features):
    """To mean 0 and variance 1 along the last axis."""
    centred = features - features.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)


def test_layer_norm_stands_between_a_layer_and_its_activation():
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((5, 6, 5, 2), np.float32)
    net = networks.torso("cnn", (7,), "tanh", Box((6, 5, 2)), layer_norm=True)
    shapes = jax.eval_shape(net.init, jax.random.key(1), inputs)
    params = jax.tree.map(lambda leaf: 0.5 * generator.standard_normal(leaf.shape, np.float32), shapes)
    layers = params["params"]
    scale, bias = layers["LayerNorm_0"]["scale"], layers["LayerNorm_0"]["bias"]
    hidden = np.asarray(jax.jit(convolution.Conv(16).apply)({"params": layers["Conv_0"]}, inputs))
    hidden = np.tanh(normalise(hidden) * scale + bias).reshape(5, -1)
    dense, norm = layers["MLP_0"]["Dense_0"], layers["MLP_0"]["LayerNorm_0"]
    hidden = np.tanh(normalise(hidden @ dense["kernel"] + dense["bias"]) * norm["scale"] + norm["bias"])
    np.testing.assert_allclose(jax.jit(net.apply)(params, inputs), hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "activation", "space", "message"),
    [
        ("mlp", "sine", Box((4,)), "activation 'sine' is not one of relu"),
        ("cnn", "relu", Box((4,)), r"'cnn' cannot read observations of shape \(4,\)"),
        ("transformer", "relu", Box((4,)), "'transformer' cannot read"),
    ],
)
def test_torso_refuses_what_it_cannot_build(kind, activation, space, message):
    with pytest.raises(ValueError, match=message):
        networks.torso(kind, (8,), activation, space)


@pytest.mark.parametrize("num_outputs", [1, 2, 3, 4])
def test_a_head_of_few_outputs_is_a_dense_layer(num_outputs):
    inputs = jax.random.normal(jax.random.key(0), (3, 5, 7))
    head, dense = networks.head(num_outputs), nn.Dense(num_outputs)
    params = dense.init(jax.random.key(1), inputs)
    assert jax.tree.map(jnp.shape, head.init(jax.random.key(1), inputs)) == jax.tree.map(jnp.shape, params)

    def both(layer):
        loss = lambda params, inputs: jnp.sin(layer.apply(params, inputs)).sum()  # noqa: E731
        return layer.apply(params, inputs), jax.grad(loss, (0, 1))(params, inputs)

    found, wanted = jax.jit(lambda: (both(head), both(dense)))()
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), found, wanted)
