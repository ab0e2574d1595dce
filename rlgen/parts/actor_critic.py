"""What policy gradient algorithms share: the actor and the critic, normalised rollouts, and the policy that acts.

An algorithm's `Config` gives `num_envs`, `network`, `hidden_sizes` (of actor and critic alike), `activation`,
`distribution` (of `distributions.KINDS`, over actions in a `Box`), `normalise_observations` (by running moments) and
`normalise_rewards` (by the running deviation of the discounted return); its state has `learner.params` and
`observations`.

Values of the observations before and after every step come from one batched pass after the rollout, with the
parameters that acted; a truncated episode therefore bootstraps from its true last observation.

Shape legend: `T` rollout length, `B` environments, `N` any batch shape, `A` action parameters.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from rlgen.core import Array, Box, Key, Policy, Spec, Transition, Tree
from rlgen.parts import distributions, networks, normalise


class ActorCritic(nn.Module):
    """Separate actor and critic; the spread of a normal is the same at every observation."""

    spec: Spec
    config: Any

    def setup(self):
        """Builds both networks."""
        torso = functools.partial(
            networks.torso, self.config.network, self.config.hidden_sizes, self.config.activation, self.spec.observation
        )
        num_parameters = distributions.num_parameters(self.spec.action, self.config.distribution)
        self.actor_torso, self.critic_torso = torso(), torso()
        self.actor_head = nn.Dense(num_parameters, kernel_init=nn.initializers.orthogonal(0.01))
        self.critic_head = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))
        if distributions.has_log_std(self.spec.action, self.config.distribution):
            self.log_std = self.param("log_std", nn.initializers.zeros, (num_parameters,))

    def actor(self, obs: Array) -> Any:
        """Gives the distribution over actions at `[*N, *observation]`."""
        parameters = self.actor_head(self.actor_torso(networks.encode(obs, self.spec.observation)))
        kind = self.config.distribution
        log_std = self.log_std if distributions.has_log_std(self.spec.action, kind) else None
        return distributions.over(self.spec.action, parameters, log_std, kind)

    def critic(self, obs: Array) -> Array:
        """Gives values `[*N]`."""
        return self.critic_head(self.critic_torso(networks.encode(obs, self.spec.observation)))[..., 0]

    def __call__(self, obs: Array) -> tuple[Any, Array]:
        """Gives the distribution and the values."""
        return self.actor(obs), self.critic(obs)


def make(spec: Spec, config: Any) -> ActorCritic:
    """Makes the networks of a task, once what they are asked for is known to make sense.

    Args:
        spec: observations of one array; actions `Discrete` or a vector `Box`.
        config: the algorithm's.

    Returns:
        The module.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    if config.normalise_observations and not isinstance(spec.observation, Box):
        raise ValueError(f"config.normalise_observations has no meaning for observations in {spec.observation}")
    distributions.num_parameters(spec.action, config.distribution)
    return ActorCritic(spec, config)


def initial_params(key: Key, network: ActorCritic, method: str = "__call__") -> Tree:
    """Draws the parameters that a method of the network reads.  The key is consumed."""
    space = network.spec.observation
    return network.init(key, jnp.zeros((1, *space.shape), space.dtype), method=method)


def initial_scales(network: ActorCritic) -> tuple[Tree, Tree]:
    """Starts the running moments of observations and of returns; `()` for one that is switched off."""
    config = network.config
    return (
        normalise.moments(network.spec.observation.shape) if config.normalise_observations else (),
        normalise.returns(config.num_envs) if config.normalise_rewards else (),
    )


def normalised(
    rollout: Transition, observations: Tree, returns: Tree, discount: Array | float, *, config: Any
) -> tuple[Transition, Tree, Tree]:
    """Normalises what the config wants normalised.

    Args:
        rollout: `[T, B]`.
        observations: `normalise.Moments` of `[*observation]`, or `()`.
        returns: `normalise.Returns` of `B` environments, or `()`.
        discount: `γ`.
        config: which to normalise.

    Returns:
        `(rollout, observations, returns)`.
    """
    raw = rollout
    if config.normalise_observations:
        # The moments that acted also learn, so that the first ratio is 1; what was seen counts from the next rollout.
        rollout = rollout._replace(
            obs=normalise.standardise(raw.obs, observations), next_obs=normalise.standardise(raw.next_obs, observations)
        )
        observations = normalise.merge(observations, raw.obs)
    if config.normalise_rewards:
        returns, reward = normalise.scale_rewards(returns, raw.reward, raw.terminated | raw.truncated, discount)
        rollout = rollout._replace(reward=reward)
    return rollout, observations, returns


def values(params: Tree, rollout: Transition, *, network: ActorCritic) -> tuple[Array, Array]:
    """Values before and after every step of a rollout, `[T, B]` each."""
    value, next_value = networks.apply(network, params, jnp.stack([rollout.obs, rollout.next_obs]), method="critic")
    return value, next_value


def act(key: Key, obs: Tree, memory: tuple[()], *, state: Any, network: ActorCritic, explore: bool):
    """Samples an action at `[*N, *observation]`, or takes the likeliest.  The key is consumed."""
    if network.config.normalise_observations:
        obs = normalise.standardise(obs, state.observations)
    distribution = networks.apply(network, state.learner.params, obs, method="actor")
    action = distribution.sample(seed=key) if explore else distribution.mode()
    return action, {"log_prob": distribution.log_prob(action)}, memory


def policy(state: Any, *, network: ActorCritic, explore: bool) -> Policy:
    """The actor of a state with `learner.params` and `observations`."""
    return Policy(
        memory=lambda batch_shape: (),
        apply=functools.partial(act, state=state, network=network, explore=explore),
    )
