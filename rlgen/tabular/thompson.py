"""Thompson sampling for bandits: pull the arm that is best in a draw from the posterior.

Source: Russo, Van Roy, Kazerouni, Osband and Wen 2018, arXiv:1707.02038, sections 3 and 4.  Rewards are Gaussian with
known deviation under a normal prior, or Bernoulli under a beta prior.  Both priors are written as a mean `m` and the
number `ν` of rewards that it is worth, so that after `n` rewards either posterior has the mean
`(ν m + Σ r) / (ν + n)`: the uniform prior is a mean of 1/2 worth 2.

One number scales how far draws lie from that mean, which they are where it is 0.  Where rewards are Gaussian it is
their standard deviation.  Where they are Bernoulli, 1 is the posterior itself and other values widen or narrow it by
dividing both parameters of the beta distribution by the number's square, as Chapelle and Li 2011 reshape posteriors.

Arms of every observation are learned alone, so that a bandit with contexts is the same program.

Shape legend: `T` steps, `B` environments, `N` transitions, `S` observations, `A` actions.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, memoryless
from rlgen.parts import exploration, tabular

REWARDS = ("gaussian", "bernoulli")
_SMALLEST = 1e-6  # parameter of a beta distribution, for a prior that is sure
_NARROWEST = 1e-6  # spread of a beta distribution; below it draws are no further apart than floats


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        rewards: `"gaussian"`, or `"bernoulli"` for rewards in [0, 1].
    """

    num_envs: int = 1
    rollout_length: int = 1
    rewards: str = "gaussian"


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    prior_mean: float = 0.0  # m, between 0 and 1 where rewards are Bernoulli
    prior_weight: float = 1.0  # ν, the number of rewards that the prior is worth
    exploration: float = 1.0  # standard deviation of a Gaussian reward; 1 for the posterior of a Bernoulli one


class State(NamedTuple):
    """What was earned: all that either posterior depends on."""

    total_rewards: Array  # [S, A] float32, sums
    counts: Array  # [S, A] int32


class Metrics(NamedTuple):
    """Means over an update's transitions."""

    error: Array  # absolute difference of reward and posterior mean
    q_value: Array  # posterior mean of the actions taken


def posterior_mean(state: State, hypers: Hypers) -> Array:
    """Gives `(ν m + Σ r) / (ν + n)`, `[S, A]`."""
    weight = hypers.prior_weight + state.counts
    return (hypers.prior_weight * hypers.prior_mean + state.total_rewards) / weight


def draw(key: Key, mean: Array, weight: Array, spread: Array | float, rewards: str) -> Array:
    """Draws what each arm may be worth.

    Args:
        key: consumed.
        mean: posterior means, `[*N, A]`.
        weight: `ν + n`, the number of rewards that each mean is worth, `[*N, A]`.
        spread: scalar, how far draws lie from the mean; with 0 they are the mean.
        rewards: `"gaussian"` or `"bernoulli"`.

    Returns:
        Values, `[*N, A]`.
    """
    if rewards == "gaussian":
        return mean + spread / jnp.sqrt(weight) * jax.random.normal(key, mean.shape)
    weight = weight / jnp.square(jnp.maximum(spread, _NARROWEST))
    good, bad = jnp.maximum(weight * mean, _SMALLEST), jnp.maximum(weight * (1 - mean), _SMALLEST)
    return jnp.where(spread < _NARROWEST, mean, jax.random.beta(key, good, bad))


def learn(state: State, batch: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Conditions both posteriors on rewards, whose order does not matter.

    Args:
        state: what was earned before.
        batch: `[N]` transitions.
        hypers: numbers.

    Returns:
        `(state, metrics)`.
    """
    at = batch.obs, batch.action
    value = posterior_mean(state, hypers)[at]
    state = State(state.total_rewards.at[at].add(batch.reward), state.counts.at[at].add(1))
    return state, Metrics(jnp.abs(batch.reward - value).mean(), value.mean())


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int]) -> State:
    """Nothing was earned; neither the key nor a number is needed."""
    del key, hypers
    return State(jnp.zeros(shape), jnp.zeros(shape, jnp.int32))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Learns from all `[T, B]` transitions at once."""
    del key, step
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    return learn(state, flat, hypers)


def act(key: Key, obs: Array, memory: tuple[()], *, state: State, hypers: Hypers, rewards: str | None):
    """Chooses at observations `[*N]` the best of a draw, or with None the best of the means.  The key is consumed."""
    draw_key, tie_key = jax.random.split(key)
    values = posterior_mean(state, hypers)[obs]
    if rewards is not None:
        weight = hypers.prior_weight + state.counts[obs]
        values = draw(draw_key, values, weight, hypers.exploration, rewards)
    return exploration.greedy(tie_key, values), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, rewards: str) -> Policy:
    """The best arm of a draw while exploring, that of the posterior means otherwise."""
    del step
    return memoryless(functools.partial(act, state=state, hypers=hypers, rewards=rewards if explore else None))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Thompson sampling to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: what rewards are.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, or such rewards are unknown.
    """
    if config.rewards not in REWARDS:
        raise ValueError(f"rewards {config.rewards!r} are not among {REWARDS}")
    shape = tabular.shape(spec)
    return Algorithm(
        init=functools.partial(init, shape=shape),
        update=update,
        policy=functools.partial(policy, rewards=config.rewards),
    )
