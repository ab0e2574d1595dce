"""TD(λ) with eligibility traces; Sutton and Barto, "Reinforcement Learning", 2nd edition, sections 12.2 and 12.5.

`Config.traces` says what a visit does to the trace of its state: an accumulating trace grows by one, a replacing trace
becomes one (Singh and Sutton 1996, doi:10.1007/BF00114726), and a dutch trace makes the rule true online TD(λ), which
equals the online λ-return algorithm exactly (arXiv:1512.04087).  Off-policy, accumulating and replacing traces are
multiplied by the importance ratio of the action (section 12.9).

Departures: where an episode is truncated, its last step bootstraps and the trace starts anew.  Several environments
have a trace each and are learned from one after another, a batch of each at a time; true online TD(λ) is exact with
one.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

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
        traces: what a visit does to the trace of its state.
        behaviour: probability of each action while data is gathered; empty for a uniform policy.
        target: probability of each action under the policy whose values are learned; empty for the behaviour.
        reference: known values of the first states, against which `Metrics.error` is measured at the ends of episodes.
        num_episodes: how many ends, from each batch's first on, `Metrics.error` averages; 0 for all.
    """

    num_envs: int = 1
    rollout_length: int = 1024
    traces: Literal["accumulating", "replacing", "dutch"] = "accumulating"
    behaviour: tuple[float, ...] = ()
    target: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    num_episodes: int = 0


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.1
    discount: float = 1.0
    initial_value: float = 0.0
    trace_decay: float = 0.8  # λ


class Learner(NamedTuple):
    """The values, and one environment's episode so far."""

    values: Array  # [S] float32
    trace: Array  # [S] float32
    previous: Array  # float32 scalar, value of the present state before the last update; what dutch traces need


class State(NamedTuple):
    """The values, and every environment's episode so far."""

    values: Array  # [S] float32
    traces: Array  # [B, S] float32
    previous: Array  # [B] float32


class Metrics(NamedTuple):
    """Of an update."""

    error: Array  # RMS error at the ends of episodes, or without a reference the mean size of the one-step error


def learn(
    learner: Learner, transition: Transition, hypers: Hypers, *, traces: str, policies: prediction.Policies
) -> tuple[Learner, Array]:
    """Learns from one step: `V += α δ z`, where the trace `z` has faded by `γ λ` since the step before.

    Args:
        learner: values and trace.
        transition: scalars.
        hypers: numbers.
        traces: as in `Config`.
        policies: of the steps and of the values.

    Returns:
        `(learner, δ)`.
    """
    values, obs = learner.values, transition.obs
    value = values[obs]
    next_value = jnp.where(transition.terminated, 0.0, values[transition.next_obs])
    difference = transition.reward + hypers.discount * next_value - value
    here = jnp.arange(values.shape[0]) == obs
    trace = hypers.discount * hypers.trace_decay * learner.trace
    if traces == "dutch":
        trace += jnp.where(here, 1 - hypers.learning_rate * trace[obs], 0.0)
        change = value - learner.previous
        values += hypers.learning_rate * ((difference + change) * trace - jnp.where(here, change, 0.0))
    else:
        trace = jnp.where(here, 1.0 if traces == "replacing" else trace + 1, trace)
        if policies.differ:
            trace *= jnp.asarray(policies.ratios)[transition.action]
        values += hypers.learning_rate * difference * trace
    done = transition.terminated | transition.truncated
    return Learner(values, jnp.where(done, 0.0, trace), jnp.where(done, 0.0, next_value)), difference


def init(key: Key, hypers: Hypers, *, num_states: int, num_envs: int) -> State:
    """Fills the table with one value; the key is not needed."""
    del key
    table = jnp.full(num_states, hypers.initial_value, jnp.float32)
    return State(table, jnp.zeros((num_envs, num_states)), jnp.zeros(num_envs))


def update(
    key: Key,
    step: Array,
    state: State,
    batch: Transition,
    hypers: Hypers,
    *,
    config: Config,
    policies: prediction.Policies,
) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions, one environment after the other."""
    del key, step

    def one_step(learner, transition):
        learner, difference = learn(learner, transition, hypers, traces=config.traces, policies=policies)
        return learner, prediction.step_error(learner.values, difference, config.reference)

    def one_stream(table, inputs):
        trace, previous, stream = inputs
        learner, errors = lax.scan(one_step, Learner(table, trace, previous), stream)
        return learner.values, (learner.trace, learner.previous, errors)

    streams = prediction.streams(batch)
    table, (traces, previous, errors) = lax.scan(one_stream, state.values, (state.traces, state.previous, streams))
    error = prediction.report(errors, streams, config.reference, config.num_episodes)
    return State(table, traces, previous), Metrics(error)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds TD(λ) to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: traces, policies and what the error is measured against.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, if the policies do not fit them or each other, if there
            are no such traces, or if true online TD(λ) is to learn off-policy.
    """
    num_states, policies = prediction.bind(spec, config)
    if config.traces not in ("accumulating", "replacing", "dutch"):
        raise ValueError(f"traces={config.traces!r} is none of accumulating, replacing and dutch")
    if config.traces == "dutch" and policies.differ:
        raise ValueError("true online TD(λ) learns the behaviour's values: its λ-returns have no importance ratios")
    return Algorithm(
        init=functools.partial(init, num_states=num_states, num_envs=config.num_envs),
        update=functools.partial(update, config=config, policies=policies),
        policy=functools.partial(policy, policies=policies),
    )
