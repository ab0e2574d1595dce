"""Sheets of images side by side.

Shape legend: `N` images of `H` rows and `W` columns.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlgen.lab import canvas
from rlgen.lab.canvas import DPI, INK

MARGIN = 130  # pixels for the headings of rows


def image_grid(
    path: Path,
    images: ArrayLike,
    *,
    num_columns: int | None = None,
    title: str = "",
    headings: Sequence[str] = (),
    min_width: int = 600,
) -> None:
    """Draws images side by side, every pixel enlarged by the same whole number.

    Args:
        path: of the picture; the suffix chooses the format.
        images: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`: uint8, or floats that are clipped to [0, 1].
        num_columns: images a row; None for a grid as square as can be.
        title: above the images.
        headings: one beside each row of images, or none.
        min_width: of the images side by side in pixels, reached by enlarging.

    Raises:
        ValueError: if there are no images or they have another shape.
    """
    picture, tops = _lay(pixels(images), num_columns, min_width)
    heading = 60 if title else 0
    margin = MARGIN if headings else 0
    width, height = picture.shape[1] + margin, picture.shape[0] + heading
    figure = canvas.figure(width / DPI, height / DPI, layout=None)
    figure.figimage(picture, margin, 0, origin="upper")
    if title:
        figure.text(0.5, 1.0 - heading / 2 / height, title, ha="center", va="center", color=INK)
    for text, top in zip(headings, tops, strict=bool(headings)):
        figure.text((margin - 10) / width, 1.0 - (heading + top) / height, text, ha="right", va="center", color=INK)
    figure.savefig(path, dpi=DPI)


def _lay(images: NDArray[np.uint8], num_columns: int | None, min_width: int) -> tuple[NDArray[np.uint8], list[float]]:
    """Lays images `[N, H, W, 3]` side by side; gives the picture, and how far down the middle of each row is."""
    num_images, height, width, _ = images.shape
    columns = min(num_columns or math.ceil(math.sqrt(num_images)), num_images)
    rows = math.ceil(num_images / columns)
    gap = max(1, round(width / 16))
    scale = math.ceil(min_width / (columns * (width + gap) + gap))
    picture = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (
            gap + place * (size + gap) for place, size in zip(divmod(index, columns), (height, width), strict=True)
        )
        picture[top : top + height, left : left + width] = image
    tops = [scale * (gap + row * (height + gap) + height / 2) for row in range(rows)]
    return picture.repeat(scale, axis=0).repeat(scale, axis=1), tops


def pixels(images: ArrayLike) -> NDArray[np.uint8]:
    """Turns images as `image_grid` takes them into `[N, H, W, 3]` uint8; what is no number is black."""
    values = np.asarray(images)
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[-1] not in (1, 3) or not values.size:
        raise ValueError(f"images are [N, H, W], [N, H, W, 1] or [N, H, W, 3]; got the shape {list(np.shape(images))}")
    if values.dtype != np.uint8:
        values = np.round(np.clip(np.nan_to_num(values.astype(np.float64)), 0.0, 1.0) * 255).astype(np.uint8)
    return np.broadcast_to(values, (*values.shape[:3], 3))
