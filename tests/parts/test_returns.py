"""Returns: against their definitions as sums, the laws that tie them together, and rlax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgen.parts import returns

LENGTH, DISCOUNT = 7, 0.9
lambda_return, gae, vtrace = (jax.jit(function) for function in (returns.lambda_return, returns.gae, returns.vtrace))
n_step_return = jax.jit(returns.n_step_return, static_argnums=5)
FLAGS = st.lists(st.sampled_from(["", "terminated", "truncated", "both"]), min_size=LENGTH, max_size=LENGTH)


def draw(seed, shape=(LENGTH,)):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for _ in range(3))


def flags_of(names):
    is_in = [np.array([name in (flag, "both") for name in names]) for flag in ("terminated", "truncated")]
    return is_in[0], is_in[1]


def slow_n_step(reward, next_value, terminated, truncated, discount, num_steps, start):
    """The sum of the definition, and over how many rewards it ran."""
    total = 0.0
    for count in range(1, num_steps + 1):
        row = start + count - 1
        total += discount ** (count - 1) * reward[row]
        if terminated[row]:
            return total, count
        if truncated[row] or row == len(reward) - 1 or count == num_steps:
            return total + discount**count * next_value[row], count
    raise AssertionError("no reward was added")


def slow_lambda_return(reward, next_value, terminated, truncated, discount, lambda_, start):
    """The mixture of n-step returns of the definition."""
    n_step = functools.partial(slow_n_step, reward, next_value, terminated, truncated, discount, start=start)
    whole, longest = n_step(num_steps=len(reward))
    mixed = sum((1 - lambda_) * lambda_ ** (count - 1) * n_step(num_steps=count)[0] for count in range(1, longest))
    return mixed + lambda_ ** (longest - 1) * whole


@settings(max_examples=40, deadline=None, derandomize=True)
@given(FLAGS, st.integers(0, 99), st.floats(0, 1), st.floats(0, 1), st.integers(1, LENGTH + 2))
def test_definitions(names, seed, discount, lambda_, num_steps):
    reward, value, next_value = draw(seed)
    terminated, truncated = flags_of(names)
    given_ = (reward, next_value, terminated, truncated)
    rows = range(LENGTH)
    expected = [slow_n_step(*given_, discount, num_steps, row)[0] for row in rows]
    np.testing.assert_allclose(n_step_return(*given_, discount, num_steps), expected, rtol=1e-4, atol=1e-5)
    expected = np.array([slow_lambda_return(*given_, discount, lambda_, row) for row in rows])
    np.testing.assert_allclose(lambda_return(*given_, discount, lambda_), expected, rtol=1e-4, atol=1e-5)
    # The advantage telescopes to the λ-return only where the value after a step is that of the next row.
    chained = np.where(truncated | terminated, next_value, np.append(value[1:], next_value[-1]))
    expected = [slow_lambda_return(reward, chained, terminated, truncated, discount, lambda_, row) for row in rows]
    advantage = gae(reward, value, chained, terminated, truncated, discount, lambda_)
    np.testing.assert_allclose(advantage, np.array(expected) - value, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(FLAGS, st.integers(0, 99))
def test_ends_of_lambda_and_n(names, seed):
    reward, value, next_value = draw(seed)
    terminated, truncated = flags_of(names)
    given_ = (reward, next_value, terminated, truncated, DISCOUNT)
    one_step = reward + DISCOUNT * ~terminated * next_value
    equal = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    equal(n_step_return(*given_, 1), one_step)
    equal(lambda_return(*given_, 0.0), one_step)
    equal(gae(reward, value, next_value, terminated, truncated, DISCOUNT, 0.0), one_step - value)
    monte_carlo = n_step_return(*given_, LENGTH)
    equal(n_step_return(*given_, LENGTH + 2), monte_carlo)
    equal(lambda_return(*given_, 1.0), monte_carlo)
    chained = np.where(truncated | terminated, next_value, np.append(value[1:], next_value[-1]))
    monte_carlo = n_step_return(reward, chained, terminated, truncated, DISCOUNT, LENGTH)
    equal(gae(reward, value, chained, terminated, truncated, DISCOUNT, 1.0), monte_carlo - value)


def slow_vtrace(reward, value, next_value, terminated, truncated, discount, lambda_, rho, trace, start):
    """The sum over temporal differences of the definition, each behind the product of the traces before it."""
    total, weight = value[start], 1.0
    for row in range(start, len(reward)):
        delta = reward[row] + discount * (not terminated[row]) * next_value[row] - value[row]
        total += weight * rho[row] * delta
        if terminated[row] or truncated[row]:
            break
        weight *= discount * lambda_ * trace[row]
    return total


@settings(max_examples=30, deadline=None, derandomize=True)
@given(FLAGS, st.integers(0, 99), st.floats(0, 1), st.floats(0, 1))
def test_vtrace_is_its_definition_and_on_policy_the_lambda_return(names, seed, discount, lambda_):
    reward, value, next_value = draw(seed)
    terminated, truncated = flags_of(names)
    chained = np.where(truncated | terminated, next_value, np.append(value[1:], next_value[-1]))
    given_ = (reward, value, chained, terminated, truncated, discount, lambda_)
    equal = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)

    ratio = np.exp(draw(seed + 100)[0])
    weights = (np.minimum(ratio, 1.5), np.minimum(ratio, 0.8))
    target, advantage = vtrace(*given_, *weights)
    expected = np.array([slow_vtrace(*given_, *weights, row) for row in range(LENGTH)])
    equal(target, expected)
    # What follows a step is worth the mixture of its value and its target, and its value alone where the trace ends.
    following = np.where(truncated | terminated, chained, np.append(expected[1:], chained[-1]))
    mixed = (1 - lambda_) * chained + lambda_ * following
    equal(advantage, weights[0] * (reward + discount * ~terminated * mixed - value))

    target, advantage = vtrace(*given_, np.ones(LENGTH), np.ones(LENGTH))
    equal(target, lambda_return(reward, chained, *given_[3:]))
    equal(advantage, gae(*given_))


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_an_episode_ends_in_one_of_two_ways(end):
    reward, next_value = jnp.array([1.0, 2.0, 4.0]), jnp.array([10.0, 20.0, 40.0])
    flag = np.array([False, True, False])
    terminated, truncated = (flag, flag & False) if end == "terminated" else (flag & False, flag)
    # By hand with discount 1/2: the last row bootstraps, the middle one does where it is only cut.
    middle = 2.0 if end == "terminated" else 2 + 10.0
    expected = np.array([1 + middle / 2, middle, 4 + 20.0])
    given_ = (reward, next_value, terminated, truncated, 0.5)
    np.testing.assert_allclose(n_step_return(*given_, 3), expected)
    np.testing.assert_allclose(lambda_return(*given_, 1.0), expected)
    value = jnp.array([3.0, 10.0, 20.0])
    np.testing.assert_allclose(gae(reward, value, next_value, terminated, truncated, 0.5, 1.0), expected - value)


def test_a_constant_reward_sums_to_the_geometric_series():
    nothing = np.zeros(LENGTH, bool)
    sums = (1 - DISCOUNT ** np.arange(LENGTH, 0, -1)) / (1 - DISCOUNT)
    at_end = nothing | (np.arange(LENGTH) == LENGTH - 1)
    got = lambda_return(np.ones(LENGTH), np.zeros(LENGTH), at_end, nothing, DISCOUNT, 1.0)
    np.testing.assert_allclose(got, sums, rtol=1e-5)


def test_parity_with_rlax():
    reward, _, _ = draw(4)
    values = np.random.default_rng(5).normal(size=LENGTH + 1).astype(np.float32)
    terminated = np.array([False, False, True, False, False, False, False])
    given_ = (reward, values[1:], terminated, np.zeros(LENGTH, bool), DISCOUNT)
    discount = (DISCOUNT * ~terminated).astype(np.float32)
    equal = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    equal(lambda_return(*given_, 0.8), rlax.lambda_returns(reward, discount, values[1:], 0.8))
    for num_steps in (1, 3, LENGTH):
        expected = rlax.n_step_bootstrapped_returns(reward, discount, values[1:], num_steps)
        equal(n_step_return(*given_, num_steps), expected)
    expected = rlax.truncated_generalized_advantage_estimation(reward, discount, 0.8, values)
    equal(gae(reward, values[:-1], *given_[1:], 0.8), expected)


def test_vtrace_parity_with_rlax():
    reward, _, _ = draw(4)
    values = np.random.default_rng(5).normal(size=LENGTH + 1).astype(np.float32)
    ratio = np.linspace(0.2, 2.0, LENGTH, dtype=np.float32)[[3, 6, 0, 5, 1, 4, 2]]
    terminated = np.array([False, False, True, False, False, False, False])
    discount = (DISCOUNT * ~terminated).astype(np.float32)
    theirs = rlax.vtrace_td_error_and_advantage(values[:-1], values[1:], reward, discount, ratio, 0.8, 1.2, 1.2)
    given_ = (reward, values[:-1], values[1:], terminated, np.zeros(LENGTH, bool), DISCOUNT, 0.8)
    target, advantage = vtrace(*given_, np.minimum(ratio, 1.2), np.minimum(ratio, 1.0))
    np.testing.assert_allclose(target - values[:-1], theirs.errors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(advantage, theirs.pg_advantage, rtol=1e-5, atol=1e-5)


def test_trailing_axes_are_independent():
    shape = (LENGTH, 2, 3)
    reward, value, next_value = draw(6, shape)
    rng = np.random.default_rng(7)
    terminated, truncated = rng.random(shape) < 0.2, rng.random(shape) < 0.2
    given_ = (reward, next_value, terminated, truncated, DISCOUNT)
    weights = (np.abs(value), np.abs(reward))

    def every(given_, value, weights):
        estimated = (given_[0], value, *given_[1:], 0.8)
        return n_step_return(*given_, 3), lambda_return(*given_, 0.8), gae(*estimated), *vtrace(*estimated, *weights)

    column, part, parts = jax.tree.map(lambda leaf: leaf[:, 1, 2] if np.ndim(leaf) else leaf, (given_, value, weights))
    for many, one in zip(every(given_, value, weights), every(column, part, parts), strict=True):
        np.testing.assert_allclose(many[:, 1, 2], one, rtol=1e-6)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        returns.n_step_return(*(jnp.zeros(3),) * 2, *(jnp.zeros(3, bool),) * 2, 0.9, 0)
