"""Many rows through a network, on the CPU as few at a time as its layers fit into a processor's cache.

What lies between layers then never goes to memory, which is several times slower, and is not kept there either.
Accelerators take all rows at once.

Shape legend: `M` rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Tree

NUM_ROWS = 2_048


def read(function: Callable[[Array], Tree], rows: Array) -> Tree:
    """Applies a function to rows.

    Args:
        function: from `[*N, ...]` to leaves `[*N, ...]`, each row by itself.
        rows: `[M, ...]`.

    Returns:
        Leaves `[M, ...]`.
    """
    return lax.map(function, rows, batch_size=NUM_ROWS) if _many(len(rows)) else function(rows)


def gradient(loss: Callable[..., tuple[Array, Any]], params: Tree, rows: Tree, *args: Any) -> tuple[Tree, Any]:
    """Takes the gradient of a mean over rows.

    Args:
        loss: `(params, rows, *args) -> (scalar, aux)`, both means over the rows.
        params: what the gradient is taken of.
        rows: leaves `[M, ...]`; all at once where `NUM_ROWS` do not divide them.
        *args: what else the loss reads.

    Returns:
        `(gradient, aux)`.
    """
    num = len(jax.tree.leaves(rows)[0])
    of_rows = jax.grad(loss, has_aux=True)
    if num % NUM_ROWS or not _many(num):
        return of_rows(params, rows, *args)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, NUM_ROWS, *leaf.shape[1:]), rows)

    def add(total: Tree, chunk: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, of_rows(params, chunk, *args)), None

    like = jax.eval_shape(of_rows, params, jax.tree.map(lambda leaf: leaf[0], chunks), *args)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return jax.tree.map(lambda leaf: leaf * (NUM_ROWS / num), lax.scan(add, zeros, chunks)[0])


def _many(num: int) -> bool:
    return num > NUM_ROWS and jax.default_backend() == "cpu"
