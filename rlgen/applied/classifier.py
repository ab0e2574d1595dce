"""Classifiers of images by cross entropy, dense or convolutional.

The convolutions follow doi:10.1109/5.726791, with ReLUs, strides in place of pooling, and Adam.  What the last hidden
layer says of an image are its features.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `H W C` image, `A` classes, `F` features.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from rlgen.core import Algorithm, Array, Discrete, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import checks, convolution, networks, optim

PLAYER = "classifier"


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        num_steps: `K`, gradient steps an update, each on a minibatch of its own.
        filters: of the convolutions, each of which halves the image; none for a dense network.
        hidden_sizes: widths of the dense layers that follow.  The last one is `F`.
    """

    batch_size: int = 128
    num_steps: int = 1
    filters: tuple[int, ...] = (32, 32)
    hidden_sizes: tuple[int, ...] = (128,)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 2e-3
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed


class Examples(NamedTuple):
    """Labelled images: leaves `[*N, ...]`."""

    image: Array  # [*N, H, W, C] uint8
    label: Array  # [*N] int32


class Metrics(NamedTuple):
    """Means over an update's minibatches."""

    loss: Array  # nats an image
    error: Array  # share of the images that are labelled wrongly


class Classifier(nn.Module):
    """`p(label | image)`."""

    config: Config
    num_classes: int

    def setup(self):
        """Builds the layers."""
        self.convolutions = [convolution.Conv(size, stride=2, padding=1) for size in self.config.filters]
        self.dense = [nn.Dense(size) for size in self.config.hidden_sizes]
        self.head = nn.Dense(self.num_classes)

    def features(self, image: Array) -> Array:
        """Maps uint8 images `[M, H, W, C]` to `[M, F]`."""
        hidden = image.astype(jnp.float32) / 255
        for module in self.convolutions:
            hidden = nn.relu(module(hidden))
        hidden = hidden.reshape(len(hidden), -1)
        for module in self.dense:
            hidden = nn.relu(module(hidden))
        return hidden

    def __call__(self, image: Array) -> Array:
        """Maps uint8 images `[M, H, W, C]` to logits `[M, A]`."""
        return self.head(self.features(image))


def optimiser(hypers: Hypers) -> Any:
    """Adam."""
    return optim.adam(hypers.learning_rate)


def loss(
    own: Tree, params: Tree, key: Key, batch: Examples, hypers: Hypers, *, network: Classifier
) -> tuple[Array, Metrics]:
    """Cross entropy of a minibatch `[M]`, mean in nats.  The key is consumed."""
    del params, key, hypers
    logits = networks.apply(network, own, batch.image)
    total = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label).mean()
    return total, Metrics(total, (logits.argmax(-1) != batch.label).mean(dtype=jnp.float32))


def learn(
    key: Key, game: optim.Game, minibatch: Examples, hypers: Hypers, *, network: Classifier
) -> tuple[optim.Game, Metrics]:
    """Takes one gradient step on examples `[M]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=PLAYER, player=player(network))


def player(network: Classifier) -> optim.Player:
    """The one player of this game."""
    return optim.Player(functools.partial(loss, network=network), optimiser, network.config.num_steps)


def init(key: Key, hypers: Hypers, *, network: Classifier, shape: tuple[int, ...]) -> dict[str, Tree]:
    """Makes the parameters for images of a shape.  The key is consumed."""
    del hypers
    return {PLAYER: network.init(key, jnp.zeros((1, *shape), jnp.uint8))}


def score(
    key: Key, game: optim.Game, examples: Examples, hypers: Hypers, *, network: Classifier, chunk: int = 500
) -> Array:
    """Share of held-out examples `[N]` that are labelled rightly, scalar.  The key is consumed."""
    del key, hypers

    def right(example):
        return networks.apply(network, game.params[PLAYER], example.image[None]).argmax() == example.label

    return lax.map(right, examples, batch_size=chunk).mean(dtype=jnp.float32)


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, network: Classifier, explore: bool):
    """Labels images `[*N, H, W, C]`: the likeliest class, or while exploring one drawn.  The key is consumed."""
    batch_shape = inputs.shape[:-3]
    logits = networks.apply(network, params, inputs.reshape(-1, *inputs.shape[-3:]))
    logits = logits.reshape(*batch_shape, network.num_classes)
    label = jax.random.categorical(key, logits) if explore else logits.argmax(-1)
    return label.astype(jnp.int32), {"logits": logits}, memory


def policy(step: Array, state: optim.Game, hypers: Hypers, *, explore: bool, network: Classifier) -> Policy:
    """The classifier."""
    del step, hypers
    return memoryless(functools.partial(act, params=state.params[PLAYER], network=network, explore=explore))


def assemble(spec: Spec, config: Config) -> Classifier:
    """Builds the network of a task.

    Args:
        spec: observation a `Box` of an image `[H, W, C]`, action `Discrete(A)`.
        config: what shapes the program.

    Returns:
        The network.

    Raises:
        ValueError: if the task is no classification of images.
    """
    if not (checks.is_image(spec.observation) and isinstance(spec.action, Discrete)):
        raise ValueError(f"a classifier reads a uint8 image and chooses a class; got {spec}")
    return Classifier(config, spec.action.num)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a classifier to a task.

    Args:
        spec: observation a `Box` of an image `[H, W, C]`, action `Discrete(A)`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are `Examples` with leaves `[K, M, ...]`.

    Raises:
        ValueError: if the task is no classification of images.
    """
    network = assemble(spec, config)
    return optim.play(
        {PLAYER: player(network)},
        init=functools.partial(init, network=network, shape=spec.observation.shape),
        policy=functools.partial(policy, network=network),
        report=lambda said: said[PLAYER],
        schedule=optim.annealed,
    )


def build_score(spec: Spec, config: Config) -> Callable[..., Array]:
    """Binds `score` to a task."""
    return functools.partial(score, network=assemble(spec, config))
