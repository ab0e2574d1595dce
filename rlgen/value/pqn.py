"""Parallelised Q-learning, Gallici et al. 2024, arXiv:2407.04811: no replay and no target network.

Many environments act ε-greedily at once, and layer normalisation keeps the values from diverging.  Targets are Peng's
Q(λ), which exploring does not cut: λ-returns over the values of the best actions, computed once with the parameters
that acted and learned in several passes over shuffled minibatches.

Departures from the paper and its code (github.com/mttga/purejaxql): an episode cut by its time limit bootstraps from
its true last observation, hidden weights are orthogonal, the learning rate falls between updates and not within one,
and there is no batch normalisation of inputs.

Shape legend: `T` rollout length, `B` environments, `M` examples in a minibatch, `N` any batch shape, `A` actions.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree, memoryless
from rlgen.parts import actor_critic, checks, exploration, losses, networks, optim, q_networks, returns
from rlgen.parts.q_networks import ValueNetwork


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        num_epochs: passes over each rollout.
        num_minibatches: minibatches a pass; must divide `T * B`.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer.
        activation: name in `networks.ACTIVATIONS`.
        layer_norm: whether features are normalised before each activation.
    """

    num_envs: int = 32
    rollout_length: int = 64
    num_epochs: int = 4
    num_minibatches: int = 16
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: bool = True

    def __post_init__(self):
        checks.rollouts_divided(self, "num_minibatches")


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-4
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates of the whole run
    discount: float = 0.99
    trace_decay: float = 0.95  # λ
    reward_scale: float = 1.0  # by which rewards are multiplied
    epsilon_start: float = 1.0
    epsilon_end: float = 0.2
    exploration_fraction: float = 0.2  # of `horizon`, over which epsilon falls
    max_grad_norm: float = 10.0


class Learner(NamedTuple):
    """What a minibatch changes."""

    params: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes."""

    learner: Learner


class Minibatch(NamedTuple):
    """What the rule learns from."""

    obs: Tree  # [M, *observation]
    action: Array  # [M]
    target: Array  # [M], of the value of the action


class Metrics(NamedTuple):
    """Means over an update's minibatches, each before its step."""

    loss: Array
    q_value: Array  # of the actions taken
    error: Array  # mean absolute difference from the target


def optimiser(hypers: Any) -> Any:
    """Rectified Adam (arXiv:1908.03265) behind a clip of the gradient norm."""
    # optax says float and takes tracers.
    step = optax.chain(optax.clip_by_global_norm(hypers.max_grad_norm), optax.radam(hypers.learning_rate))
    return optim.flattened(step)


def targets(params: Tree, rollout: Transition, hypers: Hypers, *, network: ValueNetwork) -> Array:
    """Peng's Q(λ): `Gₜ = rₜ + γ (λ Gₜ₊₁ + (1 − λ) maxₐ Q(sₜ₊₁, a))`.

    Args:
        params: that acted.
        rollout: `[T, B]`.
        hypers: with `discount`, `trace_decay` and `reward_scale`.
        network: the action values.

    Returns:
        `G`, `[T, B]`.
    """
    next_value = networks.apply(network, params, rollout.next_obs).max(axis=-1)
    return returns.lambda_return(
        hypers.reward_scale * rollout.reward,
        next_value,
        rollout.terminated,
        rollout.truncated,
        hypers.discount,
        hypers.trace_decay,
    )


def loss(params: Tree, minibatch: Minibatch, *, network: ValueNetwork) -> tuple[Array, Metrics]:
    """Mean of half the squared differences between targets and the values of the actions taken."""
    q_values = networks.apply(network, params, minibatch.obs)
    q_value = q_networks.value_of(q_values, minibatch.action)
    error = minibatch.target - q_value
    value = losses.squared(error).mean()
    return value, Metrics(value, q_value.mean(), jnp.abs(error).mean())


def learn(learner: Learner, minibatch: Minibatch, hypers: Hypers, *, network: ValueNetwork) -> tuple[Learner, Metrics]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        learner: parameters and optimiser.
        minibatch: leaves `[M, ...]`.
        hypers: numbers; `learning_rate` is used as it stands.
        network: the action values.

    Returns:
        `(learner, metrics)`.
    """
    params, opt_state, metrics = optim.descend(
        functools.partial(loss, network=network), optimiser(hypers), *learner, minibatch
    )
    return Learner(params, opt_state), metrics


def estimate(params: Tree, rollout: Transition, hypers: Hypers, *, network: ValueNetwork) -> Minibatch:
    """Targets of a rollout `[T, B]`, as `T * B` examples."""
    target = targets(params, rollout, hypers, network=network)
    batch = Minibatch(rollout.obs, rollout.action, target)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def epoch(key: Key, learner: Learner, batch: Minibatch, hypers: Hypers, *, network: ValueNetwork):
    """Passes once over the examples in shuffled minibatches.  The key is consumed."""
    minibatches = actor_critic.shuffled(key, batch, network.config.num_minibatches)
    return lax.scan(lambda learner, minibatch: learn(learner, minibatch, hypers, network=network), learner, minibatches)


def init(key: Key, hypers: Hypers, *, network: ValueNetwork) -> State:
    """Makes the state before the first update.  The key is consumed."""
    space = network.spec.observation
    params = network.init(key, jnp.zeros((1, *space.shape), space.dtype))
    return State(Learner(params, optimiser(hypers).init(params)))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ValueNetwork):
    """Learns from one rollout `[T, B]` in several epochs.  The key is consumed."""
    hypers = optim.annealed(step, hypers)
    examples = estimate(state.learner.params, batch, hypers, network=network)
    learner, metrics = lax.scan(
        lambda learner, key: epoch(key, learner, examples, hypers, network=network),
        state.learner,
        jax.random.split(key, network.config.num_epochs),
    )
    return State(learner), jax.tree.map(jnp.mean, metrics)


def act(key: Key, obs: Tree, memory: tuple[()], *, params: Tree, epsilon: Array | float, network: ValueNetwork):
    """Chooses actions at `[*N, *observation]`.  The key is consumed."""
    return exploration.epsilon_greedy(key, networks.apply(network, params, obs), epsilon), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ValueNetwork) -> Policy:
    """ε-greedy while exploring, greedy otherwise."""
    epsilon = exploration.falling(step, hypers) if explore else 0.0
    return memoryless(functools.partial(act, params=state.learner.params, epsilon=epsilon, network=network))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds PQN to a task.

    Args:
        spec: observations of one array, `Discrete` actions.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are not discrete.
    """
    return q_networks.bind(ValueNetwork(spec, config, layer_norm=config.layer_norm), init, update, policy)
