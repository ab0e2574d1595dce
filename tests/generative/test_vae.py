"""VAE: the divergence and the bound, against sampling and by hand, and that a few images are learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import NOTHING, Box, Spec
from rlgen.generative import vae
from rlgen.parts import distributions
from rlgen.sources import dataset

SHAPE = (7, 5, 2)
SPEC = Spec(NOTHING, Box(SHAPE, 0, 255, "uint8"))
HYPERS = vae.Hypers(beta=0.7)
NETWORKS = {
    "dense": vae.Config(latent_size=3, hidden_sizes=(8, 4)),
    "convolutional": vae.Config(latent_size=3, network="convolutional", hidden_sizes=(4, 4)),
}
IMAGES = jax.random.bits(jax.random.key(0), (6, *SHAPE), "uint8")


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=list(NETWORKS))
def model(request):
    """A network and parameters, a little away from where they start."""
    network = vae.VAE(request.param, SHAPE)

    @jax.jit
    def make(key):
        params = vae.init(key, HYPERS, network=network)[vae.PLAYER]
        return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(2), leaf.shape), params)

    return network, make(jax.random.key(1))


def test_terms_of_the_bound_are_those_of_sampling(model):
    network, params = model

    @jax.jit
    def terms(params):
        image = vae.binarise(jax.random.key(3), IMAGES)
        mean, log_std = network.apply(params, image, method=lambda module, image: module.encoder(image))
        posterior, prior = distributions.normal(mean, log_std), distributions.normal(0 * mean, 0 * log_std)
        latent = posterior.sample(seed=jax.random.key(5), sample_shape=(20_000,))
        sampled = posterior.log_prob(latent) - prior.log_prob(latent)
        latent = mean + jnp.exp(log_std) * jax.random.normal(jax.random.key(4), mean.shape)
        pixel = network.apply(params, latent, method="decode")
        return network.apply(params, jax.random.key(4), image), image, sampled, pixel

    (reconstruction, divergence), image, sampled, pixel = jax.tree.map(np.asarray, terms(params))
    np.testing.assert_array_less(np.abs(sampled.mean(0) - divergence), 5 * sampled.std(0) / np.sqrt(20_000))
    assert (divergence > 0.01).all()
    expected = -np.log(np.where(image == 1, pixel, 1 - pixel)).sum((1, 2, 3))
    np.testing.assert_allclose(reconstruction, expected, rtol=1e-4)


def test_loss_is_reconstruction_plus_weighted_divergence(model):
    network, params = model
    total, metrics = jax.jit(functools.partial(vae.loss, network=network))(
        params, {}, jax.random.key(6), IMAGES, HYPERS
    )
    np.testing.assert_allclose(total, metrics.reconstruction + 0.7 * metrics.divergence, rtol=1e-6)
    assert float(metrics.loss) == float(total)


def test_pixels_are_drawn_with_their_own_probability():
    image = jnp.array([0, 51, 255], jnp.uint8)
    bits = vae.binarise(jax.random.key(0), jnp.broadcast_to(image, (4000, 3)))
    assert set(np.unique(bits)) == {0.0, 1.0}
    np.testing.assert_allclose(bits.mean(0), [0, 0.2, 1], atol=0.03)


def test_score_is_the_bound_whatever_beta_and_chunk(model):
    network, params = model
    game = vae.optim.Game({vae.PLAYER: params}, {})
    score = jax.jit(functools.partial(vae.score, network=network), static_argnames="chunk")
    whole = score(jax.random.key(7), game, IMAGES, HYPERS)
    np.testing.assert_allclose(score(jax.random.key(7), game, IMAGES, HYPERS._replace(beta=5.0)), whole)
    np.testing.assert_allclose(score(jax.random.key(7), game, IMAGES, HYPERS, chunk=4), whole, rtol=1e-5)
    bound = jax.vmap(lambda key: vae.loss(params, {}, key, IMAGES, vae.Hypers(), network=network)[0])
    samples = jax.jit(bound)(jax.random.split(jax.random.key(8), 50))
    assert abs(float(whole - samples.mean())) < 5 * float(samples.std())


def test_policy_draws_images_of_any_batch_shape(model):
    network, params = model
    algorithm = vae.build(SPEC, network.config)
    state = vae.optim.Game({vae.PLAYER: params}, {})

    @functools.partial(jax.jit, static_argnums=0)
    def draw(explore):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore)
        return policy.apply(jax.random.key(8), jnp.zeros((3, 2, 0)), policy.memory((3, 2)))[0]

    for explore in (True, False):
        image = draw(explore)
        assert image.shape == (3, 2, *SHAPE)
        assert (np.isin(image, (0, 1)).all()) is np.bool_(explore)
        assert len(np.unique(image.reshape(6, -1), axis=0)) == 6


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"config\.network='transformer'"):
        vae.Config(network="transformer")


def test_two_images_cost_little_more_than_a_bit():
    """Of two equally likely images the bound cannot go below log 2 = 0.69 nats; a normal posterior costs a nat more."""
    half = jnp.arange(8)[:, None] < 4
    pair = 255 * jnp.stack([half, ~half])[..., None].repeat(8, axis=2).astype(jnp.uint8)
    config = vae.Config(batch_size=32, latent_size=1, hidden_sizes=(32,))
    spec = Spec(NOTHING, Box((8, 8, 1), 0, 255, "uint8"))
    run = train.make(vae.build(spec, config), dataset.build(jnp.tile(pair, (16, 1, 1, 1)), batch_size=32))
    hypers = vae.Hypers(learning_rate=2e-3)

    @jax.jit
    @jax.vmap
    def trained(key):
        state = train.window(run)(key, jnp.int32(0), jnp.int32(600), run.init(key, hypers), hypers)[0].algorithm
        return vae.build_score(spec, config)(key, state, jnp.tile(pair, (200, 1, 1, 1)), hypers)

    score = trained(jax.random.split(jax.random.key(0), 3))
    assert (score > np.log(2) - 0.05).all()
    assert (score < 2.2).all()
