"""Episodes of a frozen policy.

Every environment counts its first episode only: counting whatever finishes within a number of steps would favour short
episodes.

Shape legend: `E` episodes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key, Policy, Tree
from rlgen.envs.adapter import Environment


class Episodes(NamedTuple):
    """Finished episodes."""

    total_return: Tree  # [E] float32, undiscounted, of each agent where there are several
    length: Array  # [E] int32


def episodes(key: Key, policy: Policy, env: Environment, num_episodes: int) -> Episodes:
    """Plays whole episodes.

    Args:
        key: consumed.
        policy: what acts.
        env: where.
        num_episodes: `E`, each in an environment of its own.

    Returns:
        Return and length of each episode.
    """
    reset_key, steps_key = jax.random.split(key)
    env_state, obs = env.reset(reset_key, num_episodes)
    nothing = jax.tree.map(lambda _: jnp.zeros(num_episodes), env.spec.action)  # one for each agent
    start = Episodes(nothing, jnp.zeros(num_episodes, jnp.int32))

    def going_on(carry: tuple[Any, ...]):
        step, running, *_ = carry
        return running.any() & (step < env.max_steps)

    def body(carry):
        step, running, env_state, obs, memory, totals = carry
        action_key, step_key = jax.random.split(jax.random.fold_in(steps_key, step))
        action, _, memory = policy.apply(action_key, obs, memory)
        env_state, time_step = env.step(step_key, env_state, action)
        # What comes after an episode is no part of it, be it infinite.
        counted = jax.tree.map(lambda each: jnp.where(running, each, 0.0), time_step.reward)
        total_return = jax.tree.map(jnp.add, totals.total_return, counted)
        totals = Episodes(total_return, totals.length + running)
        running &= ~(time_step.terminated | time_step.truncated)
        return step + 1, running, env_state, time_step.obs, memory, totals

    running = jnp.ones(num_episodes, bool)
    carry = (jnp.int32(0), running, env_state, obs, policy.memory((num_episodes,)), start)
    return lax.while_loop(going_on, body, carry)[-1]
