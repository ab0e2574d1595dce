"""Evolution strategies and a genetic algorithm over the parameters of a policy, through evosax.

`open_es` is OpenAI's strategy, arXiv:1703.03864: antithetic samples around a mean, returns made to centred ranks, Adam.
`cma_es` adapts a full covariance, arXiv:1604.00772, and `sep_cma_es` its diagonal, `(D + 2) / 3` times as fast,
doi:10.1007/978-3-540-87700-4_30.
`snes` is the separable natural strategy of Wierstra et al., "Natural Evolution Strategies" (JMLR 15, 2014), `pgpe` the
policy gradient with parameter-based exploration, doi:10.1007/978-3-540-87536-9_40, with Adam and centred ranks, and
`simple_ga` the genetic algorithm without crossover, arXiv:1712.06567, whose mutations change every parameter.

What a strategy remembers is evosax's own state, an array a leaf; the candidates of the coming generation are drawn at
the end of an update, since a policy draws nothing.

Departures: observations can be standardised by the moments of all that were met before, as augmented random search
does; there is no weight decay and no virtual batch normalisation, the deviation of `open_es` and of mutations is fixed,
the step size of CMA-ES has a lower bound, and where weights go by rank, equal returns are put in a random order.  Of
the genetic algorithm, the best candidate is a parent like others that survive, but does not itself live on unchanged;
half of the first generation, which nobody has judged, are parents.

Shape legend: `P` candidates, `D` parameters.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax import algorithms
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Tree
from rlgen.parts import checks, controllers, networks, normalise, optim, random
from rlgen.parts.controllers import Controller
from rlgen.sources.population import Evaluation

STRATEGIES = {
    "open_es": algorithms.Open_ES,
    "cma_es": algorithms.CMA_ES,
    "sep_cma_es": algorithms.Sep_CMA_ES,
    "snes": algorithms.SNES,
    "pgpe": algorithms.PGPE,
    "simple_ga": algorithms.SimpleGA,
}
ANTITHETIC = BY_GRADIENT = ("open_es", "pgpe")
WEIGHTED = ("cma_es", "sep_cma_es", "snes")  # by the rank of each candidate
_LEAST_SHARE = 1e-6  # of the first deviation, below which float32 tells candidates no longer apart


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        strategy: of `STRATEGIES`.
        num_candidates: `P`, an even number where samples are antithetic.
        normalise_observations: by running moments.
        num_evaluations: episodes that each candidate plays.
        max_steps: after which an episode is cut; more than the task's own limit for that limit.
        common_starts: whether all candidates of a generation start from the same states.
        hidden_sizes: width of each hidden layer; none for a linear policy.
        activation: name in `networks.ACTIVATIONS`.
    """

    strategy: str = "open_es"
    num_candidates: int = 16
    normalise_observations: bool = False
    num_evaluations: int = 1
    max_steps: int = 1_000
    common_starts: bool = False
    hidden_sizes: tuple[int, ...] = (16,)
    activation: str = "tanh"

    def __post_init__(self):
        checks.one_of(self, strategy=STRATEGIES)
        if self.num_candidates == 1:
            raise ValueError("config.num_candidates=1 leaves nothing to choose from")
        if self.strategy in ANTITHETIC and self.num_candidates % 2:
            raise ValueError(
                f"config.num_candidates={self.num_candidates} is odd; samples of a pair need an even number"
            )

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        return {} if self.strategy in BY_GRADIENT else {"learning_rate": f"config.strategy={self.strategy!r}"}


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.05  # of the mean
    sigma: float = 0.1  # standard deviation of the first samples, or of a mutation


class State(NamedTuple):
    """What an update changes."""

    search: Any  # evosax's
    candidates: Array  # [P, D] float32, of the generation to come
    observations: Tree  # `normalise.Moments` of `[*observation]`; `()` where that is switched off


class Minibatch(NamedTuple):
    """What the rule learns from."""

    candidates: Array  # [P, D]
    fitness: Array  # [P], the higher the better


class Metrics(NamedTuple):
    """Of one generation."""

    fitness: Array  # mean over the candidates
    best_fitness: Array
    deviation: Array  # of a parameter among the candidates, mean over the parameters


def strategy(num_params: int, hypers: Any, *, config: Config) -> tuple[Any, Any]:
    """Sets evosax's strategy up: `(algorithm, its numbers)`.

    Args:
        num_params: `D`.
        hypers: numbers.
        config: which strategy.
    """
    arguments = {}
    if config.strategy in BY_GRADIENT:
        arguments["optimizer"] = optim.adam(hypers.learning_rate)
    if config.strategy in ("open_es", "simple_ga"):
        arguments["std_schedule"] = optax.constant_schedule(hypers.sigma)
    kind: Any = STRATEGIES[config.strategy]
    algorithm = kind(population_size=config.num_candidates, solution=np.zeros(num_params, np.float32), **arguments)
    numbers = algorithm.default_params
    if hasattr(numbers, "std_init"):
        numbers = numbers.replace(std_init=hypers.sigma)
    if hasattr(numbers, "std_min"):
        numbers = numbers.replace(std_min=_LEAST_SHARE * hypers.sigma)
    if config.strategy == "sep_cma_es":
        # evosax keeps the rates of a full covariance; a diagonal has fewer numbers to learn.
        faster = (num_params + 2) / 3
        one = jnp.minimum(numbers.c_1 * faster, 1.0)
        numbers = numbers.replace(c_1=one, c_mu=jnp.minimum(numbers.c_mu * faster, 1.0 - one))
    return algorithm, numbers


def _strong(state: Any) -> Any:
    """Makes arrays of the Python numbers in evosax's state, whose weak types would compile a second time."""
    return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), state)


def learn(key: Key, search: Any, minibatch: Minibatch, hypers: Hypers, *, config: Config) -> tuple[Any, Metrics]:
    """Tells the strategy what came of its candidates: the rule itself, free of any environment.

    Args:
        key: consumed.
        search: evosax's state.
        minibatch: candidates and their fitness.
        hypers: numbers.
        config: which strategy.

    Returns:
        `(search, metrics)`.
    """
    candidates, fitness = minibatch
    algorithm, numbers = strategy(candidates.shape[1], hypers, config=config)
    tell_key, order_key = jax.random.split(key)
    cost = ranks(order_key, -fitness) if config.strategy in WEIGHTED else -fitness
    search, _ = algorithm.tell(tell_key, candidates, cost, search, numbers)
    return _strong(search), Metrics(fitness.mean(), fitness.max(), candidates.std(0).mean())


def ranks(key: Key, cost: Array) -> Array:
    """Ranks costs, so that no two are equal: evosax gives equal ones the same weight, and weights no longer add up.

    Args:
        key: consumed; it orders what is equal.
        cost: `[P]`.

    Returns:
        0 for the least to `P − 1`, `[P]` float32; what is no number comes last.
    """
    shuffled = random.permutation(key, len(cost))
    order = shuffled[jnp.argsort(cost[shuffled])]
    return jnp.zeros(len(cost)).at[order].set(jnp.arange(len(cost), dtype=jnp.float32))


def ask(key: Key, search: Any, num_params: int, hypers: Hypers, *, config: Config) -> tuple[Any, Array]:
    """Draws the candidates of a generation.  The key is consumed.

    Args:
        key: consumed.
        search: evosax's state.
        num_params: `D`.
        hypers: numbers.
        config: which strategy.

    Returns:
        `(search, candidates [P, D])`.
    """
    algorithm, numbers = strategy(num_params, hypers, config=config)
    candidates, search = algorithm.ask(key, search, numbers)
    return _strong(search), candidates


def init(key: Key, hypers: Hypers, *, network: Controller) -> State:
    """Makes the state before the first update.  The key is consumed."""
    config, space = network.config, network.spec.observation
    params_key, init_key, ask_key = jax.random.split(key, 3)
    if config.strategy == "simple_ga":
        draw = functools.partial(controllers.initial_params, controller=network)
        start = jax.vmap(draw)(jax.random.split(params_key, config.num_candidates))
        algorithm, numbers = strategy(start.shape[1], hypers, config=config)
        # Nobody has been judged yet: the first half, which is as random as any, will be parents.
        search = algorithm.init(init_key, start, jnp.zeros(config.num_candidates), numbers)
    else:
        start = controllers.initial_params(params_key, network)
        algorithm, numbers = strategy(start.size, hypers, config=config)
        search = algorithm.init(init_key, start, numbers)
    search, candidates = ask(ask_key, _strong(search), start.shape[-1], hypers, config=config)
    return State(search, candidates, normalise.moments(space.shape) if config.normalise_observations else ())


def update(key: Key, step: Array, state: State, batch: Evaluation, hypers: Hypers, *, network: Controller):
    """Learns from one generation and draws the next.  The key is consumed."""
    del step
    config, seen = network.config, state.observations
    tell_key, ask_key = jax.random.split(key)
    search, metrics = learn(tell_key, state.search, Minibatch(state.candidates, batch.fitness), hypers, config=config)
    search, candidates = ask(ask_key, search, state.candidates.shape[1], hypers, config=config)
    if config.normalise_observations:
        seen = normalise.join(seen, batch.observations)
    return State(search, candidates, seen), metrics


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: Controller) -> Policy:
    """The candidates while exploring, else the mean of the strategy, or the best of the last generation without one."""
    del step, hypers
    if explore:
        return controllers.together(state.candidates, state.observations, controller=network)
    if network.config.strategy == "simple_ga":
        params = state.search.population[jnp.nanargmin(state.search.fitness)]
    else:
        params = state.search.mean
    return controllers.single(params, state.observations, controller=network)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds an evolution strategy to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are a `population.Evaluation` of `P` candidates.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no policy over the actions.
    """
    return networks.bind(controllers.make_controller(spec, config), init, update, policy)
