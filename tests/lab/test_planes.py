"""Pictures of points in the plane: one panel a station, and no picture of what lies in none."""

import numpy as np
import pytest
from PIL import Image

from rlgen.lab import planes

POINTS = np.random.default_rng(0).normal(size=(40, 2))


def test_a_way_has_a_panel_for_every_station(tmp_path):
    sizes = []
    for num in (1, 3):
        path = tmp_path / f"{num}.png"
        planes.way(path, {f"station {index}": POINTS * (index + 1) for index in range(num)}, title="a way")
        with Image.open(path) as picture:
            sizes.append(picture.size)
            colours = picture.convert("RGB").getcolors(1 << 20)
        assert len(colours) > 40  # as many as there are points
    assert sizes[1][0] == 3 * sizes[0][0]


def test_other_points_are_drawn_in_one_colour(tmp_path, figures):
    panels = {"data": POINTS, "fewer": POINTS[:7], "samples": POINTS}
    planes.way(tmp_path / "way.png", panels, title="a way", marks=np.arange(40.0), apart=("samples",))
    counts = [len(axes.collections[0].get_facecolors()) for axes in figures[0].axes]
    assert counts == [40, 1, 1]


@pytest.mark.parametrize("panels", [{}, {"data": POINTS[:0]}, {"data": POINTS[:, :1]}, {"data": POINTS[0]}])
def test_what_lies_in_no_plane_is_refused(tmp_path, panels):
    with pytest.raises(ValueError, match="panels are points"):
        planes.way(tmp_path / "way.png", panels, title="nothing")
