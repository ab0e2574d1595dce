"""Learning from experience that is kept: what is drawn, when there is enough of it, and when a target moves.

An algorithm's `Config` gives `num_envs`, `rollout_length`, `batch_size`, `capacity`, `warm_up`, `replay` of `REPLAYS`
and `sort_period`; its `Hypers` `priority_exponent`, `importance_start` and `horizon`.  One that always draws all
experience alike has a `replay` of `"uniform"` that is no field, and needs none of those numbers.

Priorities are `()` where all slots are drawn alike, and what renews them then leaves them so.

Shape legend: `B` environments, `T` steps between updates, `N` slots, `M` examples in a minibatch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rlgen.core import Array, Key, Spec, Transition, Tree
from rlgen.parts import checks, exploration, frames, priorities, replay

REPLAYS = ("uniform", *priorities.KINDS)


def check(config: Any) -> None:
    """Refuses a capacity that whole rollouts do not fill, and a ring that turns over between two sorts.

    Raises:
        ValueError: if so.
    """
    rollout = config.num_envs * config.rollout_length
    if config.replay == "rank" and rollout > 0 and config.sort_period > config.capacity // rollout:
        raise ValueError(
            f"config.sort_period={config.sort_period} is more than the {config.capacity // rollout} updates that fill"
            " the ring"
        )
    if rollout > 0 and config.capacity % rollout:  # what is not, is refused with the other numbers
        raise ValueError(
            f"config.capacity={config.capacity} is no multiple of"
            f" {config.num_envs} environments × {config.rollout_length} steps"
        )


def idle(config: Any) -> dict[str, str]:
    """Hyperparameters of priorities, where all are drawn alike, and which switch leaves them without effect."""
    names = ("priority_exponent", "importance_start") if config.replay == "uniform" else ()
    return dict.fromkeys(names, "config.replay='uniform'")


def ring(spec: Spec, config: Any, extras: dict[str, Array] | None = None, num_frames: int = 0) -> Transition:
    """Makes an empty ring of transitions, leaves `[R, B, ...]`.

    Args:
        spec: of the task, with actions that are one array.
        config: the algorithm's.
        extras: an example of what is kept beside each transition; nothing by default.
        num_frames: of how many frames observations are stacks, of which the newest is kept, in eight bits; 0 to keep
            observations as they are.

    Raises:
        ValueError: if observations are no images whose last axis holds so many frames; that they repeat from one step
            to the next is the caller's promise.
    """
    checks.one_agent(spec)
    obs, action = (jnp.zeros(space.shape, space.dtype) for space in (spec.observation, spec.action))
    if num_frames:
        obs = jnp.zeros(frames.frame_shape(spec.observation, num_frames), jnp.uint8)
    example = Transition(obs, action, jnp.float32(0), obs, jnp.bool_(False), jnp.bool_(False), extras or {})
    return replay.init(example, capacity=config.capacity, num_envs=config.num_envs, num_rows=config.rollout_length)


def ranks(num_slots: int, *, config: Any) -> Tree:
    """Makes the priorities of `N` slots."""
    return () if config.replay == "uniform" else priorities.init(num_slots, kind=config.replay)


def admit(priority: Tree, step: Array, *, num_slots: int, num: int, config: Any) -> Tree:
    """Gives the slots that update `step` writes the largest priority so far.

    Args:
        priority: of the slots.
        step: updates done before that wrote slots, scalar.
        num_slots: `N`.
        num: slots written at a time.
        config: how slots are drawn.

    Returns:
        The priorities.
    """
    if config.replay == "uniform":
        return priority
    return priorities.add(priority, step, size=num_slots, num=num, sort_period=config.sort_period)


def drawn(key: Key, step: Array, priority: Tree, num_filled: Array, hypers: Any, *, config: Any) -> tuple[Array, Array]:
    """Draws a minibatch's slots and says how much each counts.

    Args:
        key: consumed.
        step: updates done before, scalar.
        priority: of the slots.
        num_filled: slots that hold something, the first ones; scalar.
        hypers: numbers.
        config: how slots are drawn.

    Returns:
        Slots and weights, `[M]` each.
    """
    if config.replay == "uniform":
        return jax.random.randint(key, (config.batch_size,), 0, num_filled), jnp.ones(config.batch_size)
    index, probability = priorities.sample(key, priority, config.batch_size, hypers.priority_exponent)
    importance = exploration.linear(hypers.importance_start, 1.0, step / hypers.horizon)
    return index, priorities.weights(probability, importance)


def renew(priority: Tree, index: Array, error: Array, hypers: Any, *, config: Any) -> Tree:
    """Sets the priorities of slots `[M]` to how wrong they were found to be, `[M]`."""
    if config.replay == "uniform":
        return priority
    return priorities.update(priority, index, error, hypers.priority_exponent, priorities.LEAST)


def warm(config: Any) -> int:
    """Updates after which as much is gathered as `warm_up` asks for."""
    return -(-config.warm_up // (config.num_envs * config.rollout_length))


def practise(
    key: Key, step: Array, carry: Tree, one_step: Callable[..., Any], *, num_steps: int, first: int, metrics: Any
):
    """Takes gradient steps, once there is enough to learn from.

    Args:
        key: consumed.
        step: updates done before, scalar; nothing else decides, so that it stays a branch under a sweep.
        carry: what a step changes.
        one_step: `(carry, key, count) -> (carry, metrics)`; `count` gradient steps would have been taken before, had
            none waited, and is as much outside a sweep's batch as `step`.
        num_steps: steps an update.
        first: updates after which learning begins.
        metrics: type of the metrics, a NamedTuple of scalars.

    Returns:
        The carry, and the mean of the metrics, which is zero before learning begins.
    """

    def steps(carry):
        counts = step * num_steps + lax.iota(jnp.int32, num_steps)
        draws = jax.random.split(key, num_steps), counts
        carry, seen = lax.scan(lambda carry, drawn: one_step(carry, *drawn), carry, draws)
        return carry, jax.tree.map(jnp.mean, seen)

    def wait(carry):
        return carry, metrics(*(jnp.float32(0),) * len(metrics._fields))

    return lax.cond(step + 1 >= first, steps, wait, carry)


def update(
    key: Key,
    step: Array,
    state: Any,
    batch: Transition,
    hypers: Any,
    *,
    config: Any,
    learn: Callable[..., tuple[Any, Any, Array]],
    metrics: Any,
    own: Callable[[Key], Key] | None = None,
    num_frames: int = 0,
) -> tuple[Any, Any]:
    """Stores a rollout and takes some gradient steps on what is stored.

    Args:
        key: consumed.
        step: updates done before, scalar.
        state: a NamedTuple with `learner`, `replay` and `priorities`.
        batch: the rollout, `[T, B]`.
        hypers: numbers, with `discount`.
        config: with `num_steps` and `n_step` as well.
        learn: `(key, count, learner, minibatch, weight, hypers) -> (learner, metrics, priority)`, the rule.
        metrics: their type.
        own: makes the key of a step one's own, where several learn at once; None where one learns alone.
        num_frames: as `ring` takes it.

    Returns:
        `(state, metrics)`.
    """
    num_rows, shape = config.rollout_length, state.replay.reward.shape
    if num_frames:
        batch = batch._replace(
            obs=frames.newest(batch.obs, num_frames), next_obs=frames.newest(batch.next_obs, num_frames)
        )
    ring = replay.add(state.replay, step, batch._replace(extras={}))
    last_row, rows = replay.newest(ring, step, num_rows), replay.filled(ring, step, num_rows)
    full, num_filled = rows == shape[0], rows * config.num_envs
    read = functools.partial(frames.observed, full=full, num_frames=num_frames) if num_frames else replay.as_kept
    num = config.num_envs * num_rows
    priority = admit(state.priorities, step, num_slots=config.capacity, num=num, config=config)

    def one_step(carry, key, count):
        learner, priority = carry
        draw_key, learn_key = jax.random.split(key if own is None else own(key))
        index, weight = drawn(draw_key, step, priority, num_filled, hypers, config=config)
        readable = frames.readable(index, last_row, full, shape, num_frames) if num_frames else None
        if readable is not None:
            weight = jnp.where(readable, weight, 0.0)
        minibatch = replay.multi_step(ring, index, last_row, hypers.discount, config.n_step, read)
        learner, seen, error = learn(learn_key, count, learner, minibatch, weight, hypers)
        if readable is not None:
            error = jnp.where(readable, error, 0.0)  # not to be drawn again for what cannot be seen of it
        return (learner, renew(priority, index, error, hypers, config=config)), seen

    (learner, priority), seen = practise(
        key,
        step,
        (state.learner, priority),
        one_step,
        num_steps=config.num_steps,
        first=warm(config),
        metrics=metrics,
    )
    return state._replace(learner=learner, replay=ring, priorities=priority), seen


def follow(step: Array, target: Tree, params: Tree, *, period: int, tau: Array | float | None = None) -> Tree:
    """Moves a target network in one of `period` updates.

    Args:
        step: updates done before, scalar; nothing else decides, so that it stays a branch under a sweep.
        target: the target network's parameters.
        params: the online network's.
        period: updates between two moves.
        tau: share of the online network in a move; None to copy it.

    Returns:
        The target network's parameters.
    """

    def move():
        return params if tau is None else optax.incremental_update(params, target, tau)

    return lax.cond((step + 1) % period == 0, move, lambda: target)
