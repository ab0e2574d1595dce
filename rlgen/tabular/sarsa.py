"""Sarsa, expected Sarsa and n-step Sarsa; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 6.4.

One rule covers all three: `Q(sₜ, aₜ) += α (rₜ + … + γⁿ⁻¹ rₜ₊ₙ₋₁ + γⁿ U − Q(sₜ, aₜ))`, where `U` is `Q(sₜ₊ₙ, aₜ₊ₙ)` or,
expected (same book, sections 6.6 and 7.2), its mean under the ε-greedy policy.  Steps not learned from yet wait in the
state, apart for each environment.

The order is the book's where a batch is one step: Sarsa learns from step `t` once `aₜ₊ₙ` is known, which the transition
of step `t + n` tells, so that action is chosen before and its successor after; expected Sarsa needs no such action and
learns one transition earlier.  When an episode ends, all that still waits is learned from at once, oldest first.

Departure: an episode cut by its time limit has no next action, so both kinds take there the mean value of the true last
observation.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions, `n` steps of a return, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition
from rlgen.parts import checks, tabular
from rlgen.parts.tabular import policy

TARGETS = ("sarsa", "expected")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`; with 1 the values are new at every step, as in the book.
        num_steps: `n`.
        target: `"sarsa"` for the value of the next action, `"expected"` for its mean over actions.
    """

    num_envs: int = 1
    rollout_length: int = 1
    num_steps: int = 1
    target: str = "sarsa"

    def __post_init__(self):
        checks.one_of(self, target=TARGETS)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.5
    discount: float = 1.0
    initial_value: float = 0.0  # optimistic where it is above the true values
    epsilon_start: float = 0.1
    epsilon_end: float = 0.1
    horizon: float = float("inf")  # updates over which epsilon falls


class Pending(NamedTuple):
    """The last `n` steps, the newest last; only the last `num` of them have still to be learned from."""

    obs: Array  # [*N, n] int32
    action: Array  # [*N, n] int32
    reward: Array  # [*N, n] float32
    num: Array  # [*N] int32


class State(NamedTuple):
    """The values, and the steps that wait."""

    q_values: Array  # [S, A] float32
    pending: Pending  # leaves [B, ...]


class Metrics(NamedTuple):
    """Sums over what an update learned from, and over the actions it saw, divided by its number of transitions."""

    error: Array  # absolute error of the returns
    q_value: Array  # of the actions taken


def returns(reward: Array, next_value: Array, discount: Array | float) -> Array:
    """Returns of steps that follow each other: `Gₖ = rₖ + γ Gₖ₊₁`, ending in `next_value`.

    Args:
        reward: `[n]`.
        next_value: scalar, the value after the last step.
        discount: `γ`, scalar.

    Returns:
        `[n]`.
    """

    def body(following: Array, reward: Array):
        goal = reward + discount * following
        return goal, goal

    return lax.scan(body, next_value, reward, reverse=True)[1]


def credit(
    q_values: Array, pending: Pending, goals: Array, due: Array, learning_rate: Array | float
) -> tuple[Array, Array]:
    """Learns from steps that are due, oldest first: `Q(s, a) += α (G − Q(s, a))`.

    Args:
        q_values: `[S, A]`.
        pending: one environment's steps, `[n]`.
        goals: their returns, `[n]`.
        due: which of them to learn from, `[m]` bool for the first `m` ≤ `n`.
        learning_rate: `α`, scalar.

    Returns:
        The table and the sum of absolute errors.
    """

    def body(q_values: Array, inputs: tuple[Array, ...]):
        obs, action, goal, due = inputs
        error = jnp.where(due, goal - q_values[obs, action], 0.0)
        return q_values.at[obs, action].add(learning_rate * error), jnp.abs(error)

    first = jax.tree.map(lambda leaf: leaf[: len(due)], (pending.obs, pending.action, goals))
    q_values, errors = lax.scan(body, q_values, (*first, due))
    return q_values, errors.sum()


def push(pending: Pending, transition: Transition) -> Pending:
    """Lets a step wait; the oldest of `n` must have been learned from.

    Args:
        pending: one environment's steps, `[n]`.
        transition: scalars, no batch axis.

    Returns:
        The steps, one more of which wait.
    """
    steps = (pending.obs, pending.action, pending.reward)
    newest = (transition.obs, transition.action, transition.reward)
    moved = (jnp.roll(leaf, -1).at[-1].set(new) for leaf, new in zip(steps, newest, strict=True))
    return Pending(*moved, num=pending.num + 1)


def learn(
    q_values: Array, pending: Pending, transition: Transition, hypers: Any, *, epsilon: Array | float, target: str
) -> tuple[Array, Pending, Metrics]:
    """Goes one transition on and learns from every step whose return it completes.

    Args:
        q_values: `[S, A]`.
        pending: the environment's steps that wait, `[n]`.
        transition: scalars, no batch axis.
        hypers: with `learning_rate` and `discount`.
        epsilon: share of random actions of the policy, scalar.
        target: as in `Config`.

    Returns:
        `(q_values, pending, metrics)`.
    """
    num_steps = len(pending.reward)
    value = q_values[transition.obs, transition.action]
    error = jnp.float32(0)
    if target == "sarsa":
        full = pending.num == num_steps
        goals = returns(pending.reward, value, hypers.discount)
        q_values, error = credit(q_values, pending, goals, full[None], hypers.learning_rate)
        pending = pending._replace(num=pending.num - full)
    pending = push(pending, transition)
    waiting = num_steps - jnp.arange(num_steps) <= pending.num
    due = waiting & (transition.terminated | transition.truncated)
    if target == "expected":
        due = due.at[0].set(waiting[0])
    goals = returns(pending.reward, tabular.bootstrap(q_values, transition, epsilon), hypers.discount)
    q_values, more = credit(q_values, pending, goals, due, hypers.learning_rate)
    return q_values, pending._replace(num=pending.num - due.sum(dtype=jnp.int32)), Metrics(error + more, value)


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int], num_envs: int, num_steps: int) -> State:
    """Fills the table with one value, and nothing waits; the key is not needed, since Sarsa starts alike for all."""
    del key
    index = jnp.zeros((num_envs, num_steps), jnp.int32)
    pending = Pending(index, index, jnp.zeros((num_envs, num_steps)), jnp.zeros(num_envs, jnp.int32))
    return State(jnp.full(shape, hypers.initial_value, jnp.float32), pending)


def update(
    key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, target: str
) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions in time order; the key is not needed."""
    del key
    rule = functools.partial(learn, hypers=hypers, epsilon=tabular.epsilon_at(step, hypers), target=target)
    q_values, pending, metrics = tabular.fold(rule, state.q_values, state.pending, batch)
    return State(q_values, pending), metrics


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Sarsa to a task.

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
        init=functools.partial(init, shape=shape, num_envs=config.num_envs, num_steps=config.num_steps),
        update=functools.partial(update, target=config.target),
        policy=policy,
    )
