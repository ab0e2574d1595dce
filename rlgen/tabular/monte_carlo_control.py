"""On-policy Monte Carlo control; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 5.4.

The policy is ε-greedy.  When an episode ends, its returns are computed from the last step to the first, and those of
first visits, or of every visit, move the values: `Q(s, a) += α N(s, a)^−ω (G − Q(s, a))`, where `N` counts the visits
learned from, this one included.  With `learning_rate` α = 1 and `step_exponent` ω = 1 the value is the average of
the returns, as in the book; with ω = 0 the step size is constant.

Departures: the book knows no episodes that are cut.  One cut by its time limit, or by the end of the memory of `L`
steps, goes on with the mean value of its true last observation under the ε-greedy policy; what follows the end of the
memory is learned from as an episode of its own.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions, `L` longest episode, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition
from rlgen.parts import tabular
from rlgen.parts.tabular import policy


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`; an update learns from the episodes that end within it.
        max_length: `L`, steps of an episode that are kept.
        every_visit: whether all visits of a pair count, instead of an episode's first one.
    """

    num_envs: int = 1
    rollout_length: int = 1
    max_length: int = 100
    every_visit: bool = False


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1.0
    step_exponent: float = 1.0  # ω: 1 averages, 0 forgets
    discount: float = 1.0
    initial_value: float = 0.0
    epsilon_start: float = 0.1
    epsilon_end: float = 0.1
    horizon: float = float("inf")  # updates over which epsilon falls


class Episode(NamedTuple):
    """The steps of an episode so far, oldest first."""

    obs: Array  # [*N, L] int32
    action: Array  # [*N, L] int32
    reward: Array  # [*N, L] float32
    counted: Array  # [*N, L] bool: whether the visit moves the value
    length: Array  # [*N] int32, how many of the steps there are


class State(NamedTuple):
    """The values, and the episodes that have not ended."""

    q_values: Array  # [S, A] float32
    visits: Array  # [S, A] int32, learned from
    episode: Episode  # leaves [B, ...]


class Metrics(NamedTuple):
    """Sums over what an update learned from, and over the actions it saw, divided by its number of transitions."""

    error: Array  # absolute error of the returns of counted visits
    q_value: Array  # of the actions taken


def append(episode: Episode, transition: Transition, *, every_visit: bool) -> Episode:
    """Adds a step to an episode.

    Args:
        episode: one environment's, of fewer than `L` steps.
        transition: scalars, no batch axis.
        every_visit: as in `Config`.

    Returns:
        The episode.
    """
    at = episode.length
    seen = (episode.obs == transition.obs) & (episode.action == transition.action)
    repeated = (seen & (jnp.arange(len(seen)) < at)).any()
    return Episode(
        obs=episode.obs.at[at].set(transition.obs),
        action=episode.action.at[at].set(transition.action),
        reward=episode.reward.at[at].set(transition.reward),
        counted=episode.counted.at[at].set(every_visit | ~repeated),
        length=at + 1,
    )


def learn(
    q_values: Array, visits: Array, episode: Episode, next_value: Array, hypers: Any
) -> tuple[Array, Array, Array]:
    """Learns from a whole episode, last step first.

    Args:
        q_values: `[S, A]`.
        visits: `[S, A]` int32.
        episode: one environment's; with length zero nothing is learned.
        next_value: scalar, the value after its last step, zero where it terminated.
        hypers: with `learning_rate`, `step_exponent` and `discount`.

    Returns:
        The table, the visits, and the sum of absolute errors.
    """

    def body(index: Array, carry: tuple[Array, Array, Array, Array]):
        goal, q_values, visits, errors = carry
        step = episode.length - 1 - index
        at = episode.obs[step], episode.action[step]
        goal = episode.reward[step] + hypers.discount * goal
        counted = episode.counted[step]
        visits = visits.at[at].add(counted.astype(visits.dtype))
        # A visit that does not count may be of a pair without any.
        num = jnp.maximum(visits[at], 1).astype(jnp.float32)
        error: Array = jnp.where(counted, goal - q_values[at], jnp.float32(0))
        rate = hypers.learning_rate * num**-hypers.step_exponent
        return goal, q_values.at[at].add(rate * error), visits, errors + jnp.abs(error)

    # The loop is as long as the episode, so that steps within one cost next to nothing.
    carry = (next_value, q_values, visits, jnp.float32(0))
    return lax.fori_loop(0, episode.length, body, carry)[1:]


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int], num_envs: int, max_length: int) -> State:
    """Fills the table with one value and empties the episodes; the key is not needed, since all seeds start alike."""
    del key
    index = jnp.zeros((num_envs, max_length), jnp.int32)
    episode = Episode(index, index, index.astype(jnp.float32), index.astype(bool), jnp.zeros(num_envs, jnp.int32))
    return State(jnp.full(shape, hypers.initial_value, jnp.float32), jnp.zeros(shape, jnp.int32), episode)


def update(
    key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, every_visit: bool
) -> tuple[State, Metrics]:
    """Adds `[T, B]` transitions in time order and learns from each episode as it ends; the key is not needed."""
    del key
    epsilon = tabular.epsilon_at(step, hypers)

    def rule(shared: tuple[Array, Array], own: Episode, transition: Transition):
        q_values, visits = shared
        value = q_values[transition.obs, transition.action]
        own = append(own, transition, every_visit=every_visit)
        over = transition.terminated | transition.truncated | (own.length == len(own.reward))
        ended = own._replace(length=jnp.where(over, own.length, 0))
        next_value = tabular.bootstrap(q_values, transition, epsilon)
        q_values, visits, error = learn(q_values, visits, ended, next_value, hypers)
        return (q_values, visits), own._replace(length=jnp.where(over, 0, own.length)), Metrics(error, value)

    (q_values, visits), episode, metrics = tabular.fold(rule, (state.q_values, state.visits), state.episode, batch)
    return State(q_values, visits, episode), metrics


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Monte Carlo control to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: shapes and switches.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    shape = tabular.shape(spec)
    return Algorithm(
        init=functools.partial(init, shape=shape, num_envs=config.num_envs, max_length=config.max_length),
        update=functools.partial(update, every_visit=config.every_visit),
        policy=policy,
    )
