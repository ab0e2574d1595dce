"""VAE: the bounds against sampling, by hand and in a linear case that is known; and that a few images are learned."""

import dataclasses
import functools
import math

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import NOTHING, Box, Discrete, Spec
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
SMALL = (2, 2, 1)
LINEAR = vae.Config(latent_size=2, hidden_sizes=(), likelihood="gaussian")
LOG_2_PI = math.log(2 * math.pi)


def away_from_the_start(config):
    """A network and parameters, a little away from where they start."""
    network, generator = vae.VAE(config, SHAPE), np.random.default_rng(2)
    params = jax.jit(functools.partial(vae.init, network=network))(jax.random.key(1), HYPERS)[vae.PLAYER]
    return network, jax.tree.map(lambda leaf: leaf + 0.1 * generator.standard_normal(leaf.shape, np.float32), params)


@pytest.fixture(scope="module")
def dense():
    return away_from_the_start(NETWORKS["dense"])


@pytest.fixture(scope="module")
def convolutional():
    return away_from_the_start(NETWORKS["convolutional"])


@pytest.fixture(params=NETWORKS)
def model(request):
    return request.getfixturevalue(request.param)


def test_terms_of_the_bound_are_those_of_sampling(model):
    network, params = model

    @jax.jit
    def terms(params):
        image = vae.binarise(jax.random.key(3), IMAGES)
        mean, log_std = network.apply(params, image, method="posterior")
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


def test_loss_is_reconstruction_plus_weighted_divergence(dense):
    network, params = dense
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


def test_score_is_the_bound_whatever_beta_and_chunk(dense):
    network, params = dense
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
        assert (image.shape, image.dtype) == ((3, 2, *SHAPE), np.uint8)
        is_coin = network.config.likelihood == "bernoulli"
        assert bool(np.isin(image, (0, 255)).all()) == (explore and is_coin)
        assert len(np.unique(image.reshape(6, -1), axis=0)) == 6


def test_gradients_of_the_loss_are_linear_in_beta(dense):
    network, params = dense

    def gradient(params, beta, term):
        def chosen(params):
            total, metrics = vae.loss(
                params, {}, jax.random.key(6), IMAGES, HYPERS._replace(beta=beta), network=network
            )
            return {"loss": total, **metrics._asdict()}[term]

        return jax.flatten_util.ravel_pytree(jax.grad(chosen)(params))[0]

    cases = ((0.0, "loss"), (1.0, "loss"), (0.7, "loss"), (0.7, "reconstruction"), (0.7, "divergence"))
    none, one, some, reconstruction, divergence = jax.jit(lambda params: [gradient(params, *case) for case in cases])(
        params
    )
    np.testing.assert_allclose(none, reconstruction, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one, reconstruction + divergence, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(some, none + 0.7 * (one - none), rtol=1e-4, atol=1e-4)
    assert np.abs(divergence).max() > 0.01


def test_one_sample_weighs_as_much_as_it_costs():
    cost = np.random.default_rng(0).standard_normal((1, 50), np.float32) * 100
    np.testing.assert_array_equal(vae.importance_weighted(cost), cost[0])
    by_hand = -math.log((math.exp(-1.0) + math.exp(-2.0) + math.exp(-4.0)) / 3)
    np.testing.assert_allclose(vae.importance_weighted(jnp.array([[1.0], [2.0], [4.0]])), [by_hand], rtol=1e-6)


def test_samples_have_the_terms_of_the_bound(dense):
    """One sample has the very error of the closed form, whose divergence many have on average."""
    network, params = dense

    @jax.jit
    def terms(params):
        image = vae.binarise(jax.random.key(3), IMAGES)
        one = network.apply(params, jax.random.key(4), image, 1, method="sample")[0][0]
        several = network.apply(params, jax.random.key(5), image, 1000, method="sample")[1]
        return network.apply(params, jax.random.key(4), image), one, several

    (reconstruction, divergence), one, sampled = jax.tree.map(np.asarray, terms(params))
    np.testing.assert_allclose(one, reconstruction, rtol=1e-5)
    np.testing.assert_array_less(np.abs(sampled.mean(0) - divergence), 5 * sampled.std(0) / np.sqrt(1000))


def test_several_samples_are_trained_and_scored_by_their_weighted_mean(dense):
    network, params = dense
    several = vae.VAE(dataclasses.replace(network.config, num_samples=3, score_samples=3), SHAPE)
    pixel_key, latent_key = jax.random.split(jax.random.key(6))

    @jax.jit
    def run(params):
        said = vae.loss(params, {}, jax.random.key(6), IMAGES, HYPERS, network=several)
        one = vae.score(
            jax.random.key(6), vae.optim.Game({vae.PLAYER: params}, {}), IMAGES[:1], HYPERS, network=several
        )
        image = vae.binarise(pixel_key, IMAGES)
        keys = jax.random.split(latent_key, 1)[0], vae.binarise(pixel_key, IMAGES[:1])
        return (
            said,
            one,
            network.apply(params, latent_key, image, 3, method="sample"),
            network.apply(params, *keys, 3, method="sample"),
        )

    (total, metrics), one, (error, divergence), (first_error, first_divergence) = jax.tree.map(
        functools.partial(np.asarray, dtype=np.float64), run(params)
    )
    np.testing.assert_allclose(total, -np.log(np.exp(-error - 0.7 * divergence).mean(0)).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics[1:], (error.mean(), divergence.mean()), rtol=1e-5)
    # The score leaves beta out.
    np.testing.assert_allclose(one, -np.log(np.exp(-first_error - first_divergence).mean()), rtol=1e-5)


def test_more_samples_bound_no_worse(dense):
    network, params = dense

    @jax.jit
    def bounds(params):
        image = vae.binarise(jax.random.key(3), IMAGES)
        terms = network.apply(params, jax.random.key(5), image, 16 * 100, method="sample")
        costs = sum(terms).reshape(16, 100, -1)
        return jnp.stack([vae.importance_weighted(costs[:num]).mean(-1) for num in (1, 4, 16)])

    falls = -np.diff(np.asarray(bounds(params)), axis=0)  # [2, 100]
    assert (falls.mean(1) > 3 * falls.std(1) / 10).all()


@pytest.fixture(scope="module")
def linear():
    """A linear-Gaussian model whose posterior is exact, and its covariance: the columns of `W` are orthogonal.

    `x ~ N(W z + b, σ²)`, so that `z | x ~ N(V Wᵀ (x − b) / σ², V)` with `V = (1 + Wᵀ W / σ²)⁻¹`, a diagonal matrix.
    """
    weights, bias, scale = np.array([[0.3, 0.3, -0.3, 0.3], [0.1, -0.2, 0.1, 0.2]]), np.linspace(0.2, 0.8, 4), 0.2
    variance = 1 / (1 + np.square(weights).sum(1) / scale**2)
    back = weights.T * variance / scale**2
    encoder = {
        "kernel": np.concatenate([back, np.zeros((4, 2))], axis=1),
        "bias": np.concatenate([-bias @ back, 0.5 * np.log(variance)]),
    }
    layers = {"encoder": {"Dense_0": encoder}, "decoder": {"Dense_0": {"kernel": weights, "bias": bias}}}
    params = {"params": {**layers, "log_scale": np.log(scale)}}
    return (
        LINEAR,
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params),
        weights.T @ weights + scale**2 * np.eye(4),
    )


def nats(covariance, centred):
    """`−log p` of rows `[N, 4]` under a centred normal distribution, `[N]`."""
    _, log_det = np.linalg.slogdet(covariance)
    return 0.5 * (np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred) + log_det + 4 * LOG_2_PI)


def test_where_the_posterior_is_exact_so_is_every_bound(linear):
    config, params, covariance = linear
    network = vae.VAE(dataclasses.replace(config, score_samples=3), SMALL)
    images = jax.random.bits(jax.random.key(7), (40, *SMALL), "uint8")
    pixel_key, latent_key = jax.random.split(jax.random.key(8))

    @jax.jit
    def run(params):
        image = vae.prepare(pixel_key, images, "gaussian")
        score = vae.score(jax.random.key(8), vae.optim.Game({vae.PLAYER: params}, {}), images, HYPERS, network=network)
        several = network.apply(params, latent_key, image, 5, method="sample")
        closed = jax.vmap(lambda key: network.apply(params, key, image))(jax.random.split(latent_key, 400))
        return image, score, sum(several), sum(closed)

    image, score, several, closed = jax.tree.map(functools.partial(np.asarray, dtype=np.float64), run(params))
    bias = np.asarray(params["params"]["decoder"]["Dense_0"]["bias"])
    exact = nats(covariance, image.reshape(-1, 4) - bias) + 4 * math.log(256)
    np.testing.assert_allclose(several, np.broadcast_to(exact, (5, 40)), rtol=1e-4)  # without any variance
    np.testing.assert_allclose(score, exact.mean(), rtol=1e-4)
    # The divergence in closed form leaves the error its variance; the mean is the same.
    means = closed.mean(1)
    assert abs(means.mean() - exact.mean()) < 4 * means.std() / 20


def test_another_posterior_costs_more(linear):
    config, params, covariance = linear
    wider = jax.tree.map(lambda leaf: leaf, params)
    wider["params"]["encoder"]["Dense_0"]["bias"] += 0.3
    images = jax.random.bits(jax.random.key(7), (40, *SMALL), "uint8")

    @jax.jit
    def bounds(params):
        game = vae.optim.Game({vae.PLAYER: params}, {})
        networks = [vae.VAE(dataclasses.replace(config, score_samples=num), SMALL) for num in (2, 50)]
        return [vae.score(jax.random.key(8), game, images, HYPERS, network=network) for network in networks]

    two, fifty = bounds(wider)
    prepare = jax.jit(vae.prepare, static_argnums=2)
    image = np.asarray(prepare(jax.random.split(jax.random.key(8))[0], images, "gaussian"), np.float64)
    bias = np.asarray(params["params"]["decoder"]["Dense_0"]["bias"])
    exact = nats(covariance, image.reshape(-1, 4) - bias).mean() + 4 * math.log(256)
    assert exact < fifty < two


def test_a_linear_model_learns_what_probabilistic_pca_knows():
    """Its likelihood has a closed-form maximum, by the eigenvalues of the data's covariance."""
    latent = jax.random.normal(jax.random.key(0), (128, 1)) * jnp.array([40.0, -30.0, 20.0, 10.0])
    noise = 10 * jax.random.normal(jax.random.key(1), (128, 4))
    images = jnp.clip(jnp.round(128 + latent + noise), 0, 255).astype(jnp.uint8).reshape(-1, *SMALL)
    config = dataclasses.replace(LINEAR, batch_size=128, latent_size=1)
    spec = Spec(NOTHING, Box(SMALL, 0, 255, "uint8"))
    run = train.make(vae.build(spec, config), dataset.build(images, batch_size=128))
    hypers = vae.Hypers(learning_rate=6e-2)

    @jax.jit
    def trained(key):
        state = train.scan(run, 2500)(key, jnp.int32(0), run.init(key, hypers), hypers)[0].algorithm
        return vae.build_score(spec, config)(key, state, jnp.tile(images, (40, 1, 1, 1)), hypers)

    pixels = np.asarray(images, np.float64).reshape(-1, 4)
    covariance = (np.cov(pixels.T, bias=True) + np.eye(4) / 12) / 256**2  # with that of dequantisation
    *rest, largest = np.linalg.eigvalsh(covariance)
    best = 0.5 * (4 * LOG_2_PI + math.log(largest) + 3 * math.log(np.mean(rest)) + 4) + 4 * math.log(256)
    assert best - 0.02 < trained(jax.random.key(2)) < best + 0.15  # without its latent it would be 2.6 above


@pytest.mark.parametrize("scale", vae.SCALES)
def test_a_gaussian_pixel_begins_with_its_scale_and_learns_it_or_not(scale):
    config = dataclasses.replace(LINEAR, scale=scale)
    images = jax.random.bits(jax.random.key(7), (8, *SMALL), "uint8")
    algorithm = vae.build(Spec(NOTHING, Box(SMALL, 0, 255, "uint8")), config)

    @jax.jit
    def run(hypers):
        state = algorithm.init(jax.random.key(0), hypers)
        after, _ = algorithm.update(jax.random.key(1), jnp.int32(0), state, images[None], hypers)
        policies = [algorithm.policy(jnp.int32(1), state, hypers, explore=explore) for explore in (True, False)]
        drawn = [policy.apply(jax.random.key(2), jnp.zeros((2000, 0)), ())[0] for policy in policies]
        return [each.params[vae.PLAYER]["params"]["log_scale"] for each in (state, after)], drawn

    (before, after), drawn = run(vae.Hypers(pixel_scale=0.1))
    np.testing.assert_allclose(before, math.log(0.1), rtol=1e-6)
    assert (before == after) == (scale == "fixed")
    noisy, mean = (np.asarray(pixels, np.float64) / 256 for pixels in drawn)
    inside = (mean > 0.4) & (mean < 0.6)  # four deviations from either end, where pixels are cut
    assert inside.sum() > 200
    noise = (noisy - mean)[inside]
    np.testing.assert_allclose((noise.mean(), noise.std()), (0.0, 0.1), atol=0.02)


def test_images_are_coded_by_the_posterior_mean(dense):
    network, params = dense
    state = vae.optim.Game({vae.PLAYER: params}, {})
    encode, decode = vae.build_coder(SPEC, network.config)

    @jax.jit
    def run(params):
        mean, _ = network.apply(params, vae.binarise(jax.random.key(3), IMAGES), method="posterior")
        return mean, encode(jax.random.key(3), state, IMAGES), decode(state, mean.reshape(2, 3, 3))

    mean, code, images = run(params)
    np.testing.assert_allclose(code, mean, rtol=1e-5, atol=1e-6)
    assert images.shape == (2, 3, *SHAPE)
    assert 0 < images.min() < images.max() < 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"config\.network='transformer'"):
        vae.Config(network="transformer")
    with pytest.raises(ValueError, match=r"config\.likelihood='laplace'"):
        vae.Config(likelihood="laplace")
    for space in (Box((2,)), Box(SHAPE), Discrete(3)):
        with pytest.raises(ValueError, match="a VAE gives uint8 images; got"):
            vae.build(Spec(NOTHING, space), vae.Config())
    assert set(vae.Config().idle) == {"pixel_scale"}
    assert not vae.Config(likelihood="gaussian").idle


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
        state = train.scan(run, 600)(key, jnp.int32(0), run.init(key, hypers), hypers)[0].algorithm
        return vae.build_score(spec, config)(key, state, jnp.tile(pair, (200, 1, 1, 1)), hypers)

    score = trained(jax.random.split(jax.random.key(0), 3))
    assert (score > np.log(2) - 0.05).all()
    assert (score < 2.2).all()
