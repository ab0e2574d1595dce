"""Distributions over the plane, from which every minibatch is drawn anew.

Moons and circles lie as scikit-learn lays them, with noise of 0.05 and an inner circle of half the radius; eight
Gaussians, pinwheel and checkerboard are
those of arXiv:1810.01367, and 25 Gaussians those of arXiv:1712.04086.  No point comes twice: what a run trains on and
what is drawn from another key never meet.

Shape legend: `N` any batch shape, `K` minibatches an update, `B` points a minibatch.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlgen.core import Array, Key, Policy, Source

Draw = Callable[[Key, tuple[int, ...]], Array]  # `(key, N) -> [*N, 2]`
_NOISE = 0.05


def _on_circle(angle: Array) -> Array:
    """Points `[*N, 2]` of the unit circle at angles `[*N]`."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def moons(key: Key, shape: tuple[int, ...]) -> Array:
    """Draws `[*N, 2]` from two half circles that reach into each other.  The key is consumed."""
    angle_key, half_key, noise_key = jax.random.split(key, 3)
    outer = _on_circle(jax.random.uniform(angle_key, shape, maxval=math.pi))
    lower = jax.random.bernoulli(half_key, shape=(*shape, 1))
    points = jnp.where(lower, jnp.array([1.0, 0.5]) - outer, outer)
    return points + _NOISE * jax.random.normal(noise_key, points.shape)


def circles(key: Key, shape: tuple[int, ...]) -> Array:
    """Draws `[*N, 2]` from a circle and one of half its radius within.  The key is consumed."""
    angle_key, inner_key, noise_key = jax.random.split(key, 3)
    outer = _on_circle(jax.random.uniform(angle_key, shape, maxval=2 * math.pi))
    points = jnp.where(jax.random.bernoulli(inner_key, shape=(*shape, 1)), 0.5, 1.0) * outer
    return points + _NOISE * jax.random.normal(noise_key, points.shape)


def eight_gaussians(key: Key, shape: tuple[int, ...]) -> Array:
    """Draws `[*N, 2]` from eight normals on a circle, whose radius is eight standard deviations.  Consumes the key."""
    which_key, noise_key = jax.random.split(key)
    centre = 4 * _on_circle(jax.random.randint(which_key, shape, 0, 8) * (math.pi / 4))
    return (centre + 0.5 * jax.random.normal(noise_key, centre.shape)) / math.sqrt(2)


def twenty_five_gaussians(key: Key, shape: tuple[int, ...]) -> Array:
    """Draws `[*N, 2]` from normals of standard deviation 0.05 on a 5×5 grid, two apart.  The key is consumed."""
    which_key, noise_key = jax.random.split(key)
    centre = 2.0 * jax.random.randint(which_key, (*shape, 2), -2, 3)
    return centre + 0.05 * jax.random.normal(noise_key, centre.shape)


def pinwheel(key: Key, shape: tuple[int, ...]) -> Array:
    """Draws `[*N, 2]` from five bent arms.  The key is consumed."""
    arm_key, noise_key = jax.random.split(key)
    along, across = jnp.moveaxis(jax.random.normal(noise_key, (*shape, 2)), -1, 0)
    along, across = 1 + 0.3 * along, 0.1 * across
    angle = -(jax.random.randint(arm_key, shape, 0, 5) * (2 * math.pi / 5) + 0.25 * jnp.exp(along))
    sideways = jnp.stack([-jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return 2 * (along[..., None] * _on_circle(angle) + across[..., None] * sideways)


def checkerboard(key: Key, shape: tuple[int, ...]) -> Array:
    """Draws `[*N, 2]` from the dark squares of a board of 4×4, each 2 wide.  The key is consumed."""
    column_key, row_key, place_key = jax.random.split(key, 3)
    column = jax.random.randint(column_key, shape, 0, 4)
    row = 2 * jax.random.randint(row_key, shape, 0, 2) + column % 2
    corner = jnp.stack([column, row], axis=-1)
    return 2 * (corner + jax.random.uniform(place_key, corner.shape)) - 4


def init(key: Key, policy: Policy) -> tuple[()]:
    """Remembers nothing."""
    del key, policy
    return ()


def next_batch(key: Key, step: Array, state: tuple[()], policy: Policy, *, draw: Draw, shape: tuple[int, int]):
    """Draws `[K, B, 2]`.  The key is consumed.

    Returns:
        `((), batch, ())`.
    """
    del step, policy
    return state, draw(key, shape), ()


def build(draw: Draw, *, batch_size: int, num_batches: int = 1) -> Source:
    """Builds a source of points that are drawn anew.

    Args:
        draw: a distribution.
        batch_size: `B`.
        num_batches: `K`, for algorithms that take several steps an update.

    Returns:
        A `Source` of `[K, B, 2]` batches without stats.
    """
    return Source(init=init, next=functools.partial(next_batch, draw=draw, shape=(num_batches, batch_size)))
