"""Distributions of the return: what projections keep, losses against rlax, and a chain whose returns are Gaussian."""

import functools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
import scipy.special
import scipy.stats

from rlgen.parts import distributional

ATOMS = distributional.support(-2.0, 3.0, 11)
project = jax.jit(distributional.project)
rlax_project = jax.jit(jax.vmap(rlax.categorical_l2_project, in_axes=(0, 0, None)))


def test_supports_and_fractions_by_hand():
    np.testing.assert_allclose(distributional.support(-1.0, 1.0, 5), [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(distributional.midpoints(4), [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, {5: 1}), (0.625, {5: 0.75, 6: 0.25}), (9.0, {10: 1}), (-9.0, {0: 1})],
)
def test_projection_by_hand(value, expected):
    moved = project(np.float32([value]), np.ones(1, np.float32), ATOMS)
    np.testing.assert_allclose(moved, [expected.get(index, 0) for index in range(11)], atol=1e-6)


def test_both_ways_to_project_agree():
    place, mass = np.random.default_rng(0).random((2, 2, 3, 7), np.float32)
    place = 10 * place
    place[0, 0, :3] = 0.0, 10.0, 4.0
    ways = (
        jax.jit(functools.partial(way, num=11))(place, mass) for way in (distributional._write, distributional._weigh)
    )
    np.testing.assert_allclose(*ways, atol=1e-6)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    hnp.arrays(np.float32, (3, 7), elements=st.floats(-2, 3, width=32)),
    hnp.arrays(np.float32, (3, 7), elements=st.floats(0.125, 1, width=32)),
)
def test_projection_keeps_mass_and_mean_and_agrees_with_rlax(returns, mass):
    mass = mass / mass.sum(-1, keepdims=True)
    moved = np.asarray(project(returns, mass, ATOMS))
    np.testing.assert_allclose(moved.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(moved @ ATOMS, (returns * mass).sum(-1), atol=1e-5)
    order = np.argsort(returns, axis=-1)  # as rlax wants its atoms
    returns, mass = (np.take_along_axis(each, order, -1) for each in (returns, mass))
    distinct = np.diff(returns, axis=-1).min(-1) > 1e-3
    theirs = np.asarray(rlax_project(returns, mass, ATOMS))
    np.testing.assert_allclose(moved[distinct], theirs[distinct], atol=1e-5)


def test_divergence_has_the_gradient_of_the_cross_entropy_and_ends_at_zero():
    logits = np.random.default_rng(0).standard_normal((4, 11), np.float32)
    target = np.asarray(project(np.float32([[0.1], [0.5], [2.9], [-2.0]]), np.ones((4, 1), np.float32), ATOMS))
    probability = scipy.special.softmax(logits, axis=-1)

    @jax.jit
    def slopes(logits):
        ours = jax.grad(lambda logits: distributional.divergence(logits, target).sum())(logits)
        return ours, jax.grad(lambda logits: optax.softmax_cross_entropy(logits, target).sum())(logits)

    np.testing.assert_allclose(*slopes(logits), atol=1e-6)
    divergence = jax.jit(distributional.divergence)
    expected = [scipy.stats.entropy(t, p) for t, p in zip(target, probability, strict=True)]
    np.testing.assert_allclose(divergence(logits, target), expected, rtol=1e-4)
    np.testing.assert_allclose(divergence(logits, probability), 0.0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_quantile_regression_agrees_with_rlax(threshold):
    generator = np.random.default_rng(0)
    quantiles, targets = (generator.standard_normal(shape, np.float32) for shape in ((5, 4), (5, 6)))
    fractions = generator.random((5, 4), np.float32)

    @jax.jit
    def both():
        theirs = jax.vmap(rlax.quantile_regression_loss, in_axes=(0, 0, 0, None))
        ours = distributional.quantile_regression(quantiles, fractions, targets, threshold=threshold)
        return ours, theirs(quantiles, fractions, targets, threshold)

    np.testing.assert_allclose(*both(), rtol=1e-5)


def test_a_threshold_bounds_the_slope():
    def loss(quantile, threshold):
        return distributional.quantile_regression(quantile, jnp.ones(1), jnp.array([8.0]), threshold=threshold)

    def slope(threshold):
        return float(jax.jit(jax.grad(loss), static_argnums=1)(np.zeros(1, np.float32), threshold)[0])

    assert [slope(threshold) for threshold in (0.0, 0.5, 4.0, 16.0)] == pytest.approx([-1, -1, -1, -0.5])


def chain(kind, num=32, length=3, discount=0.9):
    """Learns the returns of a chain by descent on its losses, each situation from the next: `[length, num]`.

    A step earns 1 on the average with a deviation of 1, so that the return from `k` steps before the end is Gaussian,
    with mean `Σ γ^i` and variance `Σ γ^2i`.
    """
    rewards = jnp.asarray(1 + scipy.stats.norm.ppf((np.arange(64) + 0.5) / 64), jnp.float32)
    atoms = distributional.support(-6.0, 10.0, num)

    def returns(predicted, onward):
        """All rewards with all next returns, `[64 * L]`, and their probabilities."""
        if onward is None:
            return rewards, jnp.full(64, 1 / 64)
        following, mass = (atoms, jax.nn.softmax(onward)) if kind == "categorical" else (onward, jnp.full(num, 1 / num))
        sums = rewards[:, None] + discount * following
        return sums.ravel(), jnp.broadcast_to(mass / 64, sums.shape).ravel()

    def loss(predicted):
        total = 0.0
        for k in range(length):
            onward = jax.lax.stop_gradient(predicted[k - 1]) if k else None
            target, mass = returns(predicted, onward)
            if kind == "categorical":
                total += distributional.divergence(predicted[k], distributional.project(target, mass, atoms))
            else:
                fractions = distributional.midpoints(num)
                total += distributional.quantile_regression(predicted[k], fractions, target, threshold=0.0)
        return total

    @jax.jit
    def learned(start):
        def body(carry, step):
            predicted, momentum = carry
            momentum = 0.9 * momentum + jax.grad(loss)(predicted)
            return (predicted - rate(step) * momentum, momentum), None

        rate = (lambda step: 2.0) if kind == "categorical" else (lambda step: 0.3 * 0.997**step)
        return jax.lax.scan(body, (start, jnp.zeros_like(start)), jnp.arange(2000))[0][0]

    return learned(jnp.zeros((length, num))), atoms


@pytest.mark.parametrize("kind", ["categorical", "quantile"])
def test_a_chain_of_gaussian_rewards(kind):
    predicted, atoms = chain(kind)
    for k, numbers in enumerate(predicted):
        powers = 0.9 ** np.arange(k + 1)
        centre, deviation = powers.sum(), np.sqrt((powers**2).sum())
        value = distributional.mean(numbers, atoms if kind == "categorical" else None)
        np.testing.assert_allclose(value, centre, atol=0.05)
        if kind == "quantile":
            exact = scipy.stats.norm.ppf(distributional.midpoints(32), centre, deviation)
            np.testing.assert_allclose(numbers[2:-2], exact[2:-2], atol=0.15)
        else:  # every projection adds at most a quarter of the square of the gap
            variance = jax.nn.softmax(numbers) @ (atoms - value) ** 2
            gap = 16 / 31
            assert deviation**2 - 0.05 < variance < deviation**2 + (k + 1) * gap**2 / 4 + 0.05


def test_returns_are_sorted_as_numpy_sorts_them():
    returns = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    returns[0, :6] = [0.0, -0.0, np.inf, -np.inf, 1e-42, -1e-42]
    np.testing.assert_array_equal(distributional.ascending(returns), np.sort(returns, axis=-1))


def test_a_truncated_pool_holds_the_smallest_of_all_critics_together():
    quantiles = jnp.array([[[1.0, 9.0, 4.0]], [[2.0, 3.0, 8.0]]])  # two critics of one example
    np.testing.assert_array_equal(distributional.truncated(quantiles, 1), [[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(distributional.truncated(quantiles, 2), [[1.0, 2.0]])
