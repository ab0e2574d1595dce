"""Deep Q-networks and what was added to them: every part of Rainbow, a switch each.

Sources: Mnih et al. 2015, doi:10.1038/nature14236; double Q-learning, arXiv:1509.06461; duelling networks,
arXiv:1511.06581; prioritised replay, arXiv:1511.05952; noisy networks, arXiv:1706.10295; C51, arXiv:1707.06887; QR-DQN,
arXiv:1710.10044; IQN, arXiv:1806.06923; all together, Rainbow, arXiv:1710.02298.

Departures from the papers: Adam in place of RMSProp, several environments at a time, and a target network that may
move by a share `tau` where the papers copy it.  An episode cut by its time limit bootstraps from its true last
observation, and so does a sum of several rewards that an episode's end, or the newest row of the ring, cuts short.
Noise is drawn once for a minibatch, separately for every network that reads it, and once for every environment that
acts.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `A`
actions, `K` numbers that predict a return, `L` returns that a target is made of, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rlgen.core import Algorithm, Array, Discrete, Key, Policy, Spec, Transition, Tree
from rlgen.parts import distributional, exploration, losses, optim, priorities, q_networks, replay
from rlgen.parts.q_networks import QNetwork
from rlgen.parts.replay import Steps

ERRORS = {"huber": losses.huber, "squared": losses.squared}
REPLAYS = ("uniform", *priorities.KINDS)


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
        n_step: rewards that are added up before a value is trusted.
        double: whether the online network chooses the action that the target network values.
        dueling: whether a value and advantages, each with a hidden layer of its own, make the action values.
        noisy: whether the last hidden layer and the outputs are noisy.
        noise_scale: `σ₀`, deviation of the noise at the start.
        replay: of `REPLAYS`.
        sort_period: updates between two sorts of a replay by rank.
        head: of `distributional.KINDS`: what is predicted of the return.
        num_atoms: of a categorical distribution, or fixed quantiles.
        num_fractions: quantiles that an implicit distribution is asked for where it learns or acts.
        error: `"huber"` or `"squared"`, of an expected return.
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
    n_step: int = 1
    double: bool = False
    dueling: bool = False
    noisy: bool = False
    noise_scale: float = 0.5
    replay: str = "uniform"
    sort_period: int = 1
    head: str = "expected"
    num_atoms: int = 51
    num_fractions: int = 32
    error: str = "huber"
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (120, 84)
    activation: str = "relu"

    def __post_init__(self):
        for name, known in (("error", ERRORS), ("replay", REPLAYS), ("head", distributional.KINDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"config.{name}={getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.head == "categorical" and self.num_atoms < 2:
            raise ValueError(f"config.num_atoms={self.num_atoms}: a categorical distribution needs two atoms or more")
        if self.capacity % (self.num_envs * self.rollout_length):
            raise ValueError(
                f"config.capacity={self.capacity} is no multiple of"
                f" {self.num_envs} environments × {self.rollout_length} steps"
            )

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = {}
        if self.replay == "uniform":
            reasons |= dict.fromkeys(("priority_exponent", "importance_start"), "config.replay='uniform'")
        if self.head != "categorical":
            reasons |= dict.fromkeys(("lowest_return", "highest_return"), f"config.head={self.head!r}")
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 2.5e-4
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    tau: float = 1.0  # share of the online network in a move of the target network
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    exploration_fraction: float = 0.5  # of `horizon`, over which epsilon falls
    horizon: float = float("inf")  # updates of the whole run
    max_grad_norm: float = 10.0
    priority_exponent: float = 0.5  # `α`; 0 draws all alike
    importance_start: float = 0.4  # `β` at the start; it is 1 after `horizon` updates
    lowest_return: float = -10.0  # of a categorical distribution
    highest_return: float = 10.0


class Learner(NamedTuple):
    """What a gradient step changes, and the target."""

    params: Tree
    target: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes."""

    learner: Learner
    replay: Transition  # leaves `[R, B, ...]`
    priorities: Tree  # `priorities.Priorities` of `R * B` slots; `()` where all are drawn alike


class Metrics(NamedTuple):
    """Means over an update's gradient steps; zero before learning begins."""

    loss: Array
    q_value: Array  # of the actions taken
    error: Array  # mean absolute temporal-difference error


def optimiser(hypers: Hypers) -> Any:
    """Adam behind a clip of the gradient norm."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=hypers.adam_epsilon)


def chosen(predicted: Array, action: Array) -> Array:
    """Predictions for one action, `[M, A, K]` to `[M, K]`."""
    return jnp.take_along_axis(predicted, action[:, None, None], axis=1)[:, 0]


def goal(key: Key, params: Tree, target: Tree, minibatch: Steps, hypers: Hypers, *, network: QNetwork):
    """What the return of the action taken should be: `r + γ Z⁻(s', argmax Q(s', ·))`.

    Args:
        key: consumed.
        params: of the online network.
        target: of the target network.
        minibatch: `[M, ...]`.
        hypers: numbers.
        network: what is predicted.

    Returns:
        Returns and their probabilities, `[M, L]` each.
    """
    atoms = q_networks.atoms(hypers, config=network.config)
    target_key, chooser_key = jax.random.split(key)
    predicted, _ = q_networks.predict(target_key, target, minibatch.next_obs, network=network)
    chooser = predicted
    if network.config.double:
        chooser, _ = q_networks.predict(chooser_key, params, minibatch.next_obs, network=network)
    best = chosen(predicted, jnp.argmax(distributional.mean(chooser, atoms), axis=-1))
    onward = best if atoms is None else jnp.broadcast_to(atoms, best.shape)
    probability = jnp.full(best.shape, 1 / best.shape[-1]) if atoms is None else jax.nn.softmax(best)
    return minibatch.reward[:, None] + minibatch.discount[:, None] * onward, probability


def loss(params: Tree, key: Key, target: Tree, minibatch: Steps, weight: Array, hypers: Hypers, *, network: QNetwork):
    """Weighted mean of the errors of what was predicted for the actions taken.

    Args:
        params: of the online network.
        key: consumed.
        target: of the target network.
        minibatch: `[M, ...]`.
        weight: of each example, `[M]`.
        hypers: numbers.
        network: what is predicted.

    Returns:
        `(loss, (metrics, priority))`, the priority being how wrong each example is, `[M]`.
    """
    config, atoms = network.config, q_networks.atoms(hypers, config=network.config)
    online_key, goal_key = jax.random.split(key)
    predicted, fractions = q_networks.predict(online_key, params, minibatch.obs, network=network)
    taken = chosen(predicted, minibatch.action)
    q_value = distributional.mean(taken, atoms)
    returns, probability = goal(goal_key, lax.stop_gradient(params), target, minibatch, hypers, network=network)
    error = jnp.abs((returns * probability).sum(-1) - q_value)
    if config.head == "expected":
        each, priority = ERRORS[config.error](error), error
    elif atoms is not None:
        each = priority = distributional.divergence(taken, distributional.project(returns, probability, atoms))
    else:
        fractions = distributional.midpoints(config.num_atoms) if fractions is None else fractions
        each = priority = distributional.quantile_regression(taken, fractions, returns)
    value = (weight * each).mean()
    return value, (Metrics(value, q_value.mean(), error.mean()), lax.stop_gradient(priority))


def learn(
    key: Key, learner: Learner, minibatch: Steps, weight: Array, hypers: Hypers, *, network: QNetwork
) -> tuple[Learner, Metrics, Array]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        key: consumed; only noise and implicit distributions draw from it.
        learner: parameters, target and optimiser.
        minibatch: leaves `[M, ...]`.
        weight: of each example, `[M]`; 1 where all were drawn alike.
        hypers: numbers.
        network: what is predicted.

    Returns:
        `(learner, metrics, priority)`: the target is left as it was, and the priority is how wrong each example was,
        `[M]`.
    """
    params, opt_state, (metrics, priority) = optim.descend(
        functools.partial(loss, network=network),
        optimiser(hypers),
        learner.params,
        learner.opt_state,
        key,
        learner.target,
        minibatch,
        weight,
        hypers,
    )
    return Learner(params, learner.target, opt_state), metrics, priority


def init(key: Key, hypers: Hypers, *, network: QNetwork) -> State:
    """Makes the state before the first update.  The key is consumed."""
    spec, config = network.spec, network.config
    obs = jnp.zeros(spec.observation.shape, spec.observation.dtype)
    fractions = jnp.zeros((1, config.num_fractions)) if config.head == "implicit" else None
    params = network.init(key, obs[None], None, fractions)
    example = Transition(obs, jnp.int32(0), jnp.float32(0), obs, jnp.bool_(False), jnp.bool_(False), {})
    ring = replay.init(example, capacity=config.capacity, num_envs=config.num_envs, num_rows=config.rollout_length)
    ranks = () if config.replay == "uniform" else priorities.init(config.capacity, kind=config.replay)
    target = jax.tree.map(jnp.copy, params)  # two names for one buffer could not be donated
    return State(Learner(params, target, optimiser(hypers).init(params)), ring, ranks)


def drawn(key: Key, step: Array, ring: Transition, ranks: Tree, hypers: Hypers, *, config: Config):
    """Draws a minibatch's slots and says how much each counts.

    Args:
        key: consumed.
        step: updates done before, scalar.
        ring: `[R, B, ...]`, with what this update wrote.
        ranks: priorities of its slots.
        hypers: numbers.
        config: how slots are drawn.

    Returns:
        Slots and weights, `[M]` each.
    """
    if config.replay == "uniform":
        rows = replay.filled(ring, step, config.rollout_length)
        return replay.draw(key, ring, rows, config.batch_size), jnp.ones(config.batch_size)
    index, probability = priorities.sample(key, ranks, config.batch_size, hypers.priority_exponent)
    importance = exploration.linear(hypers.importance_start, 1.0, step / hypers.horizon)
    return index, priorities.weights(probability, importance)


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: QNetwork):
    """Stores a rollout `[T, B]` and takes some gradient steps on what is stored.  The key is consumed."""
    config = network.config
    ring = replay.add(state.replay, step, batch._replace(extras={}))
    last_row = replay.newest(ring, step, config.rollout_length)
    ranks = state.priorities
    if config.replay != "uniform":
        num, period = config.num_envs * config.rollout_length, config.sort_period
        ranks = priorities.add(ranks, step, size=config.capacity, num=num, sort_period=period)

    def one_step(carry, key):
        learner, ranks = carry
        draw_key, learn_key = jax.random.split(key)
        index, weight = drawn(draw_key, step, ring, ranks, hypers, config=config)
        minibatch = replay.multi_step(ring, index, last_row, hypers.discount, config.n_step)
        learner, metrics, priority = learn(learn_key, learner, minibatch, weight, hypers, network=network)
        if config.replay != "uniform":
            ranks = priorities.update(ranks, index, priority, hypers.priority_exponent, priorities.LEAST)
        return (learner, ranks), metrics

    def steps(carry):
        carry, metrics = lax.scan(one_step, carry, jax.random.split(key, config.num_steps))
        return carry, jax.tree.map(jnp.mean, metrics)

    def wait(carry):
        return carry, Metrics(*(jnp.float32(0),) * 3)

    # Both conditions depend on `step` alone, so they stay branches under a sweep.
    warm = -(-config.warm_up // (config.num_envs * config.rollout_length))
    (learner, ranks), metrics = lax.cond(step + 1 >= warm, steps, wait, (state.learner, ranks))
    target = lax.cond(
        (step + 1) % config.target_period == 0,
        lambda: optax.incremental_update(learner.params, learner.target, hypers.tau),
        lambda: learner.target,
    )
    return State(learner._replace(target=target), ring, ranks), metrics


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: QNetwork) -> Policy:
    """ε-greedy and noisy while exploring, greedy and without noise otherwise."""
    epsilon = exploration.falling(step, hypers) if explore else 0.0
    return Policy(
        memory=lambda batch_shape: (),
        apply=functools.partial(
            q_networks.act,
            params=state.learner.params,
            hypers=hypers,
            epsilon=epsilon,
            noisy=explore and network.config.noisy,
            network=network,
        ),
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a deep Q-network to a task.

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
