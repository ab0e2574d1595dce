"""Finite Markov decision processes as arrays, for planning and for checking samples against the truth.

Notation of Sutton and Barto, "Reinforcement Learning: An Introduction" (2018), chapter 3.

Departures: the reward of a state and action is its expectation over next states, all that a planner needs; an episode's
end is a state that absorbs with zero reward, so its value is zero and a return needs no special case there.

Shape legend: `S` states, `A` actions.
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
