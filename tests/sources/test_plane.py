"""Distributions over the plane: their support, their modes and their noise; and the source that draws from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Policy
from rlgen.experiments import planes
from rlgen.sources import plane

DRAWS = (
    plane.moons,
    plane.circles,
    plane.eight_gaussians,
    plane.twenty_five_gaussians,
    plane.pinwheel,
    plane.checkerboard,
)
NUM = 20_000


@pytest.fixture(scope="module")
def points():
    """By distribution, `[NUM, 2]`, all compiled at once."""
    drawn = jax.jit(lambda key: [draw(key, (NUM // 10, 10)) for draw in DRAWS])(jax.random.key(0))
    return {draw: np.asarray(each, np.float64).reshape(NUM, 2) for draw, each in zip(DRAWS, drawn, strict=True)}


def is_normal(values, std):
    """Whether numbers have zero mean and this standard deviation, within five standard errors."""
    error = 5 * std / np.sqrt(len(values))
    return abs(values.mean()) < error and abs(values.std() - std) < error


def test_moons_lie_about_two_half_circles(points):
    x, y = points[plane.moons].T
    away = np.stack([np.hypot(x, y) - 1, np.hypot(x - 1, y - 0.5) - 1])
    # The ends, where noise leaves the half circles, are left out.
    upper = (y > 0.8) & (np.abs(x) < 0.5)
    lower = (y < -0.3) & (np.abs(x - 1) < 0.5)
    assert is_normal(away[0, upper] - 0.05**2 / 2, 0.05)
    assert is_normal(away[1, lower] - 0.05**2 / 2, 0.05)
    assert abs(np.mean(upper) - np.mean(lower)) < 0.02
    np.testing.assert_allclose([x.mean(), y.mean()], [0.5, 0.25], atol=0.03)
    assert (np.abs(away).min(0) < 0.3).all()


def test_circles_have_two_radii_and_all_angles(points):
    radius = np.hypot(*points[plane.circles].T)
    for mean in (1.0, 0.5):
        near = radius[np.abs(radius - mean) < 0.25]
        assert abs(len(near) / NUM - 0.5) < 0.02
        assert is_normal(near - mean - 0.05**2 / 2 / mean, 0.05)
    np.testing.assert_allclose(points[plane.circles].mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(points[plane.circles].T), (0.625 / 2 + 0.05**2) * np.eye(2), atol=0.02)


@pytest.mark.parametrize(
    ("draw", "num_modes", "std"),
    [(plane.eight_gaussians, 8, 0.5 / np.sqrt(2)), (plane.twenty_five_gaussians, 25, 0.05)],
)
def test_gaussians_have_equally_many_points(points, draw, num_modes, std):
    angle = np.arange(8) * np.pi / 4
    grid = np.stack(np.meshgrid(np.arange(-4, 5, 2), np.arange(-4, 5, 2)), axis=-1).reshape(-1, 2)
    ring = 4 / np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    away = points[draw][:, None] - (ring if num_modes == 8 else grid)
    nearest = np.square(away).sum(-1).argmin(-1)
    counts = np.bincount(nearest, minlength=num_modes)
    np.testing.assert_allclose(counts, NUM / num_modes, atol=5 * np.sqrt(NUM / num_modes))
    if num_modes == 25:  # eight wide ones overlap
        assert is_normal(away[np.arange(NUM), nearest].ravel(), std)
    else:
        np.testing.assert_allclose(np.cov(points[draw].T), (4 + std**2) * np.eye(2), atol=0.15)


def test_the_pinwheel_straightens_into_five_arms(points):
    x, y = points[plane.pinwheel].T / 2
    radius, angle = np.hypot(x, y), -np.arctan2(y, x)  # arms bend clockwise
    far = radius > 1
    turn = (angle[far] - 0.25 * np.exp(np.sqrt(radius[far] ** 2 - 0.1**2))) / (2 * np.pi / 5)
    off = (turn - np.round(turn)) * (2 * np.pi / 5) * radius[far]
    assert abs(off.mean()) < 0.02
    assert abs(off.std() - 0.1) < 0.01
    counts = np.bincount(np.round(turn).astype(int) % 5)
    np.testing.assert_allclose(counts, far.sum() / 5, rtol=0.08)
    np.testing.assert_allclose(np.sqrt(np.mean(radius**2)), np.sqrt(1 + 0.3**2 + 0.1**2), rtol=0.01)


def test_the_checkerboard_fills_every_second_square(points):
    assert np.abs(points[plane.checkerboard]).max() <= 4
    column, row = np.floor((points[plane.checkerboard] + 4) / 2).astype(int).T
    assert ((column + row) % 2 == 0).all()
    np.testing.assert_allclose(np.bincount(4 * column + row).clip(1)[[0, 2, 5, 7, 8, 10, 13, 15]], NUM / 8, rtol=0.1)


def test_a_source_draws_anew_and_never_what_is_held_out():
    source = plane.build(plane.moons, batch_size=6, num_batches=2)
    policy = Policy(lambda batch_shape: (), lambda key, inputs, memory: (inputs, {}, memory))
    state = source.init(jax.random.key(0), policy)
    batches = [source.next(jax.random.key(seed), jnp.int32(0), state, policy)[1] for seed in (1, 1, 2)]
    assert batches[0].shape == (2, 6, 2)
    np.testing.assert_array_equal(batches[0], batches[1])
    assert not np.isin(batches[0], batches[2]).any()
    task = planes.PlaneTask(plane.moons, num_held_out=50)
    held_out = task.held_out
    np.testing.assert_array_equal(held_out, task.held_out)
    assert held_out.shape == (50, 2)
    assert not np.isin(held_out, np.stack(batches)).any()
