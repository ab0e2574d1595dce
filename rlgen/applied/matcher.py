"""Matches images and captions by contrast, after CLIP (arXiv:2103.00020): two encoders into one space.

Of a minibatch, each image has to find its caption and each caption its image, by the cosine of the angle between them
over a temperature that is learned.  The encoders are small: strided convolutions, and the mean of the words' vectors.
As examples are few, images are shifted at random and words left out.  As some share a caption, each of a minibatch's
equal captions is right for each of their images, in equal parts; the paper's, out of 400 million pairs, are all others.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `D` examples, `H W C` image, `L` words of a
caption, `F` size of the space.
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

from rlgen.core import Algorithm, Array, Box, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import adversaries, checks, convolution, networks, optim
from rlgen.parts.translators import Captioned, Reader

PLAYER = "matcher"
_START, _MOST = 1 / 0.07, 100.0  # of the inverse temperature, as in the paper
_EPSILON = 1e-4  # of Adam: what is only rounding moves nothing


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        num_steps: `K`, gradient steps an update, each on a minibatch of its own.
        num_words: ids of words that there are.
        word_size: of a word's vector.
        hidden_sizes: filters of the convolutions, each of which halves the image.
        max_shift: pixels by which an image is shifted at most while it is learned.
    """

    batch_size: int = 128
    num_steps: int = 1
    num_words: int = 640
    word_size: int = 64
    hidden_sizes: tuple[int, ...] = (32, 64, 128)
    max_shift: int = 4

    def __post_init__(self):
        if self.batch_size < 2:
            raise ValueError(f"config.batch_size={self.batch_size} leaves an image without another one's caption")


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 2e-3
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    weight_decay: float = 0.1  # of all parameters, times the learning rate
    dropped_share: float = 0.2  # of the words that are left out while they are learned


class Metrics(NamedTuple):
    """Means over an update's minibatches."""

    loss: Array  # nats
    error: Array  # share of the images that take a wrong caption of the minibatch for theirs


class Matcher(nn.Module):
    """Both encoders, and the temperature."""

    config: Config
    size: int  # F

    def setup(self):
        """Builds the layers."""
        init = nn.initializers.he_normal()
        self.body = [convolution.Conv(size, stride=2, padding=1, kernel_init=init) for size in self.config.hidden_sizes]
        self.image_head = nn.Dense(self.size)
        self.reader = Reader(self.config.num_words, self.config.word_size)
        self.caption_head = nn.Dense(self.size)
        self.log_scale = self.param("log_scale", lambda key: jnp.log(jnp.float32(_START)))

    def look(self, image: Array) -> Array:
        """Maps uint8 images `[M, H, W, C]` to unit vectors `[M, F]`."""
        hidden = adversaries.signed(image)
        for module in self.body:
            hidden = nn.relu(module(hidden))
        return _unit(self.image_head(hidden.reshape(len(hidden), -1)))

    def read(self, caption: Array) -> Array:
        """Maps captions `[M, L]` to unit vectors `[M, F]`."""
        return _unit(self.caption_head(self.reader(caption)))

    def __call__(self, image: Array, caption: Array) -> Array:
        """Scores each image `[M, H, W, C]` with each caption `[M, L]`, `[M, M]`."""
        scale = jnp.minimum(jnp.exp(self.log_scale), _MOST)
        return scale * self.look(image) @ self.read(caption).T


def _unit(vector: Array) -> Array:
    return vector * lax.rsqrt(jnp.square(vector).sum(-1, keepdims=True) + 1e-12)


def optimiser(hypers: Hypers) -> Any:
    """AdamW (arXiv:1711.05101)."""
    # Its moments are one vector, as those of `optim.adam`.
    return optim.flattened(optax.adamw(hypers.learning_rate, eps=_EPSILON, weight_decay=hypers.weight_decay))


def disturb(key: Key, batch: Captioned, hypers: Hypers, *, max_shift: int) -> Captioned:
    """Shifts images `[M, H, W, C]`, whose edges are repeated, and leaves words out.  The key is consumed."""
    shift_key, word_key = jax.random.split(key)
    edges = (max_shift, max_shift)
    padded = jnp.pad(batch.image, ((0, 0), edges, edges, (0, 0)), mode="edge")
    corner = jax.random.randint(shift_key, (len(padded), 2), 0, 2 * max_shift + 1)
    cut = lambda image, at: lax.dynamic_slice(image, (*at, 0), batch.image.shape[1:])  # noqa: E731
    dropped = jax.random.bernoulli(word_key, hypers.dropped_share, batch.caption.shape)
    return Captioned(jax.vmap(cut)(padded, corner), jnp.where(dropped, 0, batch.caption))


def loss(
    own: Tree, params: Tree, key: Key, batch: Captioned, hypers: Hypers, *, network: Matcher
) -> tuple[Array, Metrics]:
    """Cross entropy of a minibatch `[M]` both ways, mean in nats.  The key is consumed."""
    del params
    logits = networks.apply(network, own, *disturb(key, batch, hypers, max_shift=network.config.max_shift))
    right = (batch.caption[:, None] == batch.caption).all(-1)  # [M, M]
    shares = right / right.sum(-1, keepdims=True)
    ways = [optax.softmax_cross_entropy(each, shares).mean() for each in (logits, logits.T)]
    total = 0.5 * (ways[0] + ways[1])
    found = jnp.take_along_axis(right, logits.argmax(-1)[:, None], axis=1)
    return total, Metrics(total, 1 - found.mean(dtype=jnp.float32))


def learn(
    key: Key, game: optim.Game, minibatch: Captioned, hypers: Hypers, *, network: Matcher
) -> tuple[optim.Game, Metrics]:
    """Takes one gradient step on examples `[M]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=PLAYER, player=player(network))


def player(network: Matcher) -> optim.Player:
    """The one player of this game."""
    return optim.Player(functools.partial(loss, network=network), optimiser, network.config.num_steps)


def init(key: Key, hypers: Hypers, *, network: Matcher, shape: tuple[int, ...]) -> dict[str, Tree]:
    """Makes the parameters for images of a shape.  The key is consumed."""
    del hypers
    return {PLAYER: network.init(key, jnp.zeros((1, *shape), jnp.uint8), jnp.zeros((1, 1), jnp.int32))}


def similarity(params: Tree, images: Array, captions: Array, *, network: Matcher, chunk: int = 500) -> Array:
    """Cosines between images `[N, H, W, C]` and captions `[D, L]`, `[N, D]`."""
    look = lambda image: networks.apply(network, params, image[None], method="look")[0]  # noqa: E731
    seen = lax.map(look, images, batch_size=chunk)
    return seen @ networks.apply(network, params, captions, method="read").T


def retrieval(similarity: Array, among: int = 32) -> Array:
    """How often the right caption of an image is the first among some.

    Args:
        similarity: `[D, D]` of images to captions, of which the right ones lie on the diagonal; or `[R, D, D]`.
        among: captions to choose from, the right one and others drawn at random; at most `D`.

    Returns:
        The expected share over all such draws, scalar; equally similar captions go before the right one.
    """
    right = jnp.diagonal(similarity, axis1=-2, axis2=-1)[..., None]
    # What is no number counts as ahead, so that a model that broke finds nothing.
    ahead = (~(similarity < right)).sum(-1, dtype=jnp.float32) - 1
    others = similarity.shape[-1] - 1
    drawn = jnp.arange(min(among - 1, others), dtype=jnp.float32)
    # No other that is ahead is drawn: one factor for each draw without putting back.
    free = jnp.maximum(others - ahead[..., None] - drawn, 0.0) / (others - drawn)
    return free.prod(-1).mean()


def score(key: Key, game: optim.Game, examples: Captioned, hypers: Hypers, *, network: Matcher) -> Array:
    """Retrieval among 32 held-out captions `[D]` for their images, scalar.  The key is consumed."""
    del key, hypers
    return retrieval(similarity(game.params[PLAYER], examples.image, examples.caption, network=network))


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, network: Matcher):
    """Maps uint8 images `[*N, H, W, C]` to unit vectors `[*N, F]`.  The key is consumed."""
    del key
    seen = networks.apply(network, params, inputs.reshape(-1, *inputs.shape[-3:]), method="look")
    return seen.reshape(*inputs.shape[:-3], network.size), {}, memory


def policy(step: Array, state: optim.Game, hypers: Hypers, *, explore: bool, network: Matcher) -> Policy:
    """The encoder of images."""
    del step, hypers, explore
    return memoryless(functools.partial(act, params=state.params[PLAYER], network=network))


def assemble(spec: Spec, config: Config) -> Matcher:
    """Builds the network of a task.

    Args:
        spec: observation a `Box` of an image `[H, W, C]`, action a `Box` of a vector `[F]`.
        config: what shapes the program.

    Returns:
        The network.

    Raises:
        ValueError: if the task is another.
    """
    if not checks.is_image(spec.observation) or not isinstance(spec.action, Box) or len(spec.action.shape) != 1:
        raise ValueError(f"a matcher reads a uint8 image and gives a vector; got {spec}")
    return Matcher(config, spec.action.shape[0])


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a matcher to a task.

    Args:
        spec: observation a `Box` of an image `[H, W, C]`, action a `Box` of a vector `[F]`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are `Captioned` with leaves `[K, M, ...]`.

    Raises:
        ValueError: if the task is another.
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
