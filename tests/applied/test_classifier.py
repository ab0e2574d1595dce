"""Classifier: loss and gradient by hand, features, and that it learns what can be told apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from rlgen import train
from rlgen.applied import classifier
from rlgen.core import NOTHING, Box, Discrete, Spec
from rlgen.sources import dataset

SHAPE = (8, 8, 1)
SPEC = Spec(Box(SHAPE, 0, 255, "uint8"), Discrete(3))
CONFIGS = {
    "dense": classifier.Config(batch_size=4, filters=(), hidden_sizes=(5, 4)),
    "convolutional": classifier.Config(batch_size=4, filters=(3,), hidden_sizes=(4,)),
}
HYPERS = classifier.Hypers(horizon=100.0)
BATCH = classifier.Examples(jax.random.bits(jax.random.key(0), (4, *SHAPE), "uint8"), jnp.array([0, 2, 1, 2]))


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=list(CONFIGS))
def model(request):
    """A network and its parameters."""
    network = classifier.assemble(SPEC, request.param)
    params = jax.jit(functools.partial(classifier.init, network=network, shape=SHAPE))(jax.random.key(1), HYPERS)
    return network, params[classifier.PLAYER]


def probabilities(features, head):
    """What a linear layer makes of features, in NumPy."""
    logits = np.asarray(features @ head["kernel"] + head["bias"], np.float64)
    weights = np.exp(logits)
    return weights / weights.sum(1, keepdims=True)


def test_loss_error_and_gradient_of_the_last_layer_by_hand(model):
    network, params = model
    loss = functools.partial(classifier.loss, network=network)
    (total, metrics), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        params, {}, jax.random.key(2), BATCH, HYPERS
    )
    features = network.apply(params, BATCH.image, method="features")
    assert features.shape == (4, 4) and (features >= 0).all() and float(features.max()) > 0
    chosen = probabilities(features, params["params"]["head"])
    np.testing.assert_allclose(total, -np.log(chosen[range(4), BATCH.label]).mean(), rtol=1e-5)
    assert float(metrics.loss) == float(total)
    assert float(metrics.error) == (chosen.argmax(1) != BATCH.label).mean()
    # The slope of cross entropy by a logit is the probability, less one for the right class.
    slopes = (chosen - np.eye(3)[BATCH.label]) / 4
    np.testing.assert_allclose(grads["params"]["head"]["bias"], slopes.sum(0), atol=1e-6)
    np.testing.assert_allclose(grads["params"]["head"]["kernel"], np.asarray(features).T @ slopes, atol=1e-6)


def test_dense_features_by_hand():
    network = classifier.assemble(SPEC, CONFIGS["dense"])
    params = network.init(jax.random.key(3), BATCH.image)
    hidden = BATCH.image.reshape(4, -1) / 255
    for name in ("dense_0", "dense_1"):
        layer = params["params"][name]
        hidden = jnp.maximum(hidden @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(network.apply(params, BATCH.image, method="features"), hidden, rtol=1e-4, atol=1e-6)


def test_convolutional_features_by_hand():
    """Rectified convolutions of every second place, by jax's own operation, and then rectified dense layers."""
    network = classifier.assemble(SPEC, classifier.Config(filters=(3, 2), hidden_sizes=(4,)))
    params = network.init(jax.random.key(3), BATCH.image)
    hidden = BATCH.image / 255
    for name in ("convolutions_0", "convolutions_1"):
        layer = params["params"][name]["Dense_0"]
        kernel = layer["kernel"].reshape(3, 3, hidden.shape[-1], -1)
        hidden = lax.conv_general_dilated(
            hidden, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        hidden = jnp.maximum(hidden + layer["bias"], 0)
    assert hidden.shape == (4, 2, 2, 2)
    layer = params["params"]["dense_0"]
    hidden = jnp.maximum(hidden.reshape(4, -1) @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(network.apply(params, BATCH.image, method="features"), hidden, rtol=1e-4, atol=1e-6)


def test_a_step_is_adams(model):
    network, params = model
    hypers = HYPERS._replace(learning_rate=0.01)
    game = classifier.optim.start({classifier.PLAYER: params}, {classifier.PLAYER: classifier.player(network)}, hypers)
    game, _ = jax.jit(functools.partial(classifier.learn, network=network))(jax.random.key(0), game, BATCH, hypers)
    grads = jax.jit(jax.grad(lambda params: classifier.loss(params, {}, None, BATCH, hypers, network=network)[0]))(
        params
    )
    # The first step of Adam is the sign of the gradient, but for its epsilon.
    expected = jax.tree.map(lambda leaf, grad: leaf - 0.01 * grad / (jnp.abs(grad) + 1e-8), params, grads)
    changed = game.params[classifier.PLAYER]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), changed, expected)


def test_the_learning_rate_is_annealed():
    algorithm = classifier.build(SPEC, CONFIGS["dense"])
    start = algorithm.init(jax.random.key(0), HYPERS)
    batch = jax.tree.map(lambda leaf: leaf[None], BATCH)
    update = jax.jit(algorithm.update)
    end, _ = update(jax.random.key(0), jnp.int32(100), start, batch, HYPERS)
    jax.tree.map(np.testing.assert_array_equal, end.params, start.params)
    halfway, _ = update(jax.random.key(0), jnp.int32(50), start, batch, HYPERS)
    slower, _ = update(jax.random.key(0), jnp.int32(0), start, batch, HYPERS._replace(learning_rate=1e-3))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-7), halfway.params, slower.params)


def test_policy_labels_greedily_and_explores_by_probability(model):
    network, params = model
    algorithm = classifier.build(SPEC, network.config)
    state = classifier.optim.Game({classifier.PLAYER: params}, {})
    logits = np.asarray(network.apply(params, BATCH.image), np.float64)

    def label(explore):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore)
        images = jnp.broadcast_to(BATCH.image, (2000 if explore else 1, 4, *SHAPE))
        return policy.apply(jax.random.key(5), images, policy.memory(images.shape[:2]))

    labels, extras, _ = label(False)
    assert labels.dtype == jnp.int32
    np.testing.assert_array_equal(labels[0], logits.argmax(1))
    np.testing.assert_allclose(extras["logits"][0], logits, atol=1e-5)
    drawn = np.asarray(label(True)[0])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose([(drawn == each).mean(0) for each in range(3)], chances.T, atol=0.05)


def test_score_is_the_share_of_right_labels_in_chunks(model):
    network, params = model
    game = classifier.optim.Game({classifier.PLAYER: params}, {})
    right = float((network.apply(params, BATCH.image).argmax(-1) == BATCH.label).mean())
    for chunk in (3, 500):
        score = functools.partial(classifier.score, network=network, chunk=chunk)
        assert float(jax.jit(score)(jax.random.key(0), game, BATCH, HYPERS)) == pytest.approx(right)


@pytest.mark.parametrize("name", CONFIGS)
def test_separable_images_are_told_apart(name):
    """Bars across, bars down and nothing, under noise; other noise is held out."""

    def bars(key, num):
        label_key, place_key, noise_key = jax.random.split(key, 3)
        label = jax.random.randint(label_key, (num,), 0, 3)
        place = jax.random.randint(place_key, (num, 1, 1), 2, 6)
        grid = jnp.arange(8)
        across = jnp.broadcast_to(grid[:, None] == place, (num, 8, 8))
        down = jnp.broadcast_to(grid[None] == place, (num, 8, 8))
        shape = jnp.stack([across, down, 0 * down], axis=1)[jnp.arange(num), label]
        image = 150 * shape + jax.random.uniform(noise_key, shape.shape, maxval=60)
        return classifier.Examples(image[..., None].astype(jnp.uint8), label)

    filters = {"dense": (), "convolutional": (8,)}[name]
    config = classifier.Config(batch_size=32, num_steps=2, filters=filters, hidden_sizes=(32,))
    hypers = classifier.Hypers(learning_rate=1e-2, horizon=100.0)
    run = train.make(
        classifier.build(SPEC, config), dataset.build(bars(jax.random.key(0), 600), batch_size=32, num_batches=2)
    )

    @jax.jit
    @jax.vmap
    def trained(key):
        state = train.scan(run, 100)(key, jnp.int32(0), run.init(key, hypers), hypers)[0].algorithm
        return classifier.build_score(SPEC, config)(key, state, bars(jax.random.key(1), 300), hypers)

    assert (trained(jax.random.split(jax.random.key(0), 3)) > 0.97).all()


def test_cross_entropy_is_that_of_optax(model):
    network, params = model
    logits = network.apply(params, BATCH.image)
    total, _ = classifier.loss(params, {}, jax.random.key(0), BATCH, HYPERS, network=network)
    one_hot = jax.nn.one_hot(BATCH.label, 3)
    np.testing.assert_allclose(total, optax.softmax_cross_entropy(logits, one_hot).mean(), rtol=1e-6)


def test_other_tasks_are_refused():
    floats = Spec(Box(SPEC.observation.shape), Discrete(3))
    for spec in (Spec(NOTHING, Discrete(3)), Spec(SPEC.observation, Box((2,))), Spec(Discrete(4), Discrete(3)), floats):
        with pytest.raises(ValueError, match="a classifier reads a uint8 image and chooses a class; got Spec"):
            classifier.build(spec, CONFIGS["dense"])
