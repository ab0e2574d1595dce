"""Variational autoencoders with a Bernoulli decoder, arXiv:1312.6114.

Pixels are read as probabilities and drawn anew each time that an image is seen, as in arXiv:1509.00519; the held-out
set is drawn once.  The paper's soft-plus hidden units are ReLUs here and its AdaGrad is Adam.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `H W C` image, `Z` latent size.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Tree
from rlgen.parts import distributions, networks, optim

PLAYER = "vae"


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        num_steps: `K`, gradient steps an update, each on a minibatch of its own.
        latent_size: `Z`.
        network: `"dense"` or `"convolutional"`.
        hidden_sizes: widths of the dense encoder, mirrored by the decoder; or filters of the strided convolutions.
    """

    batch_size: int = 128
    num_steps: int = 1
    latent_size: int = 20
    network: str = "dense"
    hidden_sizes: tuple[int, ...] = (500,)

    def __post_init__(self):
        if self.network not in ("dense", "convolutional"):
            raise ValueError(f"config.network={self.network!r} is neither 'dense' nor 'convolutional'")


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3
    beta: float = 1.0  # weight of the divergence; 1 is the evidence lower bound


class Metrics(NamedTuple):
    """Nats an image, means over an update's minibatches."""

    loss: Array
    reconstruction: Array  # −log p(x | z)
    divergence: Array  # KL(q(z | x) ‖ p(z))


class Encoder(nn.Module):
    """`q(z | x)` as mean and log standard deviation."""

    config: Config

    @nn.compact
    def __call__(self, image: Array) -> tuple[Array, Array]:
        """Maps `[M, H, W, C]` to a pair of `[M, Z]`."""
        hidden = image
        if self.config.network == "convolutional":
            for size in self.config.hidden_sizes:
                hidden = nn.relu(networks.Conv(size, stride=2, padding=1)(hidden))
        hidden = hidden.reshape(hidden.shape[0], -1)
        if self.config.network == "dense":
            for size in self.config.hidden_sizes:
                hidden = nn.relu(nn.Dense(size)(hidden))
        mean, log_std = jnp.split(nn.Dense(2 * self.config.latent_size)(hidden), 2, axis=-1)
        return mean, log_std


class Decoder(nn.Module):
    """`p(x | z)` as logits: the encoder's layers in reverse, where a stride becomes a doubling of the pixels."""

    config: Config
    image_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, latent: Array) -> Array:
        """Maps `[M, Z]` to `[M, H, W, C]`."""
        sizes = self.config.hidden_sizes[::-1]
        if self.config.network == "dense":
            hidden = latent
            for size in sizes:
                hidden = nn.relu(nn.Dense(size)(hidden))
            return nn.Dense(math.prod(self.image_shape))(hidden).reshape(-1, *self.image_shape)
        height, width, channels = self.image_shape
        rows, columns = (-(-length // 2 ** len(sizes)) for length in (height, width))
        hidden = nn.Dense(rows * columns * sizes[0])(latent).reshape(-1, rows, columns, sizes[0])
        for size in (*sizes[1:], channels):
            doubled = nn.relu(hidden).repeat(2, axis=1).repeat(2, axis=2)
            hidden = networks.Conv(size, padding=1)(doubled)
        return hidden[:, :height, :width]


class VAE(nn.Module):
    """Encoder and decoder."""

    config: Config
    image_shape: tuple[int, ...]

    def setup(self):
        """Builds both networks."""
        self.encoder, self.decoder = Encoder(self.config), Decoder(self.config, self.image_shape)

    def __call__(self, key: Key, image: Array) -> tuple[Array, Array]:
        """Gives reconstruction error and divergence of binary images `[M, H, W, C]`, each `[M]` in nats."""
        mean, log_std = self.encoder(image)
        latent = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        likelihood = distributions.bernoulli(self.decoder(latent), num_event_axes=len(self.image_shape))
        divergence = 0.5 * (jnp.square(mean) + jnp.exp(2 * log_std) - 1 - 2 * log_std).sum(-1)
        return jnp.negative(likelihood.log_prob(image)), divergence

    def decode(self, latent: Array) -> Array:
        """Gives the probability of each pixel, `[M, H, W, C]`, from latents `[M, Z]`."""
        return nn.sigmoid(self.decoder(latent))


def optimiser(hypers: Hypers) -> Any:
    """Adam."""
    return optim.adam(hypers.learning_rate)


def binarise(key: Key, image: Array) -> Array:
    """Draws each pixel of uint8 images `[*N]` as a coin, `[*N]` float32.  The key is consumed."""
    return jax.random.bernoulli(key, image.astype(jnp.float32) / 255).astype(jnp.float32)


def loss(own: Tree, params: Tree, key: Key, batch: Array, hypers: Hypers, *, network: VAE) -> tuple[Array, Metrics]:
    """Negative evidence lower bound of uint8 images `[M, H, W, C]`, mean in nats.  The key is consumed."""
    del params
    pixel_key, latent_key = jax.random.split(key)
    terms = networks.apply(network, own, latent_key, binarise(pixel_key, batch))
    reconstruction, divergence = (term.mean() for term in terms)
    total = reconstruction + hypers.beta * divergence
    return total, Metrics(total, reconstruction, divergence)


def learn(key: Key, game: optim.Game, minibatch: Array, hypers: Hypers, *, network: VAE) -> tuple[optim.Game, Metrics]:
    """Takes one gradient step on uint8 images `[M, H, W, C]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=PLAYER, player=player(network))


def player(network: VAE) -> optim.Player:
    """The one player of this game."""
    return optim.Player(functools.partial(loss, network=network), optimiser, network.config.num_steps)


def init(key: Key, hypers: Hypers, *, network: VAE) -> dict[str, Tree]:
    """Makes the parameters.  The key is consumed."""
    del hypers
    params_key, latent_key = jax.random.split(key)
    return {PLAYER: network.init(params_key, latent_key, jnp.zeros((1, *network.image_shape)))}


def score(key: Key, game: optim.Game, images: Array, hypers: Hypers, *, network: VAE, chunk: int = 500) -> Array:
    """Negative evidence lower bound of held-out images, whatever `beta` was trained with.

    Args:
        key: consumed; it also draws the binary images.
        game: the state.
        images: `[D, H, W, C]` uint8.
        hypers: unused; part of every score.
        network: the model.
        chunk: images at a time.

    Returns:
        Mean nats an image, scalar.
    """
    del hypers
    pixel_key, latent_key = jax.random.split(key)
    binary = binarise(pixel_key, images)

    def nats(inputs):
        key, image = inputs
        reconstruction, divergence = networks.apply(network, game.params[PLAYER], key, image[None])
        return (reconstruction + divergence)[0]

    return lax.map(nats, (jax.random.split(latent_key, len(images)), binary), batch_size=chunk).mean()


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, network: VAE, explore: bool):
    """Draws images for inputs `[*N, 0]`: binary while exploring, else pixel probabilities.  The key is consumed."""
    latent_key, pixel_key = jax.random.split(key)
    batch_shape = inputs.shape[:-1]
    latent = jax.random.normal(latent_key, (math.prod(batch_shape), network.config.latent_size))
    image = networks.apply(network, params, latent, method="decode").reshape(*batch_shape, *network.image_shape)
    return (jax.random.bernoulli(pixel_key, image).astype(jnp.float32) if explore else image), {}, memory


def policy(step: Array, state: optim.Game, hypers: Hypers, *, explore: bool, network: VAE) -> Policy:
    """The decoder over latents drawn from the prior: a policy without an input."""
    del step, hypers
    return Policy(
        memory=lambda batch_shape: (),
        apply=functools.partial(act, params=state.params[PLAYER], network=network, explore=explore),
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a VAE to a task.

    Args:
        spec: observation `NOTHING`, action a `Box` of an image `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are uint8 images `[K, M, H, W, C]`.
    """
    network = VAE(config, spec.action.shape)
    return optim.play(
        {PLAYER: player(network)},
        init=functools.partial(init, network=network),
        policy=functools.partial(policy, network=network),
        report=lambda said: said[PLAYER],
    )


def build_score(spec: Spec, config: Config):
    """Binds `score` to a task."""
    return functools.partial(score, network=VAE(config, spec.action.shape))
