"""Batch TD(0) and batch Monte Carlo; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 6.3.

After each batch all experience so far is presented again and again, and each time the values change by the sum of all
its increments.  Batch Monte Carlo so finds the average return after each state, which fits the data best; batch TD the
values of the most likely process, which predict best.

All that the presentations need is counted once: for each state its visits, the sum of the targets' rewards, and how
much of each other state's value the targets hold.  One step of TD and one episode of Monte Carlo are counted alike, for
TD is Monte Carlo whose every episode is cut after one step.

Departures: a state's increments are averaged over its visits, so that a learning rate up to one is small enough however
much has been seen; the limits stay the same.  Episodes that a batch cuts are counted once they have ended; returns of
truncated episodes are completed by the value of the state seen last.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition
from rlgen.parts import prediction

target_policy, values = prediction.target_policy, prediction.values


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps between presentations.
        method: whether targets are one step and a value, or whole returns.
        num_sweeps: presentations of all experience an update.
        behaviour: probability of each action; empty for a uniform policy.
        target: the same policy, or empty: batches are learned from on-policy.
        reference: known values of the first states, against which `Metrics.error` is measured.
    """

    num_envs: int = 1
    rollout_length: int = 16
    method: Literal["td", "monte_carlo"] = "td"
    num_sweeps: int = 256
    behaviour: tuple[float, ...] = ()
    target: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1.0
    discount: float = 1.0
    initial_value: float = 0.0


class Experience(NamedTuple):
    """Sums over all visits whose targets are complete.  Whole numbers stay exact up to `2²⁴` visits of a state."""

    visits: Array  # [S] float32
    rewards: Array  # [S] float32, discounted
    successors: Array  # [S, S] float32, discount with which the targets of a state hold the value of another


class Episode(NamedTuple):
    """Sums over the visits of each state in the present episode."""

    visits: Array  # [S] float32
    discount: Array  # [S] float32, of the next reward
    rewards: Array  # [S] float32, discounted


class State(NamedTuple):
    """The values and what they are made from."""

    values: Array  # [S] float32
    experience: Experience
    episodes: Episode  # leaves [B, S]


class Metrics(NamedTuple):
    """Of an update."""

    error: Array  # RMS error after the last presentation, or without a reference the largest change that one more makes


def count(
    experience: Experience, episode: Episode, transition: Transition, discount: Array | float, *, method: str
) -> tuple[Experience, Episode]:
    """Counts one step.

    Args:
        experience: so far.
        episode: of the environment that made the step.
        transition: scalars.
        discount: `γ`.
        method: as in `Config`.

    Returns:
        `(experience, episode)`.
    """
    here = jnp.arange(episode.visits.shape[0]) == transition.obs
    gain = episode.discount + here
    episode = Episode(episode.visits + here, discount * gain, episode.rewards + gain * transition.reward)
    closed = (method == "td") | transition.terminated | transition.truncated
    ready = jax.tree.map(lambda leaf: jnp.where(closed, leaf, 0.0), episode)
    experience = Experience(
        visits=experience.visits + ready.visits,
        rewards=experience.rewards + ready.rewards,
        successors=experience.successors.at[:, transition.next_obs].add(
            jnp.where(transition.terminated, 0.0, ready.discount)
        ),
    )
    return experience, jax.tree.map(lambda leaf: jnp.where(closed, 0.0, leaf), episode)


def increments(table: Array, experience: Experience) -> Array:
    """The mean of what a presentation adds to each state's value at a learning rate of one, `[S]`; 0 if never seen."""
    targets = experience.rewards + experience.successors @ table
    return jnp.where(experience.visits > 0, targets / jnp.maximum(experience.visits, 1.0) - table, 0.0)


def learn(table: Array, experience: Experience, hypers: Hypers, *, num_sweeps: int) -> Array:
    """Presents all experience again and again.

    Args:
        table: values, `[S]`.
        experience: sums over all visits.
        hypers: numbers.
        num_sweeps: how often.

    Returns:
        Values, `[S]`.
    """
    return lax.fori_loop(
        0, num_sweeps, lambda _, table: table + hypers.learning_rate * increments(table, experience), table
    )


def init(key: Key, hypers: Hypers, *, num_states: int, num_envs: int) -> State:
    """Fills the table with one value; the key is not needed."""
    del key
    none, open_ = jnp.zeros(num_states), jnp.zeros((num_envs, num_states))
    experience = Experience(none, none, jnp.zeros((num_states, num_states)))
    return State(jnp.full(num_states, hypers.initial_value, jnp.float32), experience, Episode(open_, open_, open_))


def update(
    key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, config: Config
) -> tuple[State, Metrics]:
    """Counts `[T, B]` transitions and presents everything."""
    del key, step

    def one_step(counted, transition):
        experience, episode = counted
        return count(experience, episode, transition, hypers.discount, method=config.method), None

    def one_stream(experience, inputs):
        episode, stream = inputs
        return lax.scan(one_step, (experience, episode), stream)[0]

    experience, episodes = lax.scan(one_stream, state.experience, (state.episodes, prediction.streams(batch)))
    table = learn(state.values, experience, hypers, num_sweeps=config.num_sweeps)
    residual = jnp.abs(increments(table, experience)).max()
    return State(table, experience, episodes), Metrics(prediction.step_error(table, residual, config.reference))


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, policies: prediction.Policies) -> Policy:
    """The one policy there is."""
    del step, state, hypers, explore
    return prediction.fixed_policy(policies.behaviour)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds batch prediction to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: method, policy and what the error is measured against.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, if the policy does not fit them, if the target is
            another policy than the behaviour, or if there is no such method.
    """
    num_states, policies = prediction.bind(spec, config)
    if config.method not in ("td", "monte_carlo"):
        raise ValueError(f"method={config.method!r} is neither td nor monte_carlo")
    if policies.differ:
        raise ValueError("batch prediction learns the values of the policy that gathers the batches")
    return Algorithm(
        init=functools.partial(init, num_states=num_states, num_envs=config.num_envs),
        update=functools.partial(update, config=config),
        policy=functools.partial(policy, policies=policies),
    )
