"""Autoencoders: damage, penalties and errors by hand, and that images are restored and codes grow sparse."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import NOTHING, Box, Discrete, Spec
from rlgen.generative import autoencoder
from rlgen.sources import dataset

SHAPE = (7, 5, 2)
IMAGE = Box(SHAPE, 0, 255, "uint8")
SPEC = Spec(IMAGE, IMAGE)
HYPERS = autoencoder.Hypers(corruption_level=0.3, sparsity_weight=0.7, sparsity_target=0.2)
IMAGES = jax.random.bits(jax.random.key(0), (6, *SHAPE), "uint8")
CONFIGS = {
    "sparse": autoencoder.Config(code_size=4, hidden_sizes=(), activation="sigmoid", sparsity="divergence"),
    "denoising": autoencoder.Config(
        code_size=8,
        network="convolutional",
        hidden_sizes=(4, 4),
        activation="relu",
        error="cross_entropy",
        corruption="masking",
        sparsity="absolute",
        tied=True,
    ),
}


def half_and_half(size: int = 8):
    """Two images of `size` × `size`, black above or black below."""
    above = jnp.arange(size)[:, None] < size // 2
    return 255 * jnp.stack([above, ~above])[..., None].repeat(size, axis=2).astype(jnp.uint8)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    """An autoencoder and a state, a little away from where it starts."""
    config, generator = CONFIGS[request.param], np.random.default_rng(2)
    state = jax.jit(autoencoder.build(SPEC, config).init)(jax.random.key(1), HYPERS)
    params = jax.tree.map(lambda leaf: leaf + 0.2 * generator.standard_normal(leaf.shape, np.float32), state.params)
    return autoencoder.assemble(SPEC, config), state._replace(params=params)


@pytest.mark.parametrize("corruption", autoencoder.CORRUPTIONS)
def test_damage_is_what_it_is_called(corruption):
    grey = jnp.full((20_000,), 100, jnp.uint8)
    damage = functools.partial(autoencoder.damage, jax.random.key(0), grey, corruption=corruption)
    damaged = np.asarray(damage(0.2))
    assert damaged.dtype == np.uint8
    black, same, white = ((damaged == level).mean() for level in (0, 100, 255))
    expected = {"none": (0, 1, 0), "masking": (0.2, 0.8, 0), "salt_and_pepper": (0.1, 0.8, 0.1)}
    if corruption == "gaussian":
        np.testing.assert_allclose([damaged.mean(), damaged.std()], [100, 51], atol=1.5)
    else:
        np.testing.assert_allclose((black, same, white), expected[corruption], atol=0.01)
    np.testing.assert_array_equal(damage(0.0), grey)
    if corruption in ("masking", "salt_and_pepper"):
        assert not (damage(1.0) == 100).any()


def test_noise_does_not_wrap_around():
    white = jnp.full((1000,), 255, jnp.uint8)
    noisy = autoencoder.damage(jax.random.key(0), white, 0.1, corruption="gaussian")
    assert noisy.min() > 100
    assert (noisy == 255).mean() > 0.4


def test_penalties_by_hand():
    code = jnp.array([[0.1, 0.5], [0.3, 0.5]])
    by_hand = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5)  # the first unit is on target
    np.testing.assert_allclose(autoencoder.penalty(code, 0.2, sparsity="divergence"), by_hand / 2, rtol=1e-5)
    stuck = autoencoder.penalty(jnp.array([[1.0, 0.0], [1.0, 0.0]]), 0.2, sparsity="divergence")
    assert by_hand < stuck < jnp.inf
    np.testing.assert_allclose(autoencoder.penalty(-code, 0.2, sparsity="absolute"), 0.35, rtol=1e-6)


def test_loss_is_error_plus_weighted_penalty(model):
    network, state = model
    config, key = network.config, jax.random.key(2)

    @jax.jit
    def run(params):
        damaged = autoencoder.damage(key, IMAGES, 0.3, corruption=config.corruption)
        code = network.apply(params, damaged, method="encode")
        restored = network.apply(params, code, method="decode")
        said = autoencoder.loss(params, {}, key, IMAGES, HYPERS, network=network)
        return said, restored, autoencoder.penalty(code, 0.2, sparsity=config.sparsity), jnp.abs(code).mean()

    (total, metrics), restored, penalty, activity = run(state.params[autoencoder.PLAYER])
    clean, restored = np.asarray(IMAGES, np.float64) / 255, np.asarray(restored, np.float64)
    cross_entropy = -(clean * np.log(restored) + (1 - clean) * np.log(1 - restored)).mean()
    error = cross_entropy if config.error == "cross_entropy" else np.square(restored - clean).mean()
    np.testing.assert_allclose(metrics.error, error, rtol=1e-5)
    np.testing.assert_allclose(total, error + 0.7 * penalty, rtol=1e-5)
    assert (float(metrics.loss), float(metrics.activity)) == (float(total), float(activity))


def test_score_is_the_error_against_clean_images(model):
    network, state = model
    score = jax.jit(functools.partial(autoencoder.score, network=network), static_argnames="chunk")
    whole = score(jax.random.key(3), state, IMAGES, HYPERS)
    np.testing.assert_allclose(score(jax.random.key(3), state, IMAGES, HYPERS, chunk=4), whole, rtol=1e-5)
    # Everything masked, all images look alike; nothing damaged, the policy's own answer is judged.
    is_damaged = network.config.corruption == "masking"
    seen = 0 * IMAGES if is_damaged else IMAGES
    policy = autoencoder.policy(jnp.int32(0), state, HYPERS, explore=False, network=network)
    restored = np.asarray(jax.jit(policy.apply)(jax.random.key(4), seen, ())[0], np.float64)
    expected = np.square(restored - np.asarray(IMAGES, np.float64)).mean() / 255**2
    found = score(jax.random.key(3), state, IMAGES, HYPERS._replace(corruption_level=1.0))
    np.testing.assert_allclose(found, expected, rtol=5e-3)  # the policy's pixels are whole numbers
    assert (found != whole) == is_damaged


def test_policy_restores_images_of_any_batch_shape(model):
    network, state = model
    algorithm = autoencoder.build(SPEC, network.config)
    encode, decode = autoencoder.build_coder(SPEC, network.config)

    @functools.partial(jax.jit, static_argnums=0)
    def restore(shape):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=False)
        coded = decode(state, encode(jax.random.key(5), state, IMAGES).reshape(*shape, -1))
        return policy.apply(jax.random.key(4), IMAGES.reshape(*shape, *SHAPE), policy.memory(shape))[0], coded

    restored, coded = restore((3, 2))
    assert (restored.shape, restored.dtype) == ((3, 2, *SHAPE), np.uint8)
    np.testing.assert_allclose(np.asarray(restored, np.float64) / 255, coded, atol=0.51 / 255)
    assert len(np.unique(np.asarray(coded).reshape(6, -1), axis=0)) == 6
    np.testing.assert_array_equal(restore((6,))[0], restored.reshape(6, *SHAPE))


def test_what_the_lab_shows(model):
    network, state = model
    damage = autoencoder.build_damage(SPEC, network.config)
    assert (damage is None) == (network.config.corruption == "none")
    if damage is not None:
        assert (damage(jax.random.key(0), IMAGES, HYPERS._replace(corruption_level=1.0)) == 0).all()
    filters = autoencoder.build_filters(SPEC, network.config)(state)
    assert filters.shape == ((4, 3, 3, 2) if network.config.network == "convolutional" else (4, *SHAPE))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"config\.activation='relu'.*needs 'sigmoid'"):
        autoencoder.Config(activation="relu", sparsity="divergence")
    with pytest.raises(ValueError, match=r"config\.corruption='scratches'"):
        autoencoder.Config(corruption="scratches")
    floats = Box(IMAGE.shape)
    others = Spec(IMAGE, Box((8, 8, 1), 0, 255, "uint8"))
    for spec in (Spec(NOTHING, IMAGE), Spec(IMAGE, Discrete(3)), others, Spec(floats, floats)):
        with pytest.raises(ValueError, match="reads a uint8 image"):
            autoencoder.build(spec, autoencoder.Config())


def test_idle_numbers_are_those_that_a_switch_leaves_out():
    assert set(autoencoder.Config().idle) == {"corruption_level", "sparsity_weight", "sparsity_target"}
    assert set(CONFIGS["sparse"].idle) == {"corruption_level"}
    assert set(CONFIGS["denoising"].idle) == {"sparsity_target"}


def trained(config, hypers, images, num_updates):
    """The score and the mean metrics of three seeds."""
    image = Box(images.shape[1:], 0, 255, "uint8")
    spec = Spec(image, image)
    tiled = jnp.tile(images, (config.batch_size // len(images), 1, 1, 1))
    run = train.make(autoencoder.build(spec, config), dataset.build(tiled, batch_size=config.batch_size))

    @jax.jit
    @jax.vmap
    def learn(key):
        state = run.init(key, hypers)
        state, reports = train.scan(run, num_updates)(key, jnp.int32(0), state, hypers)
        metrics = jax.tree.map(jnp.mean, reports.metrics)
        return autoencoder.build_score(spec, config)(key, state.algorithm, tiled, hypers), metrics

    return learn(jax.random.split(jax.random.key(0), 3))


def test_damaged_images_are_restored():
    """Half of the pixels are masked, which costs a quarter; what is left says which of two images it was."""
    config = autoencoder.Config(
        batch_size=32, code_size=16, hidden_sizes=(), activation="sigmoid", error="cross_entropy", corruption="masking",
        tied=True,
    )  # fmt: skip
    hypers = autoencoder.Hypers(learning_rate=2e-2, corruption_level=0.5)
    score, _ = trained(config, hypers, half_and_half(), 200)
    assert (score < 2e-3).all()


def test_codes_grow_as_sparse_as_they_are_asked_to():
    config = dataclasses.replace(CONFIGS["sparse"], batch_size=32, code_size=12)
    hypers = autoencoder.Hypers(learning_rate=2e-2, sparsity_weight=1.0, sparsity_target=0.1)
    score, metrics = trained(config, hypers, half_and_half(), 400)
    np.testing.assert_allclose(metrics.activity, 0.1, atol=0.03)
    assert (score < 0.01).all()
