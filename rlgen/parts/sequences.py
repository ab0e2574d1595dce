"""A ring of rollouts from which sequences are read, with what a recurrent network remembered before each.

A sequence begins with every rollout of every environment, so that the rollout's length is how far apart sequences
begin.  It is `burn_in` steps, which only bring the memory up to date, and `sequence_length` steps that are learned
from.  The ring holds rollouts as they come, and one memory a rollout.  Sequences have slots of their own: one is taken
when the last step of a sequence is stored, and is given to another one when the first step is overwritten, so that what
can be drawn is whole.  Such storage is that of Kapturowski et al. 2019, openreview.net r1lyTjAqYX.

An algorithm's `Config` gives `num_envs`, `rollout_length`, `capacity`, `burn_in` and `sequence_length`.

Shape legend: `T` steps of a rollout, `B` environments, `R` rows of the ring, `P` sequences that can be drawn of an
environment, `M` sequences in a minibatch, `L` steps of a sequence, `D` units.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Array, Spec, Transition, Tree
from rlgen.parts import experience, replay


class Ring(NamedTuple):
    """What was lived through."""

    steps: Transition  # leaves `[R, B, ...]`
    memory: Tree  # leaves `[R / T, B, D]`, before the first step of each rollout


class Sequences(NamedTuple):
    """What is learned from."""

    steps: Transition  # leaves `[M, L, ...]`
    memory: Tree  # leaves `[M, D]`, before the first step


def span(config: Any) -> int:
    """Rollouts that a sequence reaches into."""
    return -(-(config.burn_in + config.sequence_length) // config.rollout_length)


def num_starts(config: Any) -> int:
    """`P`: of a full ring's rollouts, those with which a whole sequence begins."""
    return config.capacity // (config.num_envs * config.rollout_length) - span(config) + 1


def warm(config: Any) -> int:
    """Updates after which learning begins: enough is gathered, and a sequence is whole."""
    return max(experience.warm(config), span(config))


def check(config: Any) -> None:
    """Refuses sequences that leave steps out, and a ring that holds none or turns over between two sorts.

    Raises:
        ValueError: if so.
    """
    if config.sequence_length < config.rollout_length:
        raise ValueError(
            f"config.sequence_length={config.sequence_length} leaves out steps: a sequence begins every"
            f" {config.rollout_length} steps"
        )
    if config.num_envs < 1 or config.rollout_length < 1:
        return  # refused with the other numbers
    if num_starts(config) < 1:
        raise ValueError(
            f"config.capacity={config.capacity} holds no sequence of {config.burn_in} + {config.sequence_length} steps"
            f" of each of {config.num_envs} environments"
        )
    if config.replay == "rank" and config.sort_period > num_starts(config):
        raise ValueError(
            f"config.sort_period={config.sort_period} is more than the {num_starts(config)} updates that fill the ring"
        )


def init(spec: Spec, memory: Tree, config: Any) -> Ring:
    """Makes an empty ring; `memory`, of one environment, is an example."""
    rollouts = config.capacity // config.rollout_length
    memories = replay.init(memory, capacity=rollouts, num_envs=config.num_envs, num_rows=1)
    return Ring(experience.ring(spec, config), memories)


def add(ring: Ring, step: Array, batch: Transition) -> Ring:
    """Writes the rollout of update `step`, `[T, B]` with the actor's memory in its extras, over the oldest one."""
    memory = jax.tree.map(lambda leaf: leaf[:1], batch.extras["memory"])
    return Ring(replay.add(ring.steps, step, batch._replace(extras={})), replay.add(ring.memory, step, memory))


def newest(step: Array, *, config: Any) -> Array:
    """Number of the rollout with which the newest whole sequences begin after the write of update `step`, scalar.

    It is 0 before there is any.
    """
    return jnp.maximum(step + 1 - span(config), 0)


def take(step: Array, ring: Ring, index: Array, *, config: Any) -> Sequences:
    """Reads sequences.

    Args:
        step: updates done before, scalar.
        ring: rows `[R, B]`, with what this update wrote.
        index: slots, `[M]`: those of rollout `i` are `(i mod P) * B` and the `B - 1` after it.
        config: how long sequences are.

    Returns:
        Leaves `[M, L, ...]`, and memories `[M, D]`.
    """
    num_rows, last = config.capacity // config.num_envs, newest(step, config=config)
    slot, env = index // config.num_envs, index % config.num_envs
    rollout = (last - (last - slot) % num_starts(config)) % (num_rows // config.rollout_length)
    length = config.burn_in + config.sequence_length
    rows = (rollout[:, None] * config.rollout_length + jnp.arange(length)) % num_rows
    steps = replay.take(ring.steps, rows * config.num_envs + env[:, None])
    return Sequences(steps, replay.take(ring.memory, rollout * config.num_envs + env))
