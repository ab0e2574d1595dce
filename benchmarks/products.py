"""Counts the matrix products that a program must compute, and times them alone.

A product is counted as often as the scans around it repeat it.  A loop whose length is known only when it runs counts
once: the outermost is the loop over updates, so that what is counted is one update.  Of the branches of a condition the
one with most work counts, so that what is counted is an update that learns.
"""

import collections
import math
import time
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend import core
from jax.sharding import Mesh, PartitionSpec

from rlgen import sweep

SECONDS_ALONE = 0.05  # how long each product is repeated for

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
        inner = [count(found) for value in params.values() for found in _jaxprs(value)]
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


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    """The programs that a parameter of an equation holds."""
    values = value if isinstance(value, tuple | list) else (value,)
    closed = [getattr(held, "jaxpr", held) for held in values]
    return [held for held in closed if hasattr(held, "eqns")]


def flops(counts: Counts) -> int:
    """Multiplications and additions of all products."""
    return sum(product.flops * times for product, times in counts.items())


def seconds(counts: Counts, mesh: Mesh) -> float:
    """Times the products alone, on all devices at once.

    Args:
        counts: how often each is computed on one device.
        mesh: the devices.

    Returns:
        Seconds that one device needs for all of them.
    """
    return sum(times * _seconds(product, mesh) for product, times in counts.items())


def _seconds(product: Product, mesh: Mesh) -> float:
    """Seconds of one product."""
    rng = np.random.default_rng(0)
    left, right = (jnp.asarray(rng.normal(size=shape), product.dtype) for shape in (product.left, product.right))

    def alone(repeats, left, right):
        def body(_, carry):
            left, result = carry
            # One number of the last result makes each product wait for the one before, and none is computed but once.
            one = jnp.clip(result[(0,) * result.ndim], -1.0, 1.0)
            left = left.at[(0,) * left.ndim].set(one)
            return left, lax.dot_general(left, right, product.dimension_numbers)

        result = jnp.zeros_like(lax.dot_general(left, right, product.dimension_numbers))
        return lax.fori_loop(0, repeats, body, (left, result))[1][None]

    everywhere = PartitionSpec()
    spread = jax.shard_map(
        alone, mesh=mesh, in_specs=(everywhere,) * 3, out_specs=PartitionSpec(sweep.LANE), check_vma=False
    )
    program = jax.jit(spread)

    def timed(repeats: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(program(jnp.int32(repeats), left, right))
        return time.perf_counter() - start

    timed(1)
    repeats = 1
    while (taken := timed(repeats)) < SECONDS_ALONE:
        repeats = max(2 * repeats, math.ceil(repeats * SECONDS_ALONE / max(taken, 1e-6)))
    return min(taken, timed(repeats)) / repeats


def peak(mesh: Mesh, size: int = 1_024) -> float:
    """Multiplications and additions a second of large float32 products, of all devices together."""
    large = Product((size, size), (size, size), (((1,), (0,)), ((), ())), "float32")
    return mesh.size * large.flops / _seconds(large, mesh)
