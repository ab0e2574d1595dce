"""Plays whole episodes with every candidate of a population: one generation an update.

A population is one policy (`rlgen.parts.controllers`).  This source gives each of `P` candidates `N` places, resets
every environment, and plays until each episode has terminated, was truncated or is `L` steps long.  What happens in a
place after its episode is masked out.

A candidate's fitness is the mean undiscounted return of its episodes.  A generation counts as `P * N * L` steps in a
budget, the most that it can take: where episodes end early fewer are taken, and `total_length` of the statistics says
how many.  `L` is never above the environment's own time limit.

Shape legend: `P` candidates, `N` episodes of each, `L` steps, `E` places (`P * N`), `D` parameters, `B` any batch
shape.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key, Policy, Source, Tree
from rlgen.envs.adapter import Environment
from rlgen.parts import checks
from rlgen.parts.normalise import Moments
from rlgen.sources.rollout import EpisodeStats


class Evaluation(NamedTuple):
    """What a generation came to."""

    fitness: Array  # [P] float32
    observations: Tree  # `Moments` of `[*observation]`, of all that was acted upon; `()` where nobody asked


class Plan(NamedTuple):
    """How a generation is played; static.

    Attributes:
        num_candidates: `P`.
        num_episodes: `N`.
        max_steps: `L`.
        common_starts: whether all candidates start from the same `N` states.
        observe: whether the moments of observations are taken.
    """

    num_candidates: int
    num_episodes: int
    max_steps: int
    common_starts: bool
    observe: bool


class Play(NamedTuple):
    """Episodes under way."""

    env: Any
    obs: Array  # [E, *observation]
    memory: Tree  # [E, ...]
    running: Array  # [E] bool
    episode_return: Array  # [E] float32, so far
    length: Array  # [E] int32, so far
    seen: Tree  # `(mean, sum of squared deviations)` of what each place saw, [E, *observation]; or `()`


def _note(play: Play) -> Tree:
    """Adds the observation of each running place to what it has seen, by the recursion of Welford 1962."""
    if not play.seen:
        return ()
    mean, squares = play.seen
    column = (-1,) + (1,) * (play.obs.ndim - 1)
    running = play.running.reshape(column)
    delta = play.obs - mean
    new_mean = mean + delta / (play.length + 1).reshape(column)
    return jnp.where(running, new_mean, mean), jnp.where(running, squares + delta * (play.obs - new_mean), squares)


def _pool(play: Play) -> Tree:
    """Moments of what all places saw."""
    if not play.seen:
        return ()
    mean, squares = play.seen
    weight = play.length.sum().astype(jnp.float32)
    share = play.length.reshape((-1,) + (1,) * (mean.ndim - 1)) / weight
    # About the first place's mean, so that what is the same in all of them stays so to the last bit.
    centre = mean[0] + (share * (mean - mean[0])).sum(0)
    between = (share * jnp.square(mean - centre)).sum(0)
    return Moments(centre, squares.sum(0) / weight + between, weight)


def _start(key: Key, policy: Policy, *, env: Environment, plan: Plan) -> Play:
    """Resets all places; that of episode `n` and candidate `p` is `n * P + p`.  The key is consumed."""
    places = plan.num_candidates * plan.num_episodes
    if plan.common_starts:
        started = env.reset(key, plan.num_episodes)
        env_state, obs = jax.tree.map(lambda leaf: jnp.repeat(leaf, plan.num_candidates, axis=0), started)
    else:
        env_state, obs = env.reset(key, places)
    seen = (jnp.zeros(obs.shape), jnp.zeros(obs.shape)) if plan.observe else ()
    zeros = jnp.zeros(places)
    return Play(env_state, obs, policy.memory((places,)), zeros == 0, zeros, zeros.astype(jnp.int32), seen)


def _advance(key: Key, play: Play, policy: Policy, *, env: Environment) -> Play:
    """Takes a step in all places.  The key is consumed."""
    action_key, step_key = jax.random.split(key)
    action, _, memory = policy.apply(action_key, play.obs, play.memory)
    env_state, time_step = env.step(step_key, play.env, action)
    reward: Array = time_step.reward
    return Play(
        env=env_state,
        obs=time_step.obs,
        memory=memory,
        running=play.running & ~(time_step.terminated | time_step.truncated),
        episode_return=play.episode_return + jnp.where(play.running, reward, 0.0),
        length=play.length + play.running,
        seen=_note(play),
    )


def next_batch(key: Key, step: Array, state: tuple[()], policy: Policy, *, env: Environment, plan: Plan):
    """Plays a generation.  The key is consumed.

    Returns:
        `((), Evaluation, EpisodeStats)`.
    """
    del step
    reset_key, steps_key = jax.random.split(key)

    def going_on(carry: tuple[Array, Play]):
        return carry[1].running.any() & (carry[0] < plan.max_steps)

    def body(carry: tuple[Array, Play]):
        step, play = carry
        return step + 1, _advance(jax.random.fold_in(steps_key, step), play, policy, env=env)

    start = _start(reset_key, policy, env=env, plan=plan)
    play = lax.while_loop(going_on, body, (jnp.int32(0), start))[1]
    fitness = play.episode_return.reshape(plan.num_episodes, plan.num_candidates).mean(0)
    sums = EpisodeStats(
        episodes=jnp.float32(play.running.size),
        total_return=play.episode_return.sum(),
        total_length=play.length.sum().astype(jnp.float32),
    )
    return state, Evaluation(fitness, _pool(play)), sums


def build(
    env: Environment,
    *,
    num_candidates: int,
    num_episodes: int = 1,
    max_steps: int | None = None,
    common_starts: bool = False,
    observe: bool = False,
) -> Source:
    """Builds a source of generations.

    Args:
        env: the environment.
        num_candidates: `P`, of the policy.
        num_episodes: `N`, that each candidate plays.
        max_steps: `L`, after which an episode is cut; None, or more than the environment's own limit, for that limit.
        common_starts: whether all candidates start from the same `N` states, drawn anew for every generation.
        observe: whether to take the moments of observations.

    Returns:
        A `Source` of `Evaluation`, with `EpisodeStats` over all episodes; its policy is one that
        `controllers.together` made.

    Raises:
        ValueError: if the environment has several agents.
    """
    checks.one_agent(env.spec)
    limit = env.max_steps if max_steps is None else min(max_steps, env.max_steps)
    plan = Plan(num_candidates, num_episodes, limit, common_starts, observe)
    return Source(init=lambda key, policy: (), next=functools.partial(next_batch, env=env, plan=plan))
