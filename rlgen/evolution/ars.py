"""Augmented random search, arXiv:1803.07055.

Of `N` random directions `δ` in the space of parameters `M`, both ends are tried, `M + ν δ` and `M − ν δ`.  The step
goes along the `b` directions whose better end is best, each weighed by the difference of its two returns:
`M += α / (b σ_R) Σ (r₊ − r₋) δ`, with the standard deviation `σ_R` of the `2 b` returns that count.  V1 is all
directions and observations as they are, V1-t the best `b` directions, V2 and V2-t the same with observations
standardised by the moments of all that were met before this generation.  The policy is linear and starts at zero.

Departures: where all returns are equal there is no step, instead of a division by zero; hidden layers are a switch, and
then all but the last layer start at random.  An element of the observations that does not change is left out, as in the
authors' code.

Shape legend: `N` directions, `D` parameters, `P` candidates (`2 N`).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Tree
from rlgen.parts import controllers, networks, normalise
from rlgen.parts.controllers import Controller
from rlgen.sources.population import Evaluation


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_directions: `N`.
        num_top: `b`, the directions that count; None for all of them.
        normalise_observations: by running moments, which makes V1 V2.
        num_evaluations: episodes that each candidate plays.
        max_steps: after which an episode is cut; more than the task's own limit for that limit.
        common_starts: whether all candidates of a generation start from the same states.
        hidden_sizes: width of each hidden layer; none for a linear policy.
        activation: name in `networks.ACTIVATIONS`.
    """

    num_directions: int = 8
    num_top: int | None = None
    normalise_observations: bool = True
    num_evaluations: int = 1
    max_steps: int = 1_000
    common_starts: bool = False
    hidden_sizes: tuple[int, ...] = ()
    activation: str = "tanh"

    def __post_init__(self):
        if self.num_top is not None and self.num_top > self.num_directions:
            raise ValueError(f"config.num_top={self.num_top} is more than the {self.num_directions} directions")

    @property
    def num_candidates(self) -> int:
        """Both ends of every direction."""
        return 2 * self.num_directions


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.02  # α
    sigma: float = 0.03  # ν


class State(NamedTuple):
    """What an update changes."""

    params: Array  # [D] float32, M
    directions: Array  # [N, D] float32, of the generation to come
    observations: Tree  # `normalise.Moments` of `[*observation]`; `()` where that is switched off


class Minibatch(NamedTuple):
    """What the rule learns from."""

    directions: Array  # [N, D]
    returns: Array  # [2, N], after a step forth and a step back


class Metrics(NamedTuple):
    """Of one generation."""

    fitness: Array  # mean over the candidates
    best_fitness: Array
    deviation: Array  # σ_R


def learn(params: Array, minibatch: Minibatch, hypers: Hypers, *, num_top: int | None = None) -> tuple[Array, Metrics]:
    """Takes one step: the rule itself, free of any environment.

    Args:
        params: `M`, `[D]`.
        minibatch: directions, and what came of them.
        hypers: with `learning_rate`.
        num_top: `b`; None for all.

    Returns:
        `(params, metrics)`.
    """
    returns, num = minibatch.returns, num_top or minibatch.returns.shape[1]
    _, best = lax.top_k(returns.max(0), num)
    counted, directions = returns[:, best], minibatch.directions[best]
    deviation = counted.std()
    ascent = (counted[0] - counted[1]) @ directions / (num * jnp.where(deviation > 0, deviation, 1.0))
    return params + hypers.learning_rate * ascent, Metrics(returns.mean(), returns.max(), deviation)


def candidates(state: State, hypers: Hypers) -> Array:
    """Both ends of every direction, `[P, D]`: all steps forth, then all steps back."""
    steps = hypers.sigma * state.directions
    return jnp.concatenate([state.params + steps, state.params - steps])


def init(key: Key, hypers: Hypers, *, network: Controller) -> State:
    """Makes the state before the first update.  The key is consumed."""
    del hypers
    params_key, directions_key = jax.random.split(key)
    params = controllers.initial_params(params_key, network)
    directions = jax.random.normal(directions_key, (network.config.num_directions, *params.shape))
    config, space = network.config, network.spec.observation
    return State(params, directions, normalise.moments(space.shape) if config.normalise_observations else ())


def update(key: Key, step: Array, state: State, batch: Evaluation, hypers: Hypers, *, network: Controller):
    """Learns from one generation and draws the directions of the next.  The key is consumed."""
    del step
    config = network.config
    minibatch = Minibatch(state.directions, batch.fitness.reshape(2, -1))
    params, metrics = learn(state.params, minibatch, hypers, num_top=config.num_top)
    seen = state.observations
    if config.normalise_observations:
        seen = normalise.join(seen, batch.observations)
    return State(params, jax.random.normal(key, state.directions.shape), seen), metrics


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: Controller) -> Policy:
    """The candidates of a generation while exploring, else the policy that they surround."""
    del step
    if explore:
        return controllers.together(candidates(state, hypers), state.observations, controller=network)
    return controllers.single(state.params, state.observations, controller=network)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds augmented random search to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are a `population.Evaluation` of `2 N` candidates.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no policy over the actions.
    """
    return networks.bind(controllers.make_controller(spec, config), init, update, policy)
