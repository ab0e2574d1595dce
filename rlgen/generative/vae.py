"""Variational autoencoders, arXiv:1312.6114, and their importance-weighted bound, arXiv:1509.00519.

A weight on the divergence is the `β` of Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained
Variational Framework" (ICLR 2017); under several samples it weighs the divergence within each of them.  Pixels are

* coins: read as probabilities and drawn anew each time that an image is seen, as in arXiv:1509.00519, held-out images
  once for each score;
* or normal around what the decoder says: spread over [0, 1) by dequantisation, so that the bound is one of the 8-bit
  image's own probability.  All pixels share a standard deviation, which is learned (arXiv:2006.13202) or fixed.

The paper's hyperbolic tangents are ReLUs here and its AdaGrad is Adam.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `H W C` image, `Z` latent size, `S` samples of a
latent, `N` images, `L` stations of a walk.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import checks, coders, distributions, flow_modules, networks, optim

PLAYER = "vae"
LIKELIHOODS = ("bernoulli", "gaussian")
SCALES = ("learned", "fixed")
NUM_LEVELS = 256  # of a pixel


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        num_steps: `K`, gradient steps an update, each on a minibatch of its own.
        latent_size: `Z`.
        network: `"dense"` or `"convolutional"`.
        hidden_sizes: widths of the dense encoder, mirrored by the decoder; or filters of the strided convolutions.
        dense_sizes: widths of dense layers between convolutions and latents, mirrored likewise.
        likelihood: of a pixel, `"bernoulli"` or `"gaussian"`.
        scale: whether the standard deviation of a Gaussian pixel is `"learned"` or `"fixed"`.
        num_samples: `S` of the bound that is trained; 1 is the evidence lower bound, its divergence in closed form.
        score_samples: `S` of the bound that is the score, likewise.
    """

    batch_size: int = 128
    num_steps: int = 1
    latent_size: int = 20
    network: str = "dense"
    hidden_sizes: tuple[int, ...] = (500,)
    dense_sizes: tuple[int, ...] = ()
    likelihood: str = "bernoulli"
    scale: str = "learned"
    num_samples: int = 1
    score_samples: int = 1

    def __post_init__(self):
        coders.check(self)
        checks.one_of(self, likelihood=LIKELIHOODS, scale=SCALES)

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        return {} if self.likelihood == "gaussian" else {"pixel_scale": f"config.likelihood={self.likelihood!r}"}


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3
    beta: float = 1.0  # weight of the divergence; 1 is the evidence lower bound
    pixel_scale: float = 0.1  # standard deviation of a Gaussian pixel, at first or for ever; pixels lie in [0, 1)


class Metrics(NamedTuple):
    """Nats an image, means over an update's minibatches and over samples."""

    loss: Array
    reconstruction: Array  # −log p(x | z)
    divergence: Array  # KL(q(z | x) ‖ p(z)), of several samples their estimate of it


class VAE(nn.Module):
    """Encoder and decoder."""

    config: Config
    image_shape: tuple[int, ...]

    def setup(self):
        """Builds both networks."""
        config = self.config
        kind, sizes, dense_sizes = config.network, config.hidden_sizes, config.dense_sizes
        self.encoder = coders.Encoder(kind, sizes, 2 * config.latent_size, dense_sizes)
        self.decoder = coders.Decoder(kind, sizes, self.image_shape, dense_sizes)
        if config.likelihood == "gaussian":
            self.log_scale = self.param("log_scale", nn.initializers.zeros, ())

    def posterior(self, image: Array) -> tuple[Array, Array]:
        """Gives mean and log standard deviation of `q(z | x)`, each `[M, Z]`, of prepared images `[M, H, W, C]`."""
        mean, log_std = jnp.split(self.encoder(image), 2, axis=-1)
        return mean, log_std

    def reconstruction(self, latent: Array, image: Array) -> Array:
        """Gives `−log p(x | z)` `[M]` of prepared images `[M, H, W, C]` under latents `[M, Z]`, in nats an image."""
        output, num_axes = self.decoder(latent), len(self.image_shape)
        if self.config.likelihood == "bernoulli":
            return jnp.negative(distributions.bernoulli(output, num_axes).log_prob(image))
        density = distributions.normal(output, self.pixel_log_scale(), num_axes).log_prob(image)
        return jnp.negative(density) + math.prod(self.image_shape) * math.log(NUM_LEVELS)

    def pixel_log_scale(self) -> Array:
        """Gives the log standard deviation of a Gaussian pixel, scalar."""
        return self.log_scale if self.config.scale == "learned" else lax.stop_gradient(self.log_scale)

    def __call__(self, key: Key, image: Array) -> tuple[Array, Array]:
        """Gives reconstruction error and divergence of prepared images `[M, H, W, C]`, each `[M]` in nats."""
        mean, log_std = self.posterior(image)
        latent = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return self.reconstruction(latent, image), distributions.divergence_from_standard(mean, log_std)

    def sample(self, key: Key, image: Array, num_samples: int) -> tuple[Array, Array]:
        """Gives `−log p(x | z)` and `log q(z | x) − log p(z)` of samples of the latent, each `[S, M]` in nats."""
        mean, log_std = self.posterior(image)
        noise = jax.random.normal(key, (num_samples, *mean.shape))
        latent = mean + jnp.exp(log_std) * noise
        divergence = (0.5 * (jnp.square(latent) - jnp.square(noise)) - log_std).sum(-1)
        images = jnp.broadcast_to(image, (num_samples, *image.shape)).reshape(-1, *self.image_shape)
        error = self.reconstruction(latent.reshape(-1, self.config.latent_size), images)
        return error.reshape(num_samples, -1), divergence

    def decode(self, latent: Array) -> Array:
        """Gives the mean of each pixel, `[M, H, W, C]`, from latents `[M, Z]`; of coins it is their probability."""
        output = self.decoder(latent)
        return nn.sigmoid(output) if self.config.likelihood == "bernoulli" else output


def optimiser(hypers: Hypers) -> Any:
    """Adam."""
    return optim.adam(hypers.learning_rate)


def binarise(key: Key, image: Array) -> Array:
    """Draws each pixel of uint8 images `[*N]` as a coin, `[*N]` float32.  The key is consumed."""
    return jax.random.bernoulli(key, image.astype(jnp.float32) / 255).astype(jnp.float32)


def prepare(key: Key, image: Array, likelihood: str) -> Array:
    """Turns uint8 images `[*N]` into what a likelihood is of: coins, or numbers in [0, 1).  The key is consumed."""
    return binarise(key, image) if likelihood == "bernoulli" else flow_modules.dequantise(key, image, NUM_LEVELS)


def importance_weighted(cost: Array) -> Array:
    """Bounds `−log p(x)` from above by samples: `−log ¹/ₛ ∑ exp(−cost)`.

    Args:
        cost: `−log p(x, z) + log q(z | x)` of each sample, `[S, *N]`.

    Returns:
        `[*N]`, which falls on average as `S` grows.
    """
    return math.log(len(cost)) - jax.nn.logsumexp(-cost, axis=0)


def loss(own: Tree, params: Tree, key: Key, batch: Array, hypers: Hypers, *, network: VAE) -> tuple[Array, Metrics]:
    """Negative lower bound of uint8 images `[M, H, W, C]`, mean in nats.  The key is consumed."""
    del params
    config = network.config
    pixel_key, latent_key = jax.random.split(key)
    image = prepare(pixel_key, batch, config.likelihood)
    if config.num_samples == 1:
        reconstruction, divergence = (term.mean() for term in networks.apply(network, own, latent_key, image))
        total = reconstruction + hypers.beta * divergence
        return total, Metrics(total, reconstruction, divergence)
    reconstruction, divergence = networks.apply(network, own, latent_key, image, config.num_samples, method="sample")
    total = importance_weighted(reconstruction + hypers.beta * divergence).mean()
    return total, Metrics(total, reconstruction.mean(), divergence.mean())


def learn(key: Key, game: optim.Game, minibatch: Array, hypers: Hypers, *, network: VAE) -> tuple[optim.Game, Metrics]:
    """Takes one gradient step on uint8 images `[M, H, W, C]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=PLAYER, player=player(network))


def player(network: VAE) -> optim.Player:
    """The one player of this game."""
    return optim.Player(functools.partial(loss, network=network), optimiser, network.config.num_steps)


def init(key: Key, hypers: Hypers, *, network: VAE) -> dict[str, Tree]:
    """Makes the parameters.  The key is consumed."""
    params_key, latent_key = jax.random.split(key)
    params = network.init(params_key, latent_key, jnp.zeros((1, *network.image_shape)))
    if network.config.likelihood == "gaussian":
        log_scale = jnp.log(jnp.asarray(hypers.pixel_scale, jnp.float32))
        params = {"params": {**params["params"], "log_scale": log_scale}}
    return {PLAYER: params}


def score(key: Key, game: optim.Game, images: Array, hypers: Hypers, *, network: VAE, chunk: int = 500) -> Array:
    """Negative lower bound of held-out images, whatever `beta` was trained with.

    Args:
        key: consumed; it also prepares the images.
        game: the state.
        images: `[N, H, W, C]` uint8.
        hypers: unused; part of every score.
        network: the model; its `score_samples` say which bound.
        chunk: images times samples at a time.

    Returns:
        Mean nats an image, scalar.
    """
    del hypers
    num_samples = network.config.score_samples
    pixel_key, latent_key = jax.random.split(key)
    prepared = prepare(pixel_key, images, network.config.likelihood)

    def nats(inputs):
        key, image = inputs
        if num_samples == 1:
            reconstruction, divergence = networks.apply(network, game.params[PLAYER], key, image[None])
            return (reconstruction + divergence)[0]
        terms = networks.apply(network, game.params[PLAYER], key, image[None], num_samples, method="sample")
        reconstruction, divergence = terms
        return importance_weighted(reconstruction + divergence)[0]

    keys = jax.random.split(latent_key, len(images))
    return lax.map(nats, (keys, prepared), batch_size=max(chunk // num_samples, 1)).mean()


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, network: VAE, explore: bool):
    """Draws uint8 images for inputs `[*N, 0]`: pixels while exploring, else their means.  The key is consumed."""
    latent_key, pixel_key = jax.random.split(key)
    batch_shape, is_coin = inputs.shape[:-1], network.config.likelihood == "bernoulli"
    latent = jax.random.normal(latent_key, (math.prod(batch_shape), network.config.latent_size))
    image = networks.apply(network, params, latent, method="decode").reshape(*batch_shape, *network.image_shape)
    if explore and is_coin:
        image = jax.random.bernoulli(pixel_key, image).astype(jnp.float32)
    elif explore:
        scale = jnp.exp(networks.apply(network, params, method="pixel_log_scale"))
        image = image + scale * jax.random.normal(pixel_key, image.shape)
    levels = jnp.round(255 * image).astype(jnp.uint8) if is_coin else flow_modules.quantise(image, NUM_LEVELS)
    return levels, {}, memory


def policy(step: Array, state: optim.Game, hypers: Hypers, *, explore: bool, network: VAE) -> Policy:
    """The decoder over latents drawn from the prior: a policy without an input."""
    del step, hypers
    return memoryless(functools.partial(act, params=state.params[PLAYER], network=network, explore=explore))


def assemble(spec: Spec, config: Config) -> VAE:
    """Builds the network of a task.

    Args:
        spec: observation `NOTHING`, action a `Box` of uint8 images `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The network.

    Raises:
        ValueError: if the task is not to give images, or something is to be read.
    """
    checks.reads_nothing(spec)
    if not checks.is_image(spec.action):
        raise ValueError(f"a VAE gives uint8 images; got {spec.action}")
    return VAE(config, spec.action.shape)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a VAE to a task.

    Args:
        spec: observation `NOTHING`, action a `Box` of uint8 images `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are uint8 images `[K, M, H, W, C]`.

    Raises:
        ValueError: if the task is not to give images.
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


def encode(key: Key, game: optim.Game, images: Array, *, network: VAE) -> Array:
    """Gives the means of latents `[N, Z]` of uint8 images `[N, H, W, C]`.  The key is consumed."""
    prepared = prepare(key, images, network.config.likelihood)
    return networks.apply(network, game.params[PLAYER], prepared, method="posterior")[0]


def decode(game: optim.Game, latents: Array, *, network: VAE) -> Array:
    """Gives the means of pixels `[*N, H, W, C]` from latents `[*N, Z]`."""
    image = networks.apply(network, game.params[PLAYER], latents.reshape(-1, latents.shape[-1]), method="decode")
    return image.reshape(*latents.shape[:-1], *network.image_shape)


def build_coder(spec: Spec, config: Config) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Binds `encode` and `decode` to a task."""
    network = assemble(spec, config)
    return functools.partial(encode, network=network), functools.partial(decode, network=network)
