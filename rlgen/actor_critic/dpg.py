"""Deterministic policy gradient with a linear policy and a compatible critic.

Source: Silver et al. 2014, "Deterministic Policy Gradient Algorithms", doi:10.5555/3044805.3044850.

The policy is `μ(s) = θᵀ s`.  The critic is linear in `∇_θ μ(s) (a − μ(s))`, so that its gradient at the policy's action
may take the place of the true one without bias, and in quadratic features of the observation, which give the value:
`Q(s, a) = (a − μ(s))ᵀ Wᵀ s + vᵀ ψ(s)`.  It learns by temporal differences, off-policy towards `Q(s', μ(s'))`, which is
the paper's COPDAC-Q, or on-policy towards the value of the next action as it is drawn, by Sarsa.

Departures from the paper: updates are means over several environments at a time; actions are explored by a normal of
constant width in both forms; what Sarsa takes for the next action is drawn anew, as the policy would.  Where an episode
is truncated it bootstraps from the true last observation.

Shape legend: `T` rollout length, `B` environments, `N` any batch shape, `O` numbers observed, `D` elements of an
action, `F` quadratic features.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Box, Key, Policy, Spec, Transition, memoryless
from rlgen.parts import checks

CRITICS = ("q", "sarsa")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps of each environment between updates.
        critic: `"q"` to learn off-policy, `"sarsa"` to learn on-policy.
        natural: whether the policy goes along the natural gradient, which with this critic is `W` itself.
    """

    num_envs: int = 32
    rollout_length: int = 1
    critic: str = "q"
    natural: bool = False

    def __post_init__(self):
        checks.one_of(self, critic=CRITICS)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3  # of the policy
    critic_learning_rate: float = 1e-2
    discount: float = 0.9
    noise: float = 0.5  # deviation of actions from the policy's


class Learner(NamedTuple):
    """What an update changes."""

    policy: Array  # `θ`, [O, D]
    advantage: Array  # `W`, [O, D]
    value: Array  # `v`, [F]


class State(NamedTuple):
    """What an update changes."""

    learner: Learner


class Metrics(NamedTuple):
    """Means over a rollout."""

    error: Array  # mean absolute temporal-difference error
    value: Array  # of the observations


def features(obs: Array) -> Array:
    """Products of all pairs of numbers observed, and 1: `[*N, O]` to `[*N, F]`."""
    first, second = jnp.triu_indices(obs.shape[-1])
    return jnp.concatenate([obs[..., first] * obs[..., second], jnp.ones((*obs.shape[:-1], 1))], axis=-1)


def act_of(learner: Learner, obs: Array) -> Array:
    """The policy's actions, `[*N, D]`, at `[*N, O]`."""
    return obs @ learner.policy


def q_value(learner: Learner, obs: Array, action: Array) -> Array:
    """The critic's values `[*N]` of actions `[*N, D]` at `[*N, O]`."""
    advantage = ((action - act_of(learner, obs)) * (obs @ learner.advantage)).sum(-1)
    return advantage + features(obs) @ learner.value


def learn(
    learner: Learner, rollout: Transition, next_action: Array, hypers: Hypers, *, config: Config
) -> tuple[Learner, Metrics]:
    """Takes one step with the policy and with the critic: the rule itself, free of any environment.

    Args:
        learner: policy and critic.
        rollout: leaves `[*N, ...]`.
        next_action: at `next_obs`, by which it bootstraps, `[*N, D]`.
        hypers: numbers.
        config: whether the gradient is the natural one.

    Returns:
        `(learner, metrics)`.
    """
    obs, action = rollout.obs, rollout.action
    onward = jnp.where(rollout.terminated, 0.0, q_value(learner, rollout.next_obs, next_action))
    value = q_value(learner, obs, action)
    error = rollout.reward + hypers.discount * onward - value
    axes = tuple(range(error.ndim))
    off = action - act_of(learner, obs)
    slope = jnp.mean(error[..., None, None] * obs[..., :, None] * off[..., None, :], axis=axes)
    gradient = learner.advantage
    if not config.natural:
        gradient = jnp.mean(obs[..., :, None] * (obs @ learner.advantage)[..., None, :], axis=axes)
    moved = Learner(
        learner.policy + hypers.learning_rate * gradient,
        learner.advantage + hypers.critic_learning_rate * slope,
        learner.value + hypers.critic_learning_rate * jnp.mean(error[..., None] * features(obs), axis=axes),
    )
    return moved, Metrics(jnp.abs(error).mean(), value.mean())


def init(key: Key, hypers: Hypers, *, spec: Spec) -> State:
    """Starts with a small policy, drawn at random, and a critic of zeros.  The key is consumed."""
    del hypers
    shape = (spec.observation.shape[0], spec.action.shape[0])
    num = shape[0] * (shape[0] + 1) // 2 + 1
    return State(Learner(0.01 * jax.random.normal(key, shape), jnp.zeros(shape), jnp.zeros(num)))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, config: Config, space: Box):
    """Learns from one rollout `[T, B]`.  The key is consumed, by Sarsa's next actions."""
    del step
    noise = hypers.noise if config.critic == "sarsa" else 0.0
    next_action, _, _ = act(key, batch.next_obs, (), learner=state.learner, noise=noise, space=space)
    learner, metrics = learn(state.learner, batch, next_action, hypers, config=config)
    return State(learner), metrics


def act(key: Key, obs: Array, memory: tuple[()], *, learner: Learner, noise: Array | float, space: Box):
    """Acts at `[*N, O]`, within the task's box.  The key is consumed."""
    action = act_of(learner, obs)
    action = action + noise * jax.random.normal(key, action.shape)
    return jnp.clip(action, jnp.asarray(space.low), jnp.asarray(space.high)), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, spec: Spec) -> Policy:
    """The linear policy, with noise while exploring."""
    del step
    noise = hypers.noise if explore else 0.0
    return memoryless(functools.partial(act, learner=state.learner, noise=noise, space=spec.action))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds the deterministic policy gradient to a task.

    Args:
        spec: vectors as observations, a vector `Box` of actions.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are of another kind.
    """
    for name, space in (("observations", spec.observation), ("actions", spec.action)):
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise ValueError(f"a linear policy goes from vectors to vectors; the task's {name} are {space}")
    return Algorithm(
        init=functools.partial(init, spec=spec),
        update=functools.partial(update, config=config, space=spec.action),
        policy=functools.partial(policy, spec=spec),
    )
