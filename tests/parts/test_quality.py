"""Measures of quality: closed forms, cases by hand, and what samples of one distribution show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial

from rlgen.parts import quality

neighbour_accuracy, frechet_distance = jax.jit(quality.neighbour_accuracy), jax.jit(quality.frechet_distance)


def covariance(generator, size):
    root = generator.standard_normal((size, size), np.float32)
    return root @ root.T


def test_frechet_distance_of_normals_on_a_line():
    one, other = (quality.Moments(jnp.array([mean]), jnp.array([[std**2]])) for mean, std in ((1.0, 2.0), (4.0, 0.5)))
    np.testing.assert_allclose(frechet_distance(one, other), 3**2 + 1.5**2, rtol=1e-6)


def test_frechet_distance_equals_that_of_a_matrix_root():
    generator = np.random.default_rng(0)
    one, other = (quality.Moments(generator.standard_normal(5, np.float32), covariance(generator, 5)) for _ in range(2))
    root = scipy.linalg.sqrtm(np.asarray(one.covariance, np.float64) @ np.asarray(other.covariance, np.float64))
    expected = np.square(one.mean - other.mean).sum() + np.trace(one.covariance + other.covariance - 2 * root.real)
    np.testing.assert_allclose(frechet_distance(one, other), expected, rtol=1e-4)
    np.testing.assert_allclose(frechet_distance(other, one), expected, rtol=1e-4)
    np.testing.assert_allclose(frechet_distance(one, one), 0, atol=1e-3)


def test_frechet_distance_keeps_its_digits_where_features_outnumber_examples():
    generator = np.random.default_rng(1)
    one, other = (quality.moments(generator.standard_normal((12, 40), np.float32)) for _ in range(2))
    np.testing.assert_allclose(frechet_distance(one, one), 0, atol=1e-4)
    np.testing.assert_allclose(frechet_distance(one, other), frechet_distance(other, one), rtol=1e-5)


def test_frechet_distance_bears_dead_features():
    one = quality.Moments(jnp.zeros(3), jnp.diag(jnp.array([1.0, 0.0, 0.0])))
    other = quality.Moments(jnp.zeros(3), jnp.diag(jnp.array([4.0, 9.0, 0.0])))
    np.testing.assert_allclose(frechet_distance(one, other), 1 + 9, rtol=1e-5)


def test_moments_are_those_of_numpy():
    features = jax.random.normal(jax.random.key(0), (7, 3)) + 5
    mean, spread = quality.moments(features)
    np.testing.assert_allclose(mean, np.mean(features, axis=0), rtol=1e-6)
    np.testing.assert_allclose(spread, np.cov(features, rowvar=False), rtol=1e-4, atol=1e-5)


def test_kernel_distance_by_hand():
    one, other = jnp.array([[1.0], [2.0], [-1.0]]), jnp.array([[0.0], [3.0]])
    pairs = np.mean([(1 * 2 + 1) ** 3, (1 * -1 + 1) ** 3, (2 * -1 + 1) ** 3])
    between = np.mean([(x * y + 1) ** 3 for x in (1, 2, -1) for y in (0, 3)])
    np.testing.assert_allclose(jax.jit(quality.kernel_distance)(one, other), pairs + 1 - 2 * between, rtol=1e-5)


def test_kernel_distance_of_one_distribution_has_no_bias():
    """Small samples, where a biased estimate would be far above zero."""

    def estimate(key):
        return quality.kernel_distance(*jax.random.normal(key, (2, 6, 4)))

    estimates = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 4000)))
    assert abs(estimates.mean()) < 4 * estimates.std() / np.sqrt(4000)
    assert (estimates < 0).any()
    assert estimates.std() < 4
    shifted = jax.vmap(lambda key: quality.kernel_distance(*(jax.random.normal(key, (2, 6, 4)).at[0].add(1.0))))
    assert jax.jit(shifted)(jax.random.split(jax.random.key(0), 400)).mean() > 1


def test_coverage_by_hand():
    centres = jnp.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    examples = jnp.array([[0.29, 0.0], [0.2, 0.2], [0.25, 0.25], [2.0, -0.29], [1.0, 1.0]])
    covered = quality.coverage(examples, centres, 0.1)
    # √2 · 0.2 is within 0.3, √2 · 0.25 is not.
    assert covered.num_modes == 2
    np.testing.assert_allclose(covered.share, 3 / 5)
    wide = quality.coverage(examples, centres, 0.1, num_stds=4.0)
    np.testing.assert_allclose(wide, (2, 4 / 5))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_nearest_neighbour_tells_apart_what_differs(offset):
    one, other = np.random.default_rng(0).standard_normal((2, 400, 3), np.float32) + np.float32(offset)
    assert abs(neighbour_accuracy(one, other) - 0.5) < 0.06
    np.testing.assert_allclose(neighbour_accuracy(one, other + 30), 1.0)
    # Whoever repeats the other is its nearest neighbour.
    assert neighbour_accuracy(one, one + 1e-3) < 0.05
    other[3, 0] = np.nan
    assert np.isnan(neighbour_accuracy(one, other))


def test_the_nearest_neighbour_is_that_of_scipy():
    one, other = (np.random.default_rng(seed).standard_normal((40, 2), np.float32) + seed for seed in range(2))
    points, labels = np.concatenate([one, other]), np.repeat([0, 1], 40)
    _, nearest = scipy.spatial.cKDTree(points).query(points, 2)
    expected = (labels[nearest[:, 1]] == labels).mean()
    np.testing.assert_allclose(neighbour_accuracy(one, other), expected, rtol=1e-6)
