"""Generative adversarial networks, arXiv:1406.2661: `k` steps of the discriminator, then one or more of the generator.

Switches choose the loss (minimax, non-saturating, hinge, Wasserstein or least squares; their sources stand in
`rlgen.parts.adversaries`), the penalty of the discriminator's slope (WGAN-GP, arXiv:1704.00028, or zero-centred,
arXiv:1801.04406), spectral normalisation (arXiv:1802.05957), how many examples are judged together (PacGAN,
arXiv:1712.04086), the network (dense, or DCGAN, arXiv:1511.06434) and whether what is evaluated is an exponential
average of the generators so far (arXiv:1806.04498).  Every step of the discriminator has a minibatch of its own, and
the generator is paid for as many examples.  Moments of Adam replace the momentum of the first paper; the average
forgets faster in the first updates, so that it holds little of a generator that has learned nothing.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `S` shape of an example, `Z` latent size.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import adversaries, checks, networks, optim

DISCRIMINATOR, GENERATOR = "discriminator", "generator"
PENALTIES = ("none", "interpolated", "real", "both")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        batch_size: `M`.
        discriminator_steps: of the discriminator an update, each on a minibatch of its own.
        generator_steps: of the generator an update, after those.
        latent_size: `Z`.
        loss: of `adversaries.LOSSES`.
        penalty: where the discriminator's slope is held: on lines between real and generated examples at one
            (`"interpolated"`), at `"real"` examples or at `"both"` kinds at zero, or nowhere (`"none"`).
        network: of `adversaries.NETWORKS`.
        generator_sizes: widths of its layers; or channels before each doubling of the image.
        discriminator_sizes: widths of its layers; or filters of the convolutions that halve the image.
        spectral_norm: whether the discriminator's matrices are divided by their largest singular values.
        num_packed: examples that are judged together; it divides `batch_size`.
        average: whether the policy that is evaluated has the average of the generator's parameters.
    """

    batch_size: int = 64
    discriminator_steps: int = 1
    generator_steps: int = 1
    latent_size: int = 64
    loss: str = "non_saturating"
    penalty: str = "none"
    network: str = "mlp"
    generator_sizes: tuple[int, ...] = (128, 128)
    discriminator_sizes: tuple[int, ...] = (128, 128)
    spectral_norm: bool = False
    num_packed: int = 1
    average: bool = False

    def __post_init__(self):
        checks.one_of(self, loss=adversaries.LOSSES, penalty=PENALTIES, network=adversaries.NETWORKS)
        checks.divides(self, "num_packed", self.batch_size, f"a minibatch of {self.batch_size}")

    @property
    def num_steps(self) -> int:
        """`K`: a step of either player takes one minibatch."""
        return max(self.discriminator_steps, self.generator_steps)

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that the switches leave out, and why."""
        idle = {}
        if self.penalty == "none":
            idle["penalty"] = "config.penalty is 'none'"
        if not self.average:
            idle["averaging"] = "config.average is off"
        return idle


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    generator_learning_rate: float = 1e-3
    discriminator_learning_rate: float = 5e-4
    annealed_share: float = 1.0  # of both learning rates, that is left after `horizon` updates
    horizon: float = float("inf")  # updates over which they are annealed
    first_moment_decay: float = 0.5  # of Adam, below 1
    penalty: float = 10.0  # weight of the penalty
    averaging: float = 0.999  # share of the average that an update keeps


class State(NamedTuple):
    """Both players, and the average of the generator."""

    game: optim.Game
    average: Tree  # the generator's parameters, or `()`


class Judgement(NamedTuple):
    """What the discriminator says of its steps."""

    divergence: Array  # what it gains without the penalty
    discriminator_loss: Array
    penalty: Array
    real: Array
    fake: Array


class Metrics(NamedTuple):
    """Means over an update's steps."""

    loss: Array  # what the discriminator gains: an estimate of how far generated examples are from real ones
    discriminator_loss: Array  # what it pays, its weighted penalty included
    penalty: Array  # before it is weighed
    real: Array  # mean logit of real examples
    fake: Array  # mean logit of generated ones, before the generator's steps
    generator_loss: Array  # what the generator pays


class Pair(NamedTuple):
    """Both networks and what binds them."""

    generator: adversaries.Generator
    discriminator: adversaries.Discriminator
    config: Config


def optimiser(hypers: Hypers, *, name: str) -> Any:
    """Adam, each player at a rate of its own."""
    return optim.adam(getattr(hypers, f"{name}_learning_rate"), b1=hypers.first_moment_decay)


def draw(key: Key, params: Tree, num: int, *, pair: Pair) -> Array:
    """Generates examples `[num, *S]`, images in [−1, 1].  The key is consumed."""
    return networks.apply(pair.generator, params, jax.random.normal(key, (num, pair.config.latent_size)))


def discriminate(params: Tree, *, pair: Pair) -> adversaries.Discriminate:
    """Binds the discriminator to its parameters: a function of packed examples."""
    bounded = adversaries.normalise_spectra(params) if pair.config.spectral_norm else params
    return functools.partial(networks.apply, pair.discriminator, bounded)


def penalise(key: Key, judge: adversaries.Discriminate, real: Array, fake: Array, *, kind: str) -> Array:
    """The penalty, one of `PENALTIES`, at packed examples; a scalar.  The key is consumed."""
    if kind == "none":
        return jnp.float32(0)
    if kind == "interpolated":
        return adversaries.gradient_penalty(key, judge, real, fake)
    total = adversaries.zero_centred_penalty(judge, real)
    return total + adversaries.zero_centred_penalty(judge, fake) if kind == "both" else total


def discriminator_loss(
    own: Tree, params: Tree, key: Key, batch: Array, hypers: Hypers, *, pair: Pair
) -> tuple[Array, Judgement]:
    """What the discriminator pays for a minibatch `[M, *S]` and as many generated examples.  The key is consumed."""
    latent_key, penalty_key = jax.random.split(key)
    pays, judge, num_packed = adversaries.LOSSES[pair.config.loss], discriminate(own, pair=pair), pair.config.num_packed
    real = adversaries.pack(adversaries.signed(batch), num_packed)
    fake = adversaries.pack(draw(latent_key, params[GENERATOR], len(batch), pair=pair), num_packed)
    on_real, on_fake = jnp.split(judge(jnp.concatenate([real, fake])), 2)
    paid = pays.real(on_real).mean() + pays.fake(on_fake).mean()
    penalty = penalise(penalty_key, judge, real, fake, kind=pair.config.penalty)
    total = paid + hypers.penalty * penalty
    return total, Judgement(-paid, total, penalty, on_real.mean(), on_fake.mean())


def generator_loss(
    own: Tree, params: Tree, key: Key, batch: Array, hypers: Hypers, *, pair: Pair
) -> tuple[Array, Array]:
    """What the generator pays for as many examples as there are in a minibatch `[M, *S]`.  The key is consumed."""
    del hypers
    fake = adversaries.pack(draw(key, own, len(batch), pair=pair), pair.config.num_packed)
    logits = discriminate(params[DISCRIMINATOR], pair=pair)(fake)
    total = adversaries.LOSSES[pair.config.loss].generator(logits).mean()
    return total, total


def players(pair: Pair) -> dict[str, optim.Player]:
    """The two, in the order of play."""
    losses = {DISCRIMINATOR: discriminator_loss, GENERATOR: generator_loss}
    steps = {DISCRIMINATOR: pair.config.discriminator_steps, GENERATOR: pair.config.generator_steps}
    return {
        name: optim.Player(
            functools.partial(losses[name], pair=pair), functools.partial(optimiser, name=name), steps[name]
        )
        for name in losses
    }


def learn(
    key: Key, game: optim.Game, minibatch: Array, hypers: Hypers, *, pair: Pair, name: str
) -> tuple[optim.Game, Any]:
    """Lets one player take one step on examples `[M, *S]`: the rule itself.  The key is consumed."""
    return optim.turn(key, game, minibatch, hypers, name=name, player=players(pair)[name])


def init(key: Key, hypers: Hypers, *, pair: Pair, first: Callable) -> State:
    """Makes both players.  The key is consumed."""
    game = first(key, hypers)
    return State(game, game.params[GENERATOR] if pair.config.average else ())


def start(key: Key, hypers: Hypers, *, pair: Pair) -> dict[str, Tree]:
    """Makes the parameters of both.  The key is consumed."""
    del hypers
    generator_key, discriminator_key = jax.random.split(key)
    params = pair.generator.init(generator_key, jnp.zeros((1, pair.config.latent_size)))
    packed = adversaries.pack(jnp.zeros((pair.config.num_packed, *pair.generator.shape)), pair.config.num_packed)
    return {DISCRIMINATOR: pair.discriminator.init(discriminator_key, packed), GENERATOR: params}


def update(
    key: Key, step: Array, state: State, batch: Array, hypers: Hypers, *, pair: Pair, rounds: Callable
) -> tuple[State, Metrics]:
    """Lets both players take their steps on `[K, M, *S]`, and averages the generator.  The key is consumed."""
    game, metrics = rounds(key, step, state.game, batch, hypers)
    kept = jnp.minimum(hypers.averaging, (1.0 + step) / (10.0 + step))
    new = game.params[GENERATOR] if pair.config.average else ()
    return State(game, jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, state.average, new)), metrics


def act(key: Key, inputs: Array, memory: tuple[()], *, params: Tree, pair: Pair):
    """Draws examples for inputs `[*N, 0]`, images as uint8.  The key is consumed."""
    shape = pair.generator.shape
    examples = draw(key, params, math.prod(inputs.shape[:-1]), pair=pair).reshape(*inputs.shape[:-1], *shape)
    return (adversaries.pixels(examples) if len(shape) == 3 else examples), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, pair: Pair) -> Policy:
    """The generator over latents drawn from a normal: a policy without an input; evaluated, it may be the average."""
    del step, hypers
    params = state.game.params[GENERATOR] if explore else evaluated(state, pair=pair)
    return memoryless(functools.partial(act, params=params, pair=pair))


def evaluated(state: State, *, pair: Pair) -> Tree:
    """The generator that is judged."""
    return state.average if pair.config.average else state.game.params[GENERATOR]


def assemble(spec: Spec, config: Config) -> Pair:
    """Builds both networks of a task.

    Args:
        spec: observation `NOTHING`, action a `Box` of a vector `[D]`, or of uint8 images `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The networks and their config.

    Raises:
        ValueError: if the examples are neither, the network reads none such or halves images until nothing is left, or
            something is to be read.
    """
    checks.reads_nothing(spec)
    shape, dtype = spec.action.shape, spec.action.dtype
    kinds = {(1, "float32"): ("mlp",), (3, "uint8"): adversaries.NETWORKS}
    if config.network not in kinds.get((len(shape), dtype), ()):
        raise ValueError(
            f"there is no GAN with config.network={config.network!r} over {spec.action}: 'mlp' takes float32 vectors"
            " and uint8 images, 'dcgan' uint8 images"
        )
    if config.network == "dcgan":
        adversaries.check_filters(shape, config)
    return Pair(
        adversaries.Generator(shape, config.network, config.generator_sizes),
        adversaries.Discriminator(config.network, config.discriminator_sizes),
        config,
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a GAN to a task.

    Args:
        spec: observation `NOTHING`, action a `Box` of a vector `[D]`, or of uint8 images `[H, W, C]`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are `[K, M, *S]`.

    Raises:
        ValueError: if the examples are neither, the network reads none such, or halves images until nothing is left.
    """
    pair = assemble(spec, config)
    game = optim.play(
        players(pair),
        init=functools.partial(start, pair=pair),
        policy=functools.partial(policy, pair=pair),
        report=lambda said: Metrics(*said[DISCRIMINATOR], generator_loss=said[GENERATOR]),
        schedule=functools.partial(optim.slowed, names=("generator_learning_rate", "discriminator_learning_rate")),
    )
    return Algorithm(
        functools.partial(init, pair=pair, first=game.init),
        functools.partial(update, pair=pair, rounds=game.update),
        game.policy,
    )


def walk(key: Key, state: State, first: Array, last: Array, share: Array, *, pair: Pair) -> Array:
    """Goes from some images to others, along quarters of great circles (arXiv:1609.04468).

    Each station's latents, too, have the distribution that the generator learned from.

    Args:
        key: consumed; it draws both ends.
        state: of the algorithm.
        first: inputs `[N, 0]`.
        last: inputs `[N, 0]`.
        share: of each way, `[L]` in [0, 1].
        pair: both networks.

    Returns:
        uint8 images `[N, L, H, W, C]`.
    """
    del last
    ends = jax.random.normal(key, (2, len(first), 1, pair.config.latent_size))
    angle = 0.5 * math.pi * share[:, None]
    latents = jnp.cos(angle) * ends[0] + jnp.sin(angle) * ends[1]
    examples = networks.apply(pair.generator, evaluated(state, pair=pair), latents.reshape(-1, latents.shape[-1]))
    return adversaries.pixels(examples).reshape(*latents.shape[:2], *pair.generator.shape)


def build_walk(spec: Spec, config: Config) -> Callable[..., Array]:
    """Binds `walk` to a task of images."""
    return functools.partial(walk, pair=assemble(spec, config))
