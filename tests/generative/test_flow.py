"""Flows: the bound by hand, the start from the data, sampling against the density, and that densities are learned."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import NOTHING, Box, Spec
from rlgen.generative import flow
from rlgen.parts import flow_modules
from rlgen.sources import constant, plane

VECTOR, IMAGE = Spec(NOTHING, Box((2,))), Spec(NOTHING, Box((4, 4, 1), 0, 255, "uint8"))
HYPERS = flow.Hypers(learning_rate=1e-2, horizon=100.0)
SMALL = functools.partial(flow.Config, batch_size=6, num_layers=2, hidden_sizes=(8,), num_bins=3)


def trained(spec, config, source, num_updates, hypers=HYPERS):
    """A network and the state after some updates."""
    run = train.make(flow.build(spec, config), source)

    @jax.jit
    def learn(key):
        state = run.init(key, hypers)
        return train.scan(run, num_updates)(key, jnp.int32(0), state, hypers)[0].algorithm

    return flow.assemble(spec, config), learn(jax.random.key(0))


def examples(spec, num=6):
    if spec is VECTOR:
        return jax.random.normal(jax.random.key(1), (num, 2)) * jnp.array([3.0, 0.2]) + 5.0
    return jax.random.bits(jax.random.key(1), (num, 4, 4, 1), "uint8")


@pytest.mark.parametrize("architecture", flow.ARCHITECTURES)
@pytest.mark.parametrize("spec", [VECTOR, IMAGE], ids=["vectors", "images"])
def test_a_trained_flow_inverts_itself_and_reports_its_mean_cost(spec, architecture):
    batch, key = examples(spec), jax.random.key(2)
    levels = 2 if spec is IMAGE and architecture != "autoregressive" else 1
    config = SMALL(architecture=architecture, num_levels=levels)
    network, state = trained(spec, config, constant.build(batch[None]), 5)
    prepared = flow.prepare(key, batch)

    @jax.jit
    def run(state):
        params = state.params[flow.PLAYER]
        total, metrics = flow.loss(params, {}, key, batch, HYPERS, network=network)
        score = flow.build_score(spec, config)(key, state, batch, HYPERS, chunk=3)
        errors = flow_modules.check(network, params, prepared)
        return errors, network.apply(params, prepared), [total, metrics.loss, score]

    errors, log_prob, costs = run(state)
    assert max(errors) < 1e-3
    nats = -np.mean(log_prob)
    expected = nats if spec is VECTOR else (nats + 16 * math.log(256)) / (16 * math.log(2))
    np.testing.assert_allclose(costs, expected, rtol=1e-4)


@pytest.mark.parametrize("architecture", flow.ARCHITECTURES)
@pytest.mark.parametrize("spec", [VECTOR, IMAGE], ids=["vectors", "images"])
def test_every_architecture_draws_examples_of_any_batch_shape(spec, architecture):
    algorithm = flow.build(spec, SMALL(architecture=architecture))

    def draw(key):
        state = algorithm.init(key, HYPERS)
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=False)
        return policy.apply(key, jnp.zeros((3, 2, 0)), policy.memory((3, 2)))[0]

    drawn = jax.eval_shape(draw, jax.random.key(0))
    assert (drawn.shape, drawn.dtype) == ((3, 2, *spec.action.shape), spec.action.dtype)


def test_the_coder_goes_to_latents_and_back():
    config = SMALL(num_layers=1, num_levels=2)
    state = jax.jit(flow.build(IMAGE, config).init)(jax.random.key(0), HYPERS)
    encode, decode = flow.build_coder(IMAGE, config)
    images = examples(IMAGE)
    latents = jax.jit(encode)(jax.random.key(2), state, images)
    assert latents.shape == (6, 16)
    back = jax.jit(decode)(state, latents.reshape(3, 2, 16))
    assert (back.shape, back.dtype) == ((3, 2, 4, 4, 1), np.uint8)
    # What is dequantised to within a rounding of the next whole number may fall to it.
    difference = np.abs(np.subtract(back.reshape(images.shape), images, dtype=np.int32))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_images_are_drawn_apart():
    algorithm = flow.build(IMAGE, SMALL(num_layers=1))

    @jax.jit
    def draw(key):
        state = algorithm.init(key, HYPERS)
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=False)
        return policy.apply(key, jnp.zeros((50, 0)), ())[0]

    drawn = np.asarray(draw(jax.random.key(0)))
    # Before learning, rotations of normal noise through the logistic function.
    assert len(np.unique(drawn.reshape(50, -1), axis=0)) == 50
    assert drawn.min() < 10
    assert drawn.max() > 245
    assert abs(drawn.mean() - 127.5) < 5


def test_the_first_update_starts_from_its_batch_and_later_ones_do_not():
    config = SMALL(num_layers=1)
    algorithm = flow.build(VECTOR, config)
    still = HYPERS._replace(learning_rate=0.0)
    state = jax.jit(algorithm.init)(jax.random.key(0), still)
    batch = np.asarray(examples(VECTOR, 50))

    def norm(state):
        return state.params[flow.PLAYER]["params"]["flow"]["modules_0"]["module"]["modules_0"]

    update = jax.jit(lambda step, batch: algorithm.update(jax.random.key(1), step, state, batch[None], still)[0])
    first, later = jax.device_get((update(0, batch), update(1, batch)))
    np.testing.assert_allclose(norm(first)["log_scale"][0], -np.log(batch.std(0)), rtol=1e-4)
    np.testing.assert_allclose(norm(first)["shift"][0], -batch.mean(0) / batch.std(0), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, later.params, state.params)


def test_the_learning_rate_falls_to_its_end():
    algorithm = flow.build(VECTOR, SMALL())
    hypers = HYPERS._replace(learning_rate_end=0.0)
    state = jax.jit(algorithm.init)(jax.random.key(0), hypers)
    update = jax.jit(lambda step: algorithm.update(jax.random.key(1), step, state, examples(VECTOR)[None], hypers)[0])
    moves = [
        max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(np.subtract(a, b)).max(), after.params, state.params)))
        for after in map(update, (1, 50, 100))
    ]
    # Adam's first step is as long as its rate.
    np.testing.assert_allclose(moves, [0.0099, 0.005, 0.0], rtol=1e-3, atol=1e-7)


def test_what_no_flow_is_over_is_refused():
    with pytest.raises(ValueError, match="no flow over"):
        flow.assemble(Spec(NOTHING, Box((4, 4), dtype="uint8")), flow.Config())
    for spec, architecture in ((VECTOR, "glow"), (IMAGE, "autoregressive")):
        with pytest.raises(ValueError, match=r"config\.num_levels=2: vectors have one level"):
            flow.assemble(spec, flow.Config(architecture=architecture, num_levels=2))
    for spec, architecture in ((VECTOR, "glow"), (IMAGE, "autoregressive")):
        with pytest.raises(ValueError, match=r"config\.batch_size=1: vectors need two or more"):
            flow.assemble(spec, flow.Config(architecture=architecture, batch_size=1))
    with pytest.raises(ValueError, match=r"config\.architecture='nice'"):
        flow.Config(architecture="nice")


@pytest.mark.parametrize("architecture", ["glow", "autoregressive"])
def test_a_normal_is_learned_to_its_entropy(architecture):
    """Correlated, off the origin and of unequal scales: no diagonal map can reach it."""
    root = jnp.array([[2.0, 0.0], [1.5, 0.3]])

    def draw(key, shape):
        return jax.random.normal(key, (*shape, 2)) @ root.T + jnp.array([3.0, -1.0])

    config = SMALL(architecture=architecture, batch_size=128, num_layers=1)
    source = plane.build(draw, batch_size=128)
    network, state = trained(VECTOR, config, source, 300, HYPERS._replace(horizon=300.0))
    held_out = draw(jax.random.key(9), (4000,))

    @jax.jit
    def judge(state):
        score = flow.build_score(VECTOR, config)(jax.random.key(0), state, held_out, HYPERS)
        return score, flow_modules.check(network, state.params[flow.PLAYER], held_out)

    score, errors = judge(state)
    assert max(errors) < 1e-3
    z = np.linalg.solve(root, (held_out - jnp.array([3.0, -1.0])).T)
    exact = math.log(2 * math.pi) + math.log(0.6) + 0.5 * np.mean(np.sum(z**2, axis=0))
    assert exact - 1e-3 < score < exact + 0.02
