"""Images from captions by a GAN whose discriminator knows mismatches, arXiv:1605.05396.

The discriminator sees real images with their captions, real images with captions of others, and generated images; only
the first should pass (GAN-CLS).  The generator may also be asked for images between two captions (GAN-INT), and may
draw its condition from a normal around the caption (conditioning augmentation, arXiv:1612.03242).

Either network learns its own reading of captions, in place of the paper's encoder that is trained beforehand; after
image and caption meet, dense layers stand for the paper's last convolutions.  A wrong caption is the one of the next
example in the minibatch, which by chance may say the same.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `H W C` image, `L` words of a caption, `E` size of
a condition, `Z` latent size.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Box, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import adversaries, distributions, networks, optim
from rlgen.parts.translators import Captioned, Reader

DISCRIMINATOR, GENERATOR = "discriminator", "generator"
_PAYS = adversaries.non_saturating


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        latent_size: `Z`.
        condition_size: `E`.
        generator_sizes: channels before each doubling, the smallest image first.
        discriminator_sizes: filters of the convolutions that halve the image.
        joint_size: units of the layer that reads image and caption together.
        projection: whether a product of what is seen and the caption adds to the logit, arXiv:1802.05637.
        interpolation: whether images between two captions are asked for.
        augmentation: whether conditions are drawn around captions.
    """

    batch_size: int = 32
    latent_size: int = 32
    condition_size: int = 64
    generator_sizes: tuple[int, ...] = (96, 48, 24)
    discriminator_sizes: tuple[int, ...] = (24, 48, 96)
    joint_size: int = 128
    projection: bool = True
    interpolation: bool = True
    augmentation: bool = False

    def __post_init__(self):
        if self.batch_size < 2:
            raise ValueError(f"config.batch_size={self.batch_size} leaves an image without another one's caption")

    @property
    def num_steps(self) -> int:
        """`K`: both players see the same minibatch."""
        return 1

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that the switches leave out, and why."""
        switches = {"interpolation_weight": "interpolation", "augmentation_weight": "augmentation"}
        return {name: f"config.{switch} is off" for name, switch in switches.items() if not getattr(self, switch)}


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    generator_learning_rate: float = 1e-3
    discriminator_learning_rate: float = 5e-4
    annealed_share: float = 0.1  # of both learning rates, that is left after `horizon` updates
    horizon: float = float("inf")  # updates over which they are annealed
    first_moment_decay: float = 0.5  # of Adam, below 1
    mismatch_weight: float = 0.5  # of mismatches; generated images have the rest of 1
    penalty: float = 1.0  # weight of the squared slope at real images, arXiv:1801.04406
    interpolation_weight: float = 0.5  # of images between two captions
    augmentation_weight: float = 1.0  # of the divergence of conditions from a standard normal


class Judgement(NamedTuple):
    """What the discriminator says of its step."""

    discriminator_loss: Array
    right: Array
    wrong: Array
    fake: Array


class Metrics(NamedTuple):
    """Means over an update."""

    loss: Array  # what the generator pays
    divergence: Array  # of that, KL(condition ‖ normal) in nats; 0 without augmentation
    discriminator_loss: Array
    right: Array  # mean logit of real images with their captions
    wrong: Array  # of real images with captions of others
    fake: Array  # of generated images with the captions that they were asked for by


class Painter(nn.Module):
    """The generator."""

    config: Config
    shape: tuple[int, ...]  # H W C
    num_words: int

    def setup(self):
        """Builds the layers."""
        size = self.config.condition_size
        self.reader = Reader(self.num_words, size)
        self.spread = nn.Dense(2 * size) if self.config.augmentation else None
        self.body = adversaries.Generator(self.shape, "dcgan", self.config.generator_sizes)

    def read(self, key: Key, caption: Array) -> tuple[Array, Array]:
        """Gives conditions `[M, E]` of captions `[M, L]`, and their divergence `[M]`.  The key is consumed."""
        condition = self.reader(caption)
        if self.spread is None:
            return condition, jnp.zeros(len(condition))
        mean, log_std = jnp.split(self.spread(condition), 2, axis=-1)
        divergence = distributions.divergence_from_standard(mean, log_std)
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape), divergence

    def paint(self, latent: Array, condition: Array) -> Array:
        """Maps latents `[M, Z]` and conditions `[M, E]` to images `[M, H, W, C]` in [−1, 1]."""
        return self.body(jnp.concatenate([latent, condition], axis=-1))

    def __call__(self, key: Key, caption: Array) -> Array:
        """Draws images `[M, H, W, C]` in [−1, 1] for captions `[M, L]`.  The key is consumed."""
        latent_key, condition_key = jax.random.split(key)
        latent = jax.random.normal(latent_key, (len(caption), self.config.latent_size))
        return self.paint(latent, self.read(condition_key, caption)[0])


class Critic(nn.Module):
    """The discriminator."""

    config: Config
    num_words: int

    def setup(self):
        """Builds the layers."""
        self.reader = Reader(self.num_words, self.config.condition_size)
        self.body = adversaries.Discriminator("dcgan", self.config.discriminator_sizes)
        self.joint, self.head = nn.Dense(self.config.joint_size), nn.Dense(1)
        self.projector = nn.Dense(self.config.condition_size) if self.config.projection else None

    def read(self, caption: Array) -> Array:
        """Maps captions `[M, L]` to conditions `[M, E]`."""
        return self.reader(caption)

    def look(self, image: Array) -> Array:
        """Maps images `[M, H, W, C]` in [−1, 1] to what is seen of them, `[M, ...]`."""
        return self.body.features(image)

    def judge(self, seen: Array, condition: Array) -> Array:
        """Tells how well what was seen fits conditions `[M, E]`, logits `[M]`."""
        hidden = nn.leaky_relu(self.joint(jnp.concatenate([seen, condition], axis=-1)), 0.2)
        logit = self.head(hidden)[:, 0]
        if self.projector is None:
            return logit
        return logit + (self.projector(seen) * condition).mean(-1)

    def __call__(self, image: Array, caption: Array) -> Array:
        """Maps images `[M, H, W, C]` in [−1, 1] and captions `[M, L]` to logits `[M]`."""
        return self.judge(self.look(image), self.read(caption))


class Networks(NamedTuple):
    """Both."""

    painter: Painter
    critic: Critic


def optimiser(hypers: Hypers, *, name: str) -> Any:
    """Adam, each player at a rate of its own."""
    return optim.adam(getattr(hypers, f"{name}_learning_rate"), b1=hypers.first_moment_decay)


def discriminator_loss(
    own: Tree, params: Tree, key: Key, batch: Captioned, hypers: Hypers, *, pair: Networks
) -> tuple[Array, Judgement]:
    """What the discriminator pays for a minibatch `[M]` and as many generated images.  The key is consumed."""
    judge = functools.partial(networks.apply, pair.critic, own)
    real, caption = adversaries.signed(batch.image), batch.caption
    fake = networks.apply(pair.painter, params[GENERATOR], key, caption)
    seen, seen_fake = jnp.split(judge(jnp.concatenate([real, fake]), method="look"), 2)
    condition = judge(caption, method="read")
    triple = jnp.concatenate([seen, seen, seen_fake]), jnp.concatenate([condition, _next(condition), condition])
    right, wrong, generated = jnp.split(judge(*triple, method="judge"), 3)
    rejected = hypers.mismatch_weight * _PAYS.fake(wrong) + (1 - hypers.mismatch_weight) * _PAYS.fake(generated)
    slope = adversaries.zero_centred_penalty(lambda image: judge(image, caption), real)
    total = (_PAYS.real(right) + rejected).mean() + hypers.penalty * slope
    return total, Judgement(total, right.mean(), wrong.mean(), generated.mean())


def generator_loss(
    own: Tree, params: Tree, key: Key, batch: Captioned, hypers: Hypers, *, pair: Networks
) -> tuple[Array, tuple[Array, Array]]:
    """What the generator pays for images of the captions of a minibatch `[M]`.  The key is consumed."""
    condition_key, latent_key = jax.random.split(key)
    config, caption = pair.painter.config, batch.caption
    asked, divergence = networks.apply(pair.painter, own, condition_key, caption, method="read")
    judged = networks.apply(pair.critic, params[DISCRIMINATOR], caption, method="read")
    if config.interpolation:
        asked, judged = (jnp.concatenate([each, 0.5 * (each + _next(each))]) for each in (asked, judged))
    latent = jax.random.normal(latent_key, (len(asked), config.latent_size))
    images = networks.apply(pair.painter, own, latent, asked, method="paint")
    seen = networks.apply(pair.critic, params[DISCRIMINATOR], images, method="look")
    paid = _PAYS.generator(networks.apply(pair.critic, params[DISCRIMINATOR], seen, judged, method="judge"))
    total = paid[: len(caption)].mean()
    if config.interpolation:
        total = total + hypers.interpolation_weight * paid[len(caption) :].mean()
    if config.augmentation:
        total = total + hypers.augmentation_weight * divergence.mean()
    return total, (total, divergence.mean())


def _next(rows: Array) -> Array:
    """What belongs to the next example, `[M, ...]`."""
    return jnp.roll(rows, -1, axis=0)


def players(pair: Networks) -> dict[str, optim.Player]:
    """The two, in the order of play."""
    losses = {DISCRIMINATOR: discriminator_loss, GENERATOR: generator_loss}
    return {
        name: optim.Player(functools.partial(loss, pair=pair), functools.partial(optimiser, name=name))
        for name, loss in losses.items()
    }


def learn(
    key: Key, game: optim.Game, minibatch: Captioned, hypers: Hypers, *, pair: Networks, name: str
) -> tuple[optim.Game, Any]:
    """Lets one player take one step on examples `[M]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=name, player=players(pair)[name])


def init(key: Key, hypers: Hypers, *, pair: Networks) -> dict[str, Tree]:
    """Makes the parameters of both.  The key is consumed."""
    del hypers
    painter_key, paint_key, critic_key = jax.random.split(key, 3)
    caption, image = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, *pair.painter.shape))
    return {
        DISCRIMINATOR: pair.critic.init(critic_key, image, caption),
        GENERATOR: pair.painter.init(painter_key, paint_key, caption),
    }


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, pair: Networks):
    """Draws uint8 images `[*N, H, W, C]` for captions `[*N, L]`.  The key is consumed."""
    batch_shape = inputs.shape[:-1]
    captions = inputs.reshape(math.prod(batch_shape), inputs.shape[-1])
    images = networks.apply(pair.painter, params, key, captions)
    return adversaries.pixels(images).reshape(*batch_shape, *pair.painter.shape), {}, memory


def policy(step: Array, state: optim.Game, hypers: Hypers, *, explore: bool, pair: Networks) -> Policy:
    """The generator."""
    del step, hypers, explore
    return memoryless(functools.partial(act, params=state.params[GENERATOR], pair=pair))


def assemble(spec: Spec, config: Config) -> Networks:
    """Builds both networks of a task.

    Args:
        spec: observation an int32 `Box` of a caption `[L]`, action a uint8 `Box` of an image `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The networks.

    Raises:
        ValueError: if the task is another, or images are halved until nothing is left.
    """
    kinds = [(len(space.shape), space.dtype) for space in (spec.observation, spec.action) if isinstance(space, Box)]
    if kinds != [(1, "int32"), (3, "uint8")]:
        raise ValueError(f"a caption of int32 is read and a uint8 image drawn; got {spec}")
    adversaries.check_filters(spec.action.shape, config)
    num_words = int(spec.observation.high) + 1
    return Networks(Painter(config, spec.action.shape, num_words), Critic(config, num_words))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a text-to-image GAN to a task.

    Args:
        spec: observation an int32 `Box` of a caption `[L]`, action a uint8 `Box` of an image `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are `Captioned` with leaves `[1, M, ...]`.

    Raises:
        ValueError: if the task is another, or images are halved until nothing is left.
    """
    pair = assemble(spec, config)
    return optim.play(
        players(pair),
        init=functools.partial(init, pair=pair),
        policy=functools.partial(policy, pair=pair),
        report=lambda said: Metrics(*said[GENERATOR], *said[DISCRIMINATOR]),
        schedule=functools.partial(optim.slowed, names=("generator_learning_rate", "discriminator_learning_rate")),
    )


def walk(key: Key, game: optim.Game, first: Array, last: Array, share: Array, *, pair: Networks) -> Array:
    """Goes from images of some captions to those of others, along lines between the conditions, one latent a line.

    Args:
        key: consumed.
        game: the state.
        first: captions `[N, W]`.
        last: captions `[N, W]`.
        share: of each way, `[L]` in [0, 1].
        pair: both networks.

    Returns:
        uint8 images `[N, L, H, W, C]`.
    """
    latent_key, condition_key = jax.random.split(key)
    params, config = game.params[GENERATOR], pair.painter.config
    ends, _ = networks.apply(pair.painter, params, condition_key, jnp.concatenate([first, last]), method="read")
    start, end = jnp.split(ends[:, None], 2)
    condition = start + share[:, None] * (end - start)
    latent = jax.random.normal(latent_key, (len(first), 1, config.latent_size))
    latent = jnp.broadcast_to(latent, (*condition.shape[:2], config.latent_size))
    rows = (each.reshape(-1, each.shape[-1]) for each in (latent, condition))
    images = networks.apply(pair.painter, params, *rows, method="paint")
    return adversaries.pixels(images).reshape(*condition.shape[:2], *pair.painter.shape)


def build_walk(spec: Spec, config: Config) -> Callable[..., Array]:
    """Binds `walk` to a task."""
    return functools.partial(walk, pair=assemble(spec, config))
