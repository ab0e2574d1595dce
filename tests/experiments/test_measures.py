"""Measures of samples: what data itself scores, what worse samples do, and that pieces are drawn apart."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import NOTHING
from rlgen.experiments import judges, measures
from rlgen.experiments.pictures import Data
from rlgen.experiments.rows import adversaries, flows
from rlgen.sources import plane

MIXTURES = {
    "grid": (plane.twenty_five_gaussians, adversaries.on_grid("grid", hypers=None).task.measure, 25),
    "ring": (plane.eight_gaussians, adversaries.on_ring("ring", hypers=None).task.measure, 8),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_itself_reaches_all_its_modes(name):
    draw, measure, num_modes = MIXTURES[name]

    def sample(key, num):
        return draw(key, (num,))

    def half(key, num):
        points = sample(key, num)
        return jnp.where(points[:, :1] > 0, points, -points)

    counted = functools.partial(measures.num_modes, centres=measure.keywords["centres"], std=measure.keywords["std"])
    key = jax.random.key(0)
    share, none, modes, fewer = jax.jit(
        lambda key: jnp.stack([each(key, drawn, ()) for each in (measure, counted) for drawn in (sample, half)])
    )(key)
    # The share of a normal in a plane that is nearer than three standard deviations.
    np.testing.assert_allclose(share, 1 - math.exp(-4.5), atol=0.01)
    assert none == 0
    assert modes == num_modes
    assert num_modes / 2 <= fewer < num_modes


@pytest.mark.parametrize("num", [7, 500, 700, 1500])
def test_pieces_are_drawn_apart(num):
    drawn = np.asarray(measures.draw(jax.random.key(0), lambda key, num: jax.random.normal(key, (num, 2)), num))
    assert drawn.shape == (num, 2)
    assert len(np.unique(drawn[:, 0])) == num


@pytest.fixture(scope="module")
def data():
    train, test = jax.random.bits(jax.random.key(0), (2, 40, 28, 28, 1), "uint8") // jnp.uint8(2)
    return Data(train, test, judges.random_params("mnist"))


MEASURES = {
    "Fréchet": functools.partial(measures.frechet_distance, judge="mnist", num=40),
    "kernel of all": functools.partial(measures.kernel_distance, judge="mnist", num=40),
    "kernel": functools.partial(measures.kernel_distance, judge="mnist", num=40, size=20),
    "neighbour": functools.partial(measures.neighbour_accuracy, num=40, pool=4),
}


@pytest.mark.parametrize("name", MEASURES)
def test_images_like_the_data_score_better_than_others(name, data):
    @jax.jit
    def both(data):
        scores = [
            MEASURES[name](jax.random.key(1), lambda key, num, images=images: images[:num], data)
            for images in (data.train, data.train + jnp.uint8(100))
        ]
        return jnp.stack(scores)

    alike, other = both(data)
    assert jnp.isfinite(alike)
    assert alike < 0.75 * other
    if name == "neighbour":
        assert abs(alike - 0.5) < 0.2
        assert other == 1


@pytest.mark.parametrize(("name", "num"), [("kernel", 40), ("neighbour", 20)])
def test_data_that_comes_in_order_is_taken_at_random(name, num, data):
    """Datasets come by class or by writer, of which a part is no sample of the whole."""
    shade = jnp.uint8(6) * jnp.arange(40, dtype=jnp.uint8)[:, None, None, None]
    train, test = (part // jnp.uint8(64) + shade for part in (data.train, data.test))
    shuffled = jax.random.permutation(jax.random.key(2), train)
    measure = functools.partial(MEASURES[name], num=num)

    @jax.jit
    def scores(data):
        samples = shuffled, jnp.concatenate([train[:20]] * 2)
        return [measure(jax.random.key(1), lambda key, num, of=of: of[:num], data) for of in samples]

    all_shades, dark_ones = scores(data._replace(test=test))
    assert all_shades < (0.2 if name == "kernel" else 0.8) * dark_ones


def test_the_neighbour_compares_means_of_squares():
    """A chessboard and its negative are alike in squares of two by two."""
    board = 255 * (jnp.indices((4, 4)).sum(0) % 2).astype(jnp.uint8)[..., None]
    shades = jnp.arange(20, dtype=jnp.uint8)[:, None, None, None]
    data = Data((), jnp.tile(board, (20, 1, 1, 1)) // 2 + 5 * shades)
    negative = (255 - jnp.tile(board, (20, 1, 1, 1))) // 2 + 5 * shades

    def accuracy(pool):
        return measures.neighbour_accuracy(jax.random.key(0), lambda key, num: negative[:num], data, num=20, pool=pool)

    assert accuracy(1) == 1
    assert accuracy(2) < 0.5


def test_the_neighbour_tells_points_apart_where_they_lie_apart():
    task = next(row.task for row in flows.ROWS if row.name.endswith("circles-spline-samples"))
    held_out = Data((), task.held_out)

    def accuracy(moved):
        return task.measure(jax.random.key(0), lambda key, num: task.draw(key, (num,)) + moved, held_out)

    assert abs(accuracy(0.0) - 0.5) < 0.03
    assert accuracy(0.2) > 0.6


def test_rows_of_images_measure_samples_without_an_input():
    for row in adversaries.ROWS:
        assert row.task.spec.observation == NOTHING
        assert row.task.measure is not None
