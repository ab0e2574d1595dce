"""Finite Markov decision processes as arrays, for planning and for checking samples against the truth.

Notation of Sutton and Barto, "Reinforcement Learning: An Introduction" (2018), chapter 3.

Departures: the reward of a state and action is its expectation over next states, all that a planner needs; an episode's
end is a state that absorbs with zero reward, so its value is zero and a return needs no special case there.

A process too large for `[S, A, S]` is a `SparseMDP`, which lists the few states that an action may lead to.  Both kinds
look ahead by `expected`, on which every planner stands.

Shape legend: `S` states, `A` actions, `K` states that an action may lead to.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlgen.core import Array


class MDP(NamedTuple):
    """A finite Markov decision process; every field takes further axes in front under `vmap`."""

    transition: Array  # [S, A, S] probability of each next state; the last axis sums to one
    reward: Array  # [S, A] expected reward of the step
    start: Array  # [S] probability of starting in each state; sums to one
    terminal: Array  # [S] bool: absorbs with zero reward


class SparseMDP(NamedTuple):
    """A finite process whose actions lead to few states; terminal ones lead to themselves with zero reward."""

    successor: Array  # [S, A, K] int32
    probability: Array  # [S, A, K] or [1, A, K] where it is the same in every state; sums to one over the last axis
    reward: Array  # [S, A] expected reward of the step
    start: Array  # [S]
    terminal: Array  # [S] bool


def expected(process: MDP | SparseMDP, values: Array) -> Array:
    """The value of the state that follows, in expectation.

    Args:
        process: dense or sparse.
        values: `[S]`.

    Returns:
        `Σ_s' P(s' | s, a) values(s')`, `[S, A]`.
    """
    if isinstance(process, SparseMDP):
        return (process.probability * values[process.successor]).sum(-1)
    return jnp.matmul(process.transition, values, precision="highest")


def build(transition: np.ndarray, reward: np.ndarray, start: np.ndarray, terminal: np.ndarray) -> MDP:
    """Makes a process whose terminal states absorb.

    Args:
        transition: `[S, A, S]` probabilities; rows of terminal states are replaced.
        reward: `[S, A]` expected reward; rows of terminal states are replaced.
        start: `[S]` probability of starting in each state.
        terminal: `[S]` bool.

    Returns:
        The process, in JAX's default floating dtype.

    Raises:
        ValueError: if shapes disagree or probabilities are negative or do not sum to one.
    """
    num_states, num_actions = np.shape(reward)
    shapes = tuple(map(np.shape, (transition, start, terminal)))
    if shapes != ((num_states, num_actions, num_states), (num_states,), (num_states,)):
        raise ValueError(f"transition, start and terminal have shapes {shapes}, reward {np.shape(reward)}")
    absorbing = np.eye(num_states)[:, None, :]
    transition = np.where(terminal[:, None, None], absorbing, transition)
    for name, probability in (("transition", transition), ("start", start)):
        if (probability < 0).any() or not np.allclose(probability.sum(-1), 1):
            raise ValueError(f"{name} does not hold probabilities along its last axis")
    return MDP(
        transition=jnp.asarray(transition, float),
        reward=jnp.asarray(np.where(terminal[:, None], 0, reward), float),
        start=jnp.asarray(start, float),
        terminal=jnp.asarray(terminal, bool),
    )
