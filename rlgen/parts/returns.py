"""Returns and advantages over `[T, ...]`, with termination and truncation told apart.

Every function reads the value of the observation *after* each step, before any reset, as `next_value`.  Where an
episode terminates the bootstrap stops; where it is truncated the trace stops and the return bootstraps from
`next_value`; the last row of the arrays is treated as truncated.

Sources: Sutton and Barto, "Reinforcement Learning", 2nd edition, chapters 7 and 12; GAE, arXiv:1506.02438;
V-trace, arXiv:1802.01561.

Shape legend: `T` time, `...` any trailing shape that all arguments share.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from rlgen.core import Array

# Steps a compiled loop iteration: the bodies are a few flops, and the loop's own cost would be most of the time.
UNROLL = 16


class Vtrace(NamedTuple):
    """What V-trace gives for a critic and for an actor."""

    target: Array  # [T, ...], of the value
    advantage: Array  # [T, ...], weighted by ρ


def lambda_return(
    reward: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    lambda_: Array | float,
) -> Array:
    """λ-returns: `Gₜ = rₜ + γ ((1 − λ) V(sₜ₊₁) + λ Gₜ₊₁)`.

    Args:
        reward: `[T, ...]`.
        next_value: `[T, ...]`, value of the observation after each step.
        terminated: `[T, ...]` bool.
        truncated: `[T, ...]` bool.
        discount: `γ`, scalar.
        lambda_: `λ`, scalar; 0 is one-step TD, 1 is Monte Carlo.

    Returns:
        `G`, `[T, ...]`.
    """

    def body(next_return: Array, inputs: tuple[Array, ...]):
        reward_t, next_value_t, terminated_t, truncated_t = inputs
        mixed = jnp.where(truncated_t, next_value_t, (1 - lambda_) * next_value_t + lambda_ * next_return)
        return_t = reward_t + discount * jnp.where(terminated_t, 0.0, mixed)
        return return_t, return_t

    inputs = (reward, next_value, terminated, truncated)
    _, returns = lax.scan(body, next_value[-1], inputs, reverse=True, unroll=UNROLL)
    return returns


def n_step_return(
    reward: Array, next_value: Array, terminated: Array, truncated: Array, discount: Array | float, num_steps: int
) -> Array:
    """n-step returns: `Gₜ = rₜ + γ rₜ₊₁ + … + γⁿ V(sₜ₊ₙ)`, shorter at the end of an episode and of the arrays.

    Args:
        reward: `[T, ...]`.
        next_value: `[T, ...]`, value of the observation after each step.
        terminated: `[T, ...]` bool.
        truncated: `[T, ...]` bool.
        discount: `γ`, scalar.
        num_steps: `n` ≥ 1; `n` ≥ T is Monte Carlo.

    Returns:
        `G`, `[T, ...]`.

    Raises:
        ValueError: if `num_steps` is less than 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")

    def one_more(_, returns):
        following = jnp.concatenate([returns[1:], next_value[-1:]])
        following = jnp.where(truncated, next_value, following)
        return reward + discount * jnp.where(terminated, 0.0, following)

    one_step = reward + discount * jnp.where(terminated, 0.0, next_value)
    return lax.fori_loop(1, min(num_steps, reward.shape[0]), one_more, one_step)


def gae(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    gae_lambda: Array | float,
) -> Array:
    """Generalised advantage estimates: `Âₜ = δₜ + γ λ Âₜ₊₁`, where `δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ)`.

    Args:
        reward: `[T, ...]`.
        value: `[T, ...]`, value of the observation before each step.
        next_value: `[T, ...]`, value of the observation after each step.
        terminated: `[T, ...]` bool.
        truncated: `[T, ...]` bool.
        discount: `γ`, scalar.
        gae_lambda: `λ`, scalar; 1 is the Monte Carlo return minus the value.

    Returns:
        `Â`, `[T, ...]`.
    """
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    decay = discount * gae_lambda * (1.0 - (terminated | truncated))

    def body(next_advantage, inputs):
        delta_t, decay_t = inputs
        advantage = delta_t + decay_t * next_advantage
        return advantage, advantage

    _, advantages = lax.scan(body, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=UNROLL)
    return advantages


def vtrace(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    lambda_: Array | float,
    rho: Array,
    trace: Array,
) -> Vtrace:
    """V-trace: values of a policy from the experience of another one.

    `vₜ = V(sₜ) + ρₜ δₜ + γ λ cₜ (vₜ₊₁ − V(sₜ₊₁))`, where `δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ)`, and
    `Âₜ = ρₜ (rₜ + γ ((1 − λ) V(sₜ₊₁) + λ vₜ₊₁) − V(sₜ))`.  Where all weights are 1 the target is the λ-return and the
    advantage is GAE.

    Args:
        reward: `[T, ...]`.
        value: `[T, ...]`, value of the observation before each step.
        next_value: `[T, ...]`, value of the observation after each step.
        terminated: `[T, ...]` bool.
        truncated: `[T, ...]` bool.
        discount: `γ`, scalar.
        lambda_: `λ`, scalar; the paper has 1.
        rho: `ρ = min(ρ̄, π / μ)`, `[T, ...]`: its bound says whose values are found, those of `π` where it never binds.
        trace: `c = min(c̄, π / μ)`, `[T, ...]`: its bound says how far a reward reaches back.

    Returns:
        Targets and advantages.
    """
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    decay = discount * lambda_ * (1.0 - (terminated | truncated))

    def body(next_correction, inputs):
        delta_t, decay_t, rho_t, trace_t = inputs
        following = decay_t * next_correction
        correction = rho_t * delta_t + trace_t * following
        return correction, (correction, rho_t * (delta_t + following))

    inputs = (delta, decay, rho, trace)
    _, (correction, advantage) = lax.scan(body, jnp.zeros_like(delta[0]), inputs, reverse=True, unroll=UNROLL)
    return Vtrace(value + correction, advantage)
