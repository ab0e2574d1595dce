"""Natural gradients: curvature without its matrix, the step that a divergence allows, and a backtracking line search.

The Fisher matrix `F` of a conditional model is the Hessian of the mean divergence from the model itself.  Its products
with vectors are forward-mode derivatives of the divergence's gradient, so that nothing larger than the parameters is
ever held; conjugate gradient, of jax's own, needs no more than them.

Sources: the natural gradient, Amari 1998, doi:10.1162/089976698300017746; products with the Hessian, Pearlmutter 1994,
doi:10.1162/neco.1994.6.1.147; step and search, arXiv:1502.05477, appendix C.

Shape legend: `P` parameters, in a pytree of any shape.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.scipy.sparse import linalg

from rlgen.core import Array, Tree

_TOLERANCE = 1e-5  # of the residual relative to the gradient; below it float32 adds noise, not digits
_SMALLEST = 1e-20  # curvature along a direction of no length


def fisher_product(divergence: Callable[[Tree], Array], params: Tree) -> Callable[[Tree], Tree]:
    """Linearises the gradient of a divergence, once for any number of products.

    Args:
        divergence: `params -> scalar`, the mean divergence from the model at `params`, least there.
        params: `[P]`, where the curvature is taken.

    Returns:
        `v -> F v`, both like `params`.
    """
    return jax.linearize(jax.grad(divergence), params)[1]


def natural_direction(
    product: Callable[[Tree], Tree], gradient: Tree, damping: Array | float, num_iterations: int
) -> Tree:
    """Solves `(F + damping · I) x = g` by conjugate gradient from `x = 0`.

    Args:
        product: `v -> F v`.
        gradient: `g`, `[P]`.
        damping: scalar, what is added to the curvature in every direction.
        num_iterations: at most so many; fewer where the residual is small before.

    Returns:
        `x`, like `gradient`.
    """

    def damped(vector):
        return jax.tree.map(lambda curved, plain: curved + damping * plain, product(vector), vector)

    return linalg.cg(damped, gradient, tol=_TOLERANCE, maxiter=num_iterations)[0]


def trust_region_step(gradient: Tree, direction: Tree, max_kl: Array | float) -> Tree:
    """Scales a natural direction to the edge of the trust region: `sqrt(2 δ / gᵀ x) x`.

    Every iterate `x` of conjugate gradient from 0 has `xᵀ (F + damping · I) x = gᵀ x`, so that the quadratic model of
    the divergence is `δ` at the end of the step whether or not the solver has converged.

    Args:
        gradient: `g`, `[P]`.
        direction: `x`, of `natural_direction`.
        max_kl: `δ`, scalar.

    Returns:
        The step, like `gradient`; 0 where the gradient is.
    """
    curvature = jnp.maximum(optax.tree.vdot(gradient, direction), _SMALLEST)
    return optax.tree.scale(jnp.sqrt(2.0 * max_kl / curvature), direction)


def backtrack(
    attempt: Callable[[Array], tuple[Array, Any]], shrink: Array | float, num_attempts: int
) -> tuple[Array, Any]:
    """Tries the scales `1, shrink, shrink², …` and keeps the first that is acceptable.

    The loop carries scalars alone, so that lanes which search for different lengths copy next to nothing.

    Args:
        attempt: `scale -> (acceptable, facts)`, a bool scalar and a pytree of scalars.
        shrink: factor between two attempts, scalar.
        num_attempts: at most so many.

    Returns:
        `(scale, facts)` of the first acceptable attempt; zeros where there was none.
    """

    def searching(carry):
        count, _, accepted, _ = carry
        return ~accepted & (count < num_attempts)

    def body(carry):
        count, scale, _, _ = carry
        accepted, facts = attempt(scale)
        return count + 1, jnp.where(accepted, scale, scale * shrink), accepted, facts

    one = jnp.float32(1)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(attempt, one)[1])
    _, scale, accepted, facts = lax.while_loop(searching, body, (jnp.int32(0), one, jnp.bool_(False), nothing))
    return jax.tree.map(lambda leaf: jnp.where(accepted, leaf, jnp.zeros_like(leaf)), (scale, facts))
