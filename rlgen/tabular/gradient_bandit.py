"""Gradient bandit: preferences by stochastic gradient ascent; Sutton and Barto, 2nd edition, section 2.8.

The policy is a softmax over preferences.  The update is a sample of the gradient of the expected reward; the average of
the rewards before it, as a baseline, leaves its expectation alone and takes away variance.

Where several environments or steps make a batch, the update is the mean over the batch, all under the preferences that
chose its actions, so that its expectation is the gradient for a batch of any size.  A baseline is kept for every
observation alone; what is seen for the first time only starts its baseline, as the book's first step does.

Shape legend: `T` steps, `B` environments, `N` transitions, `S` observations, `A` actions.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, memoryless
from rlgen.parts import exploration, tabular


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        baseline: whether rewards count by how far they are above the average so far.
    """

    num_envs: int = 1
    rollout_length: int = 1
    baseline: bool = True


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.1


class Baseline(NamedTuple):
    """What rewards are compared with."""

    mean_rewards: Array  # [S] float32, averages so far
    counts: Array  # [S] int32, how often each was seen


class State(NamedTuple):
    """Preferences, and their baseline where there is one."""

    preferences: Array  # [S, A] float32
    baseline: Baseline | tuple[()]


class Metrics(NamedTuple):
    """Means over an update's transitions."""

    advantage: Array  # reward above its baseline
    entropy: Array  # of the policy, in nats


def compare(baseline: Baseline, obs: Array, reward: Array) -> tuple[Array, Baseline]:
    """Compares rewards with the averages of those before, and takes them into the averages.

    Args:
        baseline: averages before.
        obs: `[N]`.
        reward: `[N]`.

    Returns:
        `(advantage [N], baseline)`; the advantage is 0 where there was no reward before.
    """
    difference = reward - baseline.mean_rewards[obs]
    advantage = jnp.where(baseline.counts[obs] > 0, difference, 0.0)
    counts = baseline.counts.at[obs].add(1)
    # Each of an observation's rewards moves its average by one over the new count.
    return advantage, Baseline(baseline.mean_rewards.at[obs].add(difference / counts[obs]), counts)


def learn(state: State, batch: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Takes one step: `H(s, ·) += α mean (r − r̄(s)) (1_a − π(· | s))`, then moves the baselines.

    Args:
        state: preferences under which the batch was chosen, and their baseline.
        batch: `[N]` transitions.
        hypers: numbers.

    Returns:
        `(state, metrics)`.
    """
    obs, advantage, baseline = batch.obs, batch.reward, state.baseline
    if isinstance(baseline, Baseline):
        advantage, baseline = compare(baseline, obs, advantage)
    log_policy = jax.nn.log_softmax(state.preferences[obs])
    probabilities = jnp.exp(log_policy)
    score = jax.nn.one_hot(batch.action, probabilities.shape[-1]) - probabilities
    ascent = hypers.learning_rate * advantage[:, None] * score / advantage.size
    entropy = -(probabilities * log_policy).sum(-1)
    preferences = state.preferences.at[obs].add(ascent)
    return State(preferences, baseline), Metrics(advantage.mean(), entropy.mean())


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int], baseline: bool) -> State:
    """Prefers nothing; neither the key nor a number is needed."""
    del key, hypers
    start = Baseline(jnp.zeros(shape[:1]), jnp.zeros(shape[:1], jnp.int32)) if baseline else ()
    return State(jnp.zeros(shape), start)


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Learns from all `[T, B]` transitions at once."""
    del key, step
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    return learn(state, flat, hypers)


def act(key: Key, obs: Array, memory: tuple[()], *, preferences: Array, explore: bool):
    """Draws actions at observations `[*N]` from the softmax, or takes the most preferred.  The key is consumed."""
    if explore:
        return exploration.boltzmann(key, preferences[obs], 1.0), {}, memory
    return exploration.greedy(key, preferences[obs]), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool) -> Policy:
    """The softmax while exploring, its mode otherwise."""
    del step, hypers
    return memoryless(functools.partial(act, preferences=state.preferences, explore=explore))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds the gradient bandit to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: whether there is a baseline.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    shape = tabular.shape(spec)
    return Algorithm(init=functools.partial(init, shape=shape, baseline=config.baseline), update=update, policy=policy)
