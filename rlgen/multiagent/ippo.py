"""Independent proximal policy optimisation, arXiv:2011.09533: every agent learns by itself, as if it were alone.

Each agent's rule is `rlgen.policy.ppo`'s on what it sees, does and earns itself; the others are part of its world.
With `share_parameters`, agents that see and do the same kinds of things have one learner, for which an agent is one
environment more, as in the paper; otherwise each has its own.  Agents that differ never share.  None is told which one
it is: of those that share, two that see the same do the same.

Shape legend: `T` rollout length, `B` environments, `A` agents of a group, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import agents
from rlgen.parts.agents import Group
from rlgen.policy import ppo
from rlgen.policy.ppo import Hypers as Hypers
from rlgen.policy.ppo import Metrics as Metrics
from rlgen.policy.ppo import learn as learn


@dataclasses.dataclass(frozen=True)
class Config(ppo.Config):
    """What shapes the program: that of PPO, and who shares.

    Attributes:
        share_parameters: whether agents that are alike have one learner.
    """

    share_parameters: bool = True

    def __post_init__(self):
        """Leaves it to PPO's own config in `build`, where it is known in how many environments a learner acts."""


class State(NamedTuple):
    """What an update changes: PPO's state of each group, `[A, ...]` where agents do not share."""

    groups: tuple[ppo.State, ...]


class Learners(NamedTuple):
    """PPO for the agents of a group.

    Attributes:
        group: who they are.
        rule: PPO as it learns from what is handed to it: of one agent, or of all where they share.
        shared: whether they do.
    """

    group: Group
    rule: Algorithm
    shared: bool


def init(key: Key, hypers: Hypers, *, learners: tuple[Learners, ...]) -> State:
    """Makes the state before the first update.  The key is consumed."""

    def start(key: Key, each: Learners) -> ppo.State:
        if each.shared:
            return each.rule.init(key, hypers)
        return jax.vmap(each.rule.init, in_axes=(0, None))(jax.random.split(key, len(each.group.members)), hypers)

    return State(tuple(start(*pair) for pair in zip(_keys(key, learners), learners, strict=True)))


def update(
    key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, learners: tuple[Learners, ...]
) -> tuple[State, Metrics]:
    """Lets every agent learn from its part of one rollout `[T, B]`.  The key is consumed.

    Returns:
        `(state, metrics)`; metrics are means over agents.
    """
    states, metrics = [], []
    for number, (key_of, before, each) in enumerate(zip(_keys(key, learners), state.groups, learners, strict=True)):
        extras, num = batch.extras[str(number)], len(each.group.members)
        if each.shared:
            rollout = agents.merged(agents.rollout_of(batch, each.group, extras, 2), 1)
            after, told = each.rule.update(key_of, step, before, rollout, hypers)
        else:
            rollout = agents.rollout_of(
                batch, each.group, jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 2, 0), extras), 0
            )
            # One key for all: steps of the same time are in the same minibatch of each.
            one = jax.vmap(each.rule.update, in_axes=(None, None, 0, 0, None))
            after, told = one(key_of, step, before, rollout, hypers)
            told = jax.tree.map(lambda leaf: leaf.mean(0), told)
        states.append(after)
        metrics.append(jax.tree.map(lambda leaf, num=num: num * leaf, told))
    total = sum(len(each.group.members) for each in learners)
    return State(tuple(states)), jax.tree.map(lambda *leaves: sum(leaves) / total, *metrics)


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, learners: tuple[Learners, ...]) -> Policy:
    """All agents' actors: observations and actions are tuples with an entry for each agent.

    What is said beside actions has an entry for each group, by its number, of leaves `[*N, A, ...]`; the memory is a
    tuple of these.
    """

    def memory(batch_shape: tuple[int, ...]) -> Tree:
        def of(each: Learners, own: ppo.State) -> Tree:
            # Agents that do not share remember in arrays of the same shape, the structure of which is all that counts.
            own = own if each.shared else jax.tree.map(lambda leaf: leaf[0], own)
            return each.rule.policy(step, own, hypers, explore=explore).memory((*batch_shape, len(each.group.members)))

        return tuple(of(*pair) for pair in zip(learners, state.groups, strict=True))

    def apply(key: Key, inputs: tuple[Tree, ...], memory: Tree) -> tuple[Any, dict[str, Tree], Tree]:
        axis = inputs[0].ndim - len(learners[0].group.spec.observation.shape)

        def act(key: Key, own: ppo.State, seen: Tree, remembered: Tree, *, rule: Algorithm) -> Any:
            return rule.policy(step, own, hypers, explore=explore).apply(key, seen, remembered)

        def of(key: Key, each: Learners, own: ppo.State, remembered: Tree) -> Any:
            one, seen = functools.partial(act, rule=each.rule), agents.gathered(inputs, each.group, axis)
            if each.shared:
                return one(key, own, seen, remembered)
            keys = jax.random.split(key, len(each.group.members))
            return jax.vmap(one, in_axes=(0, 0, axis, axis), out_axes=axis)(keys, own, seen, remembered)

        parts = zip(_keys(key, learners), learners, state.groups, memory, strict=True)
        actions, extras, memory = zip(*(of(*part) for part in parts), strict=True)
        said = {str(number): each for number, each in enumerate(extras)}
        return agents.scattered(actions, tuple(each.group for each in learners), axis), said, memory

    return Policy(memory, apply)


def _keys(key: Key, learners: tuple[Learners, ...]) -> Any:
    """A key for each group; the key itself for one that is alone, which then does what PPO does."""
    return [key] if len(learners) == 1 else jax.random.split(key, len(learners))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds independent PPO to a task.

    Args:
        spec: spaces in tuples, an entry for each agent: observations of one array; actions `Discrete`, `MultiDiscrete`
            or a vector `Box`.
        config: what shapes the program; `num_envs` are those of the task, however many agents share a learner.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition` with an entry for each agent.

    Raises:
        ValueError: if the task has one agent, steps or sequences cannot be dealt into minibatches, discrete
            observations are to be normalised, or there is no such distribution over the actions.
    """

    def learners_of(group: Group) -> Learners:
        num_envs = config.num_envs * (len(group.members) if config.share_parameters else 1)
        settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(ppo.Config)}
        rule = ppo.build(group.spec, ppo.Config(**{**settings, "num_envs": num_envs}))
        return Learners(group, rule, config.share_parameters)

    learners = tuple(map(learners_of, agents.groups(spec)))
    return Algorithm(
        functools.partial(init, learners=learners),
        functools.partial(update, learners=learners),
        functools.partial(policy, learners=learners),
    )
