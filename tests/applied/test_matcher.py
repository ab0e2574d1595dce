"""Matcher: its loss by hand, how retrieval is counted, and that pictures find their captions."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen import train
from rlgen.applied import matcher
from rlgen.core import Box, Discrete, Spec
from rlgen.experiments import catalogue
from rlgen.experiments.experiment import bind
from rlgen.parts.translators import Captioned
from rlgen.sources import dataset

SHAPE = (8, 8, 3)
SPEC = Spec(Box(SHAPE, 0, 255, "uint8"), Box((4,), -1.0, 1.0))
CONFIG = matcher.Config(batch_size=5, num_words=6, word_size=4, hidden_sizes=(4,), max_shift=1)
HYPERS = matcher.Hypers(dropped_share=0.0)
BATCH = Captioned(
    jax.random.bits(jax.random.key(0), (5, *SHAPE), "uint8"), jnp.array([[2, 0], [3, 0], [2, 4], [5, 0], [0, 0]])
)


retrieval = jax.jit(matcher.retrieval, static_argnums=1)


@pytest.fixture(scope="module")
def model():
    network = matcher.assemble(SPEC, CONFIG)
    params = jax.jit(functools.partial(matcher.init, network=network, shape=SHAPE))(jax.random.key(1), HYPERS)
    return network, params[matcher.PLAYER]


def test_loss_is_cross_entropy_both_ways(model):
    network, params = model
    key = jax.random.key(2)

    @jax.jit
    def told(params):
        seen = matcher.disturb(key, BATCH, HYPERS, max_shift=1)
        return [
            network.apply(params, each, method=method)
            for each, method in ((seen.image, "look"), (seen.caption, "read"))
        ]

    look, read = (np.asarray(each, np.float64) for each in told(params))
    np.testing.assert_allclose(np.linalg.norm(look, axis=1), 1, rtol=1e-5)
    logits = look @ read.T / 0.07
    log_rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    log_columns = logits - np.log(np.exp(logits).sum(0, keepdims=True))
    expected = -(np.trace(log_rows) + np.trace(log_columns)) / 10
    total, metrics = jax.jit(functools.partial(matcher.loss, network=network))(params, {}, key, BATCH, HYPERS)
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert float(metrics.error) == pytest.approx((logits.argmax(1) != np.arange(5)).mean())


def test_equal_captions_share_what_is_right():
    """Of two images with one caption, neither is wrong about the other's, whichever words are left out of it."""
    network = matcher.assemble(SPEC, dataclasses.replace(CONFIG, max_shift=0))
    params = network.init(jax.random.key(3), *BATCH)
    twice, hypers = BATCH._replace(caption=BATCH.caption[jnp.array([2, 1, 2, 3, 4])]), matcher.Hypers(dropped_share=0.4)
    key = jax.random.key(2)
    seen = matcher.disturb(key, twice, hypers, max_shift=0)
    assert (seen.caption[0] != seen.caption[2]).any()
    logits = np.asarray(network.apply(params, *seen), np.float64)
    log_shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    log_shares += logits - np.log(np.exp(logits).sum(0, keepdims=True))
    right = np.eye(5)
    right[0, 2] = right[2, 0] = 1
    expected = -(right / right.sum(1, keepdims=True) * log_shares).sum() / 10
    assert abs(expected + np.trace(log_shares) / 10) > 1e-3  # what it would be if the other's were wrong
    total, metrics = matcher.loss(params, {}, key, twice, hypers, network=network)
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert float(metrics.error) == pytest.approx(1 - right[np.arange(5), logits.argmax(1)].mean(), abs=1e-6)


def test_a_vocabulary_that_is_too_small_is_refused():
    row = catalogue.find("applied/matcher/captions")
    with pytest.raises(ValueError, match=r"config\.num_words=639 is less than the 640 of the captions"):
        bind(dataclasses.replace(row, config=dataclasses.replace(row.config, num_words=639)))


def test_the_inverse_temperature_stays_below_a_hundred(model):
    network, params = model
    hot = {"params": params["params"] | {"log_scale": jnp.float32(9.0)}}
    cosine = matcher.similarity(hot, BATCH.image, BATCH.caption, network=network)
    np.testing.assert_allclose(network.apply(hot, BATCH.image, BATCH.caption), 100 * cosine, rtol=1e-4, atol=1e-4)


def test_images_are_shifted_and_words_left_out():
    image = jnp.arange(48, dtype=jnp.uint8).reshape(4, 4, 3)
    batch = Captioned(jnp.tile(image, (3000, 1, 1, 1)), jnp.full((3000, 2), 7))
    hypers = HYPERS._replace(dropped_share=0.25)
    shifted, caption = matcher.disturb(jax.random.key(0), batch, hypers, max_shift=1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    cuts = [padded[row : row + 4, column : column + 4] for row, column in itertools.product(range(3), repeat=2)]
    kinds = np.array([[(one == cut).all() for cut in cuts] for one in np.asarray(shifted)])
    assert (kinds.sum(1) == 1).all()
    np.testing.assert_allclose(kinds.mean(0), 1 / 9, atol=0.03)
    assert set(np.unique(caption)) == {0, 7}
    assert abs(float((caption == 0).mean()) - 0.25) < 0.03


def test_retrieval_is_the_expectation_over_all_draws():
    similarity = np.random.default_rng(0).normal(size=(6, 6))
    for among in (2, 3, 6):
        wins = [
            all(similarity[row, row] > similarity[row, other] for other in others)
            for row in range(6)
            for others in itertools.combinations([index for index in range(6) if index != row], among - 1)
        ]
        assert float(retrieval(jnp.array(similarity), among)) == pytest.approx(np.mean(wins))


def test_retrieval_at_its_ends():
    eye = np.eye(40, dtype=np.float32)
    assert float(retrieval(eye)) == 1
    assert float(retrieval(-eye)) == 0
    assert float(retrieval(0 * eye)) == 0  # what says nothing finds nothing
    assert float(retrieval(np.nan * eye)) == 0
    assert float(retrieval(np.stack([eye[:3, :3], -eye[:3, :3]]))) == pytest.approx(0.5)
    random = np.random.default_rng(0).standard_normal((20, 100, 100), np.float32)
    assert float(retrieval(random)) == pytest.approx(1 / 32, abs=0.01)


def test_weight_decay_pulls_at_all_parameters(model):
    _, params = model
    hypers = HYPERS._replace(learning_rate=0.1, weight_decay=0.5)
    optimiser = matcher.optimiser(hypers)
    updates, _ = optimiser.update(jax.tree.map(jnp.zeros_like, params), optimiser.init(params), params)
    changed = optax.apply_updates(params, updates)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, 0.95 * old, rtol=1e-5), changed, params)


def test_the_policy_is_the_encoder_of_images(model):
    network, params = model
    state = matcher.optim.Game({matcher.PLAYER: params}, {})
    policy = matcher.build(SPEC, CONFIG).policy(jnp.int32(0), state, HYPERS, explore=False)
    output = policy.apply(jax.random.key(0), BATCH.image[None], policy.memory((1, 5)))[0]
    np.testing.assert_allclose(output[0], network.apply(params, BATCH.image, method="look"), atol=1e-6)


def test_other_tasks_are_refused():
    for spec in (Spec(SPEC.observation, Discrete(3)), Spec(SPEC.action, SPEC.action), Spec(Box(SHAPE), SPEC.action)):
        with pytest.raises(ValueError, match="a matcher reads a uint8 image and gives a vector; got Spec"):
            matcher.build(spec, CONFIG)


def test_colours_find_their_names():
    colours = jnp.array([[255, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 255]], jnp.uint8)
    images = jnp.broadcast_to(colours[:, None, None], (4, *SHAPE))
    data = Captioned(images, jnp.array([[2, 0], [3, 0], [4, 0], [2, 5]]))
    config = matcher.Config(batch_size=4, num_words=6, word_size=8, hidden_sizes=(4,), max_shift=1)
    run = train.make(matcher.build(SPEC, config), dataset.build(data, batch_size=4))
    hypers = matcher.Hypers(learning_rate=1e-2, horizon=200.0, dropped_share=0.05)

    @jax.jit
    @jax.vmap
    def trained(key):
        state = train.scan(run, 200)(key, jnp.int32(0), run.init(key, hypers), hypers)[0].algorithm
        return matcher.build_score(SPEC, config)(key, state, data, hypers)

    assert (trained(jax.random.split(jax.random.key(0), 3)) == 1).all()
