"""Recurrent replay distributed DQN: Q-learning from stored sequences with a network that remembers.

Sources: Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement Learning", openreview.net
r1lyTjAqYX; value rescaling, arXiv:1805.11593; prioritised replay, arXiv:1511.05952; the spread of ε over environments
is Ape-X's, arXiv:1803.00933; duelling networks, arXiv:1511.06581; double Q-learning, arXiv:1509.06461.

A sequence begins with every rollout of every environment, so that the rollout's length is how far apart sequences
begin: they overlap by half where `sequence_length` is two rollouts, and not at all where it is one.  It is `burn_in`
steps, which only bring the memory up to date, and `sequence_length` steps that are learned from, with what the network
remembered when it acted before the first of them (`rlgen.parts.sequences`).

Departures from the paper: sequences go on from one episode to the next, where the memory starts anew, and a truncated
episode bootstraps from its true last observation; the network does not read the last action and reward; a sequence has
the largest priority so far until it is learned from; importance weights go to full correction, as in the paper on
prioritised replay; errors are averaged over a sequence.

Shape legend: `T` steps of a rollout, `B` environments, `R` rows of the ring, `P` sequences that can be drawn of an
environment, `M` sequences in a minibatch, `L` steps of a sequence, `K` of them that are learned from, `A` actions, `D`
units, `N` any batch shape.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import checks, experience, exploration, networks, optim, q_networks, rescaling, sequences
from rlgen.parts.q_networks import RecurrentQNetwork
from rlgen.parts.returns import n_step_return
from rlgen.parts.sequences import Ring, Sequences
from rlgen.value.dqn import ERRORS


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps of each environment between updates and between the beginnings of its sequences.
        burn_in: steps of a sequence before those that are learned from; 0 for none.
        sequence_length: `K`, at least `T`.
        num_steps: gradient steps an update.
        batch_size: `M`.
        capacity: transitions kept, `R * B`; a multiple of `T * B` that holds a sequence.
        warm_up: transitions gathered before learning begins.
        target_period: updates between two copies of the target network.
        n_step: rewards that are added up before a value is trusted.
        double: whether the online network chooses the action that the target network values.
        dueling: whether a value and advantages, each with hidden layers of its own, make the action values.
        rescaling: whether values are learned on the scale of `rescaling`.
        replay: of `experience.REPLAYS`.
        sort_period: updates between two sorts of a replay by rank.
        error: `"huber"` or `"squared"`.
        core: name in `networks.CORES`.
        core_size: `D`, its units.
        network: `"mlp"` or `"cnn"`, before the core.
        hidden_sizes: width of each dense layer before the core.
        stream_sizes: width of each hidden layer after the core.
        activation: name in `networks.ACTIVATIONS`.
    """

    num_envs: int = 16
    rollout_length: int = 10
    burn_in: int = 10
    sequence_length: int = 20
    num_steps: int = 4
    batch_size: int = 32
    capacity: int = 48_000
    warm_up: int = 4_800
    target_period: int = 25
    n_step: int = 5
    double: bool = True
    dueling: bool = True
    rescaling: bool = True
    replay: str = "proportional"
    sort_period: int = 1
    error: str = "squared"
    core: str = "lstm"
    core_size: int = 64
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (64,)
    stream_sizes: tuple[int, ...] = (64,)
    activation: str = "relu"
    noisy: ClassVar[bool] = False  # of the streams

    def __post_init__(self):
        checks.one_of(self, error=ERRORS, replay=experience.REPLAYS, core=networks.CORES)
        experience.check(self)
        sequences.check(self)

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = experience.idle(self)
        if self.sequence_length == 1:
            reasons["priority_mix"] = "config.sequence_length=1"
        if self.replay == "uniform":
            reasons |= dict.fromkeys(("priority_mix", "horizon"), "config.replay='uniform'")
        if self.num_envs == 1:
            reasons["epsilon_spread"] = "config.num_envs=1"
        if not self.rescaling:
            reasons["rescaling_epsilon"] = "config.rescaling=False"
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-3
    discount: float = 0.997
    epsilon: float = 0.4  # of the environment that explores most
    epsilon_spread: float = 7.0  # ε to the power of 1 + this is that of the one that explores least
    horizon: float = float("inf")  # updates of the whole run
    max_grad_norm: float = 40.0
    rescaling_epsilon: float = 1e-3
    priority_exponent: float = 0.9  # `α`; 0 draws all alike
    priority_mix: float = 0.9  # `η`, share of a sequence's largest error in its priority; the mean has the rest
    importance_start: float = 0.6  # `β` at the start; it is 1 after `horizon` updates


class Learner(NamedTuple):
    """What a gradient step changes, and the target."""

    params: Tree
    target: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes."""

    learner: Learner
    replay: Ring
    priorities: Tree  # `priorities.Priorities` of `P * B` slots; `()` where all are drawn alike


class Metrics(NamedTuple):
    """Means over an update's gradient steps; zero before learning begins."""

    loss: Array
    q_value: Array  # of the actions taken, on the scale of rewards
    error: Array  # mean absolute temporal-difference error, on the scale that is learned


def optimiser(hypers: Hypers) -> Any:
    """Adam behind a clip of the gradient norm."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=hypers.adam_epsilon)


def hindsight(params: Tree, minibatch: Sequences, *, network: RecurrentQNetwork) -> tuple[Array, Array]:
    """Goes through sequences again, with parameters that need not be those that acted.

    No gradient flows through the memory in which the burn-in ends.

    Args:
        params: to look with.
        minibatch: `[M, L, ...]`.
        network: what is predicted.

    Returns:
        Action values before and after every step that is learned from, `[M, K, A]` each.
    """
    steps, memory, burn_in = minibatch.steps, minibatch.memory, network.config.burn_in
    done = steps.terminated | steps.truncated
    # What is stored already started anew where an episode ended just before the sequence.
    start = jnp.concatenate([jnp.zeros_like(done[:, :1]), done[:, :-1]], axis=1)
    if burn_in:
        early = (steps.obs[:, :burn_in], start[:, :burn_in])
        _, memories = networks.apply(network, params, *early, memory, method="unroll")
        memory = lax.stop_gradient(jax.tree.map(lambda leaf: leaf[:, -1], memories))
    late = (steps.obs[:, burn_in:], start[:, burn_in:])
    values, memories = networks.apply(network, params, *late, memory, method="unroll")
    _, next_values = networks.apply(network, params, memories, steps.next_obs[:, burn_in:], method="step")
    return values, next_values


def goal(chooser: Array, target: Array, steps: Transition, hypers: Hypers, *, config: Config) -> Array:
    """What the values of the actions taken should be: n-step double Q-learning on the scale that is learned.

    Args:
        chooser: values after each step by which the best action is chosen, `[M, K, A]`.
        target: values after each step that it is worth, `[M, K, A]`.
        steps: that are learned from, `[M, K, ...]`.
        hypers: numbers.
        config: which switches are on.

    Returns:
        `h` of the returns, `[M, K]`; they are shorter at the end of an episode and of the sequence.
    """
    next_value = q_networks.value_of(target, jnp.argmax(chooser, axis=-1))
    if config.rescaling:
        next_value = rescaling.restore(next_value, hypers.rescaling_epsilon)
    by_time = (steps.reward.T, next_value.T, steps.terminated.T, steps.truncated.T)
    returns = n_step_return(*by_time, hypers.discount, config.n_step).T
    return rescaling.rescale(returns, hypers.rescaling_epsilon) if config.rescaling else returns


def loss(
    params: Tree, target: Tree, minibatch: Sequences, weight: Array, hypers: Hypers, *, network: RecurrentQNetwork
):
    """Weighted mean of the errors of what was predicted for the actions taken.

    Args:
        params: of the online network.
        target: of the target network.
        minibatch: `[M, L, ...]`.
        weight: of each sequence, `[M]`.
        hypers: numbers.
        network: what is predicted.

    Returns:
        `(loss, (metrics, priority))`, the priority being how wrong each sequence is, `[M]`.
    """
    config = network.config
    steps = jax.tree.map(lambda leaf: leaf[:, config.burn_in :], minibatch.steps)
    values, next_values = hindsight(params, minibatch, network=network)
    _, next_target = hindsight(target, minibatch, network=network)
    chooser = next_values if config.double else next_target
    taken = q_networks.value_of(values, steps.action)
    returns = lax.stop_gradient(goal(chooser, next_target, steps, hypers, config=config))
    error = jnp.abs(returns - taken)
    priority = hypers.priority_mix * error.max(axis=1) + (1.0 - hypers.priority_mix) * error.mean(axis=1)
    value = (weight * ERRORS[config.error](error).mean(axis=1)).mean()
    q_value = rescaling.restore(taken, hypers.rescaling_epsilon) if config.rescaling else taken
    return value, (Metrics(value, q_value.mean(), error.mean()), lax.stop_gradient(priority))


def learn(
    learner: Learner, minibatch: Sequences, weight: Array, hypers: Hypers, *, network: RecurrentQNetwork
) -> tuple[Learner, Metrics, Array]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        learner: parameters, target and optimiser.
        minibatch: leaves `[M, L, ...]`, and memories `[M, D]`.
        weight: of each sequence, `[M]`; 1 where all were drawn alike.
        hypers: numbers.
        network: what is predicted.

    Returns:
        `(learner, metrics, priority)`: the target is left as it was, and the priority is how wrong each sequence was,
        `[M]`.
    """
    params, opt_state, (metrics, priority) = optim.descend(
        functools.partial(loss, network=network),
        optimiser(hypers),
        learner.params,
        learner.opt_state,
        learner.target,
        minibatch,
        weight,
        hypers,
    )
    return Learner(params, learner.target, opt_state), metrics, priority


def init(key: Key, hypers: Hypers, *, network: RecurrentQNetwork) -> State:
    """Makes the state before the first update.  The key is consumed."""
    spec, config = network.spec, network.config
    obs = jnp.zeros(spec.observation.shape, spec.observation.dtype)
    memory = networks.initial_memory(config.core, config.core_size, ())
    one = jax.tree.map(lambda leaf: leaf[None], memory)
    params = network.init(key, obs[None, None], jnp.zeros((1, 1), bool), one, method="unroll")
    target = jax.tree.map(jnp.copy, params)  # two names for one buffer could not be donated
    learner = Learner(params, target, optimiser(hypers).init(params))
    ranks = experience.ranks(sequences.num_starts(config) * config.num_envs, config=config)
    return State(learner, sequences.init(spec, memory, config), ranks)


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: RecurrentQNetwork):
    """Stores a rollout `[T, B]` and takes some gradient steps on stored sequences.  The key is consumed."""
    config, num_envs = network.config, network.config.num_envs
    ring, last = sequences.add(state.replay, step, batch), sequences.newest(step, config=config)
    num_slots = sequences.num_starts(config) * num_envs
    # Before there is a whole sequence its slots are given away again and again, and none is drawn.
    ranks = experience.admit(state.priorities, last, num_slots=num_slots, num=num_envs, config=config)
    num_filled = jnp.minimum(last + 1, sequences.num_starts(config)) * num_envs

    def one_step(carry, key, count):
        del count
        learner, ranks = carry
        index, weight = experience.drawn(key, step, ranks, num_filled, hypers, config=config)
        minibatch = sequences.take(step, ring, index, config=config)
        learner, metrics, priority = learn(learner, minibatch, weight, hypers, network=network)
        return (learner, experience.renew(ranks, index, priority, hypers, config=config)), metrics

    first = sequences.warm(config)
    (learner, ranks), metrics = experience.practise(
        key, step, (state.learner, ranks), one_step, num_steps=config.num_steps, first=first, metrics=Metrics
    )
    target = experience.follow(step, learner.target, learner.params, period=config.target_period)
    return State(learner._replace(target=target), ring, ranks), metrics


def epsilons(hypers: Hypers, batch_shape: tuple[int, ...]) -> Array:
    """Spreads ε over the environments that act: `ε^(1 + i / (N − 1) · spread)` for the i-th of `N`.

    Args:
        hypers: with `epsilon` and `epsilon_spread`.
        batch_shape: `N`.

    Returns:
        `[*N]`.
    """
    num = math.prod(batch_shape)
    place = jnp.arange(num) / max(num - 1, 1)
    return (hypers.epsilon ** (1.0 + place * hypers.epsilon_spread)).reshape(batch_shape)


def act(key: Key, obs: Tree, memory: Tree, *, params: Tree, hypers: Hypers, explore: bool, network: RecurrentQNetwork):
    """Chooses actions at `[*N, *observation]`.  The key is consumed."""
    after, values = networks.apply(network, params, memory, obs, method="step")
    epsilon = epsilons(hypers, values.shape[:-1]) if explore else 0.0
    return exploration.epsilon_greedy(key, values, epsilon), {"memory": memory}, after


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: RecurrentQNetwork) -> Policy:
    """ε-greedy, each environment with an ε of its own, while exploring; greedy otherwise."""
    del step
    config = network.config
    return Policy(
        memory=functools.partial(networks.initial_memory, config.core, config.core_size),
        apply=functools.partial(act, params=state.learner.params, hypers=hypers, explore=explore, network=network),
    )


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds recurrent replay DQN to a task.

    Args:
        spec: observations of one array, `Discrete` actions.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`, with the actor's memory in `extras`.

    Raises:
        ValueError: if the actions are not discrete.
    """
    return q_networks.bind(RecurrentQNetwork(spec, config), init, update, policy)
