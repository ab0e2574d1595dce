"""Normalising flows: Glow, RealNVP, spline flows and masked autoregressive flows.

The sources are arXiv:1807.03039, arXiv:1605.08803, arXiv:1906.04032 and arXiv:1705.07057.

A layer is ActNorm, which replaces the batch normalisation of the older ones, followed by

* `"glow"`: an invertible 1×1 convolution and an affine coupling;
* `"realnvp"`: two affine couplings, one for either half; of images, halves of the channels, where the paper alternates
  these with checkerboards;
* `"spline"`: an invertible 1×1 convolution and a rational-quadratic spline coupling;
* `"autoregressive"`: two masked autoregressive maps, one in either order.

Layers over images lie in levels: pixels are squeezed into channels, and half of these are factored out under a normal
whose moments depend on the others, which is one affine coupling more.  Pixels pass through a logit at first, and
conditioners are plain convolutions instead of residual networks.  A masked autoregressive flow sees an image as a
vector.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `S` shape of an example, `D` its size.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import bijectors, checks, networks, optim
from rlgen.parts.flow_modules import (
    Flatten,
    FlowModel,
    FlowModule,
    FlowModules,
    Repeat,
    Split,
    Squeeze,
    dequantise,
    quantise,
    start,
)

PLAYER = "flow"
ARCHITECTURES = ("glow", "realnvp", "spline", "autoregressive")
NUM_BITS = 8  # of a pixel


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        num_steps: `K`, gradient steps an update, each on a minibatch of its own.
        architecture: of `ARCHITECTURES`.
        num_layers: how many there are, in each level of an image.
        hidden_sizes: of the networks that choose what a layer does.
        num_bins: of a spline.
        num_levels: of an image, each half as high and wide as the one before; 1 for vectors, and for images that an
            autoregressive flow takes for vectors.
    """

    batch_size: int = 256
    num_steps: int = 1
    architecture: str = "glow"
    num_layers: int = 10
    hidden_sizes: tuple[int, ...] = (64, 64)
    num_bins: int = 8
    num_levels: int = 1

    def __post_init__(self):
        checks.one_of(self, architecture=ARCHITECTURES)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    max_grad_norm: float = 10.0


class Metrics(NamedTuple):
    """Means over an update's minibatches."""

    loss: Array  # nats a vector, or bits a dimension of an image
    log_det: Array  # nats, of the way from data to latents


def optimiser(hypers: Hypers) -> Any:
    """Adam."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm)


def layer(config: Config, shape: tuple[int, ...]) -> FlowModules:
    """Builds one layer over examples of one shape."""
    norm, sizes = bijectors.ActNorm(shape), config.hidden_sizes
    if config.architecture == "realnvp":
        halves = (bijectors.Coupling(shape, sizes, swap=swap) for swap in (False, True))
        return FlowModules(shape, (norm, *halves))
    if config.architecture == "autoregressive":
        orders = (bijectors.Autoregressive(shape, sizes, reverse=reverse) for reverse in (False, True))
        return FlowModules(shape, (norm, *orders))
    transform = "spline" if config.architecture == "spline" else "affine"
    coupling = bijectors.Coupling(shape, sizes, transform, config.num_bins)
    return FlowModules(shape, (norm, bijectors.InvertibleConvolution(shape), coupling))


def levels(config: Config, shape: tuple[int, ...], num_levels: int) -> FlowModules:
    """Builds the levels over images of one shape, the later ones inside the split of the first."""
    squeeze = Squeeze(shape)
    squeezed = squeeze.latent_shape
    modules: list[FlowModule] = [squeeze, Repeat(squeezed, layer(config, squeezed), config.num_layers)]
    if num_levels > 1:
        rest = levels(config, (*squeezed[:-1], squeezed[-1] // 2), num_levels - 1)
        modules += [bijectors.Coupling(squeezed, config.hidden_sizes), Split(squeezed, rest)]
    return FlowModules(shape, modules)


def assemble(spec: Spec, config: Config) -> FlowModel:
    """Builds the model of a task.

    Args:
        spec: observation `NOTHING`, action a `Box` of a vector `[D]`, or of uint8 images `[H, W, C]`.
        config: what shapes the program.

    Returns:
        A density over vectors, or over images whose pixels are spread over [0, 1).

    Raises:
        ValueError: if the examples are neither, vectors are to have levels, what ActNorm starts from is one number a
            channel, or something is to be read.
    """
    checks.reads_nothing(spec)
    shape = spec.action.shape
    if config.num_levels > 1 and (len(shape) == 1 or config.architecture == "autoregressive"):
        raise ValueError(f"config.num_levels={config.num_levels}: vectors have one level, and what is taken for them")
    if config.batch_size < 2 and (len(shape) == 1 or config.architecture == "autoregressive"):
        raise ValueError(f"config.batch_size={config.batch_size}: vectors need two or more for ActNorm to start from")
    if config.batch_size < 2 and all(length == 2**config.num_levels for length in shape[:-1]):
        raise ValueError(
            f"config.batch_size={config.batch_size}: the images of the last level are single pixels, of which ActNorm"
            " needs two or more to start from"
        )
    if len(shape) == 1 and spec.action.dtype == "float32":
        modules = [Repeat(shape, layer(config, shape), config.num_layers)]
    elif len(shape) == 3 and spec.action.dtype == "uint8":
        modules: list[FlowModule] = [bijectors.Logit(shape)]
        if config.architecture == "autoregressive":
            vector = Flatten(shape).latent_shape
            modules += [Flatten(shape), Repeat(vector, layer(config, vector), config.num_layers)]
        else:
            modules += [levels(config, shape, config.num_levels)]
    else:
        raise ValueError(f"there is no flow over {spec.action}: it takes float32 vectors or uint8 images")
    return FlowModel(FlowModules(shape, modules))


def prepare(key: Key, batch: Array) -> Array:
    """Gives real numbers `[*N, *S]`: vectors as they are, images spread over [0, 1).  The key is consumed."""
    return dequantise(key, batch, 2**NUM_BITS) if batch.dtype == jnp.uint8 else batch


def cost(log_prob: Array, batch: Array, size: int) -> Array:
    """Turns log-densities of prepared examples into nats of vectors, or bits a dimension of images of `D` numbers."""
    if batch.dtype == jnp.uint8:
        return NUM_BITS - log_prob / (size * math.log(2))
    return -log_prob


def loss(
    own: Tree, params: Tree, key: Key, batch: Array, hypers: Hypers, *, network: FlowModel
) -> tuple[Array, Metrics]:
    """Negative log-likelihood of a minibatch `[M, *S]`, mean.  The key is consumed."""
    del params, hypers
    log_prob, log_det = networks.apply(network, own, prepare(key, batch), method="log_prob_and_log_det")
    total = cost(log_prob, batch, math.prod(network.flow.shape)).mean()
    return total, Metrics(total, log_det.mean())


def learn(
    key: Key, game: optim.Game, minibatch: Array, hypers: Hypers, *, network: FlowModel
) -> tuple[optim.Game, Metrics]:
    """Takes one gradient step on examples `[M, *S]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=PLAYER, player=player(network))


def begin(key: Key, game: optim.Game, minibatch: Array, *, network: FlowModel) -> optim.Game:
    """Starts what depends on data from examples `[M, *S]`: to be called once, before learning.  The key is consumed."""
    return game._replace(params={PLAYER: start(network, game.params[PLAYER], prepare(key, minibatch))})


def player(network: FlowModel, num_steps: int = 1) -> optim.Player:
    """The one player of this game."""
    return optim.Player(functools.partial(loss, network=network), optimiser, num_steps)


def init(key: Key, hypers: Hypers, *, network: FlowModel) -> dict[str, Tree]:
    """Makes the parameters, those that depend on data for the identity.  The key is consumed."""
    del hypers
    return {PLAYER: network.init(key, jnp.zeros((1, *network.flow.shape)))}


def update(
    key: Key, step: Array, state: optim.Game, batch: Array, hypers: Hypers, *, network: FlowModel, rounds: Callable
) -> tuple[optim.Game, Metrics]:
    """Takes `K` gradient steps on `[K, M, *S]`, the first of all after a start from the data.  The key is consumed.

    Args:
        key: consumed.
        step: updates done.
        state: of the game.
        batch: vectors or uint8 images.
        hypers: the algorithm's.
        network: the model.
        rounds: the update of `optim.play`.

    Returns:
        `(state, metrics)`.
    """
    start_key, rounds_key = jax.random.split(key)
    # `init` sees no data, and the first batch is the first that is seen: ActNorm starts from it.  `step` is no part of
    # a sweep's batch, so this stays a branch, and costs nothing later.
    state = lax.cond(step == 0, lambda: begin(start_key, state, batch[0], network=network), lambda: state)
    return rounds(rounds_key, step, state, batch, hypers)


def score(
    key: Key, game: optim.Game, examples: Array, hypers: Hypers, *, network: FlowModel, chunk: int = 500
) -> Array:
    """Negative log-likelihood of held-out examples; of images, its bound by dequantisation.

    Args:
        key: consumed; it also dequantises.
        game: the state.
        examples: `[N, *S]`.
        hypers: unused; part of every score.
        network: the model.
        chunk: examples at a time.

    Returns:
        Mean nats a vector, or bits a dimension of images, scalar.
    """
    del hypers
    prepared = prepare(key, examples)
    log_prob = lax.map(lambda x: networks.apply(network, game.params[PLAYER], x), prepared, batch_size=chunk)
    return cost(log_prob, examples, math.prod(network.flow.shape)).mean()


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, network: FlowModel, discrete: bool):
    """Draws examples for inputs `[*N, 0]`, images as uint8.  The key is consumed."""
    batch_shape = inputs.shape[:-1]
    x = networks.apply(network, params, key, batch_shape, method="sample")
    return (quantise(x, 2**NUM_BITS) if discrete else x), {}, memory


def policy(
    step: Array, state: optim.Game, hypers: Hypers, *, explore: bool, network: FlowModel, discrete: bool
) -> Policy:
    """The inverse over latents drawn from the base: a policy without an input, which explores as it is."""
    del step, hypers, explore
    return memoryless(functools.partial(act, params=state.params[PLAYER], network=network, discrete=discrete))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a flow to a task.

    Args:
        spec: observation `NOTHING`, action a `Box` of a vector `[D]`, or of uint8 images `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are `[K, M, *S]`.

    Raises:
        ValueError: as `assemble`.
    """
    network = assemble(spec, config)
    game = optim.play(
        {PLAYER: player(network, config.num_steps)},
        init=functools.partial(init, network=network),
        policy=functools.partial(policy, network=network, discrete=len(spec.action.shape) == 3),
        report=lambda said: said[PLAYER],
        schedule=optim.annealed,
    )
    return game._replace(update=functools.partial(update, network=network, rounds=game.update))


def build_score(spec: Spec, config: Config) -> Callable[..., Array]:
    """Binds `score` to a task."""
    return functools.partial(score, network=assemble(spec, config))


def way(game: optim.Game, x: Array, *, network: FlowModel) -> tuple[Array, Array]:
    """Goes from prepared data `[*N, *S]` to latents and back again."""
    latents, _ = networks.apply(network, game.params[PLAYER], x, method="forward")
    return latents, networks.apply(network, game.params[PLAYER], latents, method="inverse")[0]


def build_way(spec: Spec, config: Config) -> Callable[[optim.Game, Array], tuple[Array, Array]]:
    """Binds `way` to a task."""
    return functools.partial(way, network=assemble(spec, config))


def encode(key: Key, game: optim.Game, images: Array, *, network: FlowModel) -> Array:
    """Gives latents `[N, *R]` of uint8 images `[N, H, W, C]`.  The key is consumed: it dequantises."""
    return networks.apply(network, game.params[PLAYER], prepare(key, images), method="forward")[0]


def decode(game: optim.Game, latents: Array, *, network: FlowModel) -> Array:
    """Gives the uint8 images `[*N, H, W, C]` of latents `[*N, *R]`."""
    x = networks.apply(network, game.params[PLAYER], latents, method="inverse")[0]
    return quantise(x, 2**NUM_BITS)


def build_coder(spec: Spec, config: Config) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Binds `encode` and `decode` to a task of images."""
    network = assemble(spec, config)
    return functools.partial(encode, network=network), functools.partial(decode, network=network)
