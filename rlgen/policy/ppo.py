"""Proximal policy optimisation with a clipped surrogate, arXiv:1707.06347.

Advantages are GAE (arXiv:1506.02438).  Departures from the paper, each a switch or a coefficient, are those of the
authors' code (github.com/openai/baselines): separate actor and critic, orthogonal weights, normalised advantages,
clipped value loss, clipped gradient norm, annealed learning rate, normalised observations and rewards.  A truncated
episode bootstraps from its true last observation.

Shape legend: `T` rollout length, `B` environments, `M` examples in a minibatch.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import actor_critic, exploration, losses, networks, optim, returns
from rlgen.parts.actor_critic import ActorCritic


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        num_epochs: passes over each rollout.
        num_minibatches: minibatches a pass; must divide `T * B`.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer, of actor and critic alike.
        activation: name in `networks.ACTIVATIONS`.
        distribution: of `distributions.KINDS`, over actions in a `Box`.
        normalise_advantages: to mean 0 and variance 1 in each minibatch.
        normalise_observations: by running moments.
        normalise_rewards: by the running deviation of the discounted return.
        clip_values: whether the value loss is clipped as the surrogate is.
    """

    num_envs: int = 4
    rollout_length: int = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    distribution: str = "normal"
    normalise_advantages: bool = True
    normalise_observations: bool = False
    normalise_rewards: bool = False
    clip_values: bool = True

    def __post_init__(self):
        if (self.num_envs * self.rollout_length) % self.num_minibatches:
            raise ValueError(
                f"config.num_minibatches={self.num_minibatches} does not divide"
                f" {self.num_envs} environments × {self.rollout_length} steps"
            )


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 2.5e-4
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5


class Learner(NamedTuple):
    """What a minibatch changes."""

    params: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: Learner
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Minibatch(NamedTuple):
    """What the rule learns from."""

    obs: Tree  # [M, *observation], normalised where that is switched on
    action: Tree  # [M, *action]
    log_prob: Array  # [M], of the action when it was taken
    value: Array  # [M], before the update
    advantage: Array  # [M]


class Metrics(NamedTuple):
    """Means over an update's minibatches."""

    loss: Array
    policy_loss: Array
    value_loss: Array
    entropy: Array
    kl: Array  # estimate `(ρ − 1) − log ρ` of the divergence from the policy that acted
    clip_fraction: Array


def optimiser(hypers: Hypers) -> Any:
    """Adam with the paper code's epsilon, behind a clip of the gradient norm."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=1e-5)


def loss(params: Tree, minibatch: Minibatch, hypers: Hypers, *, network: ActorCritic) -> tuple[Array, Metrics]:
    """The paper's equation 9: clipped surrogate, value error, entropy bonus."""
    config = network.config
    policy, value = networks.apply(network, params, minibatch.obs)
    log_ratio = policy.log_prob(minibatch.action) - minibatch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage, target = minibatch.advantage, minibatch.value + minibatch.advantage
    if config.normalise_advantages:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy_loss = losses.clipped_surrogate(ratio, advantage, hypers.clip).mean()
    if config.clip_values:
        value_loss = losses.clipped_value(value, minibatch.value, target, hypers.clip).mean()
    else:
        value_loss = losses.squared(value - target).mean()
    entropy = policy.entropy().mean()
    total = policy_loss + hypers.value_coefficient * value_loss - hypers.entropy_coefficient * entropy
    kl = (ratio - 1 - log_ratio).mean()
    clip_fraction = (jnp.abs(ratio - 1) > hypers.clip).mean()
    return total, Metrics(total, policy_loss, value_loss, entropy, kl, clip_fraction)


def learn(learner: Learner, minibatch: Minibatch, hypers: Hypers, *, network: ActorCritic) -> tuple[Learner, Metrics]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        learner: parameters and optimiser.
        minibatch: leaves `[M, ...]`.
        hypers: numbers; `learning_rate` is used as it stands.
        network: the actor and critic.

    Returns:
        `(learner, metrics)`.
    """
    params, opt_state, metrics = optim.descend(
        functools.partial(loss, network=network), optimiser(hypers), *learner, minibatch, hypers
    )
    return Learner(params, opt_state), metrics


def estimate(params: Tree, rollout: Transition, hypers: Hypers, *, network: ActorCritic) -> Minibatch:
    """Values and advantages of a rollout `[T, B]`, as one batch `[T * B]`."""
    value, next_value = actor_critic.values(params, rollout, network=network)
    advantage = returns.gae(
        rollout.reward, value, next_value, rollout.terminated, rollout.truncated, hypers.discount, hypers.gae_lambda
    )
    batch = Minibatch(rollout.obs, rollout.action, rollout.extras["log_prob"], value, advantage)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def epoch(key: Key, learner: Learner, batch: Minibatch, hypers: Hypers, *, network: ActorCritic):
    """Passes once over the batch `[T * B]` in shuffled minibatches.  The key is consumed."""
    order = jax.random.permutation(key, batch.value.shape[0]).reshape(network.config.num_minibatches, -1)
    minibatches = jax.tree.map(lambda leaf: leaf.at[order].get(mode="promise_in_bounds"), batch)
    return lax.scan(lambda learner, minibatch: learn(learner, minibatch, hypers, network=network), learner, minibatches)


def init(key: Key, hypers: Hypers, *, network: ActorCritic) -> State:
    """Makes the state before the first update.  The key is consumed."""
    params = actor_critic.initial_params(key, network)
    return State(Learner(params, optimiser(hypers).init(params)), *actor_critic.initial_scales(network))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]` in several epochs.  The key is consumed."""
    hypers = hypers._replace(
        learning_rate=exploration.linear(hypers.learning_rate, hypers.learning_rate_end, step / hypers.horizon)
    )
    rollout, observations, reward_scale = actor_critic.normalised(
        batch, state.observations, state.returns, hypers.discount, config=network.config
    )
    examples = estimate(state.learner.params, rollout, hypers, network=network)
    learner, metrics = lax.scan(
        lambda learner, key: epoch(key, learner, examples, hypers, network=network),
        state.learner,
        jax.random.split(key, network.config.num_epochs),
    )
    return State(learner, observations, reward_scale), jax.tree.map(jnp.mean, metrics)


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ActorCritic) -> Policy:
    """The actor."""
    del step, hypers
    return actor_critic.policy(state, network=network, explore=explore)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds PPO to a task.

    Args:
        spec: observations of one array; actions `Discrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    network = actor_critic.make(spec, config)
    return Algorithm(
        init=functools.partial(init, network=network),
        update=functools.partial(update, network=network),
        policy=functools.partial(policy, network=network),
    )
