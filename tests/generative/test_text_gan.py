"""Text-to-image GAN: what either player pays, by hand, and that colours are drawn as their names ask."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import NOTHING, Box, Spec
from rlgen.generative import text_gan
from rlgen.generative.text_gan import DISCRIMINATOR, GENERATOR
from rlgen.parts.translators import Captioned
from rlgen.sources import dataset

SHAPE = (8, 8, 3)
SPEC = Spec(Box((3,), 0, 5, "int32"), Box(SHAPE, 0, 255, "uint8"))
CONFIG = text_gan.Config(
    batch_size=3,
    latent_size=2,
    condition_size=4,
    generator_sizes=(4,),
    discriminator_sizes=(4,),
    joint_size=4,
    interpolation=False,
)
HYPERS = text_gan.Hypers(horizon=100.0, mismatch_weight=0.3, penalty=0.0)
BATCH = Captioned(
    np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8), np.array([[2, 3, 0], [4, 0, 0], [5, 2, 3]])
)
REAL = np.float32(BATCH.image) / np.float32(127.5) - 1


def softplus(logit):
    return np.log1p(np.exp(np.asarray(logit, np.float64)))


@functools.cache
def made(**switches):
    """Networks with switches, and parameters."""
    config = text_gan.dataclasses.replace(CONFIG, **switches)
    pair = text_gan.assemble(SPEC, config)
    return pair, jax.jit(functools.partial(text_gan.init, pair=pair))(jax.random.key(1), HYPERS)


@functools.partial(jax.jit, static_argnums=0)
def judged(pair, params, image, caption):
    return pair.critic.apply(params[DISCRIMINATOR], image, caption)


@functools.partial(jax.jit, static_argnums=0)
def drawn(pair, params, key, caption):
    return pair.painter.apply(params[GENERATOR], key, caption)


@functools.cache
def loss_of(name, **switches):
    loss = {DISCRIMINATOR: text_gan.discriminator_loss, GENERATOR: text_gan.generator_loss}[name]
    return jax.jit(functools.partial(loss, pair=made(**switches)[0]))


def paid(name, hypers, **switches):
    """What a player pays for the minibatch, and what it says."""
    _, params = made(**switches)
    return loss_of(name, **switches)(params[name], params, jax.random.key(2), BATCH, hypers)


def test_the_discriminator_pays_for_three_kinds():
    pair, params = made()
    total, said = paid(DISCRIMINATOR, HYPERS)
    fake = drawn(pair, params, jax.random.key(2), BATCH.caption)
    right = judged(pair, params, REAL, BATCH.caption)
    wrong = judged(pair, params, REAL, BATCH.caption[[1, 2, 0]])
    generated = judged(pair, params, fake, BATCH.caption)
    expected = softplus(-right).mean() + 0.3 * softplus(wrong).mean() + 0.7 * softplus(generated).mean()
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(said, (total, right.mean(), wrong.mean(), generated.mean()), rtol=1e-4, atol=1e-6)


def test_without_mismatches_it_is_a_conditional_gan():
    pair, params = made()
    fake = drawn(pair, params, jax.random.key(2), BATCH.caption)
    expected = softplus(-judged(pair, params, REAL, BATCH.caption)).mean()
    expected += softplus(judged(pair, params, fake, BATCH.caption)).mean()
    np.testing.assert_allclose(paid(DISCRIMINATOR, HYPERS._replace(mismatch_weight=0.0))[0], expected, rtol=1e-5)


def test_the_penalty_is_half_the_squared_slope_at_real_images():
    pair, params = made()
    slope = jax.jit(jax.grad(lambda image: pair.critic.apply(params[DISCRIMINATOR], image, BATCH.caption).sum()))(REAL)
    difference = paid(DISCRIMINATOR, HYPERS._replace(penalty=50.0))[0] - paid(DISCRIMINATOR, HYPERS)[0]
    np.testing.assert_allclose(difference, 25 * np.square(slope).sum((1, 2, 3)).mean(), rtol=1e-3)


def test_the_generator_pays_for_what_is_not_believed():
    pair, params = made()
    total, (said, divergence) = paid(GENERATOR, HYPERS)

    @jax.jit
    def painted(params):
        latent = jax.random.normal(jax.random.split(jax.random.key(2))[1], (3, 2))
        condition = pair.painter.apply(params[GENERATOR], jax.random.key(0), BATCH.caption, method="read")[0]
        return pair.painter.apply(params[GENERATOR], latent, condition, method="paint")

    logit = judged(pair, params, painted(params), BATCH.caption)
    np.testing.assert_allclose(total, softplus(-logit).mean(), rtol=1e-5)
    assert float(said) == float(total) and float(divergence) == 0


def test_projection_adds_a_product_of_image_and_caption():
    pair, params = made(projection=True)
    without, _ = made(projection=False)
    inner = params[DISCRIMINATOR]["params"]
    less = {"params": {name: leaf for name, leaf in inner.items() if name != "projector"}}

    @jax.jit
    def read(params):
        return [
            pair.critic.apply(params, each, method=method) for each, method in ((REAL, "look"), (BATCH.caption, "read"))
        ]

    seen, condition = map(np.asarray, read(params[DISCRIMINATOR]))
    product = (seen @ inner["projector"]["kernel"] + inner["projector"]["bias"]) * condition
    added = judged(pair, params, REAL, BATCH.caption) - judged(without, {DISCRIMINATOR: less}, REAL, BATCH.caption)
    np.testing.assert_allclose(added, product.mean(-1), rtol=1e-4, atol=1e-6)


def test_captions_are_heard_from_the_start():
    config = text_gan.Config()
    pair = text_gan.assemble(Spec(Box((12,), 0, 999, "int32"), Box((32, 32, 3), 0, 255, "uint8")), config)
    params = jax.jit(functools.partial(text_gan.init, pair=pair))(jax.random.key(0), HYPERS)
    generator = np.random.default_rng(1)
    captions = generator.integers(1, 1000, (2, 16, 4))
    latents = generator.standard_normal((2, 16, config.latent_size), np.float32)

    @jax.jit
    def paint(latent, caption):
        condition = pair.painter.apply(params[GENERATOR], jax.random.key(0), caption, method="read")[0]
        return pair.painter.apply(params[GENERATOR], latent, condition, method="paint")

    image, other_caption, other_latent = (
        np.asarray(paint(latents[latent], captions[caption])) for latent, caption in ((0, 0), (0, 1), (1, 0))
    )
    by_caption, by_latent = (np.square(image - each).mean() for each in (other_caption, other_latent))
    assert by_caption > 0.2 * by_latent


def test_interpolation_adds_images_between_captions():
    pair, params = made(interpolation=True)
    at = {weight: float(paid(GENERATOR, HYPERS._replace(interpolation_weight=weight), interpolation=True)[0])
          for weight in (0.0, 1.0)}  # fmt: skip
    paint, judge = (
        functools.partial(module.apply, params[name])
        for module, name in ((pair.painter, GENERATOR), (pair.critic, DISCRIMINATOR))
    )

    @jax.jit
    def believed():
        latent = jax.random.normal(jax.random.split(jax.random.key(2))[1], (6, 2))[3:]
        asked = paint(jax.random.key(0), BATCH.caption, method="read")[0]
        read = judge(BATCH.caption, method="read")
        between, judged_as = ((each + each[jnp.array([1, 2, 0])]) / 2 for each in (asked, read))
        seen = judge(paint(latent, between, method="paint"), method="look")
        return judge(seen, judged_as, method="judge")

    np.testing.assert_allclose(at[1.0] - at[0.0], softplus(-believed()).mean(), rtol=1e-4)


def test_augmentation_draws_conditions_and_pays_their_divergence():
    pair, params = made(augmentation=True)
    keys = jax.random.split(jax.random.key(3), 20_000)
    read = jax.jit(jax.vmap(lambda key: pair.painter.apply(params[GENERATOR], key, BATCH.caption, method="read")))
    conditions, divergence = map(np.asarray, read(keys))
    mean, std = conditions.mean(0), conditions.std(0)
    expected = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std)).sum(-1)
    np.testing.assert_allclose(divergence[0], expected, rtol=0.05, atol=0.02)
    at = {
        weight: paid(GENERATOR, HYPERS._replace(augmentation_weight=weight), augmentation=True) for weight in (0.0, 2.0)
    }
    np.testing.assert_allclose(at[2][0] - at[0][0], 2 * divergence[0].mean(), rtol=1e-4)
    np.testing.assert_allclose(at[2][1][1], divergence[0].mean(), rtol=1e-5)


def test_a_walk_goes_from_caption_to_caption_with_one_latent():
    pair, params = made()
    game = text_gan.build(SPEC, CONFIG).init(jax.random.key(0), HYPERS)._replace(params=params)
    first, last, key = BATCH.caption[:2], BATCH.caption[1:], jax.random.key(3)
    walk = jax.jit(text_gan.build_walk(SPEC, CONFIG))
    walked = walk(key, game, first, last, jnp.array([0.0, 0.5, 1.0]))
    assert (walked.shape, walked.dtype) == ((2, 3, *SHAPE), np.uint8)
    # The way back has the same latents, and so the same images, the other way round.
    np.testing.assert_array_equal(walk(key, game, last, first, jnp.array([1.0, 0.5, 0.0])), walked)
    still = walk(key, game, first, first, jnp.array([0.0, 0.5, 1.0]))
    assert (still == walked[:, :1]).all()  # one latent a line
    assert (walked[:, 0] != walked[:, 2]).any()
    latent = jax.random.normal(jax.random.split(key)[0], (2, 1, CONFIG.latent_size))[:, 0]
    condition = pair.painter.apply(params[GENERATOR], key, last, method="read")[0]
    image = pair.painter.apply(params[GENERATOR], latent, condition, method="paint")
    np.testing.assert_allclose(walked[:, 2], np.round(127.5 * (np.asarray(image) + 1)), atol=1)


def test_switches_name_the_hypers_that_they_leave_out():
    assert set(CONFIG.idle) == {"interpolation_weight", "augmentation_weight"}
    assert not text_gan.Config(interpolation=True, augmentation=True).idle


def test_other_tasks_are_refused():
    for spec in (Spec(NOTHING, SPEC.action), Spec(SPEC.observation, Box(SHAPE))):
        with pytest.raises(ValueError, match="a caption of int32 is read and a uint8 image drawn; got Spec"):
            text_gan.build(spec, CONFIG)


def test_what_leaves_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match=r"config\.batch_size=1 leaves an image without another one's caption"):
        dataclasses.replace(CONFIG, batch_size=1)
    with pytest.raises(ValueError, match=r"config\.discriminator_sizes halves images of 8×8 4 times"):
        text_gan.build(SPEC, dataclasses.replace(CONFIG, discriminator_sizes=(1, 1, 1, 1)))
    with pytest.raises(ValueError, match=r"config\.generator_sizes=\(\): a convolutional generator needs channels"):
        text_gan.build(SPEC, dataclasses.replace(CONFIG, generator_sizes=()))


COLOURS = jnp.array([[255, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 255]], jnp.uint8)  # of the words 2 to 5


@pytest.fixture(scope="module")
def painted():
    """Mean colours that three seeds draw for four words, once they have learned them: `[seeds, 4, N, 3]`."""
    names = jnp.pad(jnp.arange(2, 6)[:, None], ((0, 0), (0, 2)))
    images = jnp.broadcast_to(COLOURS[:, None, None], (4, *SHAPE))
    data = jax.tree.map(lambda leaf: jnp.repeat(leaf, 16, axis=0), Captioned(images, names))
    config = text_gan.dataclasses.replace(CONFIG, batch_size=16, condition_size=8, joint_size=16)
    algorithm = text_gan.build(SPEC, config)
    run = train.make(algorithm, dataset.build(data, batch_size=16))
    hypers = text_gan.Hypers(
        generator_learning_rate=3e-3, discriminator_learning_rate=1e-2, horizon=1000.0, penalty=0.3
    )

    @jax.jit
    @jax.vmap
    def draw(key):
        state = train.window(run)(key, jnp.int32(0), jnp.int32(1_000), run.init(key, hypers), hypers)[0].algorithm
        policy = algorithm.policy(jnp.int32(1_000), state, hypers, explore=False)
        captions = names[:, None].repeat(20, axis=1)
        return policy.apply(key, captions, policy.memory((4, 20)))[0]

    images = draw(jax.random.split(jax.random.key(0), 3))
    assert images.shape == (3, 4, 20, *SHAPE) and images.dtype == jnp.uint8
    return images.astype(jnp.float32).mean((3, 4))


@pytest.mark.learning
def test_words_have_their_colours(painted):
    distance = jnp.square(painted[:, :, :, None] - COLOURS.astype(jnp.float32)).sum(-1)
    nearest = distance.argmin(-1)
    # A generator that is deaf to words gets a quarter right.
    assert (nearest == jnp.arange(4)[:, None]).mean() > 0.6, painted.mean(2)
