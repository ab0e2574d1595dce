"""CycleGAN: translation between two kinds of images of which no pairs are known, arXiv:1703.10593.

Two translators and two discriminators play.  A translator pays for what the discriminator of the other kind tells from
real images (by least squares), for what does not come back unchanged from there and back again, and for changing
images that are of the other kind already.  Discriminators see generated images out of pools of earlier ones.  As in the
paper both translators descend what they pay together, and so do both discriminators: two players of two networks each,
whose parameters lie side by side.  The learning rate falls from the first update on, there in the second half.

Shape legend: `M` images of either kind in a minibatch, `H W C` image, `P` images in a pool; a leading 2 stands for the
kinds: that of images, that which a translator reads, that which a discriminator judges.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Box, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import adversaries, networks, optim, translators
from rlgen.sources.pair import Pair

TRANSLATORS, DISCRIMINATORS = "translators", "discriminators"


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        num_filters: of a translator's first layer.
        num_blocks: residual blocks of a translator.
        discriminator_filters: of a discriminator's first layer.
        num_halvings: of height and width by a discriminator; with more, it judges larger patches.
        pool_size: `P`; with 0, discriminators see the newest images.
    """

    batch_size: int = 8
    num_filters: int = 16
    num_blocks: int = 2
    discriminator_filters: int = 16
    num_halvings: int = 2
    pool_size: int = 50


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 5e-4
    annealed_share: float = 0.0  # of the learning rate, that is left after `horizon` updates
    horizon: float = float("inf")  # updates over which it is annealed
    first_moment_decay: float = 0.5  # of Adam, below 1
    cycle_weight: float = 10.0  # of what does not come back unchanged
    identity_weight: float = 5.0  # of what should have been left as it was


class State(NamedTuple):
    """The players, and what the discriminators are shown."""

    game: optim.Game
    pools: Array  # [2, P, H, W, C] float32, generated images of either kind


class Shown(NamedTuple):
    """A minibatch of an update."""

    real: Array  # [*N, 2, M, H, W, C] float32 in [−1, 1]
    fake: Array  # likewise, out of the pools


class Cost(NamedTuple):
    """What the translators pay: means over both."""

    loss: Array  # all, weighted
    adversarial: Array  # for what the discriminators tell from real images
    cycle: Array  # mean absolute difference after there and back, in half the range of a pixel
    identity: Array  # likewise, of images that should have been left as they were


class Metrics(NamedTuple):
    """What the translators pay, as in `Cost`, and what the discriminators do."""

    loss: Array
    adversarial: Array
    cycle: Array
    identity: Array
    discriminator_loss: Array


class Networks(NamedTuple):
    """What the parameters belong to."""

    translator: nn.Module  # [M, H, W, C] -> [M, H, W, C]
    discriminator: nn.Module  # [M, H, W, C] -> logits [M, ...]
    shape: tuple[int, ...]  # H W C
    pool_size: int


def optimiser(hypers: Hypers) -> Any:
    """Adam."""
    return optim.adam(hypers.learning_rate, b1=hypers.first_moment_decay)


def both(network: nn.Module, params: Tree, images: Array) -> Array:
    """Lets both networks read images of their own, `[2, M, H, W, C]`."""
    return jax.vmap(functools.partial(networks.apply, network))(params, images)


def translator_loss(
    own: Tree, params: Tree, key: Key, batch: Shown, hypers: Hypers, *, pairs: Networks
) -> tuple[Array, Cost]:
    """What the translators pay for images `[2, M, H, W, C]`.  The key is consumed."""
    del key
    real, other = batch.real, batch.real[::-1]
    translated = both(pairs.translator, own, jnp.concatenate([real, other], axis=1))
    fake, same = jnp.split(translated, 2, axis=1)
    fake = fake[::-1]  # by its own kind, no longer by the kind that it was made of
    again = both(pairs.translator, own, fake)[::-1]
    logits = both(pairs.discriminator, params[DISCRIMINATORS], fake)
    adversarial = 2 * adversaries.least_squares.generator(logits).mean()  # which halves what the paper does not
    cycle, identity = jnp.abs(again - real).mean(), jnp.abs(same - other).mean()
    total = adversarial + hypers.cycle_weight * cycle + hypers.identity_weight * identity
    return total, Cost(total, adversarial, cycle, identity)


def discriminator_loss(
    own: Tree, params: Tree, key: Key, batch: Shown, hypers: Hypers, *, pairs: Networks
) -> tuple[Array, Array]:
    """What the discriminators pay for real and generated images `[2, M, H, W, C]`.  The key is consumed."""
    del params, key, hypers
    logits = both(pairs.discriminator, own, jnp.concatenate(batch, axis=1))
    real, fake = jnp.split(logits, 2, axis=1)
    total = adversaries.least_squares.real(real).mean() + adversaries.least_squares.fake(fake).mean()
    return total, total


def players(pairs: Networks) -> dict[str, optim.Player]:
    """Both, in the order of play."""
    losses = {TRANSLATORS: translator_loss, DISCRIMINATORS: discriminator_loss}
    return {name: optim.Player(functools.partial(loss, pairs=pairs), optimiser) for name, loss in losses.items()}


def learn(
    key: Key, game: optim.Game, minibatch: Shown, hypers: Hypers, *, pairs: Networks, name: str
) -> tuple[optim.Game, Any]:
    """Lets one player take one step on images `[2, M, H, W, C]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=name, player=players(pairs)[name])


def start(key: Key, hypers: Hypers, *, pairs: Networks) -> dict[str, Tree]:
    """Makes the parameters of both players, leaves `[2, ...]`.  The key is consumed."""
    del hypers
    image = jnp.zeros((1, *pairs.shape))
    kinds = {TRANSLATORS: pairs.translator, DISCRIMINATORS: pairs.discriminator}
    keys = jax.random.split(key, (len(kinds), 2))
    return {
        name: jax.vmap(lambda key, network=network: network.init(key, image))(own)
        for own, (name, network) in zip(keys, kinds.items(), strict=True)
    }


def init(key: Key, hypers: Hypers, *, pairs: Networks, first: Callable) -> State:
    """Makes the players and empty pools.  The key is consumed."""
    return State(first(key, hypers), jnp.zeros((2, pairs.pool_size, *pairs.shape)))


def update(
    key: Key, step: Array, state: State, batch: Pair, hypers: Hypers, *, pairs: Networks, rounds: Callable
) -> tuple[State, Metrics]:
    """Lets both players take a step on uint8 images `[1, M, H, W, C]` of either kind.  The key is consumed."""
    first_key, second_key, play_key = jax.random.split(key, 3)
    real = adversaries.signed(jnp.concatenate(batch))
    fake = both(pairs.translator, state.game.params[TRANSLATORS], real)[::-1]
    exchanged = [
        translators.exchange(own, pool, images, step * real.shape[1])
        for own, pool, images in zip((first_key, second_key), state.pools, fake, strict=True)
    ]
    pools, seen = (jnp.stack(each) for each in zip(*exchanged, strict=True))
    game, metrics = rounds(play_key, step, state.game, Shown(real[None], seen[None]), hypers)
    return State(game, pools), metrics


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, pairs: Networks):
    """Translates uint8 images `[*N, H, W, C]` of the first kind into the second.  The key is consumed."""
    del key
    images = adversaries.signed(inputs).reshape(-1, *pairs.shape)
    return adversaries.pixels(networks.apply(pairs.translator, params, images)).reshape(inputs.shape), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, pairs: Networks) -> Policy:
    """The translator of the first kind."""
    del step, hypers, explore
    params = jax.tree.map(lambda leaf: leaf[0], state.game.params[TRANSLATORS])
    return memoryless(functools.partial(act, params=params, pairs=pairs))


def bind(pairs: Networks) -> Algorithm:
    """Makes the algorithm of any translators and discriminators."""
    game = optim.play(
        players(pairs),
        init=functools.partial(start, pairs=pairs),
        policy=functools.partial(policy, pairs=pairs),
        report=lambda said: Metrics(*said[TRANSLATORS], discriminator_loss=said[DISCRIMINATORS]),
        schedule=functools.partial(optim.slowed, names=("learning_rate",)),
    )
    return Algorithm(
        functools.partial(init, pairs=pairs, first=game.init),
        functools.partial(update, pairs=pairs, rounds=game.update),
        game.policy,
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds CycleGAN to a task.

    Args:
        spec: observation and action `Box`es of uint8 images of one shape `[H, W, C]`, where 4 divides `H` and `W`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are `Pair`s of uint8 images `[1, M, H, W, C]`.

    Raises:
        ValueError: if the task is no such translation.
    """
    image = spec.action
    fits = isinstance(image, Box) and image.dtype == "uint8" and len(image.shape) == 3
    if spec.observation != image or not fits or image.shape[0] % 4 or image.shape[1] % 4:
        raise ValueError(f"CycleGAN translates uint8 images whose height and width 4 divides; got {spec}")
    if min(image.shape[:2]) < 8:
        raise ValueError(f"CycleGAN's translator halves images twice and needs 8×8 pixels or more; got {spec}")
    # Normalised over its only pixel, whatever the discriminator sees would be one and the same.
    least = 1 if config.num_halvings == 1 else 2
    adversaries.check_halvings(image.shape, config.num_halvings, "num_halvings", least)
    pairs = Networks(
        translators.Translator(config.num_filters, config.num_blocks),
        translators.PatchDiscriminator(config.discriminator_filters, config.num_halvings),
        image.shape,
        config.pool_size,
    )
    return bind(pairs)
