"""Natural gradients: products against the matrix itself, directions against a dense solve, and searches by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from rlgen.parts import distributions, natural

INPUTS = jax.random.normal(jax.random.key(0), (12, 3))


def logits_of(params, inputs):
    return jnp.tanh(inputs @ params["hidden"]) @ params["head"]


def model(params, inputs, kind):
    """A small network over four classes, or over two numbers whose deviations are parameters."""
    outputs = logits_of(params, inputs)
    return distributions.categorical(outputs) if kind == "classes" else distributions.normal(outputs, params["log_std"])


def parameters(kind):
    keys = jax.random.split(jax.random.key(1), 3)
    params = {"hidden": jax.random.normal(keys[0], (3, 4)), "head": jax.random.normal(keys[1], (4, 4))}
    if kind == "numbers":
        params = {**params, "head": params["head"][:, :2], "log_std": 0.3 * jax.random.normal(keys[2], (2,))}
    return params


def fisher_by_scores(params, kind):
    """`E[∇ log p ∇ log pᵀ]`, over classes by enumeration, over numbers from the closed form of their statistics."""
    flat, unravel = ravel_pytree(params)
    if kind == "classes":

        def log_probs(flat):
            return jax.nn.log_softmax(logits_of(unravel(flat), INPUTS))

        scores, weights = jax.jacobian(log_probs)(flat), jnp.exp(log_probs(flat))
        return jnp.einsum("na,nap,naq->pq", weights, scores, scores) / len(INPUTS)

    def statistics(flat):
        params = unravel(flat)
        return logits_of(params, INPUTS), jnp.broadcast_to(params["log_std"], (len(INPUTS), 2))

    mean, log_std = jax.jacobian(statistics)(flat)
    # Of a normal: 1 / σ² for its mean and 2 for the logarithm of its deviation.
    mean = mean / jnp.exp(params["log_std"])[:, None]
    return (jnp.einsum("ndp,ndq->pq", mean, mean) + 2 * jnp.einsum("ndp,ndq->pq", log_std, log_std)) / len(INPUTS)


@functools.cache
def problem(kind):
    """The Fisher matrix, and products with the columns of the unit matrix."""
    params = parameters(kind)
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def both():
        def divergence(other):
            return model(params, INPUTS, kind).kl_divergence(model(other, INPUTS, kind)).mean()

        product = natural.fisher_product(divergence, params)
        columns = jax.vmap(lambda vector: ravel_pytree(product(unravel(vector)))[0])(jnp.eye(flat.size))
        return fisher_by_scores(params, kind), columns

    return *both(), unravel


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_products_are_those_of_the_fisher_matrix(kind):
    fisher, columns, _ = problem(kind)
    np.testing.assert_allclose(columns, fisher, rtol=1e-4, atol=1e-5)
    assert np.abs(fisher).max() > 0.1


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_direction_is_the_dense_solution(kind):
    fisher, _, unravel = problem(kind)
    gradient = jax.random.normal(jax.random.key(2), fisher.shape[:1])

    @functools.partial(jax.jit, static_argnums=1)
    def solve(damping, num_iterations):
        def product(tree):
            return unravel(fisher @ ravel_pytree(tree)[0])

        return ravel_pytree(natural.natural_direction(product, unravel(gradient), damping, num_iterations))[0]

    for damping in (0.1, 1.0):
        expected = np.linalg.solve(fisher + damping * np.eye(len(fisher)), gradient)
        np.testing.assert_allclose(solve(damping, 60), expected, rtol=1e-3, atol=1e-3)
    # One iteration is steepest descent with the exact step; it is far from the solution.
    damped = np.asarray(fisher) + np.eye(len(fisher))
    first = gradient * (gradient @ gradient) / (gradient @ damped @ gradient)
    np.testing.assert_allclose(solve(1.0, 1), first, rtol=1e-4)
    assert np.abs(first - expected).max() > 0.05


@pytest.mark.parametrize("num_iterations", [1, 3, 60])
def test_step_ends_where_the_quadratic_model_of_the_divergence_is_max_kl(num_iterations):
    fisher, *_ = problem("classes")
    gradient = jax.random.normal(jax.random.key(3), fisher.shape[:1])

    @jax.jit
    def step_of(gradient):
        direction = natural.natural_direction(lambda vector: fisher @ vector, gradient, 0.1, num_iterations)
        return natural.trust_region_step(gradient, direction, 0.02)

    step = step_of(gradient)
    np.testing.assert_allclose(0.5 * step @ (fisher + 0.1 * jnp.eye(len(fisher))) @ step, 0.02, rtol=1e-3)
    assert step @ gradient > 0
    np.testing.assert_allclose(step_of(3.0 * gradient), step, rtol=1e-3, atol=1e-5)  # whatever the gradient's length
    np.testing.assert_array_equal(step_of(jnp.zeros_like(gradient)), 0)


@functools.partial(jax.jit, static_argnums=2)
def search(limit, shrink, num_attempts):
    """Accepts scales below the limit."""
    return natural.backtrack(lambda scale: (scale <= limit, {"twice": 2 * scale}), shrink, num_attempts)


@pytest.mark.parametrize(
    ("limit", "num_attempts", "expected"),
    [(1.0, 3, 1.0), (0.9, 3, 0.5), (0.3, 3, 0.25), (0.2, 3, 0.0), (0.2, 4, 0.125), (np.nan, 3, 0.0)],
)
def test_search_keeps_the_first_acceptable_scale(limit, num_attempts, expected):
    scale, facts = search(limit, 0.5, num_attempts)
    assert (float(scale), float(facts["twice"])) == (expected, 2 * expected)


def test_lanes_search_for_themselves():
    limits = jnp.array([1.0, 0.3, 0.0, 0.6])
    scales, facts = jax.jit(jax.vmap(lambda limit: search(limit, 0.5, 3)))(limits)
    np.testing.assert_array_equal(scales, [1.0, 0.25, 0.0, 0.5])
    np.testing.assert_array_equal(facts["twice"], 2 * scales)
