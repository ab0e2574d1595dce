"""Pictures: right sizes, right marks, readable ticks, and no trace in pyplot's state."""

import subprocess
import sys
import time

import numpy as np
import pytest

from rlgen.lab import canvas, grids, plots, statistics

X = np.arange(1, 11) * 50_000
CURVES = np.random.default_rng(0).normal(100.0, 5.0, (6, 10))
TARGET = plots.Target(105.0, "a paper of long ago")


def test_learning_curves_draw_the_iqm_and_its_band(tmp_path, figures, size):
    path = tmp_path / "curves.png"
    labels = {"ylabel": "episode return", "title": "A title " * 20}
    curves = {f"learning_rate={index}": CURVES + index for index in range(12)}
    plots.learning_curves(path, X, curves, **labels, target=TARGET)
    (figure,) = figures
    (axes,) = figure.axes
    width, height = size(path)
    assert width == round(7.2 * canvas.DPI) and height == round(figure.get_figheight() * canvas.DPI)
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
    extent = figure.get_tightbbox().extents * canvas.DPI
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


def test_response_draws_a_line_for_each_value_of_the_other_axis(tmp_path, figures, size):
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
    extent = figure.get_tightbbox().extents * canvas.DPI
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


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_far_out_moves_neither_edge(tmp_path, figures, sign):
    scores = sign * np.append(np.linspace(0.2, 1.0, 12), [1e13, 1e14])
    chart, estimates = chart_of(14, 1, np.repeat(scores[:, None], 3, 1), higher_is_better=sign < 0)
    plots.response(tmp_path / "response.png", chart, estimates, ylabel="", title="", higher_is_better=sign < 0)
    low, high = sorted(sign * edge for edge in figures[0].axes[0].get_ylim())
    assert -1.0 < low < 0.2 and 1.0 < high < 10.0


def test_a_large_response_is_drawn_soon(tmp_path, figures):
    begun = time.perf_counter()
    chart, estimates = chart_of(40, 25, np.random.default_rng(1).normal(size=(1000, 100)))
    plots.response(tmp_path / "response.png", chart, estimates, ylabel="", title="Row")
    assert time.perf_counter() - begun < 60


def test_variants_are_rows_beside_what_they_are_compared_with(tmp_path, figures, size):
    scores = np.random.default_rng(2).normal(100.0, 10.0, (2, 3, 8))
    scores[1, 2, 0] = np.nan
    labels = ["all of it", "a part less", "another part with a long name less"]
    panels = {name: dict(zip(labels, rows, strict=True)) for name, rows in zip(("One", "Two"), scores, strict=True)}
    plots.variants(tmp_path / "variants.png", panels, xlabel="return", title="Parts")
    (figure,) = figures
    for axes, name, rows in zip(figure.axes, panels, scores, strict=True):
        assert axes.get_title() == name
        dashed, *_ = axes.lines
        assert list(dashed.get_xdata()) == [statistics.iqm(rows[0])] * 2
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_markersize() == 9]
        np.testing.assert_allclose(marks, [statistics.iqm(row) for row in rows])
    assert "1 of 8 diverged" in figure.axes[1].get_yticklabels()[2].get_text()
    assert [mark.get_text() for mark in figure.axes[0].texts] == labels and not figure.axes[1].texts
    extent = figure.get_tightbbox().extents * canvas.DPI
    width, height = size(tmp_path / "variants.png")
    assert extent[0] >= -1 and extent[1] >= -1 and extent[2] <= width + 1 and extent[3] <= height + 1


def test_comparison_draws_curves_and_final_scores(tmp_path, figures, size):
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


def test_profile(tmp_path, figures, size):
    path = tmp_path / "profile.png"
    scores = {"first": CURVES[:, 0], "second": [np.nan, 100.0, 101.0]}
    plots.profile(path, scores, xlabel="episode return", title="Profiles")
    first, second = figures[0].axes[0].lines
    assert first.get_ydata()[0] == 1.0 and first.get_ydata()[-1] == 0.0
    assert second.get_ydata()[0] == pytest.approx(2 / 3)
    assert size(path)[0] == 1080
    plots.profile(tmp_path / "lost.png", {"lost": [np.nan, np.nan]}, xlabel="loss", title="", higher_is_better=False)
    assert (figures[1].axes[0].lines[0].get_ydata() == 0.0).all()


def test_matplotlib_is_imported_when_needed_and_pyplot_never(tmp_path):
    script = """
import sys
from rlgen.lab import heatmaps, plots, sheets
assert "matplotlib" not in sys.modules
heatmaps.value_map(sys.argv[1], [[0.0, 1.0]], None, title="")
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "map.png")], check=True)
