"""Encoders and decoders: shapes, tied weights as transposes, and the weights of the first layer."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.parts import coders, networks

SHAPE = (7, 5, 2)
SIZES = {"dense": (6, 4), "convolutional": (4, 3)}
KEY = jax.random.key(0)
IMAGE = jax.random.normal(KEY, (3, *SHAPE))


class Tied(nn.Module):
    """An encoder and its transpose."""

    kind: str
    hidden_sizes: tuple[int, ...]

    def setup(self):
        self.encoder = coders.Encoder(self.kind, self.hidden_sizes, 8)
        self.decoder = coders.TiedDecoder(self.encoder, SHAPE)

    def encode(self, image):
        return self.encoder(image)

    def decode(self, code):
        return self.decoder(code)

    def __call__(self, image):
        return self.decoder(self.encoder(image))


@pytest.fixture(scope="module", params=SIZES)
def tied(request):
    network = Tied(request.param, SIZES[request.param])
    generator, shapes = np.random.default_rng(2), jax.eval_shape(network.init, jax.random.key(1), IMAGE)
    return network, jax.tree.map(lambda leaf: 0.5 * generator.standard_normal(leaf.shape, np.float32), shapes)


@pytest.mark.parametrize("kind", SIZES)
def test_every_network_goes_to_a_code_and_back(kind):
    encoder, decoder = coders.Encoder(kind, SIZES[kind], 8), coders.Decoder(kind, SIZES[kind], SHAPE)
    code, params = jax.jit(encoder.init_with_output)(jax.random.key(0), IMAGE)
    assert code.shape == (3, 8)
    assert {name.split("_")[0] for name in params["params"]} == ({"Dense"} if kind == "dense" else {"Conv", "Dense"})
    assert jax.jit(decoder.init_with_output)(jax.random.key(0), code)[0].shape == (3, *SHAPE)


def test_hidden_layers_are_rectified_and_the_last_is_not():
    encoder = coders.Encoder("dense", (2,), 1)
    layer = {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.zeros(2)}
    params = {"params": {"Dense_0": layer, "Dense_1": {"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.array([-9.0])}}}
    image = jnp.array([1.0, -1.0]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(networks.apply(encoder, params, image), [[-7.0], [-6.0]])


def test_a_tied_dense_decoder_is_written_out_by_hand():
    network = Tied("dense", (6,))
    params = jax.device_get(jax.jit(network.init)(jax.random.key(1), IMAGE))["params"]
    first, last = (params["encoder"][name]["kernel"] for name in ("Dense_0", "Dense_1"))
    own = {"bias_1": np.linspace(-1, 1, 6), "bias_0": np.linspace(0, 1, 70).reshape(SHAPE)}
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, params["decoder"])
    code = np.random.default_rng(3).standard_normal((3, 8), np.float32)
    decode = jax.jit(functools.partial(networks.apply, network, method="decode"))
    decoded = decode({"params": {**params, "decoder": own}}, code)
    hidden = np.maximum(code @ last.T + own["bias_1"], 0)
    np.testing.assert_allclose(decoded, (hidden @ first.T).reshape(3, *SHAPE) + own["bias_0"], rtol=1e-5, atol=1e-5)


def test_a_tied_convolution_is_transposed():
    """Where nothing is rectified, `⟨W x, z⟩ = ⟨x, Wᵀ z⟩`."""
    network = Tied("convolutional", (4,))
    params = jax.jit(network.init)(jax.random.key(1), IMAGE)
    # Large biases keep every unit of the only hidden layer on the linear side of its ReLU.
    params["params"]["encoder"]["Conv_0"]["Dense_0"]["bias"] += 1e3
    params["params"]["decoder"]["bias_1"] += 1e3
    code = jax.random.normal(jax.random.key(3), (3, 8))

    @jax.jit
    def products(params):
        def way(method, inputs):
            def run(x):
                return networks.apply(network, params, x, method=method)

            return jax.jvp(run, (0 * inputs,), (inputs,))[1]

        return (way("encode", IMAGE) * code).sum(), (IMAGE * way("decode", code)).sum()

    forth, back = products(params)
    assert abs(float(forth)) > 0.1
    np.testing.assert_allclose(forth, back, rtol=1e-3)


def test_tied_weights_are_not_stored_twice_and_learn_from_both_ways(tied):
    network, params = tied
    assert all(name.startswith("bias_") for name in params["params"]["decoder"])
    code = jax.random.normal(jax.random.key(3), (3, 8))
    gradient = jax.jit(
        jax.grad(lambda params: jnp.square(networks.apply(network, params, code, method="decode")).sum())
    )(params)
    leaves = jax.tree.leaves_with_path(gradient)
    moved = [np.abs(leaf).max() for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path)]
    assert len(moved) == 3
    assert min(moved) > 0
    assert jax.eval_shape(network.apply, params, IMAGE).shape == IMAGE.shape


@pytest.mark.parametrize("kind", SIZES)
def test_filters_are_what_a_unit_answers_to(kind):
    encoder = coders.Encoder(kind, SIZES[kind][:1], 8)
    params = jax.jit(encoder.init)(jax.random.key(0), IMAGE)["params"]
    filters = coders.filters(params, kind, SHAPE)
    assert filters.shape == ((6, *SHAPE) if kind == "dense" else (4, 3, 3, 2))
    window = IMAGE[0] if kind == "dense" else IMAGE[0, 1:4, 1:4]  # under unit (1, 1) of a convolution of stride 2
    first = encoder.bind({"params": params}).layers[0]
    hidden = first(IMAGE.reshape(3, -1) if kind == "dense" else IMAGE)
    unit = hidden[0] if kind == "dense" else hidden[0, 1, 1]
    np.testing.assert_allclose(unit, jnp.einsum("fhwc,hwc->f", filters, window), rtol=1e-4, atol=1e-5)


def test_dense_layers_lie_between_convolutions_and_code():
    encoder = coders.Encoder("convolutional", (4,), 8, (5, 6))
    decoder = coders.Decoder("convolutional", (4,), SHAPE, (5, 6))
    made, back = jax.eval_shape(lambda key: (encoder.init(key, IMAGE), decoder.init(key, jnp.zeros((3, 8)))), KEY)

    def widths(params):
        layers = params["params"].items()
        return [layer["kernel"].shape[1] for name, layer in sorted(layers) if name.startswith("Dense")]

    assert widths(made) == [5, 6, 8]
    assert widths(back) == [6, 5, 4 * 3 * 4]


@pytest.mark.parametrize(
    ("named", "fields"),
    [
        ("network='transformer'", {"network": "transformer"}),
        (r"hidden_sizes=\(\)", {"network": "convolutional", "hidden_sizes": ()}),
        ("dense_sizes=", {"dense_sizes": (4,)}),
    ],
)
def test_what_no_encoder_has_is_refused(named, fields):
    coders.check(SimpleNamespace(network="dense", hidden_sizes=(), dense_sizes=()))
    with pytest.raises(ValueError, match=rf"config\.{named}"):
        coders.check(SimpleNamespace(**{"network": "dense", "hidden_sizes": (4,), "dense_sizes": ()} | fields))
