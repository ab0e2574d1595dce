"""What policy gradient algorithms share: the actor and the critic, normalised rollouts, and the policy that acts.

An algorithm's `Config` gives `num_envs`, `network`, `hidden_sizes` (of actor and critic alike), `activation`,
`distribution` (of `distributions.KINDS`, over actions in a `Box`), `normalise_observations` (by running moments) and
`normalise_rewards` (by the running deviation of the discounted return); its state has `learner.params` and
`observations`.

Values of the observations before and after every step come from one batched pass after the rollout, with the
parameters that acted; a truncated episode therefore bootstraps from its true last observation.

A recurrent network reads observations through one torso and one core, which actor and critic share.  It remembers what
its episode showed it and nothing of the one before.  What it remembered when it acted comes with the rollout, so that
learning goes through whole rollouts again from there: gradients flow back to a rollout's first step and no further.

Shape legend: `T` rollout length, `B` environments, `M` examples, `N` any batch shape, `A` action parameters, `D`
features.
"""

import functools
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlgen.core import Array, Box, Key, Policy, Spec, Transition, Tree
from rlgen.parts import checks, chunks, distributions, networks, normalise, random
from rlgen.parts.returns import gae

CORES = ("none", *networks.CORES)


class Recall(NamedTuple):
    """What a recurrent network needs to go through sequences again."""

    start: Array  # [M, T] bool, whether an episode begins with the step and not with the sequence
    memory: Tree  # [M, D], before the first step


class Examples(NamedTuple):
    """Steps with what came of them; with a core, `[M]` stands for `[M, T]`."""

    obs: Tree  # [M, *observation], normalised where that is switched on
    action: Tree  # [M, *action]
    advantage: Array  # [M]
    target: Array  # [M], the λ-return, of the value
    recall: Tree = ()  # `Recall`, with a core


class ActorCritic(nn.Module):
    """Actor and critic; the spread of a normal is the same at every observation.

    Attributes:
        spec: of the task.
        config: the algorithm's.
        core: of `CORES`, with as many units as the last layer before it.
        shared: whether actor and critic share their torso; with a core they always do.
        initialiser: name in `networks.INITIALISERS`.
    """

    spec: Spec
    config: Any
    core: str = "none"
    shared: bool = False
    initialiser: str = "orthogonal"

    def setup(self):
        """Builds both networks."""
        config, init = self.config, networks.INITIALISERS[self.initialiser]
        torso = functools.partial(
            networks.torso,
            config.network,
            config.hidden_sizes,
            config.activation,
            self.spec.observation,
            self.initialiser,
        )
        num_parameters = distributions.num_parameters(self.spec.action, config.distribution)
        self.critic_torso = torso()
        self.actor_torso = self.critic_torso if self.shared or self.core != "none" else torso()
        if self.core != "none":
            self.cell = networks.CORES[self.core](config.hidden_sizes[-1])
        self.actor_head = networks.head(num_parameters, kernel_init=init(0.01))
        self.critic_head = nn.Dense(1, kernel_init=init(1.0))
        if distributions.has_log_std(self.spec.action, config.distribution):
            self.log_std = self.param("log_std", nn.initializers.zeros, (num_parameters,))

    def actor(self, obs: Array) -> Any:
        """Gives the distribution over actions at `[*N, *observation]`."""
        return self.distribution(self.actor_torso(networks.encode(obs, self.spec.observation)))

    def critic(self, obs: Array) -> Array:
        """Gives values `[*N]`."""
        return self.value(self.critic_torso(networks.encode(obs, self.spec.observation)))

    def distribution(self, features: Array) -> Any:
        """Gives the distribution over actions from features `[*N, D]`."""
        kind = self.config.distribution
        log_std = self.log_std if distributions.has_log_std(self.spec.action, kind) else None
        return distributions.over(self.spec.action, self.actor_head(features), log_std, kind)

    def value(self, features: Array) -> Array:
        """Gives values `[*N]` from features `[*N, D]`."""
        return self.critic_head(features)[..., 0]

    def remember(self, memory: Tree, obs: Array) -> tuple[Tree, Array]:
        """Takes one step of the core: `(memory, features [*N, D])` from memory and observations `[*N, …]`."""
        return self.cell(memory, self.critic_torso(networks.encode(obs, self.spec.observation)))

    def recurrent_actor(self, memory: Tree, obs: Array) -> tuple[Tree, Any]:
        """Gives the memory after `[*N, *observation]`, and the distribution there."""
        memory, features = self.remember(memory, obs)
        return memory, self.distribution(features)

    def recurrent_critic(self, memory: Tree, obs: Array) -> Array:
        """Gives values `[*N]`."""
        return self.value(self.remember(memory, obs)[1])

    def unroll(self, obs: Array, start: Array, memory: Tree) -> tuple[Any, Array, Tree]:
        """Goes through sequences.

        Args:
            obs: `[M, T, *observation]`.
            start: `[M, T]` bool, where the memory starts anew.
            memory: `[M, D]`, before the first step.

        Returns:
            The distributions and values at `[M, T]`, and the memory after each step, `[M, T, D]`.
        """
        embedded = self.critic_torso(networks.encode(obs, self.spec.observation))
        features, memories = networks.unroll(self.cell, embedded, start, memory)
        return self.distribution(features), self.value(features), memories

    def __call__(self, obs: Array, start: Array | None = None, memory: Tree = ()) -> tuple[Any, Array]:
        """Gives the distributions and the values: at `[*N, *observation]`, or with a core along sequences."""
        if start is None:
            return self.actor(obs), self.critic(obs)
        return self.unroll(obs, start, memory)[:2]


Network = TypeVar("Network", bound=ActorCritic)


def make(spec: Spec, config: Any, kind: type[Network] = ActorCritic, **fields: Any) -> Network:
    """Makes the networks of a task, once what they are asked for is known to make sense.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: the algorithm's.
        kind: of network.
        **fields: further fields of it.

    Returns:
        The module.

    Raises:
        ValueError: if discrete observations are to be normalised, there is no such distribution over the actions, or no
            such core or initialiser.
    """
    if config.normalise_observations and not isinstance(spec.observation, Box):
        raise ValueError(f"config.normalise_observations has no meaning for observations in {spec.observation}")
    distributions.num_parameters(spec.action, config.distribution)
    network = kind(spec, config, **fields)
    checks.one_of(network, core=CORES, initialiser=networks.INITIALISERS)
    return network


def idle(config: Any) -> dict[str, str]:
    """Hyperparameters of advantages that a switch leaves without effect, and which switch."""
    return {"gae_lambda": "config.rollout_length=1"} if config.rollout_length == 1 else {}


def initial_memory(network: ActorCritic, batch_shape: tuple[int, ...]) -> Tree:
    """What the network remembers before an episode; `()` without a core."""
    if network.core == "none":
        return ()
    return networks.initial_memory(network.core, network.config.hidden_sizes[-1], batch_shape)


def initial_params(key: Key, network: ActorCritic, method: str = "__call__") -> Tree:
    """Draws the parameters that a method of the network reads.  The key is consumed."""
    space = network.spec.observation
    if network.core == "none":
        return network.init(key, jnp.zeros((1, *space.shape), space.dtype), method=method)
    obs, start = jnp.zeros((1, 1, *space.shape), space.dtype), jnp.zeros((1, 1), bool)
    return network.init(key, obs, start, initial_memory(network, (1,)), method=method)


def initial_scales(network: ActorCritic) -> tuple[Tree, Tree]:
    """Starts the running moments of observations and of returns; `()` for one that is switched off."""
    config = network.config
    return (
        normalise.moments(network.spec.observation.shape) if config.normalise_observations else (),
        normalise.returns(config.num_envs) if config.normalise_rewards else (),
    )


def normalised(rollout: Transition, state: Any, discount: Array | float, *, config: Any) -> tuple[Transition, Any]:
    """Normalises what the config wants normalised.

    Args:
        rollout: `[T, B]`.
        state: with `observations`, `normalise.Moments` of `[*observation]` or `()`, and `returns`, `normalise.Returns`
            of `B` environments or `()`.
        discount: `γ`.
        config: which to normalise.

    Returns:
        `(rollout, state)`, the state with what it has seen.
    """
    raw = rollout
    if config.normalise_observations:
        # The moments that acted also learn, so that the first ratio is 1; what was seen counts from the next rollout.
        obs, next_obs = (normalise.standardise(each, state.observations) for each in (raw.obs, raw.next_obs))
        rollout = rollout._replace(obs=obs, next_obs=next_obs)
        state = state._replace(observations=normalise.merge(state.observations, raw.obs))
    if config.normalise_rewards:
        done = raw.terminated | raw.truncated
        returns, reward = normalise.scale_rewards(state.returns, raw.reward, done, discount)
        rollout, state = rollout._replace(reward=reward), state._replace(returns=returns)
    return rollout, state


def recall(rollout: Transition, *, network: ActorCritic) -> Tree:
    """What the network needs to go through a rollout `[T, B]` again: a `Recall` of `[B, T]`, or `()` without a core."""
    if network.core == "none":
        return ()
    done = (rollout.terminated | rollout.truncated).T
    start = jnp.concatenate([jnp.zeros_like(done[:, :1]), done[:, :-1]], axis=1)
    # The source starts the memory anew where an episode ended, before the first step too.
    return Recall(start, jax.tree.map(lambda leaf: leaf[0], rollout.extras["memory"]))


def values(params: Tree, rollout: Transition, *, network: ActorCritic) -> tuple[Array, Array]:
    """Values before and after every step of a rollout, `[T, B]` each."""
    if network.core != "none":
        return hindsight(params, rollout, network=network)[1:]
    obs = jnp.stack([rollout.obs, rollout.next_obs])
    critic = functools.partial(networks.apply, network, params, method="critic")
    value, next_value = chunks.read(critic, obs.reshape(-1, *obs.shape[3:])).reshape(obs.shape[:3])
    return value, next_value


def hindsight(params: Tree, rollout: Transition, *, network: ActorCritic) -> tuple[Array, Array, Array]:
    """Looks at a rollout with parameters that need not be those that acted.

    Args:
        params: to look with.
        rollout: `[T, B]`.
        network: the actor and critic.

    Returns:
        Log-probabilities of the actions, and values before and after every step, `[T, B]` each.
    """
    if network.core == "none":
        log_prob = networks.apply(network, params, rollout.obs, method="actor").log_prob(rollout.action)
        return log_prob, *values(params, rollout, network=network)
    obs, action, next_obs = (jnp.swapaxes(each, 0, 1) for each in (rollout.obs, rollout.action, rollout.next_obs))
    again = recall(rollout, network=network)
    distribution, value, memories = networks.apply(network, params, obs, *again, method="unroll")
    next_value = networks.apply(network, params, memories, next_obs, method="recurrent_critic")
    return distribution.log_prob(action).T, value.T, next_value.T


def examples(batch: Any, rollout: Transition, *, network: ActorCritic) -> Any:
    """Lines up what is learned from a rollout: steps, or with a core whole sequences.

    Args:
        batch: a NamedTuple of leaves `[T, B, ...]` with a field `recall`, which is filled in.
        rollout: `[T, B]` that it is made from.
        network: knows whether there is a core.

    Returns:
        Leaves `[T * B, ...]`, or with a core `[B, T, ...]`.
    """
    if network.core == "none":
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    sequences = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), batch)
    return sequences._replace(recall=recall(rollout, network=network))


def estimate(params: Tree, rollout: Transition, hypers: Any, *, network: ActorCritic) -> Examples:
    """Advantages by GAE (arXiv:1506.02438) and targets of a rollout `[T, B]`.

    Args:
        params: that acted.
        rollout: `[T, B]`.
        hypers: with `discount` and `gae_lambda`.
        network: the actor and critic.

    Returns:
        `Examples`, as many as `examples` says.
    """
    value, next_value = values(params, rollout, network=network)
    advantage = gae(
        rollout.reward, value, next_value, rollout.terminated, rollout.truncated, hypers.discount, hypers.gae_lambda
    )
    return examples(Examples(rollout.obs, rollout.action, advantage, value + advantage), rollout, network=network)


def shuffled(key: Key, batch: Tree, num_minibatches: int) -> Tree:
    """Deals examples `[M, ...]` into minibatches, `[num_minibatches, ...]` of them.  The key is consumed."""
    order = random.permutation(key, jax.tree.leaves(batch)[0].shape[0]).reshape(num_minibatches, -1)
    return jax.tree.map(lambda leaf: leaf.at[order].get(mode="promise_in_bounds"), batch)


def evaluate(params: Tree, minibatch: Any, *, network: ActorCritic) -> tuple[Any, Array]:
    """Distributions and values at the observations of a minibatch, which has `obs` and `recall`."""
    return networks.apply(network, params, minibatch.obs, *minibatch.recall)


def act(key: Key, obs: Tree, memory: Tree, *, state: Any, network: ActorCritic, explore: bool):
    """Samples an action at `[*N, *observation]`, or takes the likeliest.  The key is consumed."""
    if network.config.normalise_observations:
        obs = normalise.standardise(obs, state.observations)
    extras = {}
    if network.core == "none":
        distribution = networks.apply(network, state.learner.params, obs, method="actor")
    else:
        extras["memory"] = memory
        memory, distribution = networks.apply(network, state.learner.params, memory, obs, method="recurrent_actor")
    action = distribution.sample(seed=key) if explore else distribution.mode()
    return action, {"log_prob": distribution.log_prob(action), **extras}, memory


def policy(step: Array, state: Any, hypers: Any, *, explore: bool, network: ActorCritic) -> Policy:
    """The actor of a state with `learner.params` and `observations`."""
    del step, hypers
    return Policy(
        memory=functools.partial(initial_memory, network),
        apply=functools.partial(act, state=state, network=network, explore=explore),
    )
