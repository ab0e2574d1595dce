"""Prioritised sweeping: planning that backs up the state whose value is furthest from its look-ahead.

Sources: Moore and Atkeson 1993, doi:10.1007/BF00993104; Sutton and Barto, "Reinforcement Learning: An Introduction",
2nd edition, section 8.4.

Departures: the process is known from the start, so every state has its own priority before the first backup.  A
priority is the Bellman error `|max_a q(s, a) − v(s)|` itself, where the paper promotes a predecessor to the largest
change that one successor brings it: a changed value is carried into the look-ahead of all predecessors, `O(S · A)` like
the search for the largest error, and a backup looks its own state up anew, so that rounding does not add up.

Shape legend: `S` states, `A` actions.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec
from rlgen.envs.mdp import MDP
from rlgen.parts import backups, planning, tabular
from rlgen.parts.backups import Scalar
from rlgen.parts.tabular import greedy_policy as policy


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_backups: of an update.
    """

    num_backups: int = 8


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    discount: float = 1.0
    initial_value: float = 0.0  # of every state that is no end


class State(NamedTuple):
    """The values and the look-ahead from them; how far they are apart is a state's priority."""

    values: Array  # [S] float32
    q_values: Array  # [S, A] float32


class Metrics(NamedTuple):
    """What an update did."""

    residual: Array  # largest change of a value
    priority: Array  # largest one that is left


def priorities(state: State) -> Array:
    """Bellman errors, `[S]`."""
    return jnp.abs(state.q_values.max(-1) - state.values)


def begin(process: MDP, values: Scalar, discount: Scalar) -> State:
    """Looks ahead once from all states.

    Args:
        process: dense.
        values: to begin with, a scalar or `[S]`.
        discount: `γ`.

    Returns:
        The state before the first backup.
    """
    first = backups.start(process, values)
    return State(first, backups.action_values(process, first, discount))


def back_up(state: State, process: MDP, discount: Scalar) -> tuple[State, Array]:
    """Backs up the state of the highest priority.

    Args:
        state: values, and the look-ahead from them.
        process: dense.
        discount: `γ`.

    Returns:
        `(state, change of the value)`.
    """
    chosen = priorities(state).argmax()
    q_row = backups.action_values_at(process, state.values, discount, chosen)
    change = q_row.max() - state.values[chosen]
    into = lax.dynamic_index_in_dim(process.transition, chosen, axis=-1, keepdims=False)  # [S, A]
    q_values = state.q_values.at[chosen].set(q_row) + discount * change * into
    return State(state.values.at[chosen].set(q_row.max()), q_values), change


def learn(state: State, process: MDP, hypers: Hypers, *, num_backups: int) -> tuple[State, Metrics]:
    """Backs up the states of the highest priorities, one after another.

    Args:
        state: values, and the look-ahead from them, as `begin` gives it.
        process: dense.
        hypers: numbers.
        num_backups: how many.

    Returns:
        `(state, metrics)`.
    """
    state, changes = lax.scan(
        lambda state, _: back_up(state, process, hypers.discount), state, None, length=num_backups
    )
    return state, Metrics(jnp.abs(changes).max(), priorities(state).max())


def plan(
    process: MDP,
    discount: Scalar,
    *,
    initial_values: Scalar = 0.0,
    tolerance: float = 1e-6,
    max_backups: int = 1_000_000,
) -> planning.Solution:
    """Finds the optimal values.

    Args:
        process: dense.
        discount: `γ`.
        initial_values: to begin with, a scalar or `[S]`.
        tolerance: largest priority at which to stop.
        max_backups: after which to stop in any case.

    Returns:
        The solution; `iterations` counts backups of a single state, `residual` is the largest priority left.
    """

    def goes_on(carry: tuple[State, Array]) -> Array:
        state, count = carry
        return (count < max_backups) & (priorities(state).max() > tolerance)

    def body(carry: tuple[State, Array]):
        state, count = carry
        return back_up(state, process, discount)[0], count + 1

    state, count = lax.while_loop(goes_on, body, (begin(process, initial_values, discount), jnp.int32(0)))
    actions = state.q_values.argmax(-1).astype(jnp.int32)
    return planning.Solution(state.values, state.q_values, actions, count, priorities(state).max())


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int]) -> State:
    """Gives all states one value; the key is not needed, since nothing here is random."""
    del key
    q_values = jnp.full(shape, hypers.initial_value, jnp.float32)
    return State(q_values[:, 0], q_values)


def update(
    key: Key, step: Array, state: State, batch: MDP, hypers: Hypers, *, num_backups: int
) -> tuple[State, Metrics]:
    """Plans a little over the process that is the batch."""
    del key
    # The process is first seen here.  `step` is no part of a sweep's batch, so this stays a branch.
    state = lax.cond(step == 0, lambda: begin(batch, state.values, hypers.discount), lambda: state)
    return learn(state, batch, hypers, num_backups=num_backups)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds prioritised sweeping to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: number of backups.

    Returns:
        The algorithm; its batches are a dense process, of which an observation is the index of a state.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    return Algorithm(
        init=functools.partial(init, shape=tabular.shape(spec)),
        update=functools.partial(update, num_backups=config.num_backups),
        policy=policy,
    )
