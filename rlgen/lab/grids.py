"""Chooses what pictures of a grid show: which axis runs along, which points make a line, and which points are the best.

Shape legend: `G` grid points, `X` points of one line.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_LINES = 10  # of a picture of responses
MAX_CURVES = 11  # grid points whose learning curves are all drawn
NUM_BEST = 8  # of more points than that
LOGARITHMIC_FROM = 20.0  # largest value of an axis over the smallest
DIGITS = range(6, 10)  # of a number in a label: nine tell all float32 values apart
SPARED = 4.0  # median distances from the best within which a score is surely drawn


class Line(NamedTuple):
    """Grid points that differ along one axis only.

    Attributes:
        label: values of the other axes, empty without others.
        points: `[X]` their indices, in ascending order along the axis.
    """

    label: str
    points: NDArray[np.intp]


class Chart(NamedTuple):
    """A grid as lines over its longest axis.

    Attributes:
        axis: name of the axis.
        x: `[G]` value of each grid point on it.
        lines: that are drawn, in ascending order of the other axes.
        num_lines: how many there would be.
        ordered: whether the lines are values of one axis, so that their colours can follow them.
    """

    axis: str
    x: NDArray[np.float64]
    lines: Sequence[Line]
    num_lines: int
    ordered: bool


def chart(points: Sequence[Mapping[str, float]], iqms: ArrayLike, *, higher_is_better: bool = True) -> Chart | None:
    """Lays a grid out as lines over the axis with most values; where there are too many, the best ones are kept.

    Args:
        points: `[G]` hyperparameters by name.
        iqms: `[G]` scores.
        higher_is_better: which of them are the best.

    Returns:
        The chart, or None where nothing varies.
    """
    sizes = {name: len({point[name] for point in points}) for name in points[0]}
    varied = [name for name, size in sizes.items() if size > 1]
    if not varied:
        return None
    axis = max(varied, key=lambda name: sizes[name])
    others = [name for name in varied if name != axis]
    groups: dict[tuple[float, ...], list[int]] = {}
    for index in sorted(range(len(points)), key=lambda index: points[index][axis]):
        groups.setdefault(tuple(points[index][name] for name in others), []).append(index)
    values = sorted(groups)
    rank = _rank(iqms, higher_is_better)
    kept = sorted(values, key=lambda value: -rank[groups[value]].max())[:MAX_LINES]
    lines = [
        Line(label(dict(zip(others, value, strict=True))), np.array(groups[value])) for value in values if value in kept
    ]
    x = np.array([point[axis] for point in points], np.float64)
    return Chart(axis, x, lines, len(groups), ordered=len(others) == 1)


def label(values: Mapping[str, Any]) -> str:
    """Names a grid point by values of its hyperparameters: points that differ as float32 have different names.

    Args:
        values: by name of those that vary.

    Returns:
        `name=value` of each, empty without any.
    """
    words = {name: _digits(value) if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name}={word}" for name, word in words.items())


def best(iqms: ArrayLike, *, higher_is_better: bool = True) -> list[int]:
    """Orders grid points from the best to the worst.

    Args:
        iqms: `[G]` scores; one that is not defined comes last.
        higher_is_better: which of them are the best.

    Returns:
        `[G]` indices; equally good points stay in their order.
    """
    return np.argsort(-_rank(iqms, higher_is_better), kind="stable").tolist()


def is_logarithmic(values: ArrayLike) -> bool:
    """Tells whether the values of an axis lie more evenly by ratio than by difference, and far enough apart."""
    ordered = np.unique(np.asarray(values, np.float64))
    ordered = ordered[np.isfinite(ordered)]  # what is unlimited lies nowhere on an axis
    if len(ordered) < 2 or ordered[0] <= 0 or ordered[-1] < LOGARITHMIC_FROM * ordered[0]:
        return False
    gaps = np.diff(np.log(ordered)), np.diff(ordered)
    by_ratio, by_difference = (gap.std() / gap.mean() for gap in gaps)
    return bool(by_ratio <= by_difference)


def limit(iqms: ArrayLike, *, higher_is_better: bool = True) -> float | None:
    """Finds the score beyond which a picture is cut, so that a few very bad points do not flatten the others.

    Args:
        iqms: of all points that are drawn, any shape; what is not finite is ignored.
        higher_is_better: which of them are bad.

    Returns:
        The worst score that is drawn, or None if all can be.
    """
    scores = np.ravel(np.asarray(iqms, np.float64))
    scores = scores[np.isfinite(scores)]
    if not scores.size:
        return None
    top = scores.max() if higher_is_better else scores.min()
    distance = np.abs(scores - top)
    most = SPARED * np.median(distance)  # even if nearly half of the points are bad
    if not 0 < 2 * most < distance.max():
        return None
    return float(top - most if higher_is_better else top + most)


def _digits(value: float) -> str:
    """Writes a number in the fewest of `DIGITS` that give back the same float32, which a sweep computes with."""
    words = [f"{value:.{digits}g}" for digits in DIGITS]
    with np.errstate(over="ignore"):
        return next((word for word in words if np.float32(word) == np.float32(value)), words[-1])


def _rank(iqms: ArrayLike, higher_is_better: bool) -> NDArray[np.float64]:
    """Makes larger better, and what is not defined the worst."""
    scores = np.asarray(iqms, np.float64) * (1 if higher_is_better else -1)
    return np.where(np.isnan(scores), -np.inf, scores)
