"""Maps of values: numbers, arrows, walls and ends where they belong, at every size."""

import itertools

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pytest

from rlgen.lab import canvas, heatmaps


def test_value_map_marks_walls_terminals_and_greedy_actions(tmp_path, figures, size):
    values = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]])
    actions = np.array([[1, 2, 0], [3, 1, -1]])
    walls = np.array([[0, 0, 1], [0, 0, 0]])
    terminals = np.array([[0, 0, 0], [0, 1, 0]])
    heatmaps.value_map(tmp_path / "map.png", values, actions, title="Values", walls=walls, terminals=terminals)
    axes = figures[0].axes[0]
    written = {text.get_text(): text for text in axes.texts}
    assert set(written) == {"1.00", "2.00", "4.00", "6.00", ""}
    (frame,) = axes.patches
    grey = axes.images[1].get_array()
    assert mpl.colors.to_hex(grey[0, 2]) == canvas.WALL and (np.delete(grey.reshape(6, 4), 2, axis=0) == 0).all()
    assert frame.get_xy() == pytest.approx((0.58, 0.58)) and not frame.get_fill()
    arrows = [text for text in axes.texts if not text.get_text()]
    moves = [np.sign(np.round(np.subtract(arrow.xy, arrow.get_position()), 6)).tolist() for arrow in arrows]
    # Right, down, left; none on the wall, the terminal and the cell without an action.
    assert moves == [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    # The darkest cell is written on in white, the brightest in ink.
    assert (written["1.00"].get_color(), written["6.00"].get_color()) == ("white", canvas.INK)
    heatmaps.value_map(tmp_path / "plain.png", values, None, title="")
    assert [text.get_text() for text in figures[1].axes[0].texts] == ["1.00", "2.00", "3.00", "4.00", "6.00"]
    assert min(size(tmp_path / "plain.png")) > 150


def marks(axes):
    """Places of the numbers and of the arrows' middles on a map, and the words."""
    words = [text for text in axes.texts if text.get_text()]
    arrows = [text for text in axes.texts if not text.get_text()]
    return words, arrows


def test_value_map_writes_small_and_large_numbers_and_what_ends_are_worth(tmp_path, figures):
    values = np.array([[-0.001, -12.345, 123456.0, np.nan, np.nan]])
    rewards = np.array([[5.0, 5.0, 5.0, -1.0, np.nan]])
    ends = np.array([[0, 0, 0, 1, 1]])
    heatmaps.value_map(tmp_path / "map.png", values, None, title="", terminals=ends, rewards=rewards)
    words, arrows = marks(figures[0].axes[0])
    assert [word.get_text() for word in words] == ["0.00", "−12.35", "1.23e+05", "−1"] and not arrows


def test_value_map_of_a_long_row(tmp_path, figures, size):
    path = tmp_path / "row.png"
    heatmaps.value_map(path, np.linspace(-0.9, 0.9, 19)[None], None, title="A title that is not long")
    axes, bar = figures[0].axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 19 and all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert bar.get_position().y1 < axes.get_position().y0  # below, where there is room
    assert 150 < size(path)[1] < 400


def test_value_map_draws_moves_of_one_length_and_jumps_with_two_heads(tmp_path, figures):
    directions = ((0, 1), (0, 2), (1, -1), (0, 0))
    heatmaps.value_map(tmp_path / "map.png", np.zeros((1, 4)), np.arange(4)[None], title="", directions=directions)
    axes = figures[0].axes[0]
    words, arrows = marks(axes)
    lengths = [np.hypot(*np.subtract(arrow.xy, arrow.get_position())) for arrow in arrows]
    assert len(arrows) == 4  # one, one with a second head, one; the dot is a line
    np.testing.assert_allclose([lengths[index] for index in (0, 1, 3)], 0.44)
    assert lengths[2] < 0.3 and len(axes.lines) == 1
    figures[0].canvas.draw()
    for word, arrow in zip(words[:2], (arrows[0], arrows[1]), strict=True):
        assert not word.get_window_extent().overlaps(arrow.arrow_patch.get_window_extent())


@pytest.mark.parametrize(("side", "num_arrows"), [(30, 900), (90, 0)])
def test_value_map_of_a_large_world(tmp_path, figures, size, side, num_arrows):
    path = tmp_path / "map.png"
    values = np.arange(side * side, dtype=float).reshape(side, side)
    heatmaps.value_map(path, values, np.zeros((side, side), int), title="Large", walls=values % 7 == 8)
    words, arrows = marks(figures[0].axes[0])
    assert not words and len(arrows) == num_arrows
    assert max(size(path)) < 2600


@pytest.mark.parametrize(("values", "limits"), [([10.0, 10.004], (9.0, 11.004)), ([10.0, 10.006], (10.0, 10.006))])
def test_value_map_shows_no_difference_that_its_numbers_do_not(tmp_path, figures, values, limits):
    heatmaps.value_map(tmp_path / "map.png", [values], None, title="")
    assert figures[0].axes[0].images[0].get_clim() == pytest.approx(limits)
