"""Pictures of runs: learning curves, responses, comparisons, performance profiles, tabular values and image grids.

Curves are interquartile means with 95 % stratified-bootstrap bands, as Agarwal et al. 2021 (arXiv:2108.13264) ask for.
Figures are drawn off screen on their own canvas: nothing here touches the global state of `matplotlib.pyplot`, and
matplotlib is imported when something is drawn.

Shape legend: `S` seeds, `U` points of a curve, `G` points of a grid, `H` rows and `W` columns, `N` images.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlgen.lab import grids, statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DPI = 150
# Ten colours that stay apart for colour-blind eyes too: Petroff 2021 (arXiv:2107.02270), the dark ones first.
COLOURS = (
    "#3f90da",
    "#bd1f01",
    "#ffa90e",
    "#832db6",
    "#717581",
    "#e76300",
    "#92dadd",
    "#a96b59",
    "#b9ac70",
    "#94a4a2",
)
STYLES = ("-", "--", "-.", ":")  # one for each further ten lines
INK, FAINT, WALL, TERMINAL = "#222222", "#888888", "#b0b0b0", "#bd1f01"
NUM_APART = 3  # lines up to which the colours of an ordered axis need not follow it
MOST_MARKS, MOST_TICKS = 32, 8  # points of a line that are marked, and values of an axis that are named
LONGEST_NUMBER = 1e4  # what is larger is written with a power of ten
CELL, WIDEST = 0.72, 14.4  # inches of a cell of a map, and of all its cells
ROOM_FOR_NUMBERS, ROOM_FOR_ARROWS = 0.5, 0.2  # inches that a cell needs for them
DASHED: dict[str, Any] = {"color": INK, "linestyle": (0, (5, 3)), "linewidth": 1.2}
UP_RIGHT_DOWN_LEFT = ((-1, 0), (0, 1), (1, 0), (0, -1))


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
    figure = _figure(7.2, 4.4)
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
    figure = _figure(7.2, 4.4)
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
    figure = _figure(10.0, max(4.4, 2.4 + 0.32 * len(lines)))
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
    figure = _figure(7.2, 4.4)
    axes = figure.add_subplot()
    sign = ">" if higher_is_better else "<"
    _dress(axes, f"{xlabel} threshold τ", f"share of runs with score {sign} τ")
    for index, (label, values) in enumerate(scores.items()):
        shares = statistics.performance_profile(values, thresholds, higher_is_better=higher_is_better)
        _band(axes, thresholds, shares, label, _style(index))
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_ylim(-0.02, 1.02)
    _finish(figure, path, title)


def value_map(
    path: Path,
    values: ArrayLike,
    actions: ArrayLike | None,
    *,
    title: str,
    walls: ArrayLike | None = None,
    terminals: ArrayLike | None = None,
    rewards: ArrayLike | None = None,
    directions: Sequence[tuple[int, int]] = UP_RIGHT_DOWN_LEFT,
) -> None:
    """Draws the values of a grid world as a heat map with numbers and the greedy actions as arrows.

    Worlds too large for that are drawn without numbers, and the largest ones without arrows.

    Args:
        path: of the picture; the suffix chooses the format.
        values: `[H, W]`; what is not finite is left white.
        actions: `[H, W]` indices into `directions`, negative for none; None for a map without arrows.
        title: above the map.
        walls: `[H, W]` bool, drawn grey.
        terminals: `[H, W]` bool, framed in red, without an arrow.
        rewards: `[H, W]` written into terminal cells; nan for none.
        directions: `(rows, columns)` that each action moves by; `(0, 0)` is drawn as a dot, a jump over cells as a
            double arrow.
    """
    values = np.asarray(values, np.float64)
    blocked = np.zeros(values.shape, bool) if walls is None else np.asarray(walls, bool)
    ends = np.zeros(values.shape, bool) if terminals is None else np.asarray(terminals, bool) & ~blocked
    shown = np.where(blocked | ~np.isfinite(values), np.nan, values)
    greedy = np.full(values.shape, -1) if actions is None else np.where(ends | blocked, -1, np.asarray(actions))
    num_rows, num_columns = values.shape
    side = min(CELL, WIDEST / max(values.shape))
    flat = num_columns > 3 * num_rows
    size = max(4.0, side * num_columns + (0.4 if flat else 1.2)), side * num_rows + (1.4 if flat else 0.8)
    figure = _figure(*size, layout="compressed")
    axes = figure.add_subplot()
    image = axes.imshow(shown, cmap="viridis")
    low, high = image.get_clim()
    if low is not None and high is not None and high - low < 0.005:  # no difference that two decimals would show
        image.set_clim(low - 1, high + 1)
    axes.imshow(np.where(blocked[..., None], _rgba(WALL), 0.0))
    if side >= ROOM_FOR_NUMBERS:
        _numbers(axes, shown, image, raised=greedy >= 0)
        if rewards is not None:
            _rewards(axes, np.where(ends, np.asarray(rewards, np.float64), np.nan))
    for row, column in np.argwhere(greedy >= 0) if side >= ROOM_FOR_ARROWS else ():
        centre = (row + 0.17 if side >= ROOM_FOR_NUMBERS else row, column)
        move, ink = directions[int(greedy[row, column])], _ink(image, float(shown[row, column]))
        _arrow(axes, centre, move, ink, side / CELL)
    for mark in axes.texts:
        mark.set_in_layout(False)  # all lie within the map; measuring each of them takes long
    for row, column in np.argwhere(ends):
        _square(axes, row, column, side=0.84, fill=False, edgecolor=TERMINAL, linewidth=2.2 * side / CELL)
    _cell_borders(axes, values.shape, 1.2 * side / CELL)
    bar: dict[str, Any] = {"orientation": "horizontal", "aspect": 40, "shrink": 0.5} if flat else {"fraction": 0.05}
    figure.colorbar(image, ax=axes, label="value", **bar).outline.set_visible(False)
    lines = textwrap.fill(title, max(40, int(size[0] * 9)), break_long_words=False, break_on_hyphens=False)
    axes.set_title(lines, color=INK, fontsize=11, pad=10)
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.12)


def image_grid(
    path: Path,
    images: ArrayLike,
    *,
    num_columns: int | None = None,
    title: str = "",
    min_width: int = 600,
) -> None:
    """Draws images side by side, every pixel enlarged by the same whole number.

    Args:
        path: of the picture; the suffix chooses the format.
        images: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`: uint8, or floats that are clipped to [0, 1].
        num_columns: images a row; None for a grid as square as can be.
        title: above the images.
        min_width: of the picture in pixels, reached by enlarging.

    Raises:
        ValueError: if there are no images or they have another shape.
    """
    pixels = _pixels(images)
    num_images, height, width, _ = pixels.shape
    columns = min(num_columns or math.ceil(math.sqrt(num_images)), num_images)
    rows = math.ceil(num_images / columns)
    gap = max(1, round(width / 16))
    scale = math.ceil(min_width / (columns * (width + gap) + gap))
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, image in enumerate(pixels):
        top, left = (
            gap + place * (size + gap) for place, size in zip(divmod(index, columns), (height, width), strict=True)
        )
        canvas[top : top + height, left : left + width] = image
    canvas = canvas.repeat(scale, axis=0).repeat(scale, axis=1)
    heading = 60 if title else 0
    figure = _figure(canvas.shape[1] / DPI, (canvas.shape[0] + heading) / DPI, layout=None)
    figure.figimage(canvas, 0, 0, origin="upper")
    if title:
        figure.text(0.5, 1.0 - heading / 2 / (canvas.shape[0] + heading), title, ha="center", va="center", color=INK)
    figure.savefig(path, dpi=DPI)


def _figure(width: float, height: float, layout: Literal["constrained", "compressed"] | None = "constrained") -> Figure:
    """Makes a figure on its own canvas, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


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


def _ink(image: AxesImage, value: float) -> str:
    """Chooses the colour of writing that stands out in a cell; white cells are those without a value."""
    red, green, blue, _ = image.to_rgba(np.asarray(value))
    return "white" if np.isfinite(value) and 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else INK


def _rgba(colour: str) -> tuple[float, ...]:
    """Gives a colour as numbers."""
    from matplotlib.colors import to_rgba

    return to_rgba(colour)


def _numbers(axes: Axes, values: NDArray[np.float64], image: AxesImage, *, raised: NDArray[np.bool_]) -> None:
    """Writes the values of cells, above the middle where there is an arrow too."""
    for row, column in np.argwhere(np.isfinite(values)):
        value, height = float(values[row, column]), row - 0.26 if raised[row, column] else row
        text = f"{round(value, 2) + 0.0:.2f}" if abs(value) < LONGEST_NUMBER else f"{value:.2e}"
        look = {"ha": "center", "va": "center", "fontsize": 8, "color": _ink(image, value)}
        axes.text(column, height, text.replace("-", "−"), **look)


def _rewards(axes: Axes, rewards: NDArray[np.float64]) -> None:
    """Writes what the ends of an episode are worth."""
    for row, column in np.argwhere(np.isfinite(rewards)):
        text = f"{rewards[row, column]:+g}".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", fontsize=11, fontweight="bold", color=INK)


def _arrow(axes: Axes, centre: tuple[float, float], move: tuple[int, int], ink: str, scale: float) -> None:
    """Draws an action: an arrow of one length whatever the move, with a second head if it jumps over cells."""
    row, column = centre
    length = math.hypot(*move)
    if not length:
        axes.plot(column, row, "o", color=ink, markersize=4 * scale)
        return
    down, right = (0.22 * part / length for part in move)
    look = {"arrowstyle": "-|>", "color": ink, "linewidth": 1.4 * scale, "shrinkA": 0, "shrinkB": 0}
    # In the middle of the way a head is drawn by an arrow that ends there.
    for share in (1.0, 0.1)[: 1 + (max(map(abs, move)) > 1)]:
        tip = (column + right * share, row + down * share)
        axes.annotate("", tip, (column - right, row - down), arrowprops=look | {"mutation_scale": 10 * scale})


def _square(axes: Axes, row: int, column: int, *, side: float, **look: Any) -> None:
    """Draws a square about the middle of a cell."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((column - side / 2, row - side / 2), side, side, **look))


def _cell_borders(axes: Axes, shape: tuple[int, ...], width: float) -> None:
    """Parts the cells of a map with lines and takes the axes' marks away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_yticks(np.arange(shape[0] + 1) - 0.5, minor=True)
    axes.set_xticks(np.arange(shape[1] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=width)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color(WALL)


def _pixels(images: ArrayLike) -> NDArray[np.uint8]:
    """Turns images into `[N, H, W, 3]` uint8."""
    pixels = np.asarray(images)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise ValueError(f"images are [N, H, W], [N, H, W, 1] or [N, H, W, 3]; got the shape {list(np.shape(images))}")
    if pixels.dtype != np.uint8:
        pixels = np.round(np.clip(np.nan_to_num(pixels.astype(np.float64)), 0.0, 1.0) * 255).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))
