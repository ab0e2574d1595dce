"""GAN: both losses by hand, whose steps take which minibatches, the average, and that a distribution is learned."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import NOTHING, Box, Spec
from rlgen.generative import gan
from rlgen.parts import adversaries, optim
from rlgen.sources import constant, plane

VECTOR, IMAGE = Spec(NOTHING, Box((2,))), Spec(NOTHING, Box((4, 4, 1), 0, 255, "uint8"))
HYPERS = gan.Hypers(penalty=0.7, horizon=100.0)
SMALL = functools.partial(gan.Config, batch_size=4, latent_size=3, generator_sizes=(5,), discriminator_sizes=(6,))
BATCH = jax.random.normal(jax.random.key(1), (4, 2))


@pytest.fixture(scope="module")
def params():
    pair = gan.assemble(VECTOR, SMALL())
    return jax.jit(functools.partial(gan.start, pair=pair))(jax.random.key(0), HYPERS)


def logits_of(params, examples, pair):
    return pair.discriminator.apply(params[gan.DISCRIMINATOR], examples)


@pytest.mark.parametrize("penalty", gan.PENALTIES)
def test_the_discriminator_pays_for_real_and_generated_examples_and_its_slope(params, penalty):
    pair = gan.assemble(VECTOR, SMALL(penalty=penalty, loss="hinge"))

    @jax.jit
    def both(key):
        got = gan.discriminator_loss(params[gan.DISCRIMINATOR], params, key, BATCH, HYPERS, pair=pair)
        latent_key, penalty_key = jax.random.split(key)
        fake = pair.generator.apply(params[gan.GENERATOR], jax.random.normal(latent_key, (4, 3)))
        judge = functools.partial(logits_of, params, pair=pair)
        real, generated = (0.5 * adversaries.squared_slopes(judge, each).mean() for each in (BATCH, fake))
        held = adversaries.gradient_penalty(penalty_key, judge, BATCH, fake)
        expected = {"none": 0.0, "interpolated": held, "real": real, "both": real + generated}[penalty]
        return got, judge(BATCH), judge(fake), expected

    (total, said), real, fake, expected = jax.tree.map(np.asarray, both(jax.random.key(2)))
    paid = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    np.testing.assert_allclose(said.penalty, expected, rtol=1e-5)
    np.testing.assert_allclose(total, paid + 0.7 * expected, rtol=1e-5)
    np.testing.assert_allclose(said, (-paid, total, expected, real.mean(), fake.mean()), rtol=1e-5)
    assert (penalty == "none") == (expected == 0)


def test_the_generator_pays_for_what_the_discriminator_says_of_its_examples(params):
    pair = gan.assemble(VECTOR, SMALL())

    @jax.jit
    def both(key):
        got = gan.generator_loss(params[gan.GENERATOR], params, key, BATCH, HYPERS, pair=pair)
        fake = pair.generator.apply(params[gan.GENERATOR], jax.random.normal(key, (4, 3)))
        return got, logits_of(params, fake, pair)

    (total, said), logits = both(jax.random.key(2))
    np.testing.assert_allclose(total, np.log1p(np.exp(-logits)).mean(), rtol=1e-5)
    assert float(said) == float(total)


def test_switches_bind_the_discriminator(params):
    """Spectral norm divides its matrices, packing doubles what it reads."""
    bounded = gan.assemble(VECTOR, SMALL(spectral_norm=True))
    judged = jax.jit(gan.discriminate(params[gan.DISCRIMINATOR], pair=bounded))(BATCH)
    divided = jax.jit(adversaries.normalise_spectra)(params[gan.DISCRIMINATOR])
    np.testing.assert_allclose(judged, jax.jit(bounded.discriminator.apply)(divided, BATCH), rtol=1e-5)
    packed = gan.assemble(VECTOR, SMALL(num_packed=2))
    started = jax.eval_shape(functools.partial(gan.start, pair=packed), jax.random.key(0), HYPERS)
    assert started[gan.DISCRIMINATOR]["params"]["body_0"]["kernel"].shape == (4, 6)
    assert started[gan.GENERATOR]["params"]["Dense_1"]["kernel"].shape == (5, 2)


def test_k_steps_of_the_discriminator_take_k_minibatches_and_the_generator_its_own():
    """One update is the turns that `learn` takes, in that order, and no minibatch is left out."""
    config = SMALL(discriminator_steps=2)
    assert config.num_steps == 2
    assert SMALL(generator_steps=4).num_steps == 4
    algorithm, pair = gan.build(VECTOR, config), gan.assemble(VECTOR, config)
    batch = jax.random.normal(jax.random.key(3), (2, 4, 2))

    @jax.jit
    def both(key):
        state = algorithm.init(jax.random.key(0), HYPERS)
        got, metrics = algorithm.update(key, jnp.int32(0), state, batch, HYPERS)
        game, paid = state.game, []
        for name, steps in ((gan.DISCRIMINATOR, 2), (gan.GENERATOR, 1)):
            key, turn_key = jax.random.split(key)
            for index, step_key in enumerate(jax.random.split(turn_key, steps)):
                game, said = gan.learn(step_key, game, batch[index], HYPERS, pair=pair, name=name)
                paid.append(said)
        return got, metrics, game, paid

    (state, metrics, game, paid) = both(jax.random.key(4))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state.game, game)
    np.testing.assert_allclose(metrics.loss, np.mean([said.divergence for said in paid[:2]]), rtol=1e-5)
    np.testing.assert_allclose(metrics.generator_loss, paid[2], rtol=1e-5)
    assert state.average == ()


def test_rates_are_their_own_and_fall_to_their_share():
    """Adam's first step is as long as its rate."""
    config = SMALL(discriminator_steps=1)
    algorithm = gan.build(VECTOR, config)
    hypers = HYPERS._replace(annealed_share=0.1, generator_learning_rate=0.2, discriminator_learning_rate=0.1)

    @jax.jit
    def moves(step):
        state = algorithm.init(jax.random.key(0), hypers)
        after = algorithm.update(jax.random.key(1), step, state, BATCH[None], hypers)[0]
        apart = jax.tree.map(lambda old, new: jnp.abs(old - new).max(), state.game.params, after.game.params)
        return {name: jnp.stack(jax.tree.leaves(leaves)).max() for name, leaves in apart.items()}

    for step, share in ((0, 1.0), (50, 0.55), (100, 0.1), (200, 0.1)):
        moved = moves(jnp.int32(step))
        np.testing.assert_allclose(moved[gan.GENERATOR], 0.2 * share, rtol=1e-3)
        np.testing.assert_allclose(moved[gan.DISCRIMINATOR], 0.1 * share, rtol=1e-3)


def test_the_average_follows_the_generator_and_is_what_is_evaluated():
    algorithm = gan.build(VECTOR, SMALL(average=True))
    hypers = HYPERS._replace(averaging=0.6)

    @jax.jit
    def run(step):
        state = algorithm.init(jax.random.key(0), hypers)
        after, _ = algorithm.update(jax.random.key(1), step, state, BATCH[None], hypers)
        drawn = [
            algorithm.policy(step, after, hypers, explore=explore).apply(jax.random.key(2), jnp.zeros((5, 0)), ())[0]
            for explore in (True, False)
        ]
        pair, key = gan.assemble(VECTOR, SMALL()), jax.random.key(2)
        expected = [gan.draw(key, each, 5, pair=pair) for each in (after.game.params[gan.GENERATOR], after.average)]
        return state.average, after, drawn, expected

    for step, kept in ((2, 3 / 12), (90, 0.6)):
        before, after, drawn, expected = run(jnp.int32(step))
        mixed = jax.tree.map(lambda a, b, k=kept: k * a + (1 - k) * b, before, after.game.params[gan.GENERATOR])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.average, mixed)
        np.testing.assert_allclose(drawn, expected, rtol=1e-5)
        assert not np.allclose(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("spec", "network"), [(VECTOR, "mlp"), (IMAGE, "mlp"), (IMAGE, "dcgan")], ids=["vectors", "images", "DCGAN"]
)
def test_examples_have_their_shape_and_type_for_any_batch_shape(spec, network):
    algorithm = gan.build(spec, SMALL(network=network))

    @jax.jit
    def draw(key):
        state = algorithm.init(key, HYPERS)
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=False)
        return policy.apply(key, jnp.zeros((3, 2, 0)), policy.memory((3, 2)))[0]

    drawn = np.asarray(draw(jax.random.key(0)))
    assert (drawn.shape, drawn.dtype) == ((3, 2, *spec.action.shape), spec.action.dtype)
    assert len(np.unique(drawn.reshape(6, -1), axis=0)) == 6


def test_a_walk_goes_along_quarters_of_circles():
    config = SMALL(average=True)
    pair, share = gan.assemble(IMAGE, config), jnp.array([0.0, 1 / 3, 1.0])
    state = jax.jit(gan.build(IMAGE, config).init)(jax.random.key(0), HYPERS)
    state = state._replace(average=jax.tree.map(lambda leaf: 0.5 * leaf, state.average))
    nothing = jnp.zeros((5, 0))
    key = jax.random.key(3)
    walked = jax.jit(gan.build_walk(IMAGE, config))(key, state, nothing, nothing, share)
    first, last = jax.random.normal(key, (2, 5, 3))  # `latent_size` is 3
    for station, latents in enumerate((first, 0.75**0.5 * first + 0.5 * last, last)):
        expected = adversaries.pixels(pair.generator.apply(state.average, latents))
        difference = np.abs(np.subtract(walked[:, station], expected, dtype=np.int32))
        assert difference.max() <= 1
    assert len(np.unique(walked.reshape(15, -1), axis=0)) == 15


def test_what_no_gan_can_be_is_refused():
    with pytest.raises(ValueError, match="there is no GAN"):
        gan.assemble(VECTOR, gan.Config(network="dcgan"))
    with pytest.raises(ValueError, match="there is no GAN"):
        gan.assemble(Spec(NOTHING, Box((4, 4))), gan.Config())
    with pytest.raises(ValueError, match=r"config\.discriminator_sizes halves images of 8×8 4 times"):
        image = Spec(NOTHING, Box((8, 8, 1), 0, 255, "uint8"))
        gan.assemble(image, gan.Config(network="dcgan", discriminator_sizes=(1, 1, 1, 1)))
    with pytest.raises(ValueError, match=r"config\.generator_sizes=\(\): a convolutional generator needs channels"):
        gan.assemble(image, gan.Config(network="dcgan", generator_sizes=()))
    for field in ("loss", "penalty", "network"):
        with pytest.raises(ValueError, match=rf"config\.{field}='perceptual'"):
            gan.Config(**{field: "perceptual"})
    with pytest.raises(ValueError, match=r"config\.num_packed=3 does not divide"):
        gan.Config(num_packed=3)


def test_idle_hyperparameters_follow_the_switches():
    assert set(gan.Config().idle) == {"penalty", "averaging"}
    assert not gan.Config(penalty="real", average=True).idle


LEARNED = {
    "non-saturating": gan.Config(penalty="real"),
    "WGAN-GP": gan.Config(loss="wasserstein", penalty="interpolated", discriminator_steps=3),
}


@pytest.mark.parametrize("name", LEARNED)
def test_a_normal_is_learned(name):
    """Correlated and off the origin."""
    root, mean = jnp.array([[0.8, 0.0], [0.6, 0.3]]), jnp.array([1.0, -0.5])

    def draw(key, shape):
        return jax.random.normal(key, (*shape, 2)) @ root.T + mean

    config = dataclasses.replace(
        LEARNED[name],
        batch_size=64,
        latent_size=2,
        generator_sizes=(16,),
        discriminator_sizes=(32,),
        average=True,
    )
    algorithm = gan.build(VECTOR, config)
    run = train.make(algorithm, plane.build(draw, batch_size=64, num_batches=config.num_steps))
    hypers = gan.Hypers(5e-3, 5e-3, annealed_share=0.1, horizon=800.0, penalty=0.5, averaging=0.99)

    @jax.jit
    def learned(key):
        state = train.scan(run, 800)(key, jnp.int32(0), run.init(key, hypers), hypers)[0].algorithm
        policy = algorithm.policy(jnp.int32(800), state, hypers, explore=False)
        return policy.apply(key, jnp.zeros((4000, 0)), ())[0]

    drawn = np.asarray(learned(jax.random.key(0)))
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.25)
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), root @ root.T, atol=0.3)


def test_the_state_holds_both_players():
    algorithm = gan.build(IMAGE, SMALL())
    run = train.make(algorithm, constant.build(jnp.zeros((1, 4, 4, 4, 1), jnp.uint8)))
    state = jax.eval_shape(run.init, jax.random.key(0), HYPERS).algorithm
    assert isinstance(state.game, optim.Game)
    assert list(state.game.params) == [gan.DISCRIMINATOR, gan.GENERATOR]
