"""Q-learning, Watkins 1989; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 6.5.

Where several environments or steps make a batch, their transitions are learned from one after another in time order, so
that every one of them sees the values that the one before left.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions.
"""

import dataclasses
import functools
from typing import NamedTuple

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
    """

    num_envs: int = 1
    rollout_length: int = 1


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


class Metrics(NamedTuple):
    """Means over an update's transitions."""

    error: Array  # absolute temporal-difference error
    q_value: Array  # of the actions taken


def learn(state: State, transition: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Learns from one transition: `Q(s, a) += α (r + γ max Q(s', ·) − Q(s, a))`.

    Args:
        state: the table.
        transition: scalars, no batch axis.
        hypers: numbers.

    Returns:
        `(state, metrics)`.
    """
    value = state.q_values[transition.obs, transition.action]
    next_value = jnp.where(transition.terminated, 0.0, state.q_values[transition.next_obs].max())
    error = transition.reward + hypers.discount * next_value - value
    table = state.q_values.at[transition.obs, transition.action].add(hypers.learning_rate * error)
    return State(table), Metrics(jnp.abs(error), value)


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int]) -> State:
    """Fills the table with one value; the key is not needed, since Q-learning starts alike for every seed."""
    del key
    return State(jnp.full(shape, hypers.initial_value, jnp.float32))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions in time order."""
    del key, step
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    state, metrics = lax.scan(lambda state, transition: learn(state, transition, hypers), state, flat)
    return state, jax.tree.map(jnp.mean, metrics)


def act(key: Key, obs: Array, memory: tuple[()], *, q_values: Array, epsilon: Array | float):
    """Chooses actions at states `[*N]`.  The key is consumed."""
    return exploration.epsilon_greedy(key, q_values[obs], epsilon), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool) -> Policy:
    """ε-greedy while exploring, greedy otherwise."""
    schedule = exploration.linear(hypers.epsilon_start, hypers.epsilon_end, step / hypers.horizon)
    return Policy(
        memory=lambda batch_shape: (),
        apply=functools.partial(act, q_values=state.q_values, epsilon=schedule if explore else 0.0),
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Q-learning to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: unused beyond the source that it shapes.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    del config
    if not (isinstance(spec.observation, Discrete) and isinstance(spec.action, Discrete)):
        raise ValueError(f"Q-learning needs a table: discrete observations and actions, not {spec}")
    shape = (spec.observation.num, spec.action.num)
    return Algorithm(init=functools.partial(init, shape=shape), update=update, policy=policy)
