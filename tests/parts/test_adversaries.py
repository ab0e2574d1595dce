"""Parts of adversarial learning: losses by hand, penalties in closed form, spectra, and the layers against others."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rlgen.parts import adversaries, optim

LOGIT = jnp.array([-2.5, -0.4, 0.3, 1.7])
D = 1 / (1 + np.exp(-np.asarray(LOGIT)))
LOW, HIGH = np.asarray(LOGIT) < -1, np.asarray(LOGIT) > 1
ONE = np.ones(4)

SLOPES = {
    "saturating": (D - 1, D, -D),
    "non_saturating": (D - 1, D, D - 1),
    "hinge": (-1.0 * ~HIGH, 1.0 * ~LOW, -ONE),
    "wasserstein": (-ONE, ONE, -ONE),
    "least_squares": (LOGIT - 1, LOGIT, LOGIT - 1),
}


@pytest.mark.parametrize("name", adversaries.LOSSES)
def test_slopes_of_a_loss_are_those_by_hand(name):
    for function, expected in zip(adversaries.LOSSES[name], SLOPES[name], strict=True):
        np.testing.assert_allclose(jax.vmap(jax.grad(function))(LOGIT), expected, rtol=1e-5, atol=1e-6)


def test_values_of_a_loss_are_those_by_hand():
    values = {
        "saturating": (-np.log(D), -np.log(1 - D), np.log(1 - D)),
        "non_saturating": (-np.log(D), -np.log(1 - D), -np.log(D)),
        "hinge": (np.maximum(0, 1 - LOGIT), np.maximum(0, 1 + LOGIT), -LOGIT),
        "wasserstein": (-LOGIT, LOGIT, -LOGIT),
        "least_squares": ((LOGIT - 1) ** 2 / 2, LOGIT**2 / 2, (LOGIT - 1) ** 2 / 2),
    }
    assert values.keys() == adversaries.LOSSES.keys()
    for name, expected in values.items():
        got = [function(LOGIT) for function in adversaries.LOSSES[name]]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


P, Q = jnp.array([0.5, 0.3, 0.15, 0.05]), jnp.array([0.1, 0.3, 0.2, 0.4])
OPTIMA = {
    "saturating": np.log(P / Q),  # D* = p / (p + q)
    "non_saturating": np.log(P / Q),
    "hinge": np.sign(np.round(P - Q, 6)),
    "least_squares": P / (P + Q),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_the_discriminator_descends_to_its_optimum(name):
    """On four points, where the generator stands still."""
    pays = adversaries.LOSSES[name]

    def loss(logits):
        return (P * pays.real(logits) + Q * pays.fake(logits)).sum(), ()

    @jax.jit
    def descended(logits):
        optimiser = optim.adam(0.01)

        def body(_, carry):
            return optim.descend(loss, optimiser, *carry)[:2]

        return lax.fori_loop(0, 3000, body, (logits, optimiser.init(logits)))[0]

    logits = descended(jnp.zeros(4))
    np.testing.assert_allclose(logits, OPTIMA[name], atol=0.02)


def test_penalties_of_a_linear_critic_have_a_closed_form():
    weight = jnp.array([[3.0], [-4.0]])
    real, fake = jax.random.normal(jax.random.key(0), (2, 6, 2))

    def critic(points):
        return (points @ weight)[:, 0] + 7

    @jax.jit
    def penalties(key):
        both = adversaries.gradient_penalty(key, critic, real, fake), adversaries.zero_centred_penalty(critic, real)
        return jnp.stack(both)

    np.testing.assert_allclose(penalties(jax.random.key(1)), [16, 12.5], rtol=1e-5)


def test_penalties_of_a_square_are_taken_where_they_should_be():
    """The slope of `½ ‖x‖²` at `x` is `x`."""
    real, fake = jnp.full((5, 2, 1), 3.0), jnp.full((5, 2, 1), -1.0)

    def critic(points):
        return 0.5 * jnp.square(points).sum((1, 2))

    np.testing.assert_allclose(adversaries.squared_slopes(critic, real), [18] * 5)
    np.testing.assert_allclose(adversaries.zero_centred_penalty(critic, fake), 1.0)
    # Between the two lie points `(3 u − (1 − u)) (1, 1)`, each at a `u` of its own.
    penalty = jax.jit(jax.vmap(lambda key: adversaries.gradient_penalty(key, critic, real, fake)))
    penalties = penalty(jax.random.split(jax.random.key(0), 4000))
    u = np.linspace(0, 1, 100_001)
    expected = np.mean((np.abs(4 * u - 1) * np.sqrt(2) - 1) ** 2)
    np.testing.assert_allclose(penalties.mean(), expected, rtol=0.02)
    assert 0 < penalties.std() < expected


def test_a_flat_critic_has_a_penalty_with_a_gradient():
    def penalty(weight):
        return adversaries.gradient_penalty(
            jax.random.key(0), lambda x: (x * weight).sum(-1), jnp.ones((3, 2)), -jnp.ones((3, 2))
        )

    value, slope = jax.jit(jax.value_and_grad(penalty))(jnp.zeros(2))
    np.testing.assert_allclose(value, 1, rtol=1e-4)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (3, 5), (20, 30)])
def test_spectral_norm_is_the_largest_singular_value(shape):
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.standard_normal((size, size)))[0] for size in shape)
    values = np.zeros(shape)
    np.fill_diagonal(values, np.linspace(3, 0.5, min(shape)))
    matrix = np.float32(left @ values @ right)

    @jax.jit
    def norms(matrix):
        many = jax.value_and_grad(adversaries.spectral_norm)(matrix, 10)
        return *many, adversaries.spectral_norm(matrix, 0), adversaries.spectral_norm(matrix)

    many, slope, few, some = norms(matrix)
    np.testing.assert_allclose(many, 3, rtol=1e-3)
    assert np.linalg.norm(matrix, axis=1).max() - 1e-4 <= few <= some <= 3 + 1e-4
    assert some > 2.95
    # The slope of a singular value is the outer product of its vectors.
    np.testing.assert_allclose(slope, np.outer(left[:, 0], right[0]), atol=0.05)


def test_matrices_are_bounded_and_other_leaves_left_alone():
    params = {"kernel": jnp.diag(jnp.array([4.0, 2.0])), "bias": jnp.array([5.0, 6.0]), "zero": jnp.zeros((2, 3))}
    bounded = adversaries.normalise_spectra(params)
    np.testing.assert_allclose(bounded["kernel"], np.diag([1.0, 0.5]), rtol=1e-5)
    np.testing.assert_array_equal(bounded["bias"], params["bias"])
    np.testing.assert_array_equal(bounded["zero"], 0)


def test_a_bounded_discriminator_is_lipschitz():
    network = adversaries.Discriminator("mlp", (8, 8))

    @jax.jit
    def slopes(key):
        params = jax.tree.map(lambda leaf: 9 * leaf, network.init(key, jnp.zeros((1, 3))))
        judge = functools.partial(network.apply, adversaries.normalise_spectra(params))
        return adversaries.squared_slopes(judge, jax.random.normal(jax.random.key(1), (50, 3)))

    assert 0 < slopes(jax.random.key(0)).max() < 1.05


def test_packing_keeps_all_and_puts_neighbours_together():
    vectors = jnp.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(adversaries.pack(vectors, 3), np.arange(12).reshape(2, 6))
    np.testing.assert_array_equal(adversaries.pack(vectors, 1), vectors)
    images = jax.random.normal(jax.random.key(0), (4, 5, 6, 3))
    packed = adversaries.pack(images, 2)
    assert packed.shape == (2, 5, 6, 6)
    np.testing.assert_array_equal(packed[1], np.concatenate([images[2], images[3]], axis=-1))


def test_pixels_go_to_numbers_and_back():
    image = jnp.arange(256, dtype=jnp.uint8)
    numbers = adversaries.signed(image)
    assert (numbers[0], numbers[-1], numbers.dtype) == (-1, 1, jnp.float32)
    np.testing.assert_array_equal(adversaries.pixels(numbers), image)
    np.testing.assert_array_equal(adversaries.pixels(jnp.array([-3.0, 3.0])), [0, 255])
    np.testing.assert_array_equal(adversaries.signed(numbers), numbers)


@pytest.mark.parametrize(
    ("network", "shape"), [("mlp", (2,)), ("mlp", (4, 4, 1)), ("dcgan", (28, 28, 1)), ("dcgan", (10, 7, 3))]
)
def test_networks_read_and_write_examples_one_by_one(network, shape):
    generator = adversaries.Generator(shape, network, (6, 4, 4))
    discriminator = adversaries.Discriminator(network, (4, 6))
    latent = 5 * jax.random.normal(jax.random.key(0), (3, 5))

    @jax.jit
    def both(latent):
        params = generator.init(jax.random.key(1), latent)
        examples = generator.apply(params, latent)
        judge = discriminator.init(jax.random.key(2), examples)
        each = jax.vmap(lambda z: generator.apply(params, z[None])[0])(latent)
        alone = jax.vmap(lambda x: discriminator.apply(judge, x[None])[0])(examples)
        return examples, each, discriminator.apply(judge, examples), alone

    examples, each, logits, alone = both(latent)
    assert examples.shape == (3, *shape)
    assert logits.shape == (3,)
    np.testing.assert_allclose(examples, each, atol=1e-4)
    np.testing.assert_allclose(logits, alone, atol=1e-4)
    if len(shape) == 3:
        assert np.abs(examples).max() <= 1
    assert examples.std(axis=0).max() > 0.1


def test_features_are_what_the_head_reads():
    discriminator = adversaries.Discriminator("mlp", (4, 6))
    examples = np.random.default_rng(0).standard_normal((3, 2), np.float32)

    @jax.jit
    def both(key):
        logits, params = discriminator.init_with_output(key, examples)
        return logits, discriminator.apply(params, examples, method="features"), params["params"]["head"]

    logits, features, head = jax.device_get(both(jax.random.key(1)))
    np.testing.assert_allclose(logits, (features @ head["kernel"] + head["bias"])[:, 0], rtol=1e-5)
    assert isinstance(discriminator, nn.Module)
