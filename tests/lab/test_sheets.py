"""Sheets of images: every pixel where it belongs."""

import numpy as np
import pytest
from PIL import Image

from rlgen.lab import sheets


def test_image_grid_keeps_every_pixel(tmp_path, figures):
    path = tmp_path / "grid.png"
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)
    sheets.image_grid(path, images, num_columns=2, min_width=60)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # Two columns of six pixels with gaps of one make fifteen, enlarged by four.
    assert pixels.shape == (4 * 19, 4 * 15, 3)
    small = pixels[::4, ::4]
    np.testing.assert_array_equal(pixels, small.repeat(4, axis=0).repeat(4, axis=1))
    np.testing.assert_array_equal(small[1:9, 1:7], images[0])
    np.testing.assert_array_equal(small[1:9, 8:14], images[1])
    np.testing.assert_array_equal(small[10:18, 1:7], images[2])
    assert (small[10:18, 8:14] == 255).all() and (small[0] == 255).all()


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 4, 4, 1)])
def test_image_grid_of_floats(tmp_path, figures, shape):
    path = tmp_path / "grid.png"
    images = np.zeros(shape)
    images[0], images[1] = 2.0, np.nan
    sheets.image_grid(path, images, title="Samples", min_width=11)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (60 + 6, 11, 3)
    assert (pixels[61:65, 1:5] == 255).all() and (pixels[61:65, 6:10] == 0).all()


def test_rows_have_their_headings_beside_them(tmp_path, figures):
    path = tmp_path / "grid.png"
    sheets.image_grid(path, np.zeros((4, 20, 20)), num_columns=2, title="T", headings=["first", "second"], min_width=86)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    # Gaps of one, twice enlarged.
    assert pixels.shape == (60 + 2 * 43, sheets.MARGIN + 2 * 43)
    assert not pixels[62:102, sheets.MARGIN + 2 : sheets.MARGIN + 42].any()
    (figure,) = figures
    assert [text.get_text() for text in figure.texts] == ["T", "first", "second"]
    heights = [(1 - text.get_position()[1]) * len(pixels) for text in figure.texts[1:]]
    np.testing.assert_allclose(heights, [60 + 22, 60 + 64])
    rows = np.flatnonzero((pixels[60:, : sheets.MARGIN] < 128).any(axis=1))
    assert 10 < rows.min() < 22 < 64 < rows.max() < 76
    with pytest.raises(ValueError, match="zip"):
        sheets.image_grid(path, np.zeros((4, 20, 20)), num_columns=2, headings=["one"])


def test_image_grid_refuses_other_shapes(tmp_path):
    for shape in ((4, 4), (0, 4, 4), (2, 4, 4, 2)):
        with pytest.raises(ValueError, match="got the shape"):
            sheets.image_grid(tmp_path / "grid.png", np.zeros(shape))
