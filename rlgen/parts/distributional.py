"""Distributions of the return: their means, what they are to become, and how far off they are.

Sources: the categorical distribution and its projection are C51's, arXiv:1707.06887; quantiles at fixed fractions are
QR-DQN's, arXiv:1710.10044; quantiles at fractions that are drawn are IQN's, arXiv:1806.06923; quantiles of several
critics in one truncated pool are TQC's, arXiv:2005.04269.

Every kind predicts `K` numbers for each action: one value, `K` logits of atoms that lie on a fixed support, or `K`
quantiles.

Shape legend: `N` any batch shape, `A` actions, `C` critics, `K` numbers that predict, `L` numbers of the target.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array
from rlgen.parts import losses

KINDS = ("expected", "categorical", "quantile", "implicit")


def support(low: Array | float, high: Array | float, num_atoms: int) -> Array:
    """Returns that a categorical distribution knows, `[K]`, equally far apart."""
    return jnp.linspace(low, high, num_atoms)


def midpoints(num_quantiles: int) -> Array:
    """Fractions of which fixed quantiles are the quantiles, `(k + ½) / K`, `[K]`."""
    return (jnp.arange(num_quantiles) + 0.5) / num_quantiles


def ascending(returns: Array) -> Array:
    """Sorts `[*N, K]` along the last axis, without a gradient.

    XLA's CPU backend sorts integers four times as fast as floats, and floats are in the order of their bits read as
    integers, those of negative ones turned over.
    """

    def turned(bits: Array) -> Array:
        return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)

    bits = lax.bitcast_convert_type(lax.stop_gradient(returns), jnp.int32)
    return lax.bitcast_convert_type(turned(jnp.sort(turned(bits), axis=-1, stable=False)), jnp.float32)


def truncated(predicted: Array, num_dropped: int) -> Array:
    """Pools the quantiles of critics and drops the largest, without a gradient: TQC's equation 7.

    Args:
        predicted: `[C, *N, K]`.
        num_dropped: quantiles a critic that are dropped, less than `K`.

    Returns:
        `[*N, C * (K - num_dropped)]`, in ascending order.
    """
    num_critics, *_, num_quantiles = predicted.shape
    pool = jnp.moveaxis(predicted, 0, -2).reshape(*predicted.shape[1:-1], -1)
    return ascending(pool)[..., : num_critics * (num_quantiles - num_dropped)]


def project(returns: Array, probabilities: Array, atoms: Array) -> Array:
    """Moves probability to the two atoms that lie on either side of each return, the nearer one taking more.

    Mass is kept, and so is the mean as long as no return lies off the ends of the support, where it is held.

    Args:
        returns: `[*N, L]`.
        probabilities: of the returns, `[*N, L]`.
        atoms: `[K]`, equally far apart.

    Returns:
        Probabilities of the atoms, `[*N, K]`.
    """
    num = atoms.shape[0]
    place = (jnp.clip(returns, atoms[0], atoms[-1]) - atoms[0]) * (num - 1) / (atoms[-1] - atoms[0])
    # On the CPU two writes a return are ten times cheaper than a weight for every pair of a return and an atom; on
    # accelerators the sum over pairs is as quick, and unlike their writes it has the same bits every time.
    return lax.platform_dependent(
        place, probabilities, cpu=functools.partial(_write, num=num), default=functools.partial(_weigh, num=num)
    )


def _write(place: Array, probabilities: Array, *, num: int) -> Array:
    shape = (-1, place.shape[-1])
    batch_shape, place = place.shape[:-1], place.reshape(shape)
    probabilities = probabilities.reshape(shape)
    lower = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, num - 2)
    upper_share = place - lower
    slot = jnp.arange(place.shape[0])[:, None] * num + lower
    moved = jnp.zeros(place.shape[0] * num)
    moved = moved.at[slot].add(probabilities * (1 - upper_share), mode="promise_in_bounds")
    moved = moved.at[slot + 1].add(probabilities * upper_share, mode="promise_in_bounds")
    return moved.reshape(*batch_shape, num)


def _weigh(place: Array, probabilities: Array, *, num: int) -> Array:
    share = jnp.clip(1.0 - jnp.abs(place[..., None] - jnp.arange(num)), 0.0, 1.0)  # [*N, L, K]
    return jnp.einsum("...l,...lk->...k", probabilities, share)


def divergence(logits: Array, target: Array) -> Array:
    """How far predicted probabilities are from the target, `KL(target, softmax(logits))`.

    Its gradient is that of the cross-entropy, and it is 0 where nothing is left to learn, as a priority must be.

    Args:
        logits: `[*N, K]`.
        target: probabilities, `[*N, K]`.

    Returns:
        Divergence, `[*N]`.
    """
    log_target = jnp.where(target > 0, jnp.log(jnp.where(target > 0, target, 1.0)), 0.0)
    return jnp.sum(target * (log_target - jax.nn.log_softmax(logits)), axis=-1)


def quantile_regression(quantiles: Array, fractions: Array, targets: Array, *, threshold: float = 1.0) -> Array:
    """Quantile Huber loss, `Σ_k mean_l |τ_k − 1{δ_kl < 0}| L(δ_kl) / κ` with `δ_kl = target_l − quantile_k`.

    Args:
        quantiles: predicted, `[*N, K]`.
        fractions: `τ`, of the predicted quantiles, `[*N, K]` or `[K]`.
        targets: samples of the return, or its quantiles, `[*N, L]`.
        threshold: `κ`, beyond which the loss is linear; 0 for the absolute error.

    Returns:
        Loss, `[*N]`.
    """
    error = targets[..., None, :] - quantiles[..., None]  # [*N, K, L]
    size = losses.huber(error, threshold) / threshold if threshold else jnp.abs(error)
    weight = jnp.abs(fractions[..., None] - (error < 0))
    return (weight * size).mean(-1).sum(-1)


def mean(predicted: Array, atoms: Array | None = None) -> Array:
    """The value that a prediction stands for.

    Args:
        predicted: `[*N, K]`: logits where there are atoms, else values or quantiles.
        atoms: `[K]`, of a categorical distribution.

    Returns:
        Values, `[*N]`.
    """
    return predicted.mean(-1) if atoms is None else jax.nn.softmax(predicted) @ atoms
