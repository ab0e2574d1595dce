"""Exploration and schedules.

Sources: the rules are those of Sutton and Barto, "Reinforcement Learning", 2nd edition, chapter 2; the upper confidence
bound is Auer, Cesa-Bianchi and Fischer 2002, doi:10.1023/A:1013689704352; noise with a memory is that of
arXiv:1509.02971.

Shape legend: `N` any batch shape, `A` actions, `D` elements of a continuous action.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlgen.core import Array, Key, Tree

NOISES = ("gaussian", "ou")
_ABSENT = -1e30  # value of an action that a state does not have; finite, so that differences stay numbers


def linear(start: Array | float, end: Array | float, fraction: Array | float) -> Array:
    """Goes in a straight line from `start` to `end` as `fraction` goes from 0 to 1, and stays there."""
    return start + (end - start) * jnp.clip(fraction, 0.0, 1.0)


def falling(step: Array, hypers: Any) -> Array:
    """Lets epsilon fall from `epsilon_start` to `epsilon_end` within `exploration_fraction` of the `horizon`."""
    fraction = step / (hypers.exploration_fraction * hypers.horizon)
    return linear(hypers.epsilon_start, hypers.epsilon_end, fraction)


def greedy(key: Key, q_values: Array) -> Array:
    """Takes the best action, and among equally good ones any with equal chance.

    Args:
        key: consumed.
        q_values: `[*N, A]`.

    Returns:
        Actions, `[*N]` int32.
    """
    best = q_values == q_values.max(-1, keepdims=True)
    noise = jax.random.uniform(key, q_values.shape)
    return jnp.argmax(jnp.where(best, noise, -1.0), axis=-1).astype(jnp.int32)


def epsilon_greedy(key: Key, q_values: Array, epsilon: Array | float, num_actions: Array | None = None) -> Array:
    """Takes the best action, or with probability `epsilon` any action with equal chance.

    The first of equally good actions is taken; `break_ties` changes that.

    Args:
        key: consumed.
        q_values: `[*N, A]`.
        epsilon: scalar, or broadcastable to `[*N]`.
        num_actions: `[*N]` int, how many of the `A` actions there are; None for all.

    Returns:
        Actions, `[*N]` int32.
    """
    choice_key, action_key = jax.random.split(key)
    *batch_shape, most = q_values.shape
    best = jnp.argmax(existing(q_values, num_actions), axis=-1).astype(jnp.int32)
    limit = most if num_actions is None else num_actions
    uniform = jax.random.randint(action_key, batch_shape, 0, limit, dtype=jnp.int32)
    return jnp.where(jax.random.uniform(choice_key, batch_shape) < epsilon, uniform, best)


def break_ties(key: Key, q_values: Array) -> Array:
    """Leaves one of equally good actions, drawn with equal chance, and puts the others below everything.

    Args:
        key: consumed.
        q_values: `[*N, A]`.

    Returns:
        Values with one best action, `[*N, A]`.
    """
    chosen = jax.nn.one_hot(greedy(key, q_values), q_values.shape[-1], dtype=bool)
    return jnp.where((q_values == q_values.max(-1, keepdims=True)) & ~chosen, -jnp.inf, q_values)


def boltzmann(key: Key, q_values: Array, temperature: Array | float) -> Array:
    """Draws actions with probabilities `softmax(q / temperature)`.

    Args:
        key: consumed.
        q_values: `[*N, A]`.
        temperature: scalar, or broadcastable to `[*N]`; positive.

    Returns:
        Actions, `[*N]` int32.
    """
    temperature = jnp.asarray(temperature)[..., None]
    # Differences keep their digits where a low temperature makes the quotients large.
    advantages = q_values - q_values.max(-1, keepdims=True)
    return jax.random.categorical(key, advantages / temperature).astype(jnp.int32)


def upper_bounds(q_values: Array, counts: Array, confidence: Array | float) -> Array:
    """Adds to each value what it could still be: `q + c sqrt(ln Σ n / n)`, and infinity to what was never tried.

    Args:
        q_values: `[*N, A]`.
        counts: `[*N, A]`, how often each action was taken.
        confidence: `c`, broadcastable to `[*N, 1]`.

    Returns:
        Upper confidence bounds, `[*N, A]`.
    """
    total = jnp.maximum(counts.sum(-1, keepdims=True), 1)
    width = jnp.sqrt(jnp.log(total) / jnp.maximum(counts, 1))
    return jnp.where(counts > 0, q_values + confidence * width, jnp.inf)


def existing(q_values: Array, num_actions: Array | None) -> Array:
    """Puts the values of actions that a state does not have below all others.

    Args:
        q_values: `[*N, A]`.
        num_actions: `[*N]` int, how many of the `A` actions there are; None for all.

    Returns:
        Values, `[*N, A]`.
    """
    if num_actions is None:
        return q_values
    return jnp.where(jnp.arange(q_values.shape[-1]) < num_actions[..., None], q_values, _ABSENT)


def additive_memory(kind: str, size: tuple[int, ...]) -> Callable[[tuple[int, ...]], Tree]:
    """Gives `(batch_shape) -> memory`, what `additive` remembers at the start of an episode, for actions of a size."""
    if kind != "ou":
        return lambda batch_shape: ()
    return lambda batch_shape: jnp.zeros((*batch_shape, *size))


def additive(
    key: Key, step: Array, memory: Tree, shape: tuple[int, ...], hypers: Any, *, kind: str
) -> tuple[Array, Tree]:
    """Draws what is added to continuous actions.

    Args:
        key: consumed.
        step: updates done before, scalar.
        memory: the process so far, `[*N, D]`; `()` for one without memory.
        shape: of the actions, `[*N, D]`.
        hypers: with `noise_start`, `noise_end`, `exploration_fraction`, `horizon` and `noise_return`.
        kind: of `NOISES`: drawn anew at every step, or an Ornstein-Uhlenbeck process.

    Returns:
        `(noise, memory)`; the noise is `[*N, D]`.
    """
    size = linear(hypers.noise_start, hypers.noise_end, step / (hypers.exploration_fraction * hypers.horizon))
    drawn = jax.random.normal(key, shape)
    if kind == "gaussian":
        return size * drawn, memory
    memory = (1.0 - hypers.noise_return) * memory + drawn
    # So that the deviation is `size` whatever the share that is lost, once the process has run for a while.
    return size * memory * jnp.sqrt(hypers.noise_return * (2.0 - hypers.noise_return)), memory
