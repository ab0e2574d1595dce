"""Statistics: exact small cases, agreement with SciPy, coverage on known distributions."""

import numpy as np
import pytest
from scipy import stats

from rlgen.lab import statistics

NAN, INF = float("nan"), float("inf")


def test_iqm_is_the_mean_of_the_middle_half():
    assert statistics.iqm([100.0, 1.0, 2.0, 3.0, 4.0, -50.0, 7.0, 8.0]) == (2 + 3 + 4 + 7) / 4
    assert statistics.iqm([5.0]) == 5.0
    # Three scores lose none: a quarter of three is no whole score.
    assert statistics.iqm([0.0, 1.0, 5.0]) == 2.0
    # Tasks are pooled.
    assert statistics.iqm([[0.0, 10.0], [1.0, 11.0]]) == 5.5
    assert np.isnan(statistics.iqm([]))


def test_iqm_ranks_what_is_not_finite_as_the_worst():
    scores = [1.0, 2.0, 3.0, NAN]
    assert statistics.iqm(scores) == 1.5
    assert statistics.iqm(scores, higher_is_better=False) == 2.5
    # An infinity of either sign diverged, also where it looks good.
    assert statistics.iqm([1.0, 2.0, 3.0, INF]) == 1.5
    assert statistics.iqm([1.0, 2.0, 3.0, -INF], higher_is_better=False) == 2.5
    assert np.isnan(statistics.iqm([1.0, 2.0, NAN, NAN]))
    assert np.isnan(statistics.iqm([NAN]))


def test_interval_agrees_with_scipy():
    scores = np.random.default_rng(3).normal(10.0, 2.0, 24)
    expected = stats.bootstrap(
        (scores,),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        n_resamples=5000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = statistics.interval(scores, num_resamples=5000)
    np.testing.assert_allclose((low, high), (expected.low, expected.high), atol=0.08)
    assert statistics.interval(scores, num_resamples=5000) == (low, high)


def test_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(40, 400))
    # The IQM of a normal is its mean; each column is one experiment of 40 seeds.
    band = statistics.iqm_curve(draws, num_resamples=500)
    covered = np.mean((band.low <= 0.0) & (band.high >= 0.0))
    assert 0.90 <= covered <= 0.98
    narrow = statistics.iqm_curve(draws, num_resamples=500, confidence=0.5)
    assert 0.40 <= np.mean((narrow.low <= 0.0) & (narrow.high >= 0.0)) <= 0.60


def test_interval_resamples_within_tasks():
    # Two tasks without spread: within them nothing varies, whereas pooled resampling would mix the two.
    scores = np.tile([0.0, 1.0], (8, 1))
    assert statistics.interval(scores) == (0.5, 0.5)
    low, high = statistics.interval(scores.ravel())
    assert low < 0.3 and high > 0.7
    # Tasks are drawn independently: twice the data of one kind narrows the interval.
    once = np.random.default_rng(6).normal(size=(20, 1))
    assert np.ptp(statistics.interval(np.tile(once, 2))) < 0.85 * np.ptp(statistics.interval(once))


def test_interval_of_runs_that_diverged():
    low, high = statistics.interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, NAN, NAN])
    assert np.isnan(low) and 1.0 < high <= 6.0
    low, high = statistics.interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, NAN, NAN], higher_is_better=False)
    assert np.isnan(high) and 1.0 <= low < 6.0
    assert np.isnan(statistics.interval([3.0])).all()


def test_forward_fill_keeps_the_start():
    filled = statistics.forward_fill([[NAN, 1.0, NAN, NAN, 2.0, NAN], [NAN] * 6])
    np.testing.assert_array_equal(filled, [[NAN, 1, 1, 1, 2, 2], [NAN] * 6])


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_iqm_curve_is_iqm_and_interval_of_each_column(higher_is_better):
    curves = np.random.default_rng(2).normal(size=(9, 6))
    curves[:3, 2], curves[0, 3], curves[:6, 4] = INF, -INF, INF
    curve = statistics.iqm_curve(curves, higher_is_better=higher_is_better)
    for column, value, low, high in zip(curves.T, *curve, strict=True):
        np.testing.assert_allclose(statistics.iqm(column, higher_is_better=higher_is_better), value)
        np.testing.assert_allclose(statistics.interval(column, higher_is_better=higher_is_better), (low, high))
    assert np.isnan(curve.value[4])


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_estimates_are_iqm_and_interval_of_each_row(higher_is_better):
    scores = np.random.default_rng(3).normal(size=(6, 9))
    scores[2, :3], scores[3, 0], scores[4] = NAN, -INF, NAN  # a nan takes nothing from the row before
    found = statistics.estimates(scores, higher_is_better=higher_is_better)
    for row, value, low, high in zip(scores, *found, strict=True):
        np.testing.assert_allclose(statistics.iqm(row, higher_is_better=higher_is_better), value)
        np.testing.assert_allclose(statistics.interval(row, higher_is_better=higher_is_better), (low, high))
    assert np.isnan(found.value).tolist() == [False, False, True, False, True, False]


def test_iqm_curve_fills_nan_and_keeps_infinity():
    curves = np.array([[NAN, 1.0, NAN], [NAN, 2.0, -INF], [NAN, 3.0, -INF], [4.0, 8.0, 6.0]])
    # Who has no value yet ranks as the worst.
    np.testing.assert_array_equal(statistics.iqm_curve(curves).value, [NAN, 2.5, NAN])
    np.testing.assert_array_equal(statistics.iqm_curve(curves, higher_is_better=False).value, [NAN, 2.5, NAN])
    np.testing.assert_array_equal(statistics.iqm_curve(curves[[0, 0, 0, 3]]).value, [NAN, 1.0, 1.0])
    alone = statistics.iqm_curve(curves[3:])
    np.testing.assert_array_equal(alone.value, [4.0, 8.0, 6.0])
    assert np.isnan(alone.low).all() and np.isnan(alone.high).all()
    with pytest.raises(ValueError, match=r"\[4\]"):
        statistics.iqm_curve(curves[:, 0])


def test_probability_of_improvement():
    assert statistics.probability_of_improvement([2.0, 3.0], [0.0, 1.0]) == (1.0, 1.0, 1.0)
    assert statistics.probability_of_improvement([2.0, 3.0], [0.0, 1.0], higher_is_better=False).value == 0.0
    assert statistics.probability_of_improvement([1.0, 2.0], [1.0, 2.0]).value == 0.5
    # A run that diverged loses to every finite one and ties with another that did.
    assert statistics.probability_of_improvement([NAN, 5.0], [NAN, -1.0]).value == 0.625
    assert statistics.probability_of_improvement([NAN, 5.0], [NAN, 9.0], higher_is_better=False).value == 0.625
    # Averaged over tasks, runs unequal in number.
    first, second = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert statistics.probability_of_improvement(first, second).value == pytest.approx((1 + 1 / 3) / 2)
    assert np.isnan(statistics.probability_of_improvement([1.0], [0.0, 2.0]).low)
    with pytest.raises(ValueError, match="cannot be compared"):
        statistics.probability_of_improvement(first, second[:, :1])


@pytest.mark.parametrize("num", [25, 30])  # also of equally many runs, each side is resampled on its own
def test_probability_of_improvement_agrees_with_mann_whitney(num):
    generator = np.random.default_rng(5)
    first, second = generator.normal(0.5, 1.0, 30), generator.normal(0.0, 1.0, num)
    estimate = statistics.probability_of_improvement(first, second)
    assert estimate.value == pytest.approx(stats.mannwhitneyu(first, second).statistic / (30 * num))
    expected = stats.bootstrap(
        (first, second),
        lambda x, y, axis: (x[..., :, None] > y[..., None, :]).mean(axis=(-2, -1)),
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(estimate[1:], (expected.low, expected.high), atol=0.02)


def test_performance_profile():
    profile = statistics.performance_profile([1.0, 2.0, 3.0, NAN], [0.0, 1.0, 2.5, 9.0])
    np.testing.assert_allclose(profile.value, [0.75, 0.5, 0.25, 0.0])
    assert (profile.low <= profile.value).all() and (profile.value <= profile.high).all()
    assert profile.low[0] < 0.5 < profile.high[0] and profile.high[3] == 0.0
    below = statistics.performance_profile([1.0, 2.0, 3.0, NAN], [0.0, 1.0, 2.5, 9.0], higher_is_better=False)
    np.testing.assert_allclose(below.value, [0.0, 0.0, 0.5, 0.75])
    # Tasks are strata: where each is certain, so is the profile.
    certain = statistics.performance_profile(np.tile([0.0, 1.0], (6, 1)), [0.5])
    assert (certain.value, certain.low, certain.high) == (0.5, 0.5, 0.5)
    assert np.isnan(statistics.performance_profile([1.0], [0.0]).low).all()
