"""Exploration and schedules.

Shape legend: `N` any batch shape, `A` actions.
"""

import jax
import jax.numpy as jnp

from rlgen.core import Array, Key


def linear(start: Array | float, end: Array | float, fraction: Array | float) -> Array:
    """Goes in a straight line from `start` to `end` as `fraction` goes from 0 to 1, and stays there."""
    return start + (end - start) * jnp.clip(fraction, 0.0, 1.0)


def epsilon_greedy(key: Key, q_values: Array, epsilon: Array | float) -> Array:
    """Takes the best action, or with probability `epsilon` any action with equal chance.

    Args:
        key: consumed.
        q_values: `[*N, A]`.
        epsilon: scalar, or broadcastable to `[*N]`.

    Returns:
        Actions, `[*N]` int32.
    """
    choice_key, action_key = jax.random.split(key)
    *batch_shape, num_actions = q_values.shape
    greedy = jnp.argmax(q_values, axis=-1).astype(jnp.int32)
    uniform = jax.random.randint(action_key, batch_shape, 0, num_actions, dtype=jnp.int32)
    return jnp.where(jax.random.uniform(choice_key, batch_shape) < epsilon, uniform, greedy)
