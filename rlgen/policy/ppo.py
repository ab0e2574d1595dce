"""Proximal policy optimisation with a clipped surrogate, arXiv:1707.06347.

Advantages are GAE (arXiv:1506.02438).  Departures from the paper, each a switch or a coefficient, are those of the
authors' code (github.com/openai/baselines): separate actor and critic, orthogonal weights, normalised advantages,
clipped value loss, clipped gradient norm, annealed learning rate, normalised observations and rewards.  Values of the
observations before and after every step come from one batched pass after the rollout, with the parameters that acted;
a truncated episode therefore bootstraps from its true last observation.

Shape legend: `T` rollout length, `B` environments, `M` examples in a minibatch, `A` action parameters, `D` action
dimensions.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Box, Key, Policy, Spec, Transition, Tree
from rlgen.parts import distributions, exploration, losses, networks, normalise, optim, returns


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


class ActorCritic(nn.Module):
    """Separate actor and critic."""

    spec: Spec
    config: Config

    def setup(self):
        """Builds both networks."""
        torso = functools.partial(
            networks.torso, self.config.network, self.config.hidden_sizes, self.config.activation, self.spec.observation
        )
        num_parameters = distributions.num_parameters(self.spec.action)
        self.actor_torso, self.critic_torso = torso(), torso()
        self.actor_head = nn.Dense(num_parameters, kernel_init=nn.initializers.orthogonal(0.01))
        self.critic_head = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))
        if isinstance(self.spec.action, Box):
            self.log_std = self.param("log_std", nn.initializers.zeros, (num_parameters,))

    def actor(self, obs: Array) -> Any:
        """Gives the distribution over actions at `[*N, *observation]`."""
        parameters = self.actor_head(self.actor_torso(networks.encode(obs, self.spec.observation)))
        log_std = self.log_std if isinstance(self.spec.action, Box) else None
        return distributions.over(self.spec.action, parameters, log_std)

    def critic(self, obs: Array) -> Array:
        """Gives values `[*N]`."""
        return self.critic_head(self.critic_torso(networks.encode(obs, self.spec.observation)))[..., 0]

    def __call__(self, obs: Array) -> tuple[Any, Array]:
        """Gives the distribution and the values."""
        return self.actor(obs), self.critic(obs)


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
    both = jnp.stack([rollout.obs, rollout.next_obs])
    value, next_value = networks.apply(network, params, both, method="critic")
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
    spec, config = network.spec, network.config
    params = network.init(key, jnp.zeros((1, *spec.observation.shape), spec.observation.dtype))
    return State(
        learner=Learner(params, optimiser(hypers).init(params)),
        observations=normalise.moments(spec.observation.shape) if config.normalise_observations else (),
        returns=normalise.returns(config.num_envs) if config.normalise_rewards else (),
    )


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]` in several epochs.  The key is consumed."""
    config = network.config
    hypers = hypers._replace(
        learning_rate=exploration.linear(hypers.learning_rate, hypers.learning_rate_end, step / hypers.horizon)
    )
    observations, reward_scale, rollout = state.observations, state.returns, batch
    if config.normalise_observations:
        # The moments that acted also learn, so that the first ratio is 1; what was seen counts from the next rollout.
        rollout = batch._replace(
            obs=normalise.standardise(batch.obs, observations),
            next_obs=normalise.standardise(batch.next_obs, observations),
        )
        observations = normalise.merge(observations, batch.obs)
    if config.normalise_rewards:
        done = batch.terminated | batch.truncated
        reward_scale, reward = normalise.scale_rewards(reward_scale, batch.reward, done, hypers.discount)
        rollout = rollout._replace(reward=reward)
    examples = estimate(state.learner.params, rollout, hypers, network=network)
    learner, metrics = lax.scan(
        lambda learner, key: epoch(key, learner, examples, hypers, network=network),
        state.learner,
        jax.random.split(key, config.num_epochs),
    )
    return State(learner, observations, reward_scale), jax.tree.map(jnp.mean, metrics)


def act(key: Key, obs: Tree, memory: tuple[()], *, state: State, network: ActorCritic, explore: bool):
    """Samples an action at `[*N, *observation]`, or takes the likeliest.  The key is consumed."""
    if network.config.normalise_observations:
        obs = normalise.standardise(obs, state.observations)
    distribution = networks.apply(network, state.learner.params, obs, method="actor")
    action = distribution.sample(seed=key) if explore else distribution.mode()
    return action, {"log_prob": distribution.log_prob(action)}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ActorCritic) -> Policy:
    """The actor."""
    del step, hypers
    return Policy(
        memory=lambda batch_shape: (),
        apply=functools.partial(act, state=state, network=network, explore=explore),
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds PPO to a task.

    Args:
        spec: observations of one array; actions `Discrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised.
    """
    if config.normalise_observations and not isinstance(spec.observation, Box):
        raise ValueError(f"config.normalise_observations has no meaning for observations in {spec.observation}")
    network = ActorCritic(spec, config)
    return Algorithm(
        init=functools.partial(init, network=network),
        update=functools.partial(update, network=network),
        policy=functools.partial(policy, network=network),
    )
