"""What all pictures share: resolution, colours and an empty figure.

Figures are drawn off screen on their own canvas: nothing here touches the global state of `matplotlib.pyplot`, and
matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
INK, FAINT, WALL = "#222222", "#888888", "#b0b0b0"


def figure(width: float, height: float, layout: Literal["constrained", "compressed"] | None = "constrained") -> Figure:
    """Makes a figure on its own canvas.

    Args:
        width: in inches.
        height: in inches.
        layout: how matplotlib places its parts; None where they are placed by hand.

    Returns:
        The figure; nothing of it is kept anywhere else.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
