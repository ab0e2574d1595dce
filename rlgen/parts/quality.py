"""How near generated examples are to real ones.

* Fréchet distance between normals of the same moments, arXiv:1706.08500: FID where features are those of a network.
* Kernel distance, the unbiased squared MMD under a cubic kernel, arXiv:1801.01401: KID likewise.
* Modes that are reached and the share of examples near one, arXiv:1712.04086: nearer than three standard deviations.
* Leave-one-out accuracy of the nearest neighbour in telling two samples apart, arXiv:1610.06545.

Shape legend: `N` examples, `L` other examples, `F` features, `D` dimensions, `C` modes.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rlgen.core import Array


class Moments(NamedTuple):
    """Of a set of features."""

    mean: Array  # [F]
    covariance: Array  # [F, F]


class Coverage(NamedTuple):
    """How a set of examples lies among modes."""

    num_modes: Array  # float32 scalar, how many have an example near them
    share: Array  # scalar, of the examples that are near a mode


def moments(features: Array) -> Moments:
    """Mean and unbiased covariance of features `[N, F]`."""
    mean = features.mean(0)
    centred = features - mean
    return Moments(mean, _product(centred.T, centred) / (len(features) - 1))


def frechet_distance(one: Moments, other: Moments) -> Array:
    """Squared Fréchet distance between normals, `‖m − m′‖² + tr(C + C′ − 2 (C C′)^½)`.

    The trace of the last root is the sum of the singular values of `C^½ C′^½`: eigenvalues of a product of covariances
    would be their squares, of which float32 keeps half the digits.

    Args:
        one: moments.
        other: moments.

    Returns:
        Scalar.
    """
    roots = _root(one.covariance), _root(other.covariance)
    shared = jnp.linalg.svd(_product(*roots), compute_uv=False).sum()
    spread = jnp.trace(one.covariance) + jnp.trace(other.covariance) - 2 * shared
    return jnp.square(one.mean - other.mean).sum() + spread


def _product(left: Array, right: Array) -> Array:
    """Product of matrices in full precision, which an accelerator gives only where it is asked for."""
    return jnp.matmul(left, right, precision="highest")


def _root(matrix: Array) -> Array:
    """Square root of a symmetric matrix `[F, F]` that is positive up to rounding."""
    values, vectors = jnp.linalg.eigh(matrix)
    return _product(vectors * jnp.sqrt(jnp.maximum(values, 0)), vectors.T)


def kernel_distance(one: Array, other: Array) -> Array:
    """Unbiased squared maximum mean discrepancy under `k(x, y) = (x · y / F + 1)³`; it may be below zero.

    Args:
        one: features `[N, F]`.
        other: features `[L, F]`.

    Returns:
        Scalar.
    """

    def kernel(left: Array, right: Array) -> Array:
        return (_product(left, right.T) / left.shape[1] + 1) ** 3

    def among(features: Array) -> Array:
        num, gram = len(features), kernel(features, features)
        return (gram.sum() - jnp.trace(gram)) / (num * (num - 1))

    return among(one) + among(other) - 2 * kernel(one, other).mean()


def squared_distances(one: Array, other: Array) -> Array:
    """Squared distances between points `[N, D]` and `[L, D]`, `[N, L]`."""
    products = _product(one, other.T)
    squares = jnp.square(one).sum(1)[:, None] + jnp.square(other).sum(1)
    return jnp.maximum(squares - 2 * products, 0)


def coverage(examples: Array, centres: Array, std: float, num_stds: float = 3.0) -> Coverage:
    """Counts the modes that examples reach, and the examples that are near one.

    Args:
        examples: `[N, D]`.
        centres: of the modes, `[C, D]`.
        std: standard deviation of every mode along each axis.
        num_stds: how many of them are near.

    Returns:
        The coverage.
    """
    offsets = examples[:, None] - centres
    near = jnp.square(offsets).sum(-1) < (num_stds * std) ** 2
    return Coverage(near.any(0).sum(dtype=jnp.float32), near.any(1).mean(dtype=jnp.float32))


def neighbour_accuracy(one: Array, other: Array) -> Array:
    """Leave-one-out accuracy with which the nearest neighbour tells two samples of one size apart.

    It is ½ where both are of one distribution, 1 where they lie apart, and below ½ where one repeats the other.

    Args:
        one: `[N, D]`.
        other: `[N, D]`.

    Returns:
        Share of all `2 N` points whose nearest neighbour is of their own sample, scalar; NaN if a point is no number.
    """
    points = jnp.concatenate([one, other])
    labels = jnp.arange(len(points)) < len(one)
    # The middle of all goes first: products of large numbers would drown small distances.
    centred = points - points.mean(0)
    distances = squared_distances(centred, centred)
    nearest = jnp.where(jnp.eye(len(points), dtype=bool), jnp.inf, distances).argmin(1)
    # The nearest of distances that are no numbers would be one at random, which is what the best samples score.
    return jnp.where(jnp.isfinite(points).all(), (labels[nearest] == labels).mean(dtype=jnp.float32), jnp.nan)
