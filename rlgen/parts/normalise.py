"""Running moments of observations and of discounted returns, and the scale of a batch's advantages.

The moments of a batch are merged with those of all before by the parallel update of Chan, Golub and LeVeque 1979, which
does not depend on the order of the batch.  A batch among millions would change no float: what is seen counts at most
`MOST` times as much as what is added, and what came before that fades.

Shape legend: `T` time, `B` environments.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from rlgen.core import Array

MOST = 1e5
LIMIT = 10.0  # normalised values beyond this many standard deviations are clipped
_EPSILON = 1e-8


class Moments(NamedTuple):
    """Mean and variance of everything seen."""

    mean: Array  # [*shape] float32
    variance: Array  # [*shape] float32
    weight: Array  # float32 scalar, how many values


class Scale(NamedTuple):
    """Mean and standard deviation of a batch."""

    mean: Array  # float32 scalar
    deviation: Array  # float32 scalar, above 0


class Returns(NamedTuple):
    """Running discounted return of each environment, and the moments of all."""

    running: Array  # [B] float32
    moments: Moments


def moments(shape: tuple[int, ...] = ()) -> Moments:
    """Starts with mean 0 and variance 1, which hold until there is data and count for nothing then."""
    return Moments(jnp.zeros(shape), jnp.ones(shape), jnp.float32(0))


def merge(old: Moments, batch: Array) -> Moments:
    """Takes in a batch, which is not empty.

    Args:
        old: moments of `[*shape]`.
        batch: `[..., *shape]` with any leading shape.

    Returns:
        Moments of everything seen.
    """
    axes = tuple(range(batch.ndim - old.mean.ndim))
    added = jnp.float32(batch.size // max(old.mean.size, 1))
    return join(old, Moments(batch.mean(axes), batch.var(axes), added))


def join(old: Moments, new: Moments) -> Moments:
    """Moments of everything that went into either; the old ones may hold nothing, the new ones must not be empty."""
    known = jnp.minimum(old.weight, MOST * new.weight)
    share, delta = new.weight / (known + new.weight), new.mean - old.mean
    variance = old.variance * (1 - share) + new.variance * share + jnp.square(delta) * share * (1 - share)
    return Moments(old.mean + delta * share, variance, known + new.weight)


def scale(advantage: Array) -> Scale:
    """Gives the scale of advantages of any shape."""
    return Scale(advantage.mean(), advantage.std() + _EPSILON)


def rescale(advantage: Array, known: Scale | None = None) -> Array:
    """Takes advantages to mean 0 and variance 1, or to what they have on a scale that is known."""
    mean, deviation = known or scale(advantage)
    return (advantage - mean) / deviation


def standardise(values: Array, seen: Moments) -> Array:
    """Subtracts the mean, divides by the standard deviation and clips to ±`LIMIT`."""
    return jnp.clip((values - seen.mean) / jnp.sqrt(seen.variance + _EPSILON), -LIMIT, LIMIT)


def returns(num_envs: int) -> Returns:
    """Starts with no return in any of `B` environments."""
    return Returns(jnp.zeros(num_envs), moments())


def scale_rewards(state: Returns, reward: Array, done: Array, discount: Array | float) -> tuple[Returns, Array]:
    """Divides rewards by the standard deviation of the running discounted return, as the PPO reference code does.

    Args:
        state: of the `B` environments.
        reward: `[T, B]`.
        done: `[T, B]` bool, whether the episode ended with the step.
        discount: `γ`.

    Returns:
        `(state, scaled rewards [T, B] clipped to ±LIMIT)`.
    """

    def body(running: Array, inputs: tuple[Array, Array]):
        reward_t, done_t = inputs
        running = reward_t + discount * running
        return jnp.where(done_t, 0.0, running), running

    running, seen = lax.scan(body, state.running, (reward, done))
    merged = merge(state.moments, seen)
    scaled = jnp.clip(reward / jnp.sqrt(merged.variance + _EPSILON), -LIMIT, LIMIT)
    return Returns(running, merged), scaled
