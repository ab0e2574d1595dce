"""Action values of a bandit, with one of three ways to explore.

Source: Sutton and Barto, "Reinforcement Learning", 2nd edition, chapter 2: sample averages and constant step sizes
(2.2 to 2.5), optimistic initial values (2.6) and the upper confidence bound (2.7).  What an action is worth is learned
for every observation alone, so that a bandit with contexts is the same program.

Departures: Boltzmann exploration draws from a softmax over action values, which the chapter has over preferences alone;
the upper confidence bound takes the logarithm of the number of steps done, and not of the one to come.

Where several environments or steps make a batch, their transitions are learned from one after another in time order.

Shape legend: `T` steps, `B` environments, `S` observations, `A` actions.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, memoryless
from rlgen.parts import exploration, tabular

EXPLORATIONS = ("epsilon_greedy", "boltzmann", "ucb")
_COLDEST = 1e-6  # the temperature that stands for zero


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`; with 1 the values are new at every step, as in the book.
        exploration: `"epsilon_greedy"`, `"boltzmann"` or `"ucb"`.
    """

    num_envs: int = 1
    rollout_length: int = 1
    exploration: str = "epsilon_greedy"


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    step_size: float = 0.0  # 0 stands for the sample average, one over the number of times
    initial_value: float = 0.0  # optimistic where it is above the true values and the step size is constant
    exploration: float = 0.1  # ε, the temperature, or the confidence c; 0 is greedy


class State(NamedTuple):
    """The values, and how often each was learned from."""

    q_values: Array  # [S, A] float32
    counts: Array  # [S, A] int32


class Metrics(NamedTuple):
    """Means over an update's transitions."""

    error: Array  # absolute difference of reward and value
    q_value: Array  # of the actions taken


def learn(state: State, transition: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Learns from one transition: `Q(s, a) += α (r − Q(s, a))`, where a step size of 0 makes `α = 1 / N(s, a)`.

    Args:
        state: values and counts.
        transition: scalars, no batch axis.
        hypers: numbers.

    Returns:
        `(state, metrics)`.
    """
    at = transition.obs, transition.action
    counts = state.counts.at[at].add(1)
    value = state.q_values[at]
    error = transition.reward - value
    step_size = jnp.where(hypers.step_size > 0, hypers.step_size, 1 / counts[at])
    return State(state.q_values.at[at].add(step_size * error), counts), Metrics(jnp.abs(error), value)


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int]) -> State:
    """Fills the table with one value; the key is not needed, since all seeds start alike."""
    del key
    return State(jnp.full(shape, hypers.initial_value, jnp.float32), jnp.zeros(shape, jnp.int32))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions in time order."""
    del key, step
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    state, metrics = lax.scan(lambda state, transition: learn(state, transition, hypers), state, flat)
    return state, jax.tree.map(jnp.mean, metrics)


def act(key: Key, obs: Array, memory: tuple[()], *, state: State, amount: Array | float, rule: str):
    """Chooses actions at observations `[*N]`, equally good ones with equal chance.  The key is consumed."""
    q_values = state.q_values[obs]
    if rule == "ucb":
        action = exploration.greedy(key, exploration.upper_bounds(q_values, state.counts[obs], amount))
    elif rule == "boltzmann":
        action = exploration.boltzmann(key, q_values, jnp.maximum(amount, _COLDEST))
    else:
        tie_key, key = jax.random.split(key)
        action = exploration.epsilon_greedy(key, exploration.break_ties(tie_key, q_values), amount)
    return action, {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, rule: str) -> Policy:
    """Explores by the rule, or is greedy."""
    del step
    rule, amount = (rule, hypers.exploration) if explore else ("epsilon_greedy", 0.0)
    return memoryless(functools.partial(act, state=state, amount=amount, rule=rule))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds action values to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: how to explore.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, or the way to explore is unknown.
    """
    if config.exploration not in EXPLORATIONS:
        raise ValueError(f"exploration {config.exploration!r} is not among {EXPLORATIONS}")
    shape = tabular.shape(spec)
    return Algorithm(
        init=functools.partial(init, shape=shape),
        update=update,
        policy=functools.partial(policy, rule=config.exploration),
    )
