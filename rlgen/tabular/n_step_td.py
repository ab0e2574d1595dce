"""n-step TD prediction; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 7.1; off-policy 7.3.

The updates are the book's, one after another: step `τ` learns from the values that step `τ − 1` left, through

    V(s_τ) += α ρ (r_τ + γ r_τ₊₁ + … + γᵐ⁻¹ r_τ₊ₘ₋₁ + γᵐ V(s_τ₊ₘ) − V(s_τ)),

where `m` is `n`, or less where the episode ends before.  `ρ` is the product of the importance ratios of those `m`
steps; it is one on-policy.  `n = 1` is TD(0), and `n` no shorter than an episode is constant-α Monte Carlo.

`n` is a number and not a shape: one program serves a grid of them.  Rewards are summed over all windows by one backward
pass, in which a window gains the reward at its front and loses the one behind its end.

Departures: where an episode is truncated, or a batch ends, windows are cut and bootstrap from what was seen last.  A
batch therefore should be many times `n` long.  Environments are learned from one after another.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition
from rlgen.parts import prediction
from rlgen.parts.prediction import policy

target_policy, values = prediction.target_policy, prediction.values


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        behaviour: probability of each action while data is gathered; empty for a uniform policy.
        target: probability of each action under the policy whose values are learned; empty for the behaviour.
        reference: known values of the first states, against which `Metrics.error` is measured at the ends of episodes.
        num_episodes: how many ends, from each batch's first on, `Metrics.error` averages; 0 for all.
    """

    num_envs: int = 1
    rollout_length: int = 1024
    behaviour: tuple[float, ...] = ()
    target: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    num_episodes: int = 0


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.1
    discount: float = 1.0
    initial_value: float = 0.0
    num_steps: float = 4.0  # n, rounded to a whole number


class State(NamedTuple):
    """The values."""

    values: Array  # [S] float32


class Metrics(NamedTuple):
    """Of an update."""

    error: Array  # RMS error at the ends of episodes, or without a reference the mean size of the n-step error


class Windows(NamedTuple):
    """What follows each step until its window closes."""

    total: Array  # [T] float32, discounted rewards
    discount: Array  # [T] float32, of the value after the window; 0 where the episode terminated in it
    successor: Array  # [T] int32, the state after the window
    ratio: Array  # [T] float32, product of importance ratios


def windows(stream: Transition, num_steps: Array, discount: Array, policies: prediction.Policies) -> Windows:
    """Sums up the `n` steps from each step on, fewer where the episode or the stream ends before.

    Both policies are the same in every state, so that a product of ratios follows from how often each action was taken:
    whole numbers, which enter and leave a window without rounding.

    Args:
        stream: leaves `[T]`, in time order.
        num_steps: `n`, int32 scalar from 1 to `T`.
        discount: `γ`, scalar.
        policies: whose ratios are multiplied.

    Returns:
        Leaves `[T]`.
    """
    length = stream.reward.shape[0]
    done = (stream.terminated | stream.truncated).at[-1].set(True)
    whole = discount**num_steps
    ratios = policies.ratios if policies.differ else policies.ratios[:0]  # on-policy there is nothing to count
    taken = jax.nn.one_hot(stream.action, len(ratios))

    def body(following: tuple[Array, ...], inputs: tuple[Array, Transition, Array, Array]):
        total, fraction, successor, remaining, counts = following
        time, transition, taken_t, done_t = inputs
        remaining = jnp.where(done_t, 1, remaining + 1)
        inside = remaining > num_steps  # the window closes before the episode does
        behind = jnp.minimum(time + num_steps, length - 1)
        left = jnp.where(inside, whole * stream.reward[behind], 0.0)
        total = transition.reward + discount * jnp.where(done_t, 0.0, total) - left
        counts = taken_t + jnp.where(done_t, 0.0, counts) - jnp.where(inside, taken[behind], 0.0)
        fraction = discount * jnp.where(done_t, 1.0 - transition.terminated, fraction)
        successor = jnp.where(done_t, jnp.asarray(transition.next_obs), successor)
        window = Windows(
            total=total,
            discount=jnp.where(inside, whole, fraction),
            successor=jnp.where(inside, jnp.asarray(stream.obs)[behind], successor),
            ratio=_product(jnp.asarray(ratios), counts),
        )
        return (total, fraction, successor, remaining, counts), window

    start = (jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.zeros_like(taken[0]))
    return lax.scan(body, start, (jnp.arange(length), stream, taken, done), reverse=True)[1]


def _product(ratios: Array, counts: Array) -> Array:
    """Product of ratios `[A]`, each taken as often as counted; by logarithms, as a power alone may be infinite."""
    positive = ratios > 0
    logs = counts * jnp.log(jnp.where(positive, ratios, 1.0))
    return jnp.where(((counts > 0) & ~positive).any(), 0.0, jnp.exp(logs.sum()))


def learn(
    state: State,
    stream: Transition,
    hypers: Hypers,
    *,
    policies: prediction.Policies,
    reference: tuple[float, ...] = (),
) -> tuple[State, Array]:
    """Learns from one environment's steps.

    Args:
        state: the values.
        stream: leaves `[T]`, in time order.
        hypers: numbers.
        policies: of the steps and of the values.
        reference: known values of the first states.

    Returns:
        `(state, errors [T])`, the error after each step.
    """
    num_steps = jnp.clip(jnp.round(hypers.num_steps), 1, stream.reward.shape[0]).astype(jnp.int32)

    def body(values, inputs):
        obs, window = inputs
        difference = window.total + window.discount * values[window.successor] - values[obs]
        # Reading and writing one number costs a fifth of a masked pass over the table, measured over many lanes.
        values = values.at[obs].add(hypers.learning_rate * window.ratio * difference)
        return values, prediction.step_error(values, difference, reference)

    ahead = windows(stream, num_steps, jnp.float32(hypers.discount), policies)
    values, errors = lax.scan(body, state.values, (stream.obs, ahead))
    return State(values), errors


def init(key: Key, hypers: Hypers, *, num_states: int) -> State:
    """Fills the table with one value; the key is not needed."""
    del key
    return State(jnp.full(num_states, hypers.initial_value, jnp.float32))


def update(
    key: Key,
    step: Array,
    state: State,
    batch: Transition,
    hypers: Hypers,
    *,
    policies: prediction.Policies,
    reference: tuple[float, ...],
    num_episodes: int,
) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions, one environment after the other."""
    del key, step
    streams = prediction.streams(batch)

    def body(state, stream):
        return learn(state, stream, hypers, policies=policies, reference=reference)

    state, errors = lax.scan(body, state, streams)
    return state, Metrics(prediction.report(errors, streams, reference, num_episodes))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds n-step prediction to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: policies and what the error is measured against.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, or the policies do not fit them or each other.
    """
    num_states, policies = prediction.bind(spec, config)
    return Algorithm(
        init=functools.partial(init, num_states=num_states),
        update=functools.partial(
            update, policies=policies, reference=config.reference, num_episodes=config.num_episodes
        ),
        policy=functools.partial(policy, policies=policies),
    )
