"""Batch renormalisation: its formulas by NumPy, and what it reduces to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.parts import renorm

close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
INPUTS = np.random.default_rng(0).normal(2.0, 3.0, (16, 2)).astype(np.float32)
SCALE, BIAS = np.array([2.0, 0.5], np.float32), np.array([1.0, -1.0], np.float32)


def variables(mean, var, count):
    statistics = {
        "mean": jnp.array(mean, jnp.float32),
        "var": jnp.array(var, jnp.float32),
        "count": jnp.float32(count),
    }
    return {"params": {"scale": SCALE, "bias": BIAS}, renorm.STATISTICS: statistics}


def run(module, state, inputs=INPUTS, *, train=True):
    outputs, after = module.apply(state, inputs, train=train, mutable=[renorm.STATISTICS])
    return np.asarray(outputs), after[renorm.STATISTICS]


def test_at_first_it_is_batch_normalisation():
    module = renorm.BatchRenorm(warm_up=5)
    outputs, _ = run(module, variables([9, 9], [4, 4], 4))
    expected = (INPUTS - INPUTS.mean(0)) / np.sqrt(INPUTS.var(0) + 1e-3) * SCALE + BIAS
    close(outputs, expected)


def test_later_it_is_what_is_used_while_corrections_are_free():
    module = renorm.BatchRenorm(warm_up=5, max_ratio=1e6, max_shift=1e6)
    state = variables([1.0, 3.0], [2.0, 8.0], 5)
    outputs, _ = run(module, state)
    close(outputs, run(module, state, train=False)[0], rtol=1e-4)
    expected = (INPUTS - np.array([1.0, 3.0])) / np.sqrt(np.array([2.0, 8.0]) + 1e-3) * SCALE + BIAS
    close(outputs, expected, rtol=1e-4)


def test_corrections_are_bounded():
    module = renorm.BatchRenorm(warm_up=0, max_ratio=1.5, max_shift=0.25)
    outputs, _ = run(module, variables([100.0, -100.0], [1e-4, 1e-4], 0))
    normal = (INPUTS - INPUTS.mean(0)) / np.sqrt(INPUTS.var(0) + 1e-3)
    close(outputs, (normal * 1.5 + np.array([-0.25, 0.25])) * SCALE + BIAS)


def test_running_statistics_follow_in_training_alone():
    module, state = renorm.BatchRenorm(decay=0.75), variables([1.0, 3.0], [2.0, 8.0], 7)
    _, after = run(module, state)
    close(after["mean"], 0.75 * np.array([1.0, 3.0]) + 0.25 * INPUTS.mean(0))
    close(after["var"], 0.75 * np.array([2.0, 8.0]) + 0.25 * INPUTS.var(0))
    assert after["count"] == 8
    _, after = run(module, state, train=False)
    jax.tree.map(np.testing.assert_array_equal, after, state[renorm.STATISTICS])


@pytest.mark.parametrize("count", [0, 10])
def test_the_gradient_sees_corrections_as_constants(count):
    module, state = renorm.BatchRenorm(warm_up=5), variables([1.0, 3.0], [2.0, 8.0], count)
    weights = np.random.default_rng(1).normal(size=INPUTS.shape).astype(np.float32)
    gradient = jax.grad(lambda inputs: (module.apply(state, inputs, train=True) * weights).sum())(jnp.asarray(INPUTS))
    deviation = np.sqrt(INPUTS.var(0) + 1e-3)
    normal = (INPUTS - INPUTS.mean(0)) / deviation
    ratio = np.clip(deviation / np.sqrt(np.array([2.0, 8.0]) + 1e-3), 1 / 3, 3) if count else np.ones(2)
    pulled = weights * SCALE * ratio
    # The derivative of normalisation by a batch's own mean and deviation.
    expected = (pulled - pulled.mean(0) - normal * (pulled * normal).mean(0)) / deviation
    close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_starting_moves_no_statistics():
    state = renorm.BatchRenorm().init(jax.random.key(0), INPUTS, train=True)
    close(state[renorm.STATISTICS]["mean"], np.zeros(2))
    assert state[renorm.STATISTICS]["count"] == 0
