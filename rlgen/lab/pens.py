"""Strokes that drawings are made of, on sheets that are shrunk in the end.

Shape legend: `H` rows and `W` columns of an image.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rlgen.lab.canvas import COLOURS

WIDTH = 384  # most pixels of a picture's side, below its heading
FINE = 2  # pictures are drawn this much larger and shrunk, so that slanted edges are smooth
PAPER = "#ffffff"
BLUE, RED, ORANGE = COLOURS[0], COLOURS[1], COLOURS[2]

Point = tuple[float, float]


def sheet(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Takes a white sheet that becomes `width` by `height` pixels when it is reduced."""
    picture = Image.new("RGB", (width * FINE, height * FINE), PAPER)
    return picture, ImageDraw.Draw(picture)


def rgb(colour: str) -> NDArray[np.uint8]:
    """Reads `#rrggbb`."""
    return np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)


def disc(pen: ImageDraw.ImageDraw, centre: Point, radius: float, colour: str) -> None:
    """Draws a filled circle."""
    (x, y), r = centre, radius
    pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def rod(pen: ImageDraw.ImageDraw, start: Point, stop: Point, colour: str, width: float) -> None:
    """Draws a thick line with round ends."""
    pen.line((*start, *stop), fill=colour, width=round(width))
    for end in (start, stop):
        disc(pen, end, width / 2, colour)


def head(pen: ImageDraw.ImageDraw, tip: Point, direction: float, colour: str) -> None:
    """Draws the head of an arrow that points along `direction` radians, clockwise from the right."""
    corners: Sequence[Point] = [
        (tip[0] + 9 * FINE * math.cos(direction + turn), tip[1] + 9 * FINE * math.sin(direction + turn))
        for turn in (0.0, 2.4, -2.4)
    ]
    pen.polygon(corners, fill=colour)


def arrow(pen: ImageDraw.ImageDraw, start: Point, stop: Point, colour: str) -> None:
    """Draws an arrow."""
    pen.line((*start, *stop), fill=colour, width=3 * FINE)
    head(pen, stop, math.atan2(stop[1] - start[1], stop[0] - start[0]), colour)


def torque(pen: ImageDraw.ImageDraw, centre: Point, radius: float, degrees: float) -> None:
    """Draws an arc from the top with an arrow's head: positive to the left, like the angle; nothing for no torque."""
    if abs(degrees) < 3:
        return
    (x, y), top = centre, 270.0
    arc = sorted((top, top - degrees))
    pen.arc((x - radius, y - radius, x + radius, y + radius), *arc, fill=BLUE, width=3 * FINE)
    end = math.radians(top - degrees)
    tip = x + radius * math.cos(end), y + radius * math.sin(end)
    head(pen, tip, end - math.copysign(math.pi / 2, degrees), BLUE)


def heat(image: NDArray[Any], bounds: Point) -> Image.Image:
    """Enlarges an image `[H, W]` or `[H, W, 1 | 3]` with `bounds` as black and white, to whole pixels."""
    low, high = bounds
    grey = np.nan_to_num((np.asarray(image, np.float64) - low) / ((high - low) or 1.0))
    levels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    levels = levels[..., None] if levels.ndim == 2 else levels
    side = max(1, 320 // max(levels.shape[:2]))
    large = levels.repeat(side, axis=0).repeat(side, axis=1)
    picture = Image.fromarray(np.broadcast_to(large, (*large.shape[:2], 3)).copy())
    picture.thumbnail((WIDTH, WIDTH))
    return picture
