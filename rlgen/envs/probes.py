"""Probes: environments so small that the right value and the right action are known for every discount.

Each can be learned only if one particular part of an algorithm is right, so the first probe that fails names the part.
The idea of such probes is folklore of debugging deep RL; the table form, the closed forms and the pair that tells
termination from truncation are this project's.

A probe walks through `O` situations in an order that no action can change, so the best action is the one with the best
reward at once.  The situation is observed as one number in a `Box`, or as its index with `tabular=True`.  A step that
terminates shows the situation it was taken in once more: an algorithm that bootstraps through the end then learns a
wrong value, instead of hiding the fault behind an observation it never learns about.

Shape legend: `O` situations, `A` actions, `N` any batch shape.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlgen.core import Array, Key

RewardFn = Callable[[Array, Array], Array]  # (situation [*N] int32, action [*N, *action]) -> reward [*N]


class Table(NamedTuple):
    """What a probe does."""

    feature: tuple[float, ...]  # [O] the number by which a situation is observed, in [-1, 1]
    start: tuple[int, ...]  # situations in which episodes start, each as likely
    successor: tuple[int, ...]  # [O] the situation after, or -1 where the episode terminates
    reward: RewardFn  # reward of a step
    best_action: tuple[Any, ...]  # [O] what earns most


@struct.dataclass
class ProbeState(environment.EnvState):
    """Which situation, since when, and whether the episode has terminated."""

    time: Any  # int32 steps since the start of the episode
    index: Any  # int32 situation
    ended: Any  # bool


class Probe(environment.Environment[ProbeState, environment.EnvParams]):
    """An environment with known values and best actions."""

    def __init__(
        self,
        name: str,
        table: Table,
        *,
        tabular: bool = False,
        continuous: bool = False,
        sizes: tuple[int, ...] = (),
        max_steps: int | None = None,
    ):
        """Binds the table.

        Args:
            name: name of the environment.
            table: what it does.
            tabular: whether to observe the index of the situation instead of its feature.
            continuous: whether an action is a number in [-1, 1], of shape `[1]`, instead of 0 or 1.
            sizes: of the choices that an action makes at once, where it is several.
            max_steps: time limit by default; by default one that no episode reaches.
        """
        super().__init__()
        self._name = name
        self._table = table
        self._tabular = tabular
        self._continuous = continuous
        self._sizes = sizes
        self._max_steps = len(table.feature) + 1 if max_steps is None else max_steps

    @property
    def observations(self) -> Array:
        """Every observation, `[O, 1]` float32, or `[O]` int32 of a tabular probe."""
        return self._observation(jnp.arange(len(self._table.feature), dtype=jnp.int32))

    @property
    def best_actions(self) -> Array:
        """The best action in each situation: `[O]` int32, `[O, K]` of several choices, `[O, 1]` float32 of a number."""
        if self._continuous:
            return jnp.asarray(self._table.best_action, jnp.float32)[:, None]
        return jnp.asarray(self._table.best_action, jnp.int32)

    def values(self, discount: float) -> np.ndarray:
        """Value of each situation under the best actions, without a time limit.

        Args:
            discount: below one where an episode need not terminate.

        Returns:
            `[O]` float64.
        """
        num = len(self._table.feature)
        follows = np.equal.outer(self._table.successor, np.arange(num))
        reward = self._table.reward(jnp.arange(num), self.best_actions)
        return np.linalg.solve(np.eye(num) - discount * follows, np.asarray(reward, np.float64))

    def action_values(self, discount: float, action: Any) -> np.ndarray:
        """Value of an action followed by the best ones.

        Args:
            discount: below one where an episode need not terminate.
            action: `[O]`, or `[O, 1]` where actions are continuous: what is done in each situation.

        Returns:
            `[O]` float64.
        """
        successor = np.asarray(self._table.successor)
        after = np.where(successor < 0, 0, self.values(discount)[successor])
        return np.asarray(self._table.reward(jnp.arange(len(successor)), jnp.asarray(action))) + discount * after

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, ProbeState]:
        """Draws a situation to start in; the key is consumed."""
        start = jax.random.choice(key, jnp.asarray(self._table.start, jnp.int32))
        state = ProbeState(time=jnp.int32(0), index=start, ended=jnp.bool_(False))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: ProbeState, action: Any, params: environment.EnvParams
    ) -> tuple[Array, ProbeState, Array, Array, dict[Any, Any]]:
        """Goes on to the next situation; the key is not used."""
        action = jnp.stack(action) if self._sizes else jnp.asarray(action)
        reward = self._table.reward(state.index, action).astype(jnp.float32)
        successor = jnp.asarray(self._table.successor, jnp.int32)[state.index]
        ended = successor < 0
        state = ProbeState(time=state.time + 1, index=jnp.where(ended, state.index, successor), ended=ended)
        return self.observe(key, state, action, params), state, reward, ended, {}

    def observe(self, key: Key, state: ProbeState, action: Any, params: environment.EnvParams) -> Array:
        """The feature of the situation, `[1]` float32, or its index, an int32 scalar."""
        del key, action, params
        return self._observation(state.index)

    def _observation(self, index: Array) -> Array:
        return index if self._tabular else jnp.asarray(self._table.feature, jnp.float32)[index, None]

    def is_terminated(self, state: ProbeState, params: environment.EnvParams) -> Array:
        """Whether the episode has terminated."""
        del params
        return state.ended

    @property
    def default_params(self) -> environment.EnvParams:
        """The probe's own time limit."""
        return environment.EnvParams(max_steps_in_episode=self._max_steps)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    @property
    def num_actions(self) -> int:
        """Number of discrete actions, or of elements of a continuous one or of several choices."""
        return len(self._sizes) or (1 if self._continuous else 2)

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Space:
        """Two actions, several choices at once, or one number in [-1, 1]."""
        del params
        if self._sizes:
            return spaces.Tuple([spaces.Discrete(size) for size in self._sizes])
        return spaces.Box(-1.0, 1.0, (1,)) if self._continuous else spaces.Discrete(2)

    def observation_space(self, params: environment.EnvParams) -> spaces.Discrete | spaces.Box:
        """One number in [-1, 1], or the indices of situations."""
        del params
        return spaces.Discrete(len(self._table.feature)) if self._tabular else spaces.Box(-1.0, 1.0, (1,))

    def state_space(self, params: environment.EnvParams) -> spaces.Dict:
        """Time, situation and whether it is over."""
        sizes = {"time": params.max_steps_in_episode + 1, "index": len(self._table.feature), "ended": 2}
        return spaces.Dict({name: spaces.Discrete(size) for name, size in sizes.items()})


def constant_reward(tabular: bool = False) -> Probe:
    """One step, reward 1: value 1 at any discount.  Tests the regression of a value."""
    table = Table((0.0,), (0,), (-1,), functools.partial(_reward_of_situation, rewards=(1.0,)), (0,))
    return Probe("ConstantReward", table, tabular=tabular)


def reward_by_observation(tabular: bool = False) -> Probe:
    """One step, reward the observation, -1 or 1 by chance: value -1 or 1.  Tests that the value reads its input."""
    reward = functools.partial(_reward_of_situation, rewards=(-1.0, 1.0))
    return Probe("RewardByObservation", Table((-1.0, 1.0), (0, 1), (-1, -1), reward, (0, 0)), tabular=tabular)


def delayed_reward(tabular: bool = False) -> Probe:
    """Two steps, observed as 0 and 1, reward 0, then 1: values `discount` and 1.  Tests discount and bootstrap."""
    reward = functools.partial(_reward_of_situation, rewards=(0.0, 1.0))
    return Probe("DelayedReward", Table((0.0, 1.0), (0,), (1, -1), reward, (0, 0)), tabular=tabular)


def reward_by_action(tabular: bool = False) -> Probe:
    """One step, reward 1 for action 1 and -1 for action 0: value 1, best action 1.  Tests a policy's improvement."""
    reward = functools.partial(_reward_of_match, targets=(1,))
    return Probe("RewardByAction", Table((0.0,), (0,), (-1,), reward, (1,)), tabular=tabular)


def reward_by_observation_and_action(tabular: bool = False) -> Probe:
    """One step, reward 1 for action 0 at observation -1 and action 1 at observation 1, else -1.

    The value is 1 at both observations under the best actions, 0 and 1.  Tests that the policy reads its input, and
    that observations, actions and rewards stay together in a batch.
    """
    reward = functools.partial(_reward_of_match, targets=(0, 1))
    return Probe("RewardByBoth", Table((-1.0, 1.0), (0, 1), (-1, -1), reward, (0, 1)), tabular=tabular)


def continuous_action(tabular: bool = False) -> Probe:
    """One step, an action in [-1, 1] and reward `-(action - observation / 2)²`, the observation -1 or 1 by chance.

    The best action is -1/2 or 1/2, half the observation, with value 0.  Tests the gradient through, or of, an action,
    its sign and its scale.
    """
    best = (-0.5, 0.5)
    table = Table((-1.0, 1.0), (0, 1), (-1, -1), functools.partial(_reward_of_distance, targets=best), best)
    return Probe("ContinuousAction", table, tabular=tabular, continuous=True)


def several_choices(tabular: bool = False) -> Probe:
    """One step, two choices of three and of two, reward 1 for each right one and -1 for each wrong one.

    The right ones are (0, 1) at observation -1 and (2, 0) at observation 1: value 2.  Tests that choices are made, and
    learned from, together.
    """
    best = ((0, 1), (2, 0))
    reward = functools.partial(_reward_of_choices, targets=best)
    table = Table((-1.0, 1.0), (0, 1), (-1, -1), reward, best)
    return Probe("SeveralChoices", table, tabular=tabular, sizes=(3, 2))


def truncated(num_steps: int, tabular: bool = False) -> Probe:
    """Reward 1 for ever, cut by the time limit after `num_steps`: value `1 / (1 - discount)`.

    An algorithm that takes the time limit for an end learns less: with `t` steps left it aims at
    `(1 - discount ** t) / (1 - discount)`.
    """
    reward = functools.partial(_reward_of_situation, rewards=(1.0,))
    return Probe("Truncated", Table((0.0,), (0,), (0,), reward, (0,)), tabular=tabular, max_steps=num_steps)


def terminated(num_steps: int, tabular: bool = False) -> Probe:
    """Reward 1 for `num_steps`, then a true end; observes the time `t / num_steps`.

    The value at time `t` is `(1 - discount ** (num_steps - t)) / (1 - discount)`.
    """
    feature = tuple(time / num_steps for time in range(num_steps))
    reward = functools.partial(_reward_of_situation, rewards=(1.0,) * num_steps)
    table = Table(feature, (0,), (*range(1, num_steps), -1), reward, (0,) * num_steps)
    return Probe("Terminated", table, tabular=tabular)


def _reward_of_situation(index: Array, action: Array, *, rewards: tuple[float, ...]) -> Array:
    del action
    return jnp.asarray(rewards)[index]


def _reward_of_match(index: Array, action: Array, *, targets: tuple[int, ...]) -> Array:
    return jnp.where(action == jnp.asarray(targets)[index], 1.0, -1.0)


def _reward_of_choices(index: Array, action: Array, *, targets: tuple[tuple[int, ...], ...]) -> Array:
    return jnp.where(action == jnp.asarray(targets)[index], 1.0, -1.0).sum(-1)


def _reward_of_distance(index: Array, action: Array, *, targets: tuple[float, ...]) -> Array:
    return -((action[..., 0] - jnp.asarray(targets)[index]) ** 2)
