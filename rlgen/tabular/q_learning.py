"""Q-learning, Watkins 1989; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 6.5.

Double Q-learning, van Hasselt 2010 (same book, section 6.7), is a switch: of two tables, one chosen by a fair coin
learns from each transition, at the value that the other one gives to the action that the first finds best.  It acts on
their mean, which orders actions as the book's sum does.

Where several environments or steps make a batch, their transitions are learned from one after another in time order, so
that every one of them sees the values that the one before left.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition
from rlgen.parts import exploration, tabular
from rlgen.parts.tabular import policy


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`; with 1 the values are new at every step, as in the book.
        double: whether there are two tables, each learning at the other's values.
        num_actions: how many of the `A` actions each of the `S` states has; empty where every state has them all.
    """

    num_envs: int = 1
    rollout_length: int = 1
    double: bool = False
    num_actions: tuple[int, ...] = ()


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.5
    discount: float = 1.0
    initial_value: float = 0.0  # optimistic where it is above the true values
    epsilon_start: float = 0.1
    epsilon_end: float = 0.1
    horizon: float = float("inf")  # updates over which epsilon falls


class State(NamedTuple):
    """The values; the whole learner is one table."""

    q_values: Array  # [S, A] float32


class DoubleState(NamedTuple):
    """The values of double Q-learning."""

    tables: Array  # [2, S, A] float32

    @property
    def q_values(self) -> Array:
        """The mean of both tables, `[S, A]`."""
        return self.tables.mean(0)


class Metrics(NamedTuple):
    """Means over an update's transitions."""

    error: Array  # absolute temporal-difference error
    q_value: Array  # of the actions taken


def learn(
    state: State, transition: Transition, hypers: Any, *, num_actions: tuple[int, ...] = ()
) -> tuple[State, Metrics]:
    """Learns from one transition: `Q(s, a) += α (r + γ max Q(s', ·) − Q(s, a))`.

    Args:
        state: the table.
        transition: scalars, no batch axis.
        hypers: with `learning_rate` and `discount`.
        num_actions: as in `Config`.

    Returns:
        `(state, metrics)`.
    """
    value = state.q_values[transition.obs, transition.action]
    limit = tabular.limit(transition.next_obs, num_actions)
    next_values = exploration.existing(state.q_values[transition.next_obs], limit)
    next_value = jnp.where(transition.terminated, 0.0, next_values.max())
    error = transition.reward + hypers.discount * next_value - value
    table = state.q_values.at[transition.obs, transition.action].add(hypers.learning_rate * error)
    return State(table), Metrics(jnp.abs(error), value)


def learn_double(
    chosen: Array, state: DoubleState, transition: Transition, hypers: Any, *, num_actions: tuple[int, ...] = ()
) -> tuple[DoubleState, Metrics]:
    """Learns from one transition: `Q₁(s, a) += α (r + γ Q₂(s', arg max Q₁(s', ·)) − Q₁(s, a))`.

    Args:
        chosen: which of the tables learns, `Q₁` above; int32 scalar, 0 or 1.
        state: both tables.
        transition: scalars, no batch axis.
        hypers: with `learning_rate` and `discount`.
        num_actions: as in `Config`.

    Returns:
        `(state, metrics)`.
    """
    at = chosen, transition.obs, transition.action
    value = state.tables[at]
    limit = tabular.limit(transition.next_obs, num_actions)
    best = jnp.argmax(exploration.existing(state.tables[chosen, transition.next_obs], limit))
    next_value = jnp.where(transition.terminated, 0.0, state.tables[1 - chosen, transition.next_obs, best])
    error = transition.reward + hypers.discount * next_value - value
    return DoubleState(state.tables.at[at].add(hypers.learning_rate * error)), Metrics(jnp.abs(error), value)


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int], double: bool = False) -> State | DoubleState:
    """Fills the tables with one value; the key is not needed, since Q-learning starts alike for every seed."""
    del key
    if double:
        return DoubleState(jnp.full((2, *shape), hypers.initial_value, jnp.float32))
    return State(jnp.full(shape, hypers.initial_value, jnp.float32))


def update(
    key: Key, step: Array, state: Any, batch: Transition, hypers: Hypers, *, num_actions: tuple[int, ...] = ()
) -> tuple[Any, Metrics]:
    """Learns from `[T, B]` transitions in time order; the key is consumed by the coins of double Q-learning."""
    del step
    _, transitions = tabular.in_time_order(batch)
    if isinstance(state, DoubleState):
        coins = jax.random.bernoulli(key, shape=transitions.reward.shape).astype(jnp.int32)

        def one(state, inputs):
            chosen, transition = inputs
            return learn_double(chosen, state, transition, hypers, num_actions=num_actions)

        state, metrics = lax.scan(one, state, (coins, transitions))
    else:
        rule = functools.partial(learn, hypers=hypers, num_actions=num_actions)
        state, metrics = lax.scan(rule, state, transitions)
    return state, jax.tree.map(jnp.mean, metrics)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Q-learning to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: shapes and switches.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, or `num_actions` does not fit them.
    """
    num_states, most = shape = tabular.shape(spec)
    if config.num_actions and (len(config.num_actions) != num_states or max(config.num_actions) > most):
        raise ValueError(f"config.num_actions={config.num_actions} does not fit {num_states} states × {most} actions")
    return Algorithm(
        init=functools.partial(init, shape=shape, double=config.double),
        update=functools.partial(update, num_actions=config.num_actions),
        policy=functools.partial(policy, num_actions=config.num_actions),
    )
