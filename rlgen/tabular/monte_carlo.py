"""Monte Carlo prediction; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 5.1; off-policy 5.5, 5.6.

At the end of an episode the value of a state moves towards the mean of the returns `G` that followed its visits, or its
first visit alone:

    V(s) += a Σ w (G − V(s)),  a = α / C(s)^ω,

where `C(s)` sums all weights `w` so far.  `α = ω = 1` averages all returns, `ω = 0` is constant-α Monte Carlo.
On-policy each weight is one.  Off-policy the importance ratio `ρ` of a return, over the actions from the visit to the
end, enters by `Config.importance`: `"ordinary"` puts `ρ G` for `G`, and `"weighted"` makes `ρ` the weight.

No episode is stored or left out, however long it is and wherever batches cut it: all that its end will need are a few
sums for each state.

Departures: several visits of an episode are learned from at once, and they move the value no further than to their mean
return; an average is the same.  Where an episode is truncated, its returns are completed by the value of the state seen
last.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

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
        visits: which visits of a state in an episode are learned from.
        importance: how off-policy returns are corrected; `"none"` on-policy.
        behaviour: probability of each action while data is gathered; empty for a uniform policy.
        target: probability of each action under the policy whose values are learned; empty for the behaviour.
        reference: known values of the first states, against which `Metrics.error` is measured at the ends of episodes.
        num_episodes: how many ends, from each batch's first on, `Metrics.error` averages; 0 for all.
    """

    num_envs: int = 1
    rollout_length: int = 1024
    visits: Literal["first", "every"] = "first"
    importance: Literal["none", "ordinary", "weighted"] = "none"
    behaviour: tuple[float, ...] = ()
    target: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    num_episodes: int = 0


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1.0  # α
    step_exponent: float = 1.0  # ω
    discount: float = 1.0
    initial_value: float = 0.0


class Episode(NamedTuple):
    """Sums over the visits of each state in the present episode."""

    seen: Array  # [S] bool, visited
    weight: Array  # [S] float32, w
    discount: Array  # [S] float32, of the next reward, times the ratios so far
    total: Array  # [S] float32, the returns so far, times the ratios so far


class Learner(NamedTuple):
    """The values, and one environment's episode so far."""

    values: Array  # [S] float32
    counts: Array  # [S] float32, C
    episode: Episode


class State(NamedTuple):
    """The values, and every environment's episode so far."""

    values: Array  # [S] float32
    counts: Array  # [S] float32
    episodes: Episode  # leaves [B, S]


class Metrics(NamedTuple):
    """Of an update: sums over the episodes that ended."""

    total_error: Array  # RMS error at the end, or without a reference the mean size of `G − V(s)` there
    episodes: Array  # how many

    @property
    def error(self) -> Array:
        """The mean over the episodes; nan where none ended."""
        return self.total_error / self.episodes


def learn(
    learner: Learner,
    transition: Transition,
    hypers: Hypers,
    *,
    visits: str,
    importance: str,
    policies: prediction.Policies,
) -> tuple[Learner, Array]:
    """Learns from one step; values change where it ends the episode.

    Args:
        learner: values and episode.
        transition: scalars.
        hypers: numbers.
        visits: as in `Config`.
        importance: as in `Config`.
        policies: of the steps and of the values.

    Returns:
        `(learner, error)`, where the error is the mean size of `G − V(s)` over the visits of an episode that ends, and
        0 while it goes on.
    """
    table, counts, episode = learner
    ratio = jnp.asarray(policies.ratios)[transition.action]
    here = jnp.arange(table.shape[0]) == transition.obs
    fresh = here & ~episode.seen if visits == "first" else here
    weight, gain = episode.weight + fresh, ratio * (episode.discount + fresh)
    episode = Episode(
        seen=episode.seen | here,
        weight=ratio * weight if importance == "weighted" else weight,
        discount=hypers.discount * gain,
        total=ratio * episode.total + gain * transition.reward,
    )
    done = transition.terminated | transition.truncated
    rest = jnp.where(transition.terminated, 0.0, table[transition.next_obs])
    ready = jax.tree.map(lambda leaf: jnp.where(done, leaf, jnp.zeros_like(leaf)), episode)
    table, counts, error = _finish(table, counts, ready, rest, hypers)
    episode = jax.tree.map(lambda leaf: jnp.where(done, jnp.zeros_like(leaf), leaf), episode)
    return Learner(table, counts, episode), error


def _finish(table: Array, counts: Array, episode: Episode, rest: Array, hypers: Hypers) -> tuple[Array, Array, Array]:
    """Learns from an episode that is completed by the value `rest`; one without visits changes nothing."""
    counts = counts + episode.weight
    size = episode.weight * hypers.learning_rate / jnp.where(counts > 0, counts, 1.0) ** hypers.step_exponent
    # Where ratios are zero, so is what they would weigh.
    weight = jnp.where(episode.weight > 0, episode.weight, 1.0)
    difference = jnp.where(episode.weight > 0, (episode.total + episode.discount * rest) / weight - table, 0.0)
    total_weight = episode.weight.sum()
    error = (episode.weight * jnp.abs(difference)).sum() / jnp.where(total_weight > 0, total_weight, 1.0)
    return table + jnp.minimum(size, 1.0) * difference, counts, error


def init(key: Key, hypers: Hypers, *, num_states: int, num_envs: int) -> State:
    """Fills the table with one value; the key is not needed."""
    del key
    empty = jnp.zeros((num_envs, num_states))
    episodes = Episode(empty.astype(bool), empty, empty, empty)
    return State(jnp.full(num_states, hypers.initial_value, jnp.float32), empty[0], episodes)


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
    rule = functools.partial(learn, visits=config.visits, importance=config.importance, policies=policies)

    def one_step(learner, transition):
        learner, error = rule(learner, transition, hypers)
        return learner, prediction.step_error(learner.values, error, config.reference)

    def one_stream(tables, inputs):
        episode, stream = inputs
        table, counts = tables
        learner, errors = lax.scan(one_step, Learner(table, counts, episode), stream)
        return (learner.values, learner.counts), (learner.episode, errors)

    streams = prediction.streams(batch)
    (table, counts), (episodes, errors) = lax.scan(one_stream, (state.values, state.counts), (state.episodes, streams))
    ended = streams.terminated | streams.truncated
    return State(table, counts, episodes), Metrics(*prediction.total_error(errors, ended, config.num_episodes))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Monte Carlo prediction to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: visits, correction, policies and what the error is measured against.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, if the policies do not fit them or each other, if there
            are no such visits or correction, or if policies differ and nothing corrects for it.
    """
    num_states, policies = prediction.bind(spec, config)
    if config.visits not in ("first", "every") or config.importance not in ("none", "ordinary", "weighted"):
        raise ValueError(f"there are no visits={config.visits!r} with importance={config.importance!r}")
    if config.importance == "none" and policies.differ:
        raise ValueError("returns of another policy need importance='ordinary' or 'weighted'")
    return Algorithm(
        init=functools.partial(init, num_states=num_states, num_envs=config.num_envs),
        update=functools.partial(update, config=config, policies=policies),
        policy=functools.partial(policy, policies=policies),
    )
