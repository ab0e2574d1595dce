"""Robust statistics over seeds: interquartile means, bootstrap intervals, comparisons.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv:2108.13264).
Departures: a score that is not finite comes from a run that diverged and ranks as the worst there is instead of being
dropped, so an IQM is nan only where such a score reaches the middle half; the percentile bootstrap has a fixed seed, so
that a report says the same twice; the interval of one run is nan, because one run has no spread to resample.

Shape legend: `S` seeds (runs), `K` tasks, `U` points of a curve, `G` points of a grid, `Q` thresholds, `B` bootstrap
resamples.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

TRIM = 0.25  # share of the scores cut off at each end: what is left is the interquartile range
CONFIDENCE = 0.95
NUM_RESAMPLES = 2000

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A statistic and its bootstrap interval: arrays of one shape, or three numbers."""

    value: Any
    low: Any
    high: Any


def iqm(scores: ArrayLike, *, higher_is_better: bool = True) -> float:
    """Computes the interquartile mean: the mean of the middle half of all scores.

    Args:
        scores: `[S]`, or `[S, K]` to pool tasks; what is not finite ranks as the worst.
        higher_is_better: which end is the worst.

    Returns:
        The IQM, or nan if there is no score or one that is not finite reaches the middle half.
    """
    ranked = _ranked(scores, higher_is_better).ravel()
    return float(_iqm(ranked)) if ranked.size else float("nan")


def interval(
    scores: ArrayLike,
    *,
    higher_is_better: bool = True,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes the stratified-bootstrap interval of the IQM: seeds are resampled within each task.

    Args:
        scores: `[S]` for one task (the plain bootstrap), or `[S, K]`.
        higher_is_better: which end the scores that are not finite rank at.
        confidence: mass of the interval.
        num_resamples: `B`.
        seed: of the resampling.

    Returns:
        `(low, high)`; a bound is nan where so many scores are not finite that the IQM itself is there, and both are nan
        for fewer than two seeds.
    """
    strata = _strata(scores, higher_is_better)
    if len(strata) < 2:
        return float("nan"), float("nan")
    rows = _resamples(strata.shape, num_resamples, seed)
    samples = np.take_along_axis(strata[None], rows, axis=1).reshape(num_resamples, -1)
    low, high = _quantiles(_trimmed(samples), confidence)
    return float(low), float(high)


def estimates(scores: ArrayLike, *, higher_is_better: bool = True) -> Estimate:
    """Computes the IQM and its interval for many points of a grid at once.

    Args:
        scores: `[G, S]`; what is not finite ranks as the worst.
        higher_is_better: which end is the worst.

    Returns:
        An `Estimate` of `[G]` arrays, equal to `iqm` and `interval` of each row.
    """
    return iqm_curve(_ranked(np.transpose(scores), higher_is_better), higher_is_better=higher_is_better)


def forward_fill(curves: ArrayLike) -> Floats:
    """Replaces every nan by the last value before it on the same curve.

    Args:
        curves: `[..., U]`.

    Returns:
        `[..., U]`; the nans before a curve's first value stay.
    """
    curves = np.asarray(curves, np.float64)
    position = np.where(np.isnan(curves), 0, np.arange(curves.shape[-1]))
    return np.take_along_axis(curves, np.maximum.accumulate(position, axis=-1), axis=-1)


def iqm_curve(
    curves: ArrayLike,
    *,
    higher_is_better: bool = True,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Computes the IQM over seeds and its pointwise band at every point of a curve.

    A column sorted by rank can be resampled by rank, which leaves the distribution of its bootstrap unchanged.  One set
    of resamples then serves all columns, and its IQMs are one matrix product.

    Args:
        curves: `[S, U]`; nan stands for "nothing new in this window" and takes the last value before it.  A run that
            diverged is infinite from there on.
        higher_is_better: which end is the worst.
        confidence: mass of the band.
        num_resamples: `B`.
        seed: of the resampling.

    Returns:
        An `Estimate` of `[U]` arrays, each column of it equal to `iqm` and `interval` of that column.  Seeds without a
        value yet rank as the worst.

    Raises:
        ValueError: if `curves` is not `[S, U]`, or empty.
    """
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 2 or 0 in curves.shape:
        raise ValueError(f"curves are [seeds, updates]; got the shape {list(curves.shape)}")
    ranked = _ranked(forward_fill(curves), higher_is_better)
    value = _iqm(ranked)
    if ranked.shape[0] < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    weights = _rank_weights(ranked.shape[0], num_resamples, seed)
    infinite = np.isinf(ranked)
    means = weights @ np.where(infinite, 0.0, ranked)
    means[weights @ infinite > 0] = -np.inf if higher_is_better else np.inf
    return Estimate(value, *_quantiles(means, confidence))


def probability_of_improvement(
    first: ArrayLike,
    second: ArrayLike,
    *,
    higher_is_better: bool = True,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Estimates how likely a run of `first` beats a run of `second`, averaged over tasks; a tie counts half.

    Args:
        first: `[S]` or `[S, K]`.
        second: `[S', ]` or `[S', K]` on the same tasks.
        higher_is_better: which score wins; one that is not finite loses to every finite one.
        confidence: mass of the interval.
        num_resamples: `B`.
        seed: of the resampling, which draws the runs of both within each task.

    Returns:
        An `Estimate` of three floats; the bounds are nan if either side has fewer than two runs.

    Raises:
        ValueError: if a side is empty or the tasks differ in number.
    """
    x, y = (_strata(scores, higher_is_better) for scores in (first, second))
    if not x.size or not y.size or x.shape[1] != y.shape[1]:
        raise ValueError(f"scores of shapes {list(np.shape(first))} and {list(np.shape(second))} cannot be compared")
    sign = 1 if higher_is_better else -1
    better = sign * x[:, None] > sign * y[None]
    wins = better + 0.5 * (x[:, None] == y[None])  # [S, S', K]
    value = float(wins.mean())
    if min(len(x), len(y)) < 2:
        return Estimate(value, float("nan"), float("nan"))
    counts_x = _counts(_resamples(x.shape, num_resamples, seed), len(x))
    counts_y = _counts(_resamples(y.shape, num_resamples, seed + 1), len(y))
    sums = np.einsum("bik,ijk,bjk->b", counts_x, wins, counts_y, optimize=True)
    low, high = _quantiles(sums / wins.size, confidence)
    return Estimate(value, float(low), float(high))


def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    higher_is_better: bool = True,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Computes the share of runs that score better than each threshold, with a pointwise band.

    Args:
        scores: `[S]` or `[S, K]`; tasks are pooled, so normalise their scores first.
        thresholds: `[Q]`.
        higher_is_better: whether better is above or below; what is not finite is never better.
        confidence: mass of the band.
        num_resamples: `B`.
        seed: of the resampling, within each task.

    Returns:
        An `Estimate` of `[Q]` arrays; the band is nan for fewer than two seeds.
    """
    strata = _strata(scores, higher_is_better)
    sign = 1 if higher_is_better else -1
    above = (sign * strata[..., None] > sign * np.asarray(thresholds, np.float64)).astype(np.float64)  # [S, K, Q]
    value = above.mean(axis=(0, 1))
    if len(strata) < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    counts = _counts(_resamples(strata.shape, num_resamples, seed), len(strata))
    shares = np.einsum("bik,ikq->bq", counts, above, optimize=True) / strata.size
    return Estimate(value, *_quantiles(shares, confidence))


def _ranked(scores: ArrayLike, higher_is_better: bool) -> Floats:
    """Sorts scores over seeds, `[S, ...]`, with what is not finite as the worst infinity."""
    scores = np.asarray(scores, np.float64)
    return np.sort(np.where(np.isfinite(scores), scores, -np.inf if higher_is_better else np.inf), axis=0)


def _strata(scores: ArrayLike, higher_is_better: bool) -> Floats:
    """Gives ranked scores their axis of tasks, `[S, K]`."""
    ranked = _ranked(scores, higher_is_better)
    return ranked[:, None] if ranked.ndim == 1 else ranked


def _iqm(scores: Floats) -> Floats:
    """Takes the IQM over the first axis; nan where it is infinite."""
    mean = _trimmed(scores.T).T
    return np.where(np.isinf(mean), np.nan, mean)


def _trimmed(samples: Floats) -> Floats:
    """Takes the IQM over the last axis, infinite where an infinite score reaches the middle half."""
    # As scipy.stats.trim_mean, which takes a second to import.
    num = samples.shape[-1]
    cut = int(TRIM * num)
    return np.partition(samples, (cut, num - cut - 1))[..., cut : num - cut].mean(-1)


def _resamples(shape: tuple[int, ...], num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Draws seeds with replacement within each task: rows `[B, S, K]`."""
    return np.random.default_rng(seed).integers(shape[0], size=(num_resamples, *shape))


def _counts(rows: NDArray[np.int64], num_seeds: int) -> Floats:
    """Counts how often each seed was drawn: `[B, S, K]` from rows `[B, N, K]`."""
    counts = np.zeros((len(rows), num_seeds, rows.shape[2]))
    draw, _, task = np.indices(rows.shape, sparse=True)
    np.add.at(counts, (draw, rows, task), 1.0)
    return counts


def _rank_weights(num_seeds: int, num_resamples: int, seed: int) -> Floats:
    """Gives each rank its weight in the IQM of each resample, `[B, S]`; rows sum to one."""
    drawn = np.sort(_resamples((num_seeds, 1), num_resamples, seed), axis=1)
    cut = int(TRIM * num_seeds)
    middle = drawn[:, cut : num_seeds - cut]
    return _counts(middle, num_seeds)[..., 0] / middle.shape[1]


def _quantiles(samples: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Takes the interval's bounds over the first axis of `[B, ...]`; nan where a bound is infinite.

    Order statistics, because interpolating between infinities gives nan for bounds that are well defined.
    """
    ordered = np.sort(samples, axis=0)
    tail = int((1.0 - confidence) / 2.0 * len(ordered))
    low, high = ordered[tail], ordered[len(ordered) - 1 - tail]
    return np.where(np.isinf(low), np.nan, low), np.where(np.isinf(high), np.nan, high)
