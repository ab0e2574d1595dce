"""Heat maps of tabular values, with numbers and arrows.

Shape legend: `H` rows and `W` columns of cells.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlgen.lab import canvas
from rlgen.lab.canvas import DPI, INK, WALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

TERMINAL = "#bd1f01"
LONGEST_NUMBER = 1e4  # what is larger is written with a power of ten
CELL, WIDEST = 0.72, 14.4  # inches of a cell of a map, and of all its cells
ROOM_FOR_NUMBERS, ROOM_FOR_ARROWS = 0.5, 0.2  # inches that a cell needs for them
SMALLEST_SPAN = 0.005  # of the values: two decimals show no difference below it
UP_RIGHT_DOWN_LEFT = ((-1, 0), (0, 1), (1, 0), (0, -1))


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
    figure = canvas.figure(*size, layout="compressed")
    axes = figure.add_subplot()
    image = axes.imshow(shown, cmap="viridis")
    low, high = image.get_clim()
    if low is not None and high is not None and high - low < SMALLEST_SPAN:
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
