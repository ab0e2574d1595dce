"""How a grid is laid out in pictures: axis, lines, best points, scale and edge."""

import math

import numpy as np
import pytest

from rlgen.lab import grids

NAN = float("nan")


def product(**axes) -> list[dict[str, float]]:
    """Points of a grid, the last axis fastest."""
    shape = [len(values) for values in axes.values()]
    return [
        {name: values[index] for (name, values), index in zip(axes.items(), where, strict=True)}
        for where in np.ndindex(*shape)
    ]


def test_the_longest_axis_runs_along_and_the_others_make_lines():
    points = product(discount=[0.9, 0.5], rate=[0.4, 0.1, 0.2], fixed=[1.0])
    chart = grids.chart(points, np.zeros(6))
    assert chart is not None
    assert (chart.axis, chart.num_lines, chart.ordered) == ("rate", 2, True)
    assert [line.label for line in chart.lines] == ["discount=0.5", "discount=0.9"]
    assert [line.points.tolist() for line in chart.lines] == [[4, 5, 3], [1, 2, 0]]  # in ascending order of the rate
    assert chart.x.tolist() == [0.4, 0.1, 0.2] * 2


def test_one_axis_is_one_line_and_two_others_have_no_order():
    chart = grids.chart(product(rate=[0.1, 0.2]), [0.0, 1.0])
    assert chart is not None
    assert [line.label for line in chart.lines] == [""] and not chart.ordered
    chart = grids.chart(product(a=[0.0, 1.0], b=[0.0, 1.0], c=[0.0, 1.0, 2.0]), np.zeros(12))
    assert chart is not None
    assert [line.label for line in chart.lines][:2] == ["a=0, b=0", "a=0, b=1"] and not chart.ordered


def test_nothing_that_varies_is_no_chart():
    assert grids.chart(product(rate=[0.1]), [1.0]) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_of_many_lines_those_with_the_best_points_stay(sign):
    points = product(a=list(range(12)), b=list(range(20)))
    iqms = np.full((12, 20), -5.0)
    iqms[3], iqms[7] = NAN, -9.0
    iqms[7, 4], iqms[2] = 1.0, -8.0  # one good point is enough
    chart = grids.chart(points, sign * iqms.ravel(), higher_is_better=sign > 0)
    assert chart is not None
    kept = [line.label for line in chart.lines]
    assert kept == [f"a={index}" for index in range(12) if index not in (2, 3)]
    assert chart.num_lines == 12


def test_the_best_points_come_first_and_the_undefined_ones_last():
    assert grids.best([1.0, NAN, 3.0, 1.0]) == [2, 0, 3, 1]
    assert grids.best([1.0, NAN, 3.0, 1.0], higher_is_better=False) == [0, 3, 2, 1]


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([1e-4, 1e-3, 1e-2], True),
        ([1, 2, 4, 8, 16, 32, 64], True),
        ([0.01, 0.03, 0.1, 0.3], True),
        ([0.01, 1.0], True),
        ([1, 2, 4, 8, 16], False),  # not far enough apart
        (np.arange(1, 51) / 50, False),  # even by difference
        ([0.0, 1e-3, 1e-2, 1e-1], False),
        ([-1.0, 1.0, 100.0], False),
        ([0.5], False),
        ([0.2, math.inf], False),  # no ratio of two
        ([1e-4, 1e-3, 1e-2, math.inf], True),
    ],
)
def test_which_axes_are_logarithmic(values, logarithmic):
    assert grids.is_logarithmic(values) is logarithmic
    assert grids.is_logarithmic(list(values)[::-1]) is logarithmic


def test_a_few_bad_points_are_cut_off():
    scores = np.append(np.linspace(0.0, 1.0, 9), [1e6, NAN])
    assert grids.limit(scores, higher_is_better=False) == pytest.approx(4 * np.median(scores[:10]))
    assert grids.limit(-scores) == pytest.approx(-4 * np.median(scores[:10]))
    assert grids.limit(scores[:9], higher_is_better=False) is None  # nothing lies far out
    assert grids.limit([0.0] * 9 + [1e6], higher_is_better=False) is None  # no measure of what is far
    assert grids.limit([NAN]) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1e-3, "0.001"),
        (0.30000000000000004, "0.3"),
        (1.0000002e-3, "0.0010000002"),
        (1 / 3, "0.33333333"),
        (1e6, "1e+06"),
        (16777215.0, "16777215"),
        (1e300, "1e+300"),
    ],
)
def test_a_label_has_the_digits_that_tell_a_float32(value, words):
    assert grids.label({"rate": value, "fixed": None, "count": 3}) == f"rate={words}, fixed=None, count=3"
    assert grids.label({}) == ""


def test_neighbours_have_labels_of_their_own():
    values = np.float32(1e-3) + np.spacing(np.float32(1e-3)) * np.arange(100)
    assert len({grids.label({"rate": float(value)}) for value in values}) == 100
    chart = grids.chart(product(rate=[0.1, 0.2, 0.3], discount=[0.99, 0.9900001]), np.zeros(6))
    assert chart is not None and [line.label for line in chart.lines] == ["discount=0.99", "discount=0.9900001"]
