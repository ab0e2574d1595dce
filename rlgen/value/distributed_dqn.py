"""Distributed DQN in the manner of Gorila, arXiv:1507.04296, over a mesh of devices.

`D` shards work at once.  Each has its own actors, `B / D` environments; its own part of the replay, which holds what
they went through; and its own learner, which draws `M / D` examples from that part.  Gradients are averaged over shards
in every step, so that all shards hold the same parameters.  What is computed depends on `D` alone: without a mesh the
shards are an axis of one program, and over a mesh each device holds as many of them as any other.  A transition never
leaves its device, and a step of a learner moves one gradient between devices.

Departures from the paper: one program in step takes the place of processes that send gradients to a parameter server
when they like, so that no gradient is stale and none need be refused; shards are as many actors as learners; Adam and
the other parts of `rlgen.value.dqn`, whose losses and targets these are.  A prioritised replay draws from each part by
its own priorities, as many examples from every part, and importance is relative to the most important of a part.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `D`
shards, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import asynchrony, optim, q_networks
from rlgen.parts.q_networks import QNetwork
from rlgen.parts.replay import Steps
from rlgen.value import dqn
from rlgen.value.dqn import Learner

SHARD = "shard"  # name of the axis along which gradients are averaged
_SHARDED = ("num_envs", "batch_size", "capacity")


@dataclasses.dataclass(frozen=True)
class Config(dqn.Config):
    """What shapes the program: that of DQN, in all, and among how many it is dealt out.

    Attributes:
        num_shards: `D`; must divide `num_envs` and `batch_size`.
    """

    num_shards: int = 2

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_envs", "batch_size"):
            if self.num_shards > 0 and getattr(self, name) % self.num_shards:
                raise ValueError(f"config.{name}={getattr(self, name)} is no multiple of {self.num_shards} shards")


class Hypers(dqn.Hypers):
    """What is only a number: that of DQN; float32 leaves."""

    __slots__ = ()


class State(NamedTuple):
    """What an update changes."""

    learner: Learner  # the same for all shards
    replay: Transition  # leaves `[D, R, B / D, ...]`
    priorities: Tree  # leaves `[D, ...]`; `()` where all are drawn alike


class Metrics(dqn.Metrics):
    """Means over shards and an update's gradient steps; zero before learning begins."""

    __slots__ = ()


def optimiser(hypers: Hypers, *, axes: tuple[str, ...]) -> Any:
    """DQN's, of the gradient averaged over `axes`."""
    average = optax.stateless(lambda gradient, params: lax.pmean(gradient, axes))
    return optax.chain(average, dqn.optimiser(hypers))


def learn(
    key: Key,
    learner: Learner,
    minibatch: Steps,
    weight: Array,
    hypers: Hypers,
    *,
    network: QNetwork,
    axes: tuple[str, ...] = (SHARD,),
) -> tuple[Learner, dqn.Metrics, Array]:
    """Takes one gradient step, the same on every shard, on a minibatch of each: the rule itself.

    Args:
        key: consumed; of the shard.
        learner: parameters, target and optimiser, the same on every shard.
        minibatch: of the shard, leaves `[M / D, ...]`.
        weight: of each example, `[M / D]`.
        hypers: numbers.
        network: what is predicted.
        axes: names of the mapped axes that the shards lie along.

    Returns:
        `(learner, metrics, priority)`: metrics are averaged, and the priority is of the shard's examples, `[M / D]`.
    """
    params, opt_state, (metrics, priority) = optim.descend(
        functools.partial(dqn.loss, network=network),
        optimiser(hypers, axes=axes),
        learner.params,
        learner.opt_state,
        key,
        learner.target,
        minibatch,
        weight,
        hypers,
    )
    return Learner(params, learner.target, opt_state), lax.pmean(metrics, axes), priority


def _own_share(config: Config) -> Config:
    """What one shard has of everything."""
    sizes = {name: getattr(config, name) // config.num_shards for name in _SHARDED}
    return dataclasses.replace(config, num_shards=1, warm_up=-(-config.warm_up // config.num_shards), **sizes)


def _held(tree: Tree, mesh: Mesh, *names: str) -> Tree:
    """Tells the compiler where a tree lies: a part of its leading axis on every device, or all of it if none is named.

    Args:
        tree: leaves with a leading axis, if one is named.
        mesh: the devices.
        *names: axes of the mesh.

    Returns:
        The tree.
    """
    return lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(*names)))


def init(key: Key, hypers: Hypers, *, network: QNetwork, num_shards: int, mesh: Mesh | None) -> State:
    """Makes the state before the first update, on its devices.  The key is consumed."""
    learner, ring, ranks = dqn.init(key, hypers, network=network)
    learner = learner._replace(opt_state=optimiser(hypers, axes=()).init(learner.params))
    ring, ranks = asynchrony.copies((ring, ranks), num_shards)
    if mesh is None:
        return State(learner, ring, ranks)
    return State(_held(learner, mesh), *_held((ring, ranks), mesh, *mesh.axis_names))


def of_shard(
    key: Key,
    step: Array,
    state: dqn.State,
    batch: Transition,
    hypers: Hypers,
    shard: Array,
    *,
    network: QNetwork,
    axes: tuple[str, ...],
) -> tuple[dqn.State, dqn.Metrics]:
    """What one shard does in an update: it stores its part of the rollout and learns together with the others.

    Args:
        key: consumed; the same on every shard.
        step: updates done before, scalar.
        state: the learner, the same on every shard, and the shard's part of the replay, `[R, B / D, ...]`.
        batch: its part of the rollout, `[T, B / D]`.
        hypers: numbers.
        shard: its number, which makes keys its own.
        network: what is predicted, with the shard's share of everything in its config.
        axes: names of the mapped axes that the shards lie along.

    Returns:
        `(state, metrics)`: learner and metrics are the same on every shard.
    """
    own, together = functools.partial(_folded, shard=shard), functools.partial(learn, axes=axes)
    return dqn.practise(key, step, state, batch, hypers, network=network, learn=together, own=own)


def _folded(key: Key, *, shard: Array) -> Key:
    return jax.random.fold_in(key, shard)


def update(
    key: Key,
    step: Array,
    state: State,
    batch: Transition,
    hypers: Hypers,
    *,
    network: QNetwork,
    num_shards: int,
    mesh: Mesh | None,
):
    """Deals out a rollout `[T, B]` by environment and lets all shards learn.  The key is consumed."""
    hypers = optim.slowed(step, hypers, names=("learning_rate",))
    names = () if mesh is None else mesh.axis_names
    each = functools.partial(of_shard, network=network, axes=(*names, SHARD))
    held = dqn.State._make((None, 0, 0))
    together = jax.vmap(each, (None, None, held, 0, None, 0), (held, None), axis_name=SHARD)
    if mesh is not None:
        everywhere, apart = PartitionSpec(), PartitionSpec(*names)
        held = dqn.State._make((everywhere, apart, apart))
        together = jax.shard_map(
            together,
            mesh=mesh,
            in_specs=(everywhere, everywhere, held, apart, everywhere, apart),
            out_specs=(held, everywhere),
            check_vma=False,
        )
    parts = asynchrony.apart(batch, num_shards, 1)
    learned, metrics = together(key, step, dqn.State(*state), parts, hypers, jnp.arange(num_shards))
    return State(*dqn.follow(step, learned, hypers, config=network.config)), Metrics(*metrics)


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: QNetwork, mesh: Mesh | None) -> Policy:
    """DQN's; exploring actors work on the devices of their shards."""
    made = dqn.policy(step, dqn.State(*state), hypers, explore=explore, network=network)
    if mesh is None or not explore:
        return made

    def apply(key, obs, memory):
        action, extras, memory = made.apply(key, _held(obs, mesh, *mesh.axis_names), memory)
        return _held(action, mesh, *mesh.axis_names), extras, memory

    return made._replace(apply=apply)


def build(spec: Spec, config: Config, *, mesh: Mesh | None = None) -> Algorithm:
    """Binds a distributed deep Q-network to a task.

    Args:
        spec: observations of one array, `Discrete` actions.
        config: what shapes the program.
        mesh: devices to spread the shards over, along its only axis; None for one program that holds them all.  What
            is learned is the same but for the order of float32 sums.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are not discrete, or the devices do not divide the shards.
    """
    if mesh is not None and config.num_shards % mesh.size:
        raise ValueError(f"config.num_shards={config.num_shards} is no multiple of {mesh.size} devices")
    shards = {"num_shards": config.num_shards, "mesh": mesh}
    return q_networks.bind(
        QNetwork(spec, _own_share(config)),
        functools.partial(init, **shards),
        functools.partial(update, **shards),
        functools.partial(policy, mesh=mesh),
    )
