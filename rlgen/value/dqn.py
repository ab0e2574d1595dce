"""Deep Q-networks, Mnih et al. 2015, doi:10.1038/nature14236; double Q-learning as a switch, arXiv:1509.06461.

Departures from the paper: Adam in place of RMSProp, several environments at a time, and a target network that may
move by a share `tau` where the paper copies it.  An episode cut by its time limit bootstraps from its true last
observation.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `A`
actions.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from rlgen.core import Algorithm, Array, Discrete, Key, Policy, Spec, Transition, Tree
from rlgen.parts import exploration, losses, networks, optim, replay

ERRORS = {"huber": losses.huber, "squared": losses.squared}


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps of each environment between updates.
        num_steps: gradient steps an update.
        batch_size: `M`.
        capacity: transitions kept, `R * B`; a multiple of `T * B`.
        warm_up: transitions gathered before learning begins.
        target_period: updates between two moves of the target network.
        double: whether the online network chooses the action that the target network values.
        error: `"huber"` or `"squared"`.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer.
        activation: name in `networks.ACTIVATIONS`.
    """

    num_envs: int = 10
    rollout_length: int = 1
    num_steps: int = 1
    batch_size: int = 128
    capacity: int = 10_000
    warm_up: int = 1_000
    target_period: int = 500
    double: bool = False
    error: str = "huber"
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (120, 84)
    activation: str = "relu"

    def __post_init__(self):
        if self.error not in ERRORS:
            raise ValueError(f"config.error={self.error!r} is not one of {', '.join(ERRORS)}")
        if self.capacity % (self.num_envs * self.rollout_length):
            raise ValueError(
                f"config.capacity={self.capacity} is no multiple of"
                f" {self.num_envs} environments × {self.rollout_length} steps"
            )


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 2.5e-4
    discount: float = 0.99
    tau: float = 1.0  # share of the online network in a move of the target network
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    exploration_fraction: float = 0.5  # of `horizon`, over which epsilon falls
    horizon: float = float("inf")  # updates of the whole run
    max_grad_norm: float = 10.0


class Learner(NamedTuple):
    """What a gradient step changes, and the target."""

    params: Tree
    target: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes."""

    learner: Learner
    replay: Transition  # leaves `[R, B, ...]`


class Metrics(NamedTuple):
    """Means over an update's gradient steps; zero before learning begins."""

    loss: Array
    q_value: Array  # of the actions taken
    error: Array  # mean absolute temporal-difference error


class QNetwork(nn.Module):
    """Action values."""

    spec: Spec
    config: Config

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Maps `[*N, *observation]` to `[*N, A]`."""
        config, space = self.config, self.spec.observation
        torso = networks.torso(config.network, config.hidden_sizes, config.activation, space)
        return nn.Dense(self.spec.action.num)(torso(networks.encode(obs, space)))


def optimiser(hypers: Hypers) -> Any:
    """Adam behind a clip of the gradient norm."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm)


def target_value(params: Tree, target: Tree, minibatch: Transition, hypers: Hypers, *, network: QNetwork) -> Array:
    """What the value of the action taken should be, `r + γ Q⁻(s', argmax Q(s', ·))`, `[M]`."""
    next_q = networks.apply(network, target, minibatch.next_obs)
    chooser = networks.apply(network, params, minibatch.next_obs) if network.config.double else next_q
    next_value = jnp.take_along_axis(next_q, jnp.argmax(chooser, axis=-1)[:, None], axis=-1)[:, 0]
    return minibatch.reward + hypers.discount * jnp.where(minibatch.terminated, 0.0, next_value)


def loss(params: Tree, target: Tree, minibatch: Transition, hypers: Hypers, *, network: QNetwork):
    """Mean error of the values of the actions taken."""
    q_values = networks.apply(network, params, minibatch.obs)
    q_value = jnp.take_along_axis(q_values, minibatch.action[:, None], axis=-1)[:, 0]
    goal = target_value(lax.stop_gradient(params), target, minibatch, hypers, network=network)
    error = goal - q_value
    value = ERRORS[network.config.error](error).mean()
    return value, Metrics(value, q_value.mean(), jnp.abs(error).mean())


def learn(learner: Learner, minibatch: Transition, hypers: Hypers, *, network: QNetwork) -> tuple[Learner, Metrics]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        learner: parameters, target and optimiser.
        minibatch: leaves `[M, ...]`.
        hypers: numbers.
        network: the action values.

    Returns:
        `(learner, metrics)`; the target is left as it was.
    """
    params, opt_state, metrics = optim.descend(
        functools.partial(loss, network=network),
        optimiser(hypers),
        learner.params,
        learner.opt_state,
        learner.target,
        minibatch,
        hypers,
    )
    return Learner(params, learner.target, opt_state), metrics


def init(key: Key, hypers: Hypers, *, network: QNetwork) -> State:
    """Makes the state before the first update.  The key is consumed."""
    spec, config = network.spec, network.config
    obs = jnp.zeros(spec.observation.shape, spec.observation.dtype)
    params = network.init(key, obs[None])
    example = Transition(obs, jnp.int32(0), jnp.float32(0), obs, jnp.bool_(False), jnp.bool_(False), {})
    ring = replay.init(example, capacity=config.capacity, num_envs=config.num_envs, num_rows=config.rollout_length)
    target = jax.tree.map(jnp.copy, params)  # two names for one buffer could not be donated
    return State(Learner(params, target, optimiser(hypers).init(params)), ring)


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: QNetwork):
    """Stores a rollout `[T, B]` and takes some gradient steps on what is stored.  The key is consumed."""
    config = network.config
    ring = replay.add(state.replay, step, batch._replace(extras={}))
    rows = replay.filled(ring, step, config.rollout_length)

    def one_step(learner, key):
        return learn(learner, replay.sample(key, ring, rows, config.batch_size), hypers, network=network)

    def steps(learner):
        learner, metrics = lax.scan(one_step, learner, jax.random.split(key, config.num_steps))
        return learner, jax.tree.map(jnp.mean, metrics)

    def wait(learner):
        return learner, Metrics(*(jnp.float32(0),) * 3)

    # Both conditions depend on `step` alone, so they stay branches under a sweep.
    warm = -(-config.warm_up // (config.num_envs * config.rollout_length))
    learner, metrics = lax.cond(step + 1 >= warm, steps, wait, state.learner)
    target = lax.cond(
        (step + 1) % config.target_period == 0,
        lambda: optax.incremental_update(learner.params, learner.target, hypers.tau),
        lambda: learner.target,
    )
    return State(learner._replace(target=target), ring), metrics


def act(key: Key, obs: Tree, memory: tuple[()], *, params: Tree, epsilon: Array | float, network: QNetwork):
    """Chooses actions at `[*N, *observation]`.  The key is consumed."""
    return exploration.epsilon_greedy(key, networks.apply(network, params, obs), epsilon), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: QNetwork) -> Policy:
    """ε-greedy while exploring, greedy otherwise."""
    fraction = step / (hypers.exploration_fraction * hypers.horizon)
    epsilon = exploration.linear(hypers.epsilon_start, hypers.epsilon_end, fraction) if explore else 0.0
    return Policy(
        memory=lambda batch_shape: (),
        apply=functools.partial(act, params=state.learner.params, epsilon=epsilon, network=network),
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds DQN to a task.

    Args:
        spec: observations of one array, `Discrete` actions.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are not discrete.
    """
    if not isinstance(spec.action, Discrete):
        raise ValueError(f"DQN chooses among discrete actions; the task's are {spec.action}")
    network = QNetwork(spec, config)
    return Algorithm(
        init=functools.partial(init, network=network),
        update=functools.partial(update, network=network),
        policy=functools.partial(policy, network=network),
    )
