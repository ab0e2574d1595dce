"""Pictures: right sizes, right marks, readable ticks, and no trace in pyplot's state."""

import itertools
import subprocess
import sys
import time

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from rlgen.lab import grids, plots, statistics

X = np.arange(1, 11) * 50_000
CURVES = np.random.default_rng(0).normal(100.0, 5.0, (6, 10))
TARGET = plots.Target(105.0, "a paper of long ago")


@pytest.fixture
def figures(monkeypatch):
    """Collects the figures that are saved, and checks that pyplot knows nothing of them."""
    saved, save = [], Figure.savefig
    before = dict(mpl.rcParams)

    def keep(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    yield saved
    assert pyplot.get_fignums() == [] and dict(mpl.rcParams) == before


def size(path):
    """Opens a picture and gives its width and height."""
    with Image.open(path) as image:
        image.load()
        return image.size


def test_learning_curves_draw_the_iqm_and_its_band(tmp_path, figures):
    path = tmp_path / "curves.png"
    labels = {"ylabel": "episode return", "title": "A title " * 20}
    curves = {f"learning_rate={index}": CURVES + index for index in range(12)}
    plots.learning_curves(path, X, curves, **labels, target=TARGET)
    (figure,) = figures
    (axes,) = figure.axes
    width, height = size(path)
    assert width == round(7.2 * plots.DPI) and height == round(figure.get_figheight() * plots.DPI)
    np.testing.assert_array_equal(axes.lines[2].get_ydata(), statistics.iqm_curve(CURVES + 2).value)
    band = axes.collections[2].get_paths()[0].vertices[:, 1]
    assert band.min() == statistics.iqm_curve(CURVES + 2).low.min()
    # Twelve lines, twelve looks.
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines[:12]}) == 12
    assert list(axes.lines[12].get_ydata()) == [105.0, 105.0] and axes.lines[12].get_linestyle() == "--"
    assert "target 105 (a paper of long ago)" in figure.legends[0].get_title().get_text()
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks[:3] == ["0k", "100k", "200k"] and ticks[-1] == "500k"
    # The legend makes the picture higher and not the axes flat.
    assert axes.get_position().height * height > 420
    # Nothing reaches beyond the canvas.
    extent = figure.get_tightbbox().extents * plots.DPI
    assert extent[0] >= -1 and extent[1] >= -1 and extent[2] <= width + 1 and extent[3] <= height + 1


def test_a_curve_of_one_window_is_a_mark_with_a_bar(tmp_path, figures):
    plots.learning_curves(tmp_path / "curves.png", X[:1], {"a": CURVES[:, :1]}, ylabel="loss", title="")
    axes = figures[0].axes[0]
    low, high = statistics.interval(CURVES[:, 0])
    ((start, stop),) = axes.collections[0].get_segments()
    assert (start[1], stop[1]) == pytest.approx((low, high)) and axes.lines[0].get_marker() == "o"


@pytest.mark.parametrize(
    ("last", "first_labels"), [(10, ["0", "2"]), (1_500, ["0", "250"]), (4e6, ["0M", "1M"]), (5_000, ["0k", "1k"])]
)
def test_ticks_share_a_unit(tmp_path, figures, last, first_labels):
    x = np.linspace(0, last, 10)
    plots.learning_curves(tmp_path / "curves.png", x, {"a": CURVES}, ylabel="loss", title="")
    assert [tick.get_text() for tick in figures[0].axes[0].get_xticklabels()][:2] == first_labels


def chart_of(num_rates, num_lambdas, scores, **rest):
    rates, lambdas = np.geomspace(1e-3, 1.0, num_rates), np.linspace(0.0, 0.9, num_lambdas)
    points = [{"rate": rate, "lambda": part} for rate in rates.tolist() for part in lambdas.tolist()]
    return grids.chart(points, statistics.estimates(scores, **rest).value, **rest), statistics.estimates(scores, **rest)


def test_response_draws_a_line_for_each_value_of_the_other_axis(tmp_path, figures):
    scores = np.random.default_rng(1).normal(size=(35, 8))
    scores[3] = np.nan
    chart, estimates = chart_of(7, 5, scores)
    plots.response(tmp_path / "response.png", chart, estimates, ylabel="return", title="Row", target=TARGET)
    (figure,) = figures
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "rate", "return")
    *lines, target = axes.lines
    assert [line.get_label() for line in lines][:2] == ["lambda=0", "lambda=0.225"]
    np.testing.assert_allclose(lines[0].get_xdata(), np.geomspace(1e-3, 1.0, 7))
    expected = [statistics.iqm(row) for row in scores[3::5]]
    np.testing.assert_allclose(lines[3].get_ydata(), expected)  # with a hole where all diverged
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(min(statistics.interval(row)[0] for row in scores[::5]))
    assert target.get_linestyle() == "--" and list(target.get_ydata()) == [105.0, 105.0]
    # Colours go from dark to light.
    lightness = [sum(line.get_color()[:3]) for line in lines]
    assert lightness == sorted(lightness)
    figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["0.001", "0.00316"]
    extent = figure.get_tightbbox().extents * plots.DPI
    width, height = size(tmp_path / "response.png")
    assert extent[0] >= -1 and extent[1] >= -1 and extent[2] <= width + 1 and extent[3] <= height + 1


def test_response_to_one_axis_is_linear_where_it_is_even(tmp_path, figures):
    points = [{"rate": rate} for rate in np.linspace(0.1, 1.0, 10).tolist()]
    estimates = statistics.estimates(np.arange(30.0).reshape(10, 3))
    plots.response(tmp_path / "response.png", grids.chart(points, estimates.value), estimates, ylabel="", title="Row")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "linear" and len(axes.lines) == 1
    assert figures[0].get_suptitle() == "Row"


@pytest.mark.parametrize("sign", [1, -1])
def test_response_says_what_it_leaves_out(tmp_path, figures, sign):
    scores = sign * np.random.default_rng(1).normal(-5.0, 1.0, size=(20 * 12, 8))
    scores[-12:] *= 1e6
    chart, estimates = chart_of(20, 12, scores, higher_is_better=sign > 0)
    plots.response(tmp_path / "response.png", chart, estimates, ylabel="", title="Row", higher_is_better=sign > 0)
    (axes,) = figures[0].axes
    assert len(axes.lines) == 10
    low, high = axes.get_ylim()
    assert (low > -50 and high > -5) if sign > 0 else (high < 50 and low < 5)
    words = " ".join(figures[0].get_suptitle().split())
    assert words == f"Row; the best 10 of 12 lines; scores {'below' if sign > 0 else 'above'} the edge are not shown"


def test_a_large_response_is_drawn_soon(tmp_path, figures):
    begun = time.perf_counter()
    chart, estimates = chart_of(40, 25, np.random.default_rng(1).normal(size=(1000, 100)))
    plots.response(tmp_path / "response.png", chart, estimates, ylabel="", title="Row")
    assert time.perf_counter() - begun < 60


def test_comparison_draws_curves_and_final_scores(tmp_path, figures):
    path = tmp_path / "comparison.png"
    diverged = np.where(np.arange(6) < 2, np.nan, CURVES[:, -1] - 20)
    lines = [plots.Line("first", X, CURVES, CURVES[:, -1]), plots.Line("second", X[:5], CURVES[:, :5], diverged)]
    lines.append(plots.Line("third", X, CURVES[:1] - 10, CURVES[:1, -1] - 10))
    plots.comparison(path, lines, xlabel="environment steps", ylabel="episode return", title="CartPole", target=TARGET)
    left, right = figures[0].axes
    assert size(path)[0] == 1500
    assert [line.get_label() for line in left.lines[:3]] == ["first", "second", "third"]
    assert len(left.lines[1].get_xdata()) == 5
    low, high = statistics.interval(CURVES[:, -1])
    ((start, stop),) = right.collections[0].get_segments()
    assert (start[0], stop[0]) == (low, high) and right.lines[1].get_xdata() == statistics.iqm(CURVES[:, -1])
    # Rows go down in the order of the runs.
    assert right.get_ylim() == (2.5, -0.5)
    # Without a lower bound the bar runs to the edge.
    ((start, _),) = right.collections[1].get_segments()
    assert start[0] == right.get_xlim()[0]
    words = [label.get_text() for label in right.get_yticklabels()]
    assert words[0] == f"{statistics.iqm(CURVES[:, -1]):.4g} [{low:.4g}, {high:.4g}]"
    assert "[none, " in words[1] and words[1].endswith("2 of 6 diverged") and words[2].endswith("one seed")


def test_comparison_of_runs_that_all_diverged(tmp_path, figures):
    lost = np.full((4, 10), np.nan)
    plots.comparison(
        tmp_path / "lost.png", [plots.Line("lost", X, lost, lost[:, 0])], xlabel="updates", ylabel="loss", title="Lost"
    )
    assert figures[0].axes[1].get_yticklabels()[0].get_text() == "nan [none, none]\n4 of 4 diverged"


def test_profile(tmp_path, figures):
    path = tmp_path / "profile.png"
    scores = {"first": CURVES[:, 0], "second": [np.nan, 100.0, 101.0]}
    plots.profile(path, scores, xlabel="episode return", title="Profiles")
    first, second = figures[0].axes[0].lines
    assert first.get_ydata()[0] == 1.0 and first.get_ydata()[-1] == 0.0
    assert second.get_ydata()[0] == pytest.approx(2 / 3)
    assert size(path)[0] == 1080
    plots.profile(tmp_path / "lost.png", {"lost": [np.nan, np.nan]}, xlabel="loss", title="", higher_is_better=False)
    assert (figures[1].axes[0].lines[0].get_ydata() == 0.0).all()


def test_value_map_marks_walls_terminals_and_greedy_actions(tmp_path, figures):
    values = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]])
    actions = np.array([[1, 2, 0], [3, 1, -1]])
    walls = np.array([[0, 0, 1], [0, 0, 0]])
    terminals = np.array([[0, 0, 0], [0, 1, 0]])
    plots.value_map(tmp_path / "map.png", values, actions, title="Values", walls=walls, terminals=terminals)
    axes = figures[0].axes[0]
    written = {text.get_text(): text for text in axes.texts}
    assert set(written) == {"1.00", "2.00", "4.00", "6.00", ""}
    (frame,) = axes.patches
    grey = axes.images[1].get_array()
    assert mpl.colors.to_hex(grey[0, 2]) == plots.WALL and (np.delete(grey.reshape(6, 4), 2, axis=0) == 0).all()
    assert frame.get_xy() == pytest.approx((0.58, 0.58)) and not frame.get_fill()
    arrows = [text for text in axes.texts if not text.get_text()]
    moves = [np.sign(np.round(np.subtract(arrow.xy, arrow.get_position()), 6)).tolist() for arrow in arrows]
    # Right, down, left; none on the wall, the terminal and the cell without an action.
    assert moves == [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    # The darkest cell is written on in white, the brightest in ink.
    assert (written["1.00"].get_color(), written["6.00"].get_color()) == ("white", plots.INK)
    plots.value_map(tmp_path / "plain.png", values, None, title="")
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
    plots.value_map(tmp_path / "map.png", values, None, title="", terminals=ends, rewards=rewards)
    words, arrows = marks(figures[0].axes[0])
    assert [word.get_text() for word in words] == ["0.00", "−12.35", "1.23e+05", "−1"] and not arrows


def test_value_map_of_a_long_row(tmp_path, figures):
    path = tmp_path / "row.png"
    plots.value_map(path, np.linspace(-0.9, 0.9, 19)[None], None, title="A title that is not long")
    axes, bar = figures[0].axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 19 and all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert bar.get_position().y1 < axes.get_position().y0  # below, where there is room
    assert 150 < size(path)[1] < 400


def test_value_map_draws_moves_of_one_length_and_jumps_with_two_heads(tmp_path, figures):
    directions = ((0, 1), (0, 2), (1, -1), (0, 0))
    plots.value_map(tmp_path / "map.png", np.zeros((1, 4)), np.arange(4)[None], title="", directions=directions)
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
def test_value_map_of_a_large_world(tmp_path, figures, side, num_arrows):
    path = tmp_path / "map.png"
    values = np.arange(side * side, dtype=float).reshape(side, side)
    plots.value_map(path, values, np.zeros((side, side), int), title="Large", walls=values % 7 == 8)
    words, arrows = marks(figures[0].axes[0])
    assert not words and len(arrows) == num_arrows
    assert max(size(path)) < 2600


def test_image_grid_keeps_every_pixel(tmp_path, figures):
    path = tmp_path / "grid.png"
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)
    plots.image_grid(path, images, num_columns=2, min_width=60)
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
    plots.image_grid(path, images, title="Samples", min_width=11)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (60 + 6, 11, 3)
    assert (pixels[61:65, 1:5] == 255).all() and (pixels[61:65, 6:10] == 0).all()


def test_image_grid_refuses_other_shapes(tmp_path):
    for shape in ((4, 4), (0, 4, 4), (2, 4, 4, 2)):
        with pytest.raises(ValueError, match="got the shape"):
            plots.image_grid(tmp_path / "grid.png", np.zeros(shape))


def test_matplotlib_is_imported_when_needed_and_pyplot_never(tmp_path):
    script = """
import sys
from rlgen.lab import plots
assert "matplotlib" not in sys.modules
plots.value_map(sys.argv[1], [[0.0, 1.0]], None, title="")
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "map.png")], check=True)
