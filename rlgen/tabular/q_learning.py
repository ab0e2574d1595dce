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

from rlgen.core import Algorithm, Array, Discrete, Key, Policy, Spec, Transition
from rlgen.parts import exploration


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


def table_shape(spec: Spec) -> tuple[int, int]:
    """Shape of a table over a task's states and actions.

    Args:
        spec: what the policy reads and writes.

    Returns:
        `(S, A)`.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    if not (isinstance(spec.observation, Discrete) and isinstance(spec.action, Discrete)):
        raise ValueError(f"a tabular method needs a table: discrete observations and actions, not {spec}")
    return spec.observation.num, spec.action.num


def in_time_order(batch: Transition) -> tuple[Array, Transition]:
    """Lines up the transitions of `[T, B]`, the environments of a step one after another.

    Args:
        batch: leaves `[T, B]`.

    Returns:
        The number of the environment, `[T * B]` int32, and the transitions, leaves `[T * B]`.
    """
    num_steps, num_envs = batch.reward.shape
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    return jnp.tile(jnp.arange(num_envs, dtype=jnp.int32), num_steps), flat


def epsilon_at(step: Array, hypers: Any) -> Array:
    """Share of random actions after `step` updates, a scalar.

    Args:
        step: updates done.
        hypers: with `epsilon_start`, `epsilon_end` and `horizon`.
    """
    return exploration.linear(hypers.epsilon_start, hypers.epsilon_end, step / hypers.horizon)


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
    next_values = exploration.existing(state.q_values[transition.next_obs], _limit(transition.next_obs, num_actions))
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
    limit = _limit(transition.next_obs, num_actions)
    best = jnp.argmax(exploration.existing(state.tables[chosen, transition.next_obs], limit))
    next_value = jnp.where(transition.terminated, 0.0, state.tables[1 - chosen, transition.next_obs, best])
    error = transition.reward + hypers.discount * next_value - value
    return DoubleState(state.tables.at[at].add(hypers.learning_rate * error)), Metrics(jnp.abs(error), value)


def _limit(obs: Array, num_actions: tuple[int, ...]) -> Array | None:
    """How many actions there are at states `[*N]`, or None for all."""
    return jnp.asarray(num_actions, jnp.int32)[obs] if num_actions else None


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
    _, transitions = in_time_order(batch)
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


def act(
    key: Key,
    obs: Array,
    memory: tuple[()],
    *,
    q_values: Array,
    epsilon: Array | None,
    num_actions: tuple[int, ...] = (),
):
    """Chooses actions at states `[*N]`, the first of the best ones where `epsilon` is None.  The key is consumed."""
    limit = _limit(obs, num_actions)
    values = exploration.existing(q_values[obs], limit)
    if epsilon is None:
        return jnp.argmax(values, axis=-1).astype(jnp.int32), {}, memory
    ties_key, action_key = jax.random.split(key)
    values = exploration.break_ties(ties_key, values)
    return exploration.epsilon_greedy(action_key, values, epsilon, limit), {}, memory


def policy(step: Array, state: Any, hypers: Any, *, explore: bool, num_actions: tuple[int, ...] = ()) -> Policy:
    """ε-greedy with ties broken at random while exploring, greedy otherwise.

    Args:
        step: updates done.
        state: with `q_values`, `[S, A]`.
        hypers: with `epsilon_start`, `epsilon_end` and `horizon`.
        explore: whether to explore.
        num_actions: as in `Config`.

    Returns:
        A policy without memory.
    """
    epsilon = epsilon_at(step, hypers) if explore else None
    return Policy(
        memory=lambda batch_shape: (),
        apply=functools.partial(act, q_values=state.q_values, epsilon=epsilon, num_actions=num_actions),
    )


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
    num_states, most = shape = table_shape(spec)
    if config.num_actions and (len(config.num_actions) != num_states or max(config.num_actions) > most):
        raise ValueError(f"config.num_actions={config.num_actions} does not fit {num_states} states × {most} actions")
    return Algorithm(
        init=functools.partial(init, shape=shape, double=config.double),
        update=functools.partial(update, num_actions=config.num_actions),
        policy=functools.partial(policy, num_actions=config.num_actions),
    )
