"""Planners: the values of a known process, by sweeps over all its states.

Every function takes a dense or a sparse process and works in its floating dtype.  All of them can be vmapped over
discounts, rewards and whole families of processes; each lane then stops by itself and counts its own iterations.

Source: Sutton and Barto, "Reinforcement Learning: An Introduction", 2nd edition, chapter 4; the steps that are repeated
here, and what departs from the book in them, stand in `backups`.

Departure: iteration stops where no value changes by more than `tolerance`, which leaves an error of at most
`tolerance · γ / (1 − γ)`, and what rounding adds: with `ε` of the dtype some `ε · max |v| / (1 − γ)`.

Shape legend: `S` states, `A` actions, `H` horizon.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from rlgen.core import Array
from rlgen.parts import backups
from rlgen.parts.backups import Process, Scalar, Step


class Solution(NamedTuple):
    """What a planner found."""

    values: Array  # [S]
    q_values: Array  # [S, A], one step ahead of `values`
    actions: Array  # [S] int32, the best ones; the first of equally good ones
    iterations: Array  # int32 scalar
    residual: Array  # scalar, the largest change of a value in the last iteration


class Plan(NamedTuple):
    """What is best while a number of steps is left."""

    values: Array  # [H + 1, S] at every time, the last ones zero
    actions: Array  # [H, S] int32


def policy_evaluation(
    process: Process,
    policy: Array,
    discount: Scalar,
    *,
    initial_values: Scalar = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
) -> Solution:
    """Finds a policy's values by sweeps.

    Args:
        process: what to plan in.
        policy: actions `[S]`, or probabilities `[S, A]`.
        discount: `γ`; so with every planner below.
        initial_values: to begin with, a scalar or `[S]`.
        tolerance: largest change of a value at which to stop; 0 goes on until none changes at all.
        max_iterations: after which to stop in any case.

    Returns:
        The policy's values; `actions` improve on it.
    """
    limits = {"tolerance": tolerance, "max_iterations": max_iterations}
    found = value_iteration(backups.follow(process, policy), discount, initial_values=initial_values, **limits)
    return _finish(process, discount, found.values, found.iterations, found.residual)


def value_iteration(
    process: Process,
    discount: Scalar,
    *,
    initial_values: Scalar = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
) -> Solution:
    """Finds the optimal values by sweeps that back every state up at once; arguments as above."""
    return _iterate(backups.value_step, process, discount, initial_values, (tolerance, max_iterations))


def gauss_seidel(
    process: Process,
    discount: Scalar,
    *,
    initial_values: Scalar = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
) -> Solution:
    """Finds the optimal values by sweeps in place; arguments as above."""
    return _iterate(backups.gauss_seidel_step, process, discount, initial_values, (tolerance, max_iterations))


def policy_iteration(
    process: Process,
    discount: Scalar,
    *,
    initial_values: Scalar = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 1_000,
) -> Solution:
    """Finds the optimal values by exact evaluation of policies, each greedy in the values of the one before.

    Args:
        process: dense.
        discount: `γ`; at one, episodes must end for sure under every policy on the way.
        initial_values: the first policy is greedy in these.
        tolerance: largest change of a value at which to stop.
        max_iterations: after which to stop in any case.

    Returns:
        The solution; `iterations` counts the policies evaluated, the last one twice.
    """
    return _iterate(backups.policy_step, process, discount, initial_values, (tolerance, max_iterations))


def modified_policy_iteration(
    process: Process,
    discount: Scalar,
    *,
    num_sweeps: int,
    initial_values: Scalar = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
) -> Solution:
    """Finds the optimal values by `num_sweeps` sweeps under each greedy policy; other arguments as above."""
    step = functools.partial(backups.modified_step, num_sweeps=num_sweeps)
    return _iterate(step, process, discount, initial_values, (tolerance, max_iterations))


def finite_horizon(process: Process, discount: Scalar, *, horizon: int) -> Plan:
    """Finds what is best when `horizon` steps are left, by induction from the end.

    Args:
        process: what to plan in.
        discount: `γ`.
        horizon: `H`.

    Returns:
        Values and actions at times `0 … H − 1`, and zero values at time `H`.
    """

    def body(values: Array, _: None):
        q_values = backups.action_values(process, values, discount)
        values = q_values.max(-1)
        return values, (values, q_values.argmax(-1).astype(jnp.int32))

    end = backups.start(process, 0.0)
    _, (values, actions) = lax.scan(body, end, None, length=horizon, reverse=True)
    return Plan(jnp.concatenate([values, end[None]]), actions)


def _iterate(
    step: Step, process: Process, discount: Scalar, initial_values: Scalar, limits: tuple[Scalar, int]
) -> Solution:
    """Repeats a step until no value changes by more than the first limit, or as often as the second one says."""
    tolerance, max_iterations = limits

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        _, iterations, residual = carry
        return (iterations < max_iterations) & (residual > tolerance)

    def body(carry: tuple[Array, Array, Array]):
        values, iterations, _ = carry
        new_values, _ = step(process, values, discount)
        return new_values, iterations + 1, jnp.abs(new_values - values).max()

    values = backups.start(process, initial_values)
    carry = values, jnp.int32(0), jnp.asarray(jnp.inf, values.dtype)
    return _finish(process, discount, *lax.while_loop(goes_on, body, carry))


def _finish(process: Process, discount: Scalar, values: Array, iterations: Array, residual: Array) -> Solution:
    """Looks one step ahead from the values found."""
    q_values = backups.action_values(process, values, discount)
    return Solution(values, q_values, q_values.argmax(-1).astype(jnp.int32), iterations, residual)
