"""How large the operations of a program are: what its matrix products compute, and whether a second thread helps.

A product is counted as often as the scans around it repeat it.  A loop whose length is known only when it runs counts
once: the outermost is the loop over updates, so that what is counted is one update.  Of the branches of a condition the
one with most work counts, so that what is counted is an update that learns.
"""

import collections
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from jax.core import ShapedArray
from jax.extend import core

# Measured with one seed on two cores: SAC's products of 4 million are quicker on one thread, PQN's of 17 on two.
SMALL_PRODUCT = 8_000_000
SMALL_ARRAY = 65_536  # numbers: XLA's CPU backend parts the work on an array of more
# What writes some places of an array, or only looks at it in another way, does not compute all of it.
_IN_PLACE = ("dynamic_update_slice", "scatter", "scatter-add", "reshape", "squeeze", "expand_dims", "copy")

Counts = collections.Counter["Product"]


class Product(NamedTuple):
    """A matrix product as a device computes it."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    dimension_numbers: Any
    dtype: str

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        (_, contracted), (_, batched) = self.dimension_numbers
        free = [size for axis, size in enumerate(self.right) if axis not in (*contracted, *batched)]
        return 2 * math.prod(self.left) * math.prod(free)


def count(jaxpr: core.Jaxpr) -> Counts:
    """Counts the products of a program on one device.

    Args:
        jaxpr: of the program.

    Returns:
        How often each is computed.
    """
    counts = Counts()
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inner = [count(found) for found in _inner(equation)]
        if name == "dot_general":
            left, right = (cast(ShapedArray, variable.aval) for variable in equation.invars)
            counts[Product(left.shape, right.shape, params["dimension_numbers"], str(left.dtype))] += 1
        elif name == "cond":
            counts += max(inner, key=flops)
        else:
            repeats = params["length"] if name == "scan" else 1
            for found in inner:
                counts += Counts({product: repeats * times for product, times in found.items()})
    return counts


def flops(counts: Counts) -> int:
    """Multiplications and additions of all products."""
    return sum(product.flops * times for product, times in counts.items())


def are_small(jaxpr: core.Jaxpr) -> bool:
    """Tells whether the operations of a program are too small for a second thread to be worth its waiting.

    Args:
        jaxpr: of the program.

    Returns:
        Whether less than half of the work of its products is in large ones, and it computes no large array.
    """
    counts = count(jaxpr)
    large = sum(product.flops * times for product, times in counts.items() if product.flops > SMALL_PRODUCT)
    return 2 * large <= flops(counts) and all(size <= SMALL_ARRAY for size in _sizes(jaxpr))


def _sizes(jaxpr: core.Jaxpr) -> Iterator[int]:
    """Sizes of the arrays that a program computes as a whole."""
    for equation in jaxpr.eqns:
        inner = _inner(equation)
        for found in inner:
            yield from _sizes(found)
        if not inner and equation.primitive.name not in _IN_PLACE:
            yield from (math.prod(getattr(variable.aval, "shape", ())) for variable in equation.outvars)


def _inner(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The programs that the parameters of an equation hold."""
    return [found for value in equation.params.values() for found in _jaxprs(value)]


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    """The programs that a parameter holds."""
    values = value if isinstance(value, tuple | list) else (value,)
    closed = [getattr(held, "jaxpr", held) for held in values]
    return [held for held in closed if hasattr(held, "eqns")]
