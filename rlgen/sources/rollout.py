"""Steps a batch of environments under the exploring policy.

The policy's memory is carried from step to step and starts anew wherever an episode ends.  Statistics cover finished
episodes only.

Shape legend: `T` length, `B` environments.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key, Policy, Source, Transition, Tree
from rlgen.envs.adapter import Environment


class RolloutState(NamedTuple):
    """Environments in mid-episode."""

    env: Any
    obs: Tree  # [B, *observation]
    memory: Tree  # [B, ...]
    episode_return: Tree  # [B] float32, so far, of each agent where there are several
    episode_length: Array  # [B] int32, so far


class EpisodeStats(NamedTuple):
    """Sums over the episodes that finished."""

    episodes: Array  # float32 scalar, how many
    total_return: Tree  # float32 scalar, undiscounted, of each agent where there are several
    total_length: Array  # float32 scalar, steps


def select(condition: Array, on_true: Tree, on_false: Tree) -> Tree:
    """Chooses between two trees by a `[B]` condition, broadcast over the trailing axes of each leaf."""

    def choose(true_leaf, false_leaf):
        return jnp.where(condition.reshape(condition.shape + (1,) * (true_leaf.ndim - 1)), true_leaf, false_leaf)

    return jax.tree.map(choose, on_true, on_false)


def init(key: Key, policy: Policy, *, env: Environment, num_envs: int) -> RolloutState:
    """Resets the environments.  The key is consumed."""
    env_state, obs = env.reset(key, num_envs)
    nothing = jax.tree.map(lambda _: jnp.zeros(num_envs), env.spec.action)  # one for each agent
    return RolloutState(env_state, obs, policy.memory((num_envs,)), nothing, jnp.zeros(num_envs, jnp.int32))


def next_batch(key: Key, step: Array, state: RolloutState, policy: Policy, *, env: Environment, length: int):
    """Collects `[T, B]` transitions.  The key is consumed.

    Returns:
        `(state, Transition [T, B], EpisodeStats)`.
    """
    del step

    def body(state: RolloutState, keys: Array):
        action_key, step_key = keys
        action, extras, memory = policy.apply(action_key, state.obs, state.memory)
        env_state, time_step = env.step(step_key, state.env, action)
        done = time_step.terminated | time_step.truncated
        episode_return = jax.tree.map(jnp.add, state.episode_return, time_step.reward)
        episode_length = state.episode_length + 1

        def total(each: Array) -> Array:
            return jnp.where(done, each, 0.0).sum()

        finished = EpisodeStats(
            episodes=done.sum(dtype=jnp.float32),
            total_return=jax.tree.map(total, episode_return),
            total_length=jnp.where(done, episode_length, 0).sum().astype(jnp.float32),
        )
        transition = Transition(
            state.obs, action, time_step.reward, time_step.next_obs, time_step.terminated, time_step.truncated, extras
        )
        new_state = RolloutState(
            env=env_state,
            obs=time_step.obs,
            memory=select(done, policy.memory(done.shape), memory),
            episode_return=jax.tree.map(lambda each: jnp.where(done, 0.0, each), episode_return),
            episode_length=jnp.where(done, 0, episode_length),
        )
        return new_state, (transition, finished)

    state, (batch, finished) = lax.scan(body, state, jax.random.split(key, (length, 2)))
    return state, batch, jax.tree.map(jnp.sum, finished)


def build(env: Environment, *, num_envs: int, length: int) -> Source:
    """Builds a source of rollouts.

    Args:
        env: the environment.
        num_envs: `B`.
        length: `T`, steps an update.

    Returns:
        A `Source` of `[T, B]` transitions, with `EpisodeStats`.
    """
    return Source(
        init=functools.partial(init, env=env, num_envs=num_envs),
        next=functools.partial(next_batch, env=env, length=length),
    )
