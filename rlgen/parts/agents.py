"""Several agents as several lanes of a rule for one: which of them can share a lane, and how their data is laid out.

Agents that see and do the same kinds of things are a group.  The agents of a group can be one learner, for which each
agent is one environment more, or learners of their own, which are an axis to vmap.  Data of several agents are tuples
with an entry for each (`rlgen.core.Transition`); what ends an episode ends it for all.

Shape legend: `T` time, `B` environments, `A` agents of a group, `N` any batch shape.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Spec, Transition, Tree


class Group(NamedTuple):
    """Agents that are alike.

    Attributes:
        spec: what each of them reads and writes.
        members: their places among all agents.
    """

    spec: Spec
    members: tuple[int, ...]


def groups(spec: Spec) -> tuple[Group, ...]:
    """Parts agents by what they see and do.

    Args:
        spec: of a task with several agents, spaces in tuples.

    Returns:
        The groups, in the order of their first agents.

    Raises:
        ValueError: if the task has one agent.
    """
    if not isinstance(spec.action, tuple):
        raise ValueError(f"actions in {spec.action} are those of one agent: several are needed")
    members: dict[Spec, list[int]] = {}
    for place, spaces in enumerate(zip(spec.observation, spec.action, strict=True)):
        members.setdefault(Spec(*spaces), []).append(place)
    return tuple(Group(each, tuple(places)) for each, places in members.items())


def gathered(tree: tuple[Tree, ...], group: Group, axis: int) -> Tree:
    """Stacks what the agents of a group have, on a new axis.

    Args:
        tree: an entry for each agent of the task.
        group: whose entries are wanted.
        axis: the new one.

    Returns:
        Leaves with `A` at `axis`.
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *(tree[place] for place in group.members))


def scattered(trees: tuple[Tree, ...], groups: tuple[Group, ...], axis: int) -> tuple[Tree, ...]:
    """Gives each agent its own again: the inverse of `gathered`, over all groups.

    Args:
        trees: of each group, leaves with `A` at `axis`.
        groups: in the same order.
        axis: that of the agents.

    Returns:
        An entry for each agent of the task.
    """
    entries = {
        place: jax.tree.map(lambda leaf, k=k: jax.lax.index_in_dim(leaf, k, axis, keepdims=False), tree)
        for tree, group in zip(trees, groups, strict=True)
        for k, place in enumerate(group.members)
    }
    return tuple(entries[place] for place in sorted(entries))


def rollout_of(rollout: Transition, group: Group, extras: dict[str, Tree], axis: int) -> Transition:
    """What the agents of a group went through.

    Args:
        rollout: `[T, B]` of all agents.
        group: whose part is wanted.
        extras: what the group's policy said, with `A` at `axis`.
        axis: where the agents go.

    Returns:
        A rollout with `A` at `axis`.
    """
    obs, action, reward, next_obs = (gathered(each, group, axis) for each in rollout[:4])
    terminated, truncated = (
        jnp.stack([each] * len(group.members), axis) for each in (rollout.terminated, rollout.truncated)
    )
    return Transition(obs, action, reward, next_obs, terminated, truncated, extras)


def merged(tree: Tree, axis: int) -> Tree:
    """Makes one axis of `axis` and the one after it: environments and their agents become environments."""

    def merge(leaf):
        return leaf.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 2 :])

    return jax.tree.map(merge, tree)
