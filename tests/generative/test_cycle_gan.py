"""CycleGAN: what either player pays, by hand, and what its discriminators are shown."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import NOTHING, Box, Spec
from rlgen.generative import cycle_gan
from rlgen.generative.cycle_gan import DISCRIMINATORS, TRANSLATORS
from rlgen.parts import optim
from rlgen.sources.pair import Pair

SHAPE = (8, 8, 1)
SPEC = Spec(Box(SHAPE, 0, 255, "uint8"), Box(SHAPE, 0, 255, "uint8"))
CONFIG = cycle_gan.Config(batch_size=2, num_filters=2, num_blocks=1, discriminator_filters=2, pool_size=0)
HYPERS = cycle_gan.Hypers(horizon=100.0)


class Scale(nn.Module):
    """A translator that multiplies: 1 is the identity."""

    @nn.compact
    def __call__(self, image):
        return self.param("scale", nn.initializers.ones, ()) * image


class Mean(nn.Module):
    """A discriminator that gives the mean pixel, scaled."""

    @nn.compact
    def __call__(self, image):
        return self.param("scale", nn.initializers.ones, ()) * image.mean((1, 2, 3))


BY_HAND = cycle_gan.Networks(Scale(), Mean(), (1, 1, 1), 0)
REAL = jnp.array([[0.2, -0.4], [0.6, 0.8]]).reshape(2, 2, 1, 1, 1)


def scales(*values):
    return {"params": {"scale": jnp.array(values)}}


def paid(there, back, judges=(1.0, 1.0)):
    """What translators that multiply by two numbers pay, with weights of 3 and 5."""
    hypers = HYPERS._replace(cycle_weight=3.0, identity_weight=5.0)
    params = {DISCRIMINATORS: scales(*judges)}
    shown = cycle_gan.Shown(REAL, 0 * REAL)
    return cycle_gan.translator_loss(scales(there, back), params, jax.random.key(0), shown, hypers, pairs=BY_HAND)


def test_identity_costs_no_cycle_and_no_identity():
    total, cost = paid(1.0, 1.0)
    assert float(cost.cycle) == float(cost.identity) == 0
    np.testing.assert_allclose(total, cost.adversarial)


def test_translations_that_undo_each_other_cost_no_cycle():
    _, cost = paid(2.0, 0.5)
    assert float(cost.cycle) == 0 and float(cost.identity) > 0


def test_translators_pay_what_is_computed_by_hand():
    there, back, judge_first, judge_second = 2.0, 0.25, 3.0, 4.0
    total, cost = paid(there, back, (judge_first, judge_second))
    first, second = np.array([0.2, -0.4]), np.array([0.6, 0.8])
    # The discriminator of the second kind sees translations of the first, and the other way about.
    adversarial = [(judge_second * there * first - 1) ** 2, (judge_first * back * second - 1) ** 2]
    cycle = [abs(there * back * first - first), abs(there * back * second - second)]
    identity = [abs(there * second - second), abs(back * first - first)]
    np.testing.assert_allclose(cost.adversarial, np.mean(adversarial), rtol=1e-6)
    np.testing.assert_allclose(cost.cycle, np.mean(cycle), rtol=1e-6)
    np.testing.assert_allclose(cost.identity, np.mean(identity), rtol=1e-6)
    np.testing.assert_allclose(total, cost.adversarial + 3 * cost.cycle + 5 * cost.identity, rtol=1e-6)
    assert float(cost.loss) == float(total)


def test_discriminators_pay_what_is_computed_by_hand():
    fake = jnp.array([[0.1, 0.3], [-0.5, 0.7]]).reshape(REAL.shape)
    judges = np.array([2.0, 3.0])[:, None]
    total, _ = cycle_gan.discriminator_loss(
        scales(2.0, 3.0), {}, jax.random.key(0), cycle_gan.Shown(REAL, fake), HYPERS, pairs=BY_HAND
    )
    real, fake = (np.asarray(each).reshape(2, 2) for each in (REAL, fake))
    expected = 0.5 * ((judges * real - 1) ** 2).mean() + 0.5 * ((judges * fake) ** 2).mean()
    np.testing.assert_allclose(total, expected, rtol=1e-6)


BATCH = Pair(*np.random.default_rng(5).integers(0, 256, (2, 1, 2, *SHAPE), np.uint8))


def simple(pool_size):
    """The multiplying networks on images of `SHAPE`, and their algorithm."""
    pairs = cycle_gan.Networks(Scale(), Mean(), SHAPE, pool_size)
    return pairs, cycle_gan.bind(pairs)


@functools.cache
def compiled(pool_size):
    return jax.jit(simple(pool_size)[1].update)


@functools.cache
def updated(pool_size, num_updates, first_step=0):
    """The states before and after updates with a pool, and metrics of the last."""
    algorithm = simple(pool_size)[1]
    update = compiled(pool_size)
    state = start = jax.jit(algorithm.init)(jax.random.key(0), HYPERS)
    for step in range(first_step, first_step + num_updates):
        state, metrics = update(jax.random.fold_in(jax.random.key(1), step), jnp.int32(step), state, BATCH, HYPERS)
    return jax.device_get((start, state, metrics))


def test_without_a_pool_discriminators_see_the_newest_images():
    """An update is one turn of the translators and one of the discriminators, on translations made before both."""
    start, state, metrics = updated(0, 1)
    pairs, _ = simple(0)
    real = np.stack([np.float32(images[0]) / np.float32(127.5) - 1 for images in BATCH])
    scale = start.game.params[TRANSLATORS]["params"]["scale"]
    fake = np.stack([scale[1] * real[1], scale[0] * real[0]])
    shown, key = cycle_gan.Shown(real, fake), jax.random.key(9)
    learn = jax.jit(functools.partial(cycle_gan.learn, pairs=pairs), static_argnames="name")
    game, cost = learn(key, start.game, shown, HYPERS, name=TRANSLATORS)
    game, judged = learn(key, game, shown, HYPERS, name=DISCRIMINATORS)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), game, state.game)
    np.testing.assert_allclose(metrics, (*cost, judged), rtol=1e-5)
    assert state.pools.shape == (2, 0, *SHAPE)


def same_bits(left, right):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), left, right)))


def test_a_pool_that_is_not_full_changes_nothing():
    plain, pooled = updated(0, 2)[1], updated(4, 2)[1]
    assert same_bits(plain.game, pooled.game)
    # Either pool holds the translations of both updates, by the kind that they belong to.
    real = np.stack([np.float32(images[0]) / np.float32(127.5) - 1 for images in BATCH])
    np.testing.assert_allclose(pooled.pools[:, :2], real[::-1], atol=1e-6)
    scale = updated(0, 1)[1].game.params[TRANSLATORS]["params"]["scale"]
    np.testing.assert_allclose(pooled.pools[0, 2:], scale[1] * real[1], atol=1e-6)
    np.testing.assert_allclose(pooled.pools[1, 2:], scale[0] * real[0], atol=1e-6)


def test_a_full_pool_changes_what_is_seen():
    assert not same_bits(updated(0, 4)[1].game, updated(1, 4)[1].game)


def test_the_learning_rate_falls_to_its_share():
    start, state, _ = updated(0, 1, first_step=100)
    assert same_bits(state.game.params, start.game.params)
    start, state, _ = updated(0, 1)
    assert not same_bits(state.game.params, start.game.params)


@pytest.fixture(scope="module")
def real_networks():
    """An algorithm of translators and patch discriminators, and its first state."""
    algorithm = cycle_gan.build(SPEC, CONFIG)
    return algorithm, jax.jit(algorithm.init)(jax.random.key(0), HYPERS)


def test_the_policy_translates_the_first_kind(real_networks):
    algorithm, start = real_networks
    policy = algorithm.policy(jnp.int32(0), start, HYPERS, explore=False)
    images = BATCH.first[0]
    output = np.asarray(jax.jit(policy.apply)(jax.random.key(0), images[None], policy.memory((1, 2)))[0])
    assert output.shape == (1, 2, *SHAPE) and output.dtype == jnp.uint8
    params = jax.tree.map(lambda leaf: leaf[0], jax.device_get(start.game.params[TRANSLATORS]))
    translate = jax.jit(cycle_gan.translators.Translator(2, 1).apply)
    expected = translate(params, np.float32(images) / np.float32(127.5) - 1)
    np.testing.assert_allclose(output[0] / 127.5 - 1, expected, atol=1 / 127)


def test_players_are_two_pairs(real_networks):
    game = real_networks[1].game
    assert isinstance(game, optim.Game) and set(game.params) == {TRANSLATORS, DISCRIMINATORS}
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(game.params))
    kernels = game.params[TRANSLATORS]["params"]["Conv_0"]["Dense_0"]["kernel"]
    assert not (kernels[0] == kernels[1]).all()


@pytest.mark.parametrize("shape", [(6, 8, 1), (8, 8)])
def test_other_tasks_are_refused(shape):
    image = Box(shape, 0, 255, "uint8")
    with pytest.raises(ValueError, match="whose height and width 4 divides; got Spec"):
        cycle_gan.build(Spec(image, image), CONFIG)
    with pytest.raises(ValueError, match="got Spec"):
        cycle_gan.build(Spec(NOTHING, SPEC.action), CONFIG)


def test_a_discriminator_that_leaves_nothing_of_an_image_is_refused():
    image = Box((8, 12, 1), 0, 255, "uint8")
    cycle_gan.build(Spec(image, image), dataclasses.replace(CONFIG, num_halvings=2))
    with pytest.raises(ValueError, match=r"config.num_halvings halves images of 8×12 3 times, and at least 2×2 pixels"):
        cycle_gan.build(Spec(image, image), dataclasses.replace(CONFIG, num_halvings=3))


def test_images_that_a_translator_halves_to_one_pixel_are_refused():
    image = Box((4, 12, 1), 0, 255, "uint8")
    with pytest.raises(ValueError, match="needs 8×8 pixels or more"):
        cycle_gan.build(Spec(image, image), dataclasses.replace(CONFIG, num_halvings=1))
