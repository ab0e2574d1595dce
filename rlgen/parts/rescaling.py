"""Values on a scale on which large ones lie closer together: `h(x) = sign(x) (√(|x| + 1) − 1) + ε x`, arXiv:1805.11593.

What is learned is `h` of a return, so that rewards of any size need not be clipped; the part in `ε` keeps `h` far
enough from flat for it to have an inverse that is Lipschitz continuous.  Both functions are written as quotients that
take no two nearly equal numbers from each other, so that float32 keeps its digits near zero, for a small `ε` and at
`ε = 0`.

Shape legend: `N` any batch shape.
"""

import jax.numpy as jnp

from rlgen.core import Array


def rescale(value: Array, epsilon: Array | float) -> Array:
    """Takes returns to the scale on which they are learned, `h(x)`.

    Args:
        value: `x`, `[*N]`.
        epsilon: `ε`, scalar, not negative.

    Returns:
        `h(x)`, `[*N]`.
    """
    return value / (jnp.sqrt(jnp.abs(value) + 1.0) + 1.0) + epsilon * value


def restore(rescaled: Array, epsilon: Array | float) -> Array:
    """Takes what was learned back to returns, `h⁻¹(y)`.

    In `d = √(|x| + 1) − 1`, `|y| = h(|x|)` is a quadratic equation, `ε d² + (1 + 2 ε) d = |y|`; `|x|` is `d (d + 2)`.

    Args:
        rescaled: `y`, `[*N]`.
        epsilon: `ε`, scalar, not negative.

    Returns:
        `h⁻¹(y)`, `[*N]`.
    """
    slope = 1.0 + 2.0 * epsilon
    root = 2.0 * rescaled / (slope + jnp.sqrt(slope * slope + 4.0 * epsilon * jnp.abs(rescaled)))
    return root * (jnp.abs(root) + 2.0)
