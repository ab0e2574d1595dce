"""Asynchronous advantage actor-critic, arXiv:1602.01783, with the asynchrony as data.

Each of `K` workers acts, and takes gradients, with a snapshot of the parameters that is its own, until its turn comes
to hand over what it added up (`rlgen.parts.asynchrony`).  A snapshot is on the average `mean_age` updates old: at 0 all
wait for each other, which is A2C, and at `K − 1` one worker at a time hands over.

The optimiser's statistics are shared by all workers, which the paper found to be the most robust, or each worker's own.
The other departures are those of `rlgen.policy.a2c`, whose loss and optimisers these are.

Shape legend: `T` rollout length, `B` environments, `K` workers, `N` any batch shape.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import actor_critic, asynchrony, checks, networks, optim
from rlgen.parts.actor_critic import ActorCritic
from rlgen.parts.asynchrony import Workers
from rlgen.policy import a2c
from rlgen.policy.a2c import Learner


@dataclasses.dataclass(frozen=True)
class Config(a2c.Config):
    """What shapes the program: that of A2C, and who works.

    Attributes:
        num_workers: `K`; must divide `num_envs`.
        shared_statistics: whether there is one optimiser for all, instead of one for each worker.
    """

    num_workers: int = 8
    shared_statistics: bool = True

    def __post_init__(self):
        super().__post_init__()
        checks.divides(self, "num_workers", self.num_envs, f"{self.num_envs} environments")
        checks.normalisable(self, self.num_envs * self.rollout_length // max(self.num_workers, 1))


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 7e-4
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    discount: float = 0.99
    gae_lambda: float = 1.0
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5
    mean_age: float = 7.0  # of a snapshot, in updates


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: Learner  # its optimiser has a leading `[K]` where each worker has its own
    workers: Workers
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Metrics(NamedTuple):
    """Means over workers, before the step."""

    loss: Array
    policy_loss: Array
    value_loss: Array
    entropy: Array
    age: Array  # of the snapshots, in updates


def gradient(params: Tree, rollout: Transition, hypers: Hypers, *, network: ActorCritic) -> tuple[Tree, a2c.Metrics]:
    """One worker's: A2C's gradient at its snapshot, from its part of the rollout.

    Args:
        params: the snapshot.
        rollout: `[T, B / K]`, gathered with it.
        hypers: numbers.
        network: the actor and critic.

    Returns:
        `(gradient, metrics)`.
    """
    examples = actor_critic.estimate(params, rollout, hypers, network=network)
    return jax.grad(a2c.loss, has_aux=True)(params, examples, hypers, network=network)


def learn(
    arrived: Array, learner: Learner, workers: Workers, gradients: Tree, hypers: Hypers, *, config: Config
) -> tuple[Learner, Workers]:
    """Adds the workers' gradients to what they have, and lets some hand it over: the rule itself.

    Args:
        arrived: `[K]` bool, whose turn it is.
        learner: the shared parameters and their optimiser.
        workers: snapshots and what was added up.
        gradients: `[K, *parameter]`, of the new rollout.
        hypers: numbers; `learning_rate` is used as it stands.
        config: switches.

    Returns:
        `(learner, workers)`.
    """
    params, opt_state, workers = asynchrony.hand_over(
        arrived,
        *learner,
        workers,
        gradients,
        optimiser=a2c.optimiser(hypers, config=config),
        shared_statistics=config.shared_statistics,
    )
    return Learner(params, opt_state), workers


def init(key: Key, hypers: Hypers, *, network: ActorCritic) -> State:
    """Makes the state before the first update, with snapshots of the first parameters.  The key is consumed."""
    config = network.config
    params = actor_critic.initial_params(key, network)
    opt_state = a2c.optimiser(hypers, config=config).init(params)
    if not config.shared_statistics:
        opt_state = asynchrony.copies(opt_state, config.num_workers)
    workers = asynchrony.start(params, config.num_workers)
    return State(Learner(params, opt_state), workers, *actor_critic.initial_scales(network))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]`; the key is consumed by the turns."""
    config = network.config
    hypers = optim.annealed(step, hypers)
    rollout, state = actor_critic.normalised(batch, state, hypers.discount, config=config)
    of_each = asynchrony.together(functools.partial(gradient, hypers=hypers, network=network), config.num_workers)
    gradients, metrics = of_each(state.workers.params, asynchrony.apart(rollout, config.num_workers, 1))
    arrived = asynchrony.turns(key, hypers.mean_age, config.num_workers)
    learner, workers = learn(arrived, state.learner, state.workers, gradients, hypers, config=config)
    means = jax.tree.map(jnp.mean, metrics)._asdict()
    age = state.workers.age.astype(jnp.float32).mean()
    return state._replace(learner=learner, workers=workers), Metrics(**means, age=age)


def act(key: Key, obs: Tree, memory: Tree, *, state: State, network: ActorCritic):
    """Lets workers `0 … K − 1` sample actions for `B / K` of `B` environments each.  The key is consumed."""

    def of_one(key: Key, params: Tree, obs: Tree, memory: Tree):
        own = state._replace(learner=state.learner._replace(params=params))
        return actor_critic.act(key, obs, memory, state=own, network=network, explore=True)

    num_workers = network.config.num_workers
    return asynchrony.act(key, obs, memory, state.workers.params, function=of_one, num_workers=num_workers)


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ActorCritic) -> Policy:
    """The workers' actors while exploring, in batches that they can share; otherwise the shared parameters' actor.

    Args:
        step: unused; part of the contract.
        state: of the learner.
        hypers: unused; part of the contract.
        explore: whether to explore.
        network: the actor and critic.

    Returns:
        A policy with the network's memory; batches of other than `B` inputs explore by the shared parameters.
    """
    shared = actor_critic.policy(step, state, hypers, explore=explore, network=network)

    def apply(key: Key, obs: Tree, memory: Tree):
        batch_shape = obs.shape[: obs.ndim - len(network.spec.observation.shape)]
        if explore and batch_shape == (network.config.num_envs,):
            return act(key, obs, memory, state=state, network=network)
        return shared.apply(key, obs, memory)

    return shared._replace(apply=apply)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds asynchronous advantage actor-critic to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    return networks.bind(actor_critic.make(spec, config, core=config.core), init, update, policy)
