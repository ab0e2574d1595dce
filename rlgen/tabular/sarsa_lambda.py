"""Sarsa(λ) with eligibility traces; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 12.7.

A trace says how far each pair of state and action answers for the error of the present step.  Accumulating traces add
one at every visit, replacing traces are set to one, and dutch traces make it true online Sarsa(λ), van Seijen and
Sutton 2014 (same section), which equals the forward view at every step where there is one environment.

As in one-step Sarsa a step is learned from once the next action is known, which the next transition tells; the last
step of an episode is learned from at once.

Departure: an episode cut by its time limit has no next action and takes the mean value of the true last observation
under the ε-greedy policy.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Spec, Transition
from rlgen.parts import checks, tabular
from rlgen.parts.tabular import policy

TRACES = ("accumulating", "replacing", "dutch")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`; with 1 the values are new at every step, as in the book.
        trace: `"accumulating"`, `"replacing"` or `"dutch"`.
    """

    num_envs: int = 1
    rollout_length: int = 1
    trace: str = "replacing"

    def __post_init__(self):
        checks.one_of(self, trace=TRACES)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.5
    discount: float = 1.0
    trace_decay: float = 0.9  # λ
    initial_value: float = 0.0  # optimistic where it is above the true values
    epsilon_start: float = 0.1
    epsilon_end: float = 0.1
    horizon: float = float("inf")  # updates over which epsilon falls


class Eligibility(NamedTuple):
    """What an environment's episode leaves behind; zero between episodes."""

    trace: Array  # [*N, S, A] float32
    obs: Array  # [*N] int32, of the step that waits
    action: Array  # [*N] int32
    reward: Array  # [*N] float32
    waiting: Array  # [*N] bool: whether a step waits
    old_value: Array  # [*N] float32, of the step that waits before the last update; read with dutch traces alone


class State(NamedTuple):
    """The values, and what each environment remembers of its episode."""

    q_values: Array  # [S, A] float32
    eligibility: Eligibility  # leaves [B, ...]


class Metrics(NamedTuple):
    """Sums over what an update learned from, and over the actions it saw, divided by its number of transitions."""

    error: Array  # absolute temporal-difference error
    q_value: Array  # of the actions taken


def credit(
    q_values: Array, eligibility: Eligibility, next_value: Array, hypers: Any, *, kind: str
) -> tuple[Array, Array]:
    """Learns from the step that waits, if one does: `Q += α δ z` with `δ = r + γ U − Q(s, a)`.

    Args:
        q_values: `[S, A]`.
        eligibility: one environment's.
        next_value: `U`, scalar.
        hypers: with `learning_rate` and `discount`.
        kind: of the trace, as in `Config`.

    Returns:
        The table and the absolute error, zero where no step waits.
    """
    at = eligibility.obs, eligibility.action
    value = q_values[at]
    error = eligibility.reward + hypers.discount * next_value - value
    drift = value - eligibility.old_value if kind == "dutch" else jnp.float32(0)
    rate = hypers.learning_rate * eligibility.waiting
    q_values = (q_values + rate * (error + drift) * eligibility.trace).at[at].add(-rate * drift)
    return q_values, jnp.where(eligibility.waiting, jnp.abs(error), 0.0)


def visit(trace: Array, obs: Array, action: Array, hypers: Any, *, kind: str) -> Array:
    """Lets a trace fade by `γ λ` and marks the pair that is visited.

    Args:
        trace: `[S, A]`.
        obs: int32 scalar.
        action: int32 scalar.
        hypers: with `learning_rate`, `discount` and `trace_decay`.
        kind: of the trace, as in `Config`.

    Returns:
        The trace.
    """
    faded = hypers.discount * hypers.trace_decay * trace
    if kind == "replacing":
        return faded.at[obs, action].set(1.0)
    overlap = hypers.learning_rate * faded[obs, action] if kind == "dutch" else 0.0
    return faded.at[obs, action].add(1.0 - overlap)


def learn(
    q_values: Array,
    eligibility: Eligibility,
    transition: Transition,
    hypers: Any,
    *,
    epsilon: Array | float,
    kind: str,
) -> tuple[Array, Eligibility, Metrics]:
    """Goes one transition on: learns from the step before, and from this one where it ends the episode.

    Args:
        q_values: `[S, A]`.
        eligibility: the environment's.
        transition: scalars, no batch axis.
        hypers: with `learning_rate`, `discount` and `trace_decay`.
        epsilon: share of random actions of the policy, scalar.
        kind: of the trace, as in `Config`.

    Returns:
        `(q_values, eligibility, metrics)`.
    """
    value = q_values[transition.obs, transition.action]
    q_values, before = credit(q_values, eligibility, value, hypers, kind=kind)
    done = transition.terminated | transition.truncated
    eligibility = Eligibility(
        trace=visit(eligibility.trace, transition.obs, transition.action, hypers, kind=kind),
        obs=transition.obs,
        action=transition.action,
        reward=transition.reward,
        waiting=done,
        # At the start of an episode any number would do: the trace is one at the visited pair and zero elsewhere.
        old_value=value,
    )
    next_value = tabular.bootstrap(q_values, transition, epsilon)
    q_values, last = credit(q_values, eligibility, next_value, hypers, kind=kind)
    eligibility = jax.tree.map(lambda leaf: jnp.where(done, jnp.zeros_like(leaf), leaf), eligibility)
    return q_values, eligibility._replace(waiting=~done), Metrics(before + last, value)


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int], num_envs: int) -> State:
    """Fills the table with one value and clears the traces; the key is not needed, since all seeds start alike."""
    del key
    zeros, index = jnp.zeros(num_envs), jnp.zeros(num_envs, jnp.int32)
    trace = jnp.zeros((num_envs, *shape))
    eligibility = Eligibility(trace, index, index, zeros, waiting=jnp.zeros(num_envs, bool), old_value=zeros)
    return State(jnp.full(shape, hypers.initial_value, jnp.float32), eligibility)


def update(
    key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, kind: str
) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions in time order; the key is not needed."""
    del key
    rule = functools.partial(learn, hypers=hypers, epsilon=tabular.epsilon_at(step, hypers), kind=kind)
    q_values, eligibility, metrics = tabular.fold(rule, state.q_values, state.eligibility, batch)
    return State(q_values, eligibility), metrics


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Sarsa(λ) to a task.

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
        init=functools.partial(init, shape=shape, num_envs=config.num_envs),
        update=functools.partial(update, kind=config.trace),
        policy=policy,
    )
