"""Asynchrony as data: workers with snapshots of their own, and turns that are drawn, arXiv:1602.01783.

Each of `K` workers acts, and takes gradients, with a snapshot of the parameters that is its own.  It adds up the
gradients of its rollouts until its turn comes, then hands them over and takes a new snapshot.  In the paper threads
race for those turns; here they are drawn from a key, so that a run can be repeated, and a snapshot's age is a number.

Gradients that arrive in one update take one step together, divided by `K`, so that a learning rate means the same
whatever the age; or the mean of their own steps, where every worker has an optimiser of its own.

Shape legend: `B` environments, `K` workers.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlgen.core import Array, Key, Tree


class Workers(NamedTuple):
    """What the workers have to themselves."""

    params: Tree  # [K, *parameter], the snapshots
    gradient: Tree  # [K, *parameter], added up since they were taken
    age: Array  # [K] int32, updates since then


def copies(tree: Tree, num_workers: int) -> Tree:
    """Gives every worker the same: `[K]` goes in front."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], num_workers, axis=0), tree)


def start(params: Tree, num_workers: int) -> Workers:
    """Hands out the first snapshots, `[K, *parameter]`."""
    snapshots = copies(params, num_workers)
    return Workers(snapshots, jax.tree.map(jnp.zeros_like, snapshots), jnp.zeros(num_workers, jnp.int32))


def apart(tree: Tree, num_workers: int, axis: int) -> Tree:
    """Gives each worker its environments: an axis of `B` becomes `B / K`, and `[K]` goes in front."""

    def split(leaf):
        shape = (*leaf.shape[:axis], num_workers, -1, *leaf.shape[axis + 1 :])
        return jnp.moveaxis(leaf.reshape(shape), axis, 0)

    return jax.tree.map(split, tree)


def together(function: Any, num_workers: int) -> Any:
    """Maps a function over workers; that of a single one is run as it is, without a loop."""
    if num_workers > 1:
        return jax.vmap(function)

    def alone(*args):
        first = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], first)

    return alone


def turns(key: Key, mean_age: Array | float, num_workers: int) -> Array:
    """Draws whose turn it is: each worker's with chance `1 / (1 + mean_age)`, all of them at an age of 0.

    Args:
        key: consumed.
        mean_age: of a snapshot, in updates; at `K − 1` one worker at a time has its turn, on the average.
        num_workers: `K`.

    Returns:
        `[K]` bool.
    """
    return jax.random.bernoulli(key, 1 / (1 + mean_age), (num_workers,))


def act(key: Key, obs: Tree, memory: Tree, own: Tree, *, function: Callable[..., Any], num_workers: int) -> Any:
    """Lets workers `0 … K − 1` act in `B / K` of `B` environments each.

    Args:
        key: consumed.
        obs: `[B, *observation]`.
        memory: `[B, ...]`.
        own: `[K, ...]`, what each worker acts with.
        function: `(key, own, obs, memory) -> (action, extras, memory)` of one worker.
        num_workers: `K`.

    Returns:
        `(action, extras, memory)`, leaves `[B, ...]`.
    """
    keys = jax.random.split(key, num_workers) if num_workers > 1 else key[None]
    parts = together(function, num_workers)(keys, own, *apart((obs, memory), num_workers, 0))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)


def hand_over(
    arrived: Array,
    params: Tree,
    opt_state: Tree,
    workers: Workers,
    gradients: Tree,
    *,
    optimiser: optax.GradientTransformation,
    shared_statistics: bool,
) -> tuple[Tree, Tree, Workers]:
    """Adds the workers' gradients to what they have, and lets some hand it over.

    Args:
        arrived: `[K]` bool, whose turn it is.
        params: that are shared.
        opt_state: of the optimiser, with a leading `[K]` where each worker has its own.
        workers: snapshots and what was added up.
        gradients: `[K, *parameter]`, of the new rollout.
        optimiser: an optax transformation.
        shared_statistics: whether there is one optimiser for all, instead of one for each worker.

    Returns:
        `(params, opt_state, workers)`.
    """
    total = jax.tree.map(jnp.add, workers.gradient, gradients)

    def chosen(of_arrived: Tree, of_others: Tree) -> Tree:
        return jax.tree.map(lambda new, old: jax.vmap(jnp.where)(arrived, new, old), of_arrived, of_others)

    nothing = jax.tree.map(jnp.zeros_like, total)
    if shared_statistics:
        mean = jax.tree.map(lambda leaf: leaf.mean(0), chosen(total, nothing))
        updates, moved_state = optimiser.update(mean, opt_state, params)
        moved = optax.apply_updates(params, updates), moved_state
        # Where nobody arrived the statistics must not decay.
        params, opt_state = jax.tree.map(functools.partial(jnp.where, arrived.any()), moved, (params, opt_state))
    else:
        updates, moved_state = jax.vmap(optimiser.update, in_axes=(0, 0, None))(total, opt_state, params)
        num = jnp.maximum(arrived.sum(), 1)
        mean = jax.tree.map(lambda leaf: leaf.sum(0) / num, chosen(updates, nothing))
        params, opt_state = optax.apply_updates(params, mean), chosen(moved_state, opt_state)
    fresh = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(arrived), *leaf.shape)), params)
    age = jnp.where(arrived, 0, workers.age + 1)
    return params, opt_state, Workers(chosen(fresh, workers.params), chosen(nothing, total), age)
