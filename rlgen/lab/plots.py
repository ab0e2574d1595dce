"""Charts of runs: learning curves, responses, comparisons and performance profiles.

Curves are interquartile means with 95 % stratified-bootstrap bands, as Agarwal et al. 2021 (arXiv:2108.13264) ask for.

Shape legend: `S` seeds, `U` points of a curve, `G` points of a grid.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlgen.lab import canvas, grids, statistics
from rlgen.lab.canvas import COLOURS, DPI, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ("-", "--", "-.", ":")  # one for each further ten lines
NUM_APART = 3  # lines up to which the colours of an ordered axis need not follow it
MOST_MARKS, MOST_TICKS = 32, 8  # points of a line that are marked, and values of an axis that are named
DASHED: dict[str, Any] = {"color": INK, "linestyle": (0, (5, 3)), "linewidth": 1.2}


class Target(NamedTuple):
    """What a run is measured against: a value and where it comes from."""

    value: float
    source: str = ""


class Line(NamedTuple):
    """A run in a comparison.

    Attributes:
        label: its name.
        x: `[U]` environment steps or updates.
        curves: `[S, U]`.
        scores: `[S]` final scores; what is not finite diverged.
    """

    label: str
    x: ArrayLike
    curves: ArrayLike
    scores: ArrayLike


def learning_curves(
    path: Path,
    x: ArrayLike,
    curves: Mapping[str, ArrayLike | statistics.Estimate],
    *,
    ylabel: str,
    title: str,
    target: Target | None = None,
    higher_is_better: bool = True,
) -> None:
    """Draws the IQM over seeds with its 95 % band, one line an entry.

    Args:
        path: of the picture; the suffix chooses the format.
        x: `[U]` steps of a seed.
        curves: `[S, U]` by label, or estimates `[U]` that are drawn as they are.
        ylabel: of the vertical axis.
        title: above the axes.
        target: drawn as a dashed line.
        higher_is_better: which end the values that are not finite rank at.
    """
    figure = canvas.figure(7.2, 4.4)
    axes = figure.add_subplot()
    _dress(axes, "steps a seed", ylabel)
    for index, (label, values) in enumerate(curves.items()):
        known = isinstance(values, statistics.Estimate)
        curve = values if known else statistics.iqm_curve(values, higher_is_better=higher_is_better)
        _band(axes, np.asarray(x), curve, label, _style(index))
    _step_ticks(axes, np.asarray(x))
    if target is not None:
        axes.axhline(target.value, **DASHED)
    _finish(figure, path, title, target)


def response(
    path: Path,
    chart: grids.Chart,
    estimate: statistics.Estimate,
    *,
    ylabel: str,
    title: str,
    target: Target | None = None,
    higher_is_better: bool = True,
) -> None:
    """Draws how the score depends on a hyperparameter, one line for each combination of the others.

    Args:
        path: of the picture; the suffix chooses the format.
        chart: how the grid is laid out.
        estimate: `[G]` IQMs with their 95 % bands.
        ylabel: of the vertical axis.
        title: above the axes.
        target: drawn as a dashed line.
        higher_is_better: which end of the vertical axis is cut where a few points lie far out.
    """
    figure = canvas.figure(7.2, 4.4)
    axes = figure.add_subplot()
    _dress(axes, chart.axis, ylabel)
    shades = _shades(len(chart.lines)) if chart.ordered and len(chart.lines) > NUM_APART else None
    for index, line in enumerate(chart.lines):
        style = _style(index) | ({"color": shades[index], "linestyle": "-"} if shades else {})
        style |= {"marker": "o", "markersize": 4} if len(line.points) <= MOST_MARKS else {}
        part = statistics.Estimate(*(np.asarray(values)[line.points] for values in estimate))
        _band(axes, chart.x[line.points], part, line.label or "IQM and its 95 % interval", style)
    if target is not None:
        axes.axhline(target.value, **DASHED)
    drawn = np.concatenate([line.points for line in chart.lines])
    _value_ticks(axes, np.unique(chart.x[drawn]))
    notes = [f"the best {len(chart.lines)} of {chart.num_lines} lines"] if len(chart.lines) < chart.num_lines else []
    if _cut(axes, np.asarray(estimate.value)[drawn], target, higher_is_better):
        notes.append(f"scores {'below' if higher_is_better else 'above'} the edge are not shown")
    _finish(figure, path, "; ".join([title, *notes]), target)


def comparison(
    path: Path,
    lines: Sequence[Line],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    target: Target | None = None,
    higher_is_better: bool = True,
) -> None:
    """Draws several runs: their curves, and beside them their final IQMs with 95 % intervals over the seeds' scores.

    Args:
        path: of the picture; the suffix chooses the format.
        lines: the runs, each on its own `x`.
        xlabel: of the curves' horizontal axis.
        ylabel: of what curves and scores measure.
        title: above the panels.
        target: drawn as a dashed line in both panels.
        higher_is_better: which end the scores that are not finite rank at.
    """
    figure = canvas.figure(10.0, max(4.4, 2.4 + 0.32 * len(lines)))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _dress(left, xlabel, ylabel)
    _dress(right, f"final {ylabel}", "")
    for index, line in enumerate(lines):
        curve = statistics.iqm_curve(line.curves, higher_is_better=higher_is_better)
        _band(left, np.asarray(line.x), curve, line.label, _style(index))
    _step_ticks(left, np.concatenate([np.asarray(line.x) for line in lines]))
    _point_ranges(right, [np.asarray(line.scores, np.float64) for line in lines], higher_is_better)
    if target is not None:
        left.axhline(target.value, **DASHED)
        right.axvline(target.value, **DASHED)
    _finish(figure, path, title, target)


def variants(
    path: Path,
    panels: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str,
    title: str,
    higher_is_better: bool = True,
) -> None:
    """Draws variants of one thing on several tasks: final IQMs with 95 % intervals over the seeds' scores, in rows.

    Args:
        path: of the picture; the suffix chooses the format.
        panels: by title of a task, scores `[S]` by label of a variant; every panel has the same labels in one order,
            and the first of them is what the others are compared with.
        xlabel: what the scores measure.
        title: above the panels.
        higher_is_better: which end the scores that are not finite rank at.
    """
    labels = list(next(iter(panels.values())))
    figure = canvas.figure(2.2 + 4.4 * len(panels), 1.4 + 0.36 * len(labels))
    for index, (name, scores) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _dress(axes, xlabel, "")
        runs = [np.asarray(values, np.float64) for values in scores.values()]
        axes.axvline(statistics.iqm(runs[0], higher_is_better=higher_is_better), **DASHED)
        _point_ranges(axes, runs, higher_is_better)
        for row, label in enumerate(labels if index == 0 else ()):
            name_place = {"xytext": (-8, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
            axes.annotate(label, (0, row), xycoords=axes.get_yaxis_transform(), color=INK, **name_place)
        axes.set_title(name, color=INK, fontsize=10)
    figure.suptitle(title, color=INK, fontsize=12)
    figure.savefig(path, dpi=DPI)


def profile(
    path: Path,
    scores: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    title: str,
    higher_is_better: bool = True,
) -> None:
    """Draws performance profiles: the share of runs that do better than each threshold, with 95 % bands.

    Args:
        path: of the picture; the suffix chooses the format.
        scores: `[S]` or `[S, K]` by label; one that is not finite is never better.
        xlabel: what the scores measure.
        title: above the axes.
        higher_is_better: whether better is above or below.
    """
    everything = np.concatenate([np.ravel(np.asarray(values, np.float64)) for values in scores.values()])
    finite = everything[np.isfinite(everything)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    thresholds = np.linspace(low - margin, high + margin, 400)
    figure = canvas.figure(7.2, 4.4)
    axes = figure.add_subplot()
    sign = ">" if higher_is_better else "<"
    _dress(axes, f"{xlabel} threshold τ", f"share of runs with score {sign} τ")
    for index, (label, values) in enumerate(scores.items()):
        shares = statistics.performance_profile(values, thresholds, higher_is_better=higher_is_better)
        _band(axes, thresholds, shares, label, _style(index))
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_ylim(-0.02, 1.02)
    _finish(figure, path, title)


def _finish(figure: Figure, path: Path, title: str, target: Target | None = None) -> None:
    """Adds the title and a legend below, headed by what the dashed line is, and saves."""
    width = figure.get_figwidth()
    figure.suptitle(textwrap.fill(title, int(width * 10)), color=INK, fontsize=12)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(1, min(len(labels), 4, int(width * 13 / (max(map(len, labels)) + 7))))
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(labels) / columns))
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    if target is not None:
        source = f" ({target.source})" if target.source else ""
        caption = textwrap.fill(f"dashed: target {target.value:g}{source}", int(width * 13))
        legend.set_title(caption)
        legend.get_title().set_fontsize(9)
    figure.savefig(path, dpi=DPI)


def _dress(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels axes and gives them a light grid, finer lines between."""
    from matplotlib.ticker import AutoMinorLocator

    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.set_axisbelow(True)
    axes.xaxis.set_minor_locator(AutoMinorLocator(2))
    axes.yaxis.set_minor_locator(AutoMinorLocator(2))
    axes.grid(which="major", color="#d8d8d8", linewidth=0.8)
    axes.grid(which="minor", color="#eeeeee", linewidth=0.6)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _step_ticks(axes: Axes, x: NDArray[Any]) -> None:
    """Writes counts in one unit along the axis: 0k 100k 200k."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    last = float(x.max())
    axes.set_xlim(min(0.0, float(x.min())), last if last > 0 else 1.0)
    unit, suffix = next((unit for unit in ((1e6, "M"), (1e3, "k")) if last >= 2 * unit[0]), (1.0, ""))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10], integer=unit == 1.0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}{suffix}"))


def _value_ticks(axes: Axes, values: NDArray[np.float64]) -> None:
    """Marks the values of a hyperparameter, by ratio where they lie so."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    if not grids.is_logarithmic(values):
        return
    axes.set_xscale("log")
    if len(values) <= 2 * MOST_TICKS:  # every value is named, or every second one
        axes.xaxis.set_major_locator(FixedLocator(values[:: math.ceil(len(values) / MOST_TICKS)].tolist()))
        axes.xaxis.set_minor_locator(FixedLocator(values.tolist()))
    else:
        axes.xaxis.set_major_locator(LogLocator(10.0, (1.0, 2.0, 5.0) if values[-1] < 1e3 * values[0] else (1.0,)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _cut(axes: Axes, scores: NDArray[np.float64], target: Target | None, higher_is_better: bool) -> bool:
    """Cuts the vertical axis where a few bad scores would flatten the others, and tells whether it did."""
    worst = grids.limit(scores, higher_is_better=higher_is_better)
    if worst is None:
        return False
    known = np.append(scores[np.isfinite(scores)], target.value if target else worst)
    best = known.max() if higher_is_better else known.min()
    margin = 0.05 * (best - worst)  # on the good side: what is cut had its share in the present edges
    low, high = sorted((best + margin, min(worst, known[-1]) if higher_is_better else max(worst, known[-1])))
    axes.set_ylim(low, high)
    return True


def _shades(count: int) -> list[tuple[float, ...]]:
    """Gives colours from dark to light that follow an order."""
    from matplotlib import colormaps

    return [tuple(colour) for colour in colormaps["viridis"](np.linspace(0.0, 0.88, count)).tolist()]


def _style(index: int) -> dict[str, Any]:
    """Gives the line of an index its look: ten colours, then the same ones dashed."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index // len(COLOURS) % len(STYLES)]}


def _band(axes: Axes, x: NDArray[Any], estimate: statistics.Estimate, label: str, style: dict[str, Any]) -> None:
    """Draws a line with its band; a curve of one point is a mark with a bar."""
    if len(x) == 1:
        style = style | {"marker": "o", "clip_on": False}
        axes.vlines(x, estimate.low, estimate.high, color=style["color"], clip_on=False)
    axes.plot(x, estimate.value, label=label, linewidth=1.8, **style)
    axes.fill_between(x, estimate.low, estimate.high, color=style["color"], alpha=0.18, linewidth=0)


def _point_ranges(axes: Axes, runs: Sequence[NDArray[np.float64]], higher_is_better: bool) -> None:
    """Draws runs as rows: their seeds as faint points, the IQM as a point, its interval as a bar and in words."""
    values = [statistics.iqm(scores, higher_is_better=higher_is_better) for scores in runs]
    intervals = [statistics.interval(scores, higher_is_better=higher_is_better) for scores in runs]
    for row, (scores, value) in enumerate(zip(runs, values, strict=True)):
        colour = _style(row)["color"]
        axes.plot(scores, np.full(scores.shape, row), "o", color=colour, alpha=0.35, markersize=4.5, markeredgewidth=0)
        axes.plot(value, row, "o", color=colour, markersize=9, markeredgecolor="white", zorder=3)
    axes.autoscale_view()
    edges = axes.get_xlim()
    for row, bounds in enumerate(intervals):
        if not np.isnan(bounds).all():  # one bound alone is missing where diverged seeds reach it: no end in sight
            low, high = (edge if np.isnan(bound) else bound for bound, edge in zip(bounds, edges, strict=True))
            axes.hlines(row, low, high, color=_style(row)["color"], linewidth=3)
    axes.set_xlim(edges)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.yaxis.tick_right()
    axes.set_yticks(range(len(runs)), map(_in_words, runs, values, intervals), fontsize=9)
    axes.grid(visible=False, axis="y", which="both")
    axes.spines["left"].set_visible(False)


def _in_words(scores: NDArray[np.float64], value: float, bounds: tuple[float, float]) -> str:
    """Writes an estimate and how many seeds diverged."""
    low, high = ("none" if np.isnan(bound) else f"{bound:.4g}" for bound in bounds)
    estimate = f"{value:.4g} [{low}, {high}]" if scores.size > 1 else f"{value:.4g}, one seed"
    num_diverged = np.count_nonzero(~np.isfinite(scores))
    return f"{estimate}\n{num_diverged} of {scores.size} diverged" if num_diverged else estimate
