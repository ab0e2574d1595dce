"""Pictures of points in the plane: what a flow makes of data, and the way back.

Shape legend: `D` points.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rlgen.lab import canvas
from rlgen.lab.canvas import DPI, INK

_SIDE = 3.6  # inches of a panel
_SHARE = 99.8  # per cent of a panel's points that set its limits: a few strays would make the others small


def way(
    path: Path,
    panels: Mapping[str, ArrayLike],
    *,
    title: str,
    marks: ArrayLike | None = None,
    apart: Collection[str] = (),
) -> None:
    """Draws the same points at several stations side by side, each in one colour all the way.

    Args:
        path: of the picture; the suffix chooses the format.
        panels: `[D, 2]` points by heading, in the order of the way; panels of another number of points show others.
        title: above all.
        marks: `[D]` numbers that choose the colours; None for the angle at which a point of the first panel is seen
            from the middle of them all.
        apart: headings of panels that show other points, in one colour.

    Raises:
        ValueError: if there is nothing to draw or it lies in no plane.
    """
    points = {heading: np.asarray(values, np.float64) for heading, values in panels.items()}
    if not points or any(values.ndim != 2 or values.shape[1] != 2 or not len(values) for values in points.values()):
        raise ValueError(f"panels are points [D, 2]; got {[list(values.shape) for values in points.values()]}")
    first = next(iter(points.values()))
    centred = first - first.mean(axis=0)
    colours = np.arctan2(centred[:, 1], centred[:, 0]) if marks is None else np.asarray(marks, np.float64)
    figure = canvas.figure(_SIDE * len(points), _SIDE + 0.5)
    for axes, (heading, values) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        same = len(values) == len(colours) and heading not in apart
        look = {"c": colours, "cmap": "hsv"} if same else {"color": canvas.COLOURS[0]}
        axes.scatter(values[:, 0], values[:, 1], s=3, linewidths=0, **look)
        axes.set_title(heading, color=INK, fontsize=11)
        axes.set_aspect("equal")
        low, high = np.nanpercentile(values, [(100 - _SHARE) / 2, (100 + _SHARE) / 2], axis=0)
        middle, half = (low + high) / 2, max(0.55 * float((high - low).max()), 1e-6)
        axes.set_xlim(middle[0] - half, middle[0] + half)
        axes.set_ylim(middle[1] - half, middle[1] + half)
    figure.suptitle(title, color=INK, fontsize=12)
    figure.savefig(path, dpi=DPI)
