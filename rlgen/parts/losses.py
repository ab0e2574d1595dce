"""Losses, elementwise: they reduce nothing, so that callers may weigh before they average.

Shape legend: `N` any batch shape.
"""

import jax.numpy as jnp

from rlgen.core import Array


def squared(error: Array) -> Array:
    """Half the squared error, `½ δ²`."""
    return 0.5 * jnp.square(error)


def huber(error: Array, delta: float = 1.0) -> Array:
    """Quadratic below `delta` and linear above: the clipped error of Mnih et al. 2015, doi:10.1038/nature14236."""
    small = jnp.minimum(jnp.abs(error), delta)
    return 0.5 * jnp.square(small) + delta * (jnp.abs(error) - small)


def clipped_surrogate(ratio: Array, advantage: Array, clip: Array | float) -> Array:
    """PPO's pessimistic surrogate as a loss, `−min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â)`, arXiv:1707.06347.

    Args:
        ratio: `ρ = π(a | s) / π_old(a | s)`, `[*N]`.
        advantage: `Â`, `[*N]`.
        clip: `ε`, scalar.

    Returns:
        Loss, `[*N]`.
    """
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def clipped_value(value: Array, old_value: Array, target: Array, clip: Array | float) -> Array:
    """The larger squared error of the value and of the value held within `clip` of what it was.

    Not in the paper: from the PPO reference code (github.com/openai/baselines).

    Args:
        value: `[*N]`.
        old_value: `[*N]`, before the update.
        target: `[*N]`.
        clip: farthest that the value may usefully move, scalar.

    Returns:
        Loss, `[*N]`.
    """
    held = old_value + jnp.clip(value - old_value, -clip, clip)
    return jnp.maximum(squared(value - target), squared(held - target))
