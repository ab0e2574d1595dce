"""Times the matrix products that a program must compute alone."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from rlgen import sweep
from rlgen.lab.products import Counts, Product

SECONDS_ALONE = 0.05  # how long each product is repeated for


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
