"""Autoencoders: under-complete, over-complete and sparse, and denoising.

A code that is smaller than the image, doi:10.1126/science.1127647, here without pre-training; a larger one whose units
are seldom active, by Ng's divergence of mean activations from a target ("Sparse autoencoder", CS294A lecture notes,
2011) or their absolute values; and a code from which a damaged image is restored, doi:10.1145/1390156.1390294, with
that paper's masking noise, here of each pixel by itself and not of a fixed number of them, or the Gaussian and
salt-and-pepper noise of Vincent et al., "Stacked Denoising Autoencoders" (JMLR 11, 2010).  Mean activations are those
of a minibatch.  A damaged image is an 8-bit image as well, so Gaussian noise is rounded and cut at black and white.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `H W C` image, `Z` units of the code, `N` images.
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
from jax.scipy.special import rel_entr

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import checks, coders, networks, optim

PLAYER = "autoencoder"
ACTIVATIONS = {"identity": lambda code: code, "sigmoid": nn.sigmoid, "relu": nn.relu}
ERRORS = ("squared", "cross_entropy")
CORRUPTIONS = ("none", "masking", "gaussian", "salt_and_pepper")
SPARSITIES = ("none", "divergence", "absolute")
_LEAST_MEAN, _MOST_MEAN = 1e-30, 1 - 2.0**-24  # so near 0 and 1 that a slope is left wherever float32 has one


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        num_steps: `K`, gradient steps an update, each on a minibatch of its own.
        code_size: `Z`.
        network: `"dense"` or `"convolutional"`.
        hidden_sizes: widths of the dense encoder, mirrored by the decoder, none for a code next to the pixels; or
            filters of the strided convolutions.
        dense_sizes: widths of dense layers between convolutions and the code, mirrored likewise.
        activation: of the code, of `ACTIVATIONS`.
        tied: whether the decoder has the encoder's weights, transposed.
        error: of the restored image, of `ERRORS`.
        corruption: of the image that is restored, of `CORRUPTIONS`.
        sparsity: penalty on the code, of `SPARSITIES`.
    """

    batch_size: int = 128
    num_steps: int = 1
    code_size: int = 32
    network: str = "dense"
    hidden_sizes: tuple[int, ...] = (256,)
    dense_sizes: tuple[int, ...] = ()
    activation: str = "identity"
    tied: bool = False
    error: str = "squared"
    corruption: str = "none"
    sparsity: str = "none"

    def __post_init__(self):
        coders.check(self)
        checks.one_of(self, activation=ACTIVATIONS, error=ERRORS, corruption=CORRUPTIONS, sparsity=SPARSITIES)
        if self.sparsity == "divergence" and self.activation != "sigmoid":
            raise ValueError(
                f"config.activation={self.activation!r}: config.sparsity='divergence' takes activations for"
                " probabilities, and needs 'sigmoid'"
            )

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = {}
        if self.corruption == "none":
            reasons["corruption_level"] = "config.corruption='none'"
        if self.sparsity == "none":
            reasons["sparsity_weight"] = "config.sparsity='none'"
        if self.sparsity != "divergence":
            reasons["sparsity_target"] = f"config.sparsity={self.sparsity!r}"
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3
    corruption_level: float = 0.25  # share of damaged pixels; of Gaussian noise its standard deviation, white being 1
    sparsity_target: float = 0.05  # mean activation of a unit
    sparsity_weight: float = 0.1  # of the penalty, a unit, against the error, a pixel


class Metrics(NamedTuple):
    """Means over an update's minibatches."""

    loss: Array
    error: Array  # a pixel: its square, white being 1, or nats
    activity: Array  # mean absolute activation of the code


class Autoencoder(nn.Module):
    """Encoder and decoder."""

    config: Config
    image_shape: tuple[int, ...]

    def setup(self):
        """Builds both networks."""
        config = self.config
        kind, sizes, dense_sizes = config.network, config.hidden_sizes, config.dense_sizes
        self.encoder = coders.Encoder(kind, sizes, config.code_size, dense_sizes)
        if config.tied:
            self.decoder = coders.TiedDecoder(self.encoder, self.image_shape)
        else:
            self.decoder = coders.Decoder(kind, sizes, self.image_shape, dense_sizes)

    def encode(self, image: Array) -> Array:
        """Maps uint8 images `[M, H, W, C]` to codes `[M, Z]`."""
        return ACTIVATIONS[self.config.activation](self.encoder(image.astype(jnp.float32) / 255))

    def decode(self, code: Array) -> Array:
        """Maps codes `[M, Z]` to images `[M, H, W, C]` between 0 and 1."""
        return nn.sigmoid(self.decoder(code))

    def __call__(self, image: Array) -> tuple[Array, Array]:
        """Maps uint8 images `[M, H, W, C]` to logits of pixels, of that shape, and codes `[M, Z]`."""
        code = self.encode(image)
        return self.decoder(code), code


def optimiser(hypers: Hypers) -> Any:
    """Adam."""
    return optim.adam(hypers.learning_rate)


def damage(key: Key, image: Array, level: Array | float, *, corruption: str) -> Array:
    """Damages uint8 images.

    Args:
        key: consumed.
        image: `[*N]` uint8.
        level: share of pixels that turn black (`"masking"`), or black or white (`"salt_and_pepper"`); or the standard
            deviation of `"gaussian"` noise, white being 1.
        corruption: of `CORRUPTIONS`.

    Returns:
        `[*N]` uint8.
    """
    if corruption == "none":
        return image
    if corruption == "gaussian":
        noisy = image.astype(jnp.float32) + 255 * level * jax.random.normal(key, image.shape)
        return jnp.clip(jnp.round(noisy), 0, 255).astype(jnp.uint8)
    draw = jax.random.uniform(key, image.shape)
    white = (draw < level / 2) if corruption == "salt_and_pepper" else False
    return jnp.where(draw < level, jnp.where(white, 255, 0), image).astype(jnp.uint8)


def penalty(code: Array, target: Array | float, *, sparsity: str) -> Array:
    """Says how far codes `[M, Z]` are from sparse, a mean over units: nats of `"divergence"`, else `"absolute"`."""
    if sparsity == "absolute":
        return jnp.abs(code).mean()
    # A unit that is always on, or never, would cost infinitely much.
    mean = jnp.clip(code.mean(axis=0), _LEAST_MEAN, _MOST_MEAN)
    return (rel_entr(target, mean) + rel_entr(1 - target, 1 - mean)).mean()


def loss(
    own: Tree, params: Tree, key: Key, batch: Array, hypers: Hypers, *, network: Autoencoder
) -> tuple[Array, Metrics]:
    """Error of restored images `[M, H, W, C]` uint8, mean a pixel, and what the code costs.  The key is consumed."""
    del params
    config = network.config
    damaged = damage(key, batch, hypers.corruption_level, corruption=config.corruption)
    logits, code = networks.apply(network, own, damaged)
    clean = batch.astype(jnp.float32) / 255
    if config.error == "squared":
        error = jnp.square(nn.sigmoid(logits) - clean).mean()
    else:
        error = optax.sigmoid_binary_cross_entropy(logits, clean).mean()
    total = error
    if config.sparsity != "none":
        total += hypers.sparsity_weight * penalty(code, hypers.sparsity_target, sparsity=config.sparsity)
    return total, Metrics(total, error, jnp.abs(code).mean())


def learn(
    key: Key, game: optim.Game, minibatch: Array, hypers: Hypers, *, network: Autoencoder
) -> tuple[optim.Game, Metrics]:
    """Takes one gradient step on uint8 images `[M, H, W, C]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=PLAYER, player=player(network))


def player(network: Autoencoder) -> optim.Player:
    """The one player of this game."""
    return optim.Player(functools.partial(loss, network=network), optimiser, network.config.num_steps)


def init(key: Key, hypers: Hypers, *, network: Autoencoder) -> dict[str, Tree]:
    """Makes the parameters.  The key is consumed."""
    del hypers
    return {PLAYER: network.init(key, jnp.zeros((1, *network.image_shape), jnp.uint8))}


def score(
    key: Key, game: optim.Game, images: Array, hypers: Hypers, *, network: Autoencoder, chunk: int = 500
) -> Array:
    """Squared error of held-out images that are restored, from damaged ones where the model was trained so.

    Args:
        key: consumed; it also damages.
        game: the state.
        images: `[N, H, W, C]` uint8.
        hypers: how much is damaged.
        network: the model.
        chunk: images at a time.

    Returns:
        Mean a pixel, white being 1, scalar.
    """
    damaged = damage(key, images, hypers.corruption_level, corruption=network.config.corruption)

    def squared(inputs):
        damaged, clean = inputs
        logits, _ = networks.apply(network, game.params[PLAYER], damaged[None])
        return jnp.square(nn.sigmoid(logits[0]) - clean.astype(jnp.float32) / 255).mean()

    return lax.map(squared, (damaged, images), batch_size=chunk).mean()


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, network: Autoencoder):
    """Restores images `[*N, H, W, C]`, uint8 as they are.  The key is consumed."""
    del key
    logits, _ = networks.apply(network, params, inputs.reshape(-1, *network.image_shape))
    return jnp.round(255 * nn.sigmoid(logits)).astype(jnp.uint8).reshape(inputs.shape), {}, memory


def policy(step: Array, state: optim.Game, hypers: Hypers, *, explore: bool, network: Autoencoder) -> Policy:
    """The way to the code and back: a policy from images to images, which has nothing to explore."""
    del step, hypers, explore
    return memoryless(functools.partial(act, params=state.params[PLAYER], network=network))


def assemble(spec: Spec, config: Config) -> Autoencoder:
    """Builds the network of a task.

    Args:
        spec: observation and action the same `Box` of an image `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The network.

    Raises:
        ValueError: if the task is not to restore images.
    """
    if not (checks.is_image(spec.action) and spec.observation == spec.action):
        raise ValueError(f"an autoencoder reads a uint8 image and gives one like it; got {spec}")
    return Autoencoder(config, spec.action.shape)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds an autoencoder to a task.

    Args:
        spec: observation and action the same `Box` of an image `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are uint8 images `[K, M, H, W, C]`.

    Raises:
        ValueError: if the task is not to restore images.
    """
    network = assemble(spec, config)
    return optim.play(
        {PLAYER: player(network)},
        init=functools.partial(init, network=network),
        policy=functools.partial(policy, network=network),
        report=lambda said: said[PLAYER],
    )


def build_score(spec: Spec, config: Config) -> Callable[..., Array]:
    """Binds `score` to a task."""
    return functools.partial(score, network=assemble(spec, config))


def encode(key: Key, game: optim.Game, images: Array, *, network: Autoencoder) -> Array:
    """Gives the codes `[N, Z]` of uint8 images `[N, H, W, C]`.  The key is consumed."""
    del key
    return networks.apply(network, game.params[PLAYER], images, method="encode")


def decode(game: optim.Game, codes: Array, *, network: Autoencoder) -> Array:
    """Gives images `[*N, H, W, C]` between 0 and 1 from codes `[*N, Z]`."""
    image = networks.apply(network, game.params[PLAYER], codes.reshape(-1, codes.shape[-1]), method="decode")
    return image.reshape(*codes.shape[:-1], *network.image_shape)


def build_coder(spec: Spec, config: Config) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Binds `encode` and `decode` to a task."""
    network = assemble(spec, config)
    return functools.partial(encode, network=network), functools.partial(decode, network=network)


def build_damage(spec: Spec, config: Config) -> Callable[..., Array] | None:
    """Gives `(key, images, hypers) -> images` that damages as in training; None where nothing is damaged."""
    del spec
    if config.corruption == "none":
        return None
    return lambda key, images, hypers: damage(key, images, hypers.corruption_level, corruption=config.corruption)


def filters(game: optim.Game, *, network: Autoencoder) -> Array:
    """Gives the weights of the first layer as images, `[F, H, W, C]`."""
    return coders.filters(game.params[PLAYER]["params"]["encoder"], network.config.network, network.image_shape)


def build_filters(spec: Spec, config: Config) -> Callable[[optim.Game], Array]:
    """Binds `filters` to a task."""
    return functools.partial(filters, network=assemble(spec, config))
