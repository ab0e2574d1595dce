"""Sheets of images side by side.

Shape legend: `N` images of `H` rows and `W` columns.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlgen.lab import canvas
from rlgen.lab.canvas import DPI, INK


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
    picture = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, image in enumerate(pixels):
        top, left = (
            gap + place * (size + gap) for place, size in zip(divmod(index, columns), (height, width), strict=True)
        )
        picture[top : top + height, left : left + width] = image
    picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    heading = 60 if title else 0
    figure = canvas.figure(picture.shape[1] / DPI, (picture.shape[0] + heading) / DPI, layout=None)
    figure.figimage(picture, 0, 0, origin="upper")
    if title:
        figure.text(0.5, 1.0 - heading / 2 / (picture.shape[0] + heading), title, ha="center", va="center", color=INK)
    figure.savefig(path, dpi=DPI)


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
