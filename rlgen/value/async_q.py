"""Asynchronous Q-learning and Sarsa, one-step and n-step, arXiv:1602.01783, with the asynchrony as data.

Each of `K` workers acts ε-greedily, and takes gradients, with a snapshot of the parameters that is its own, until its
turn comes to hand over what it added up (`rlgen.parts.asynchrony`).  A snapshot is on the average `mean_age` updates
old: at 0 all wait for each other, which is the synchronous rule, and at `K − 1` one worker at a time hands over, after
about `K` rollouts.  All learn towards one target network, which is copied once in `target_period` updates.

As in the paper, every step of a rollout bootstraps from the rollout's end, or `n_step` later where that is sooner;
1 is the one-step rule.  Where an episode is truncated it bootstraps from the true last observation.

Departures from the paper: its one-step rules read the shared parameters at every step, where here all workers have
snapshots; gradients are means over a rollout, behind a clip of their norm; RMSProp starts its mean of squares at 1, so
that the first steps are small.  Of the paper's three final values of ε, from which its workers draw now and then, each
draws one at the start.  Sarsa needs an action after the last step of a rollout and after a truncated episode: it is
drawn there as the worker would act, and not taken.

Shape legend: `T` rollout length, `B` environments, `K` workers, `N` any batch shape, `A` actions.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree, memoryless
from rlgen.parts import asynchrony, checks, experience, exploration, losses, networks, optim, q_networks
from rlgen.parts.asynchrony import Workers
from rlgen.parts.q_networks import ValueNetwork
from rlgen.parts.returns import n_step_return

RULES = ("q", "sarsa")
# The paper's final values of ε are 0.1, 0.01 and 0.5, drawn with these chances.
FINAL_EPSILONS = (1.0, 0.1, 5.0)  # shares of `epsilon_end`
CHANCES = (0.4, 0.3, 0.3)


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps of each environment between updates.
        n_step: steps of a return before its bootstrap; 1 for the one-step rule, `T` for the paper's n-step rule.
        rule: `"q"` to bootstrap from the best action, `"sarsa"` from the next one.
        num_workers: `K`; must divide `num_envs`.
        shared_statistics: whether there is one optimiser for all, instead of one for each worker.
        target_period: updates between two copies of the target network.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer.
        activation: name in `networks.ACTIVATIONS`.
    """

    num_envs: int = 8
    rollout_length: int = 5
    n_step: int = 5
    rule: str = "q"
    num_workers: int = 8
    shared_statistics: bool = True
    target_period: int = 100
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (120, 84)
    activation: str = "relu"

    def __post_init__(self):
        checks.one_of(self, rule=RULES)
        checks.divides(self, "num_workers", self.num_envs, f"{self.num_envs} environments")


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates of the whole run
    discount: float = 0.99
    epsilon_start: float = 1.0
    epsilon_end: float = 0.1  # of four workers in ten; that of three is a tenth of it, of three five times as much
    exploration_fraction: float = 0.5  # of `horizon`, over which epsilon falls
    max_grad_norm: float = 10.0
    mean_age: float = 7.0  # of a snapshot, in updates


class Learner(NamedTuple):
    """What the workers share."""

    params: Tree
    target: Tree
    opt_state: Tree  # a leading `[K]` where each worker has its own


class State(NamedTuple):
    """What an update changes, and how the workers differ."""

    learner: Learner
    workers: Workers
    share: Array  # [K], of `epsilon_end`, that each worker's epsilon comes to


class Metrics(NamedTuple):
    """Means over workers, before the step."""

    loss: Array
    q_value: Array  # of the actions taken
    error: Array  # mean absolute temporal-difference error
    age: Array  # of the snapshots, in updates


def optimiser(hypers: Any) -> Any:
    """The paper's RMSProp behind a clip of the gradient norm."""
    return optim.rmsprop(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm)


def next_action(rollout: Transition, drawn: Array) -> Array:
    """Tells which action follows each step, `[T, B]`: the one taken, or where none was the one `drawn`, `[T, B]`."""
    taken = jnp.concatenate([rollout.action[1:], drawn[-1:]])
    return jnp.where(rollout.terminated | rollout.truncated, drawn, taken)


def target_value(key: Key, target: Tree, own: Tree, rollout: Transition, hypers: Any, *, network: ValueNetwork):
    """What the values of the actions taken should be.

    Args:
        key: consumed by Sarsa.
        target: parameters of the target network.
        own: `(snapshot, epsilon)`, what the worker acts with.
        rollout: `[T, B / K]`.
        hypers: with `discount`.
        network: the action values.

    Returns:
        The returns, `[T, B / K]`.
    """
    config = network.config
    next_q = networks.apply(network, target, rollout.next_obs)
    if config.rule == "q":
        next_value = next_q.max(-1)
    else:
        drawn, _, _ = act(key, own, rollout.next_obs, (), network=network)
        next_value = q_networks.value_of(next_q, next_action(rollout, drawn))
    return n_step_return(
        rollout.reward, next_value, rollout.terminated, rollout.truncated, hypers.discount, config.n_step
    )


def loss(params: Tree, goal: Array, rollout: Transition, *, network: ValueNetwork) -> tuple[Array, dict[str, Array]]:
    """Half the mean squared error of the values of the actions taken; beside it `Metrics` but for the age."""
    q_value = q_networks.value_of(networks.apply(network, params, rollout.obs), rollout.action)
    error = goal - q_value
    value = losses.squared(error).mean()
    return value, {"loss": value, "q_value": q_value.mean(), "error": jnp.abs(error).mean()}


def gradient(key: Key, own: Tree, rollout: Transition, target: Tree, hypers: Any, *, network: ValueNetwork):
    """One worker's gradient at its snapshot, and metrics; the arguments are those of `target_value`."""
    goal = target_value(key, target, own, rollout, hypers, network=network)
    return jax.grad(loss, has_aux=True)(own[0], goal, rollout, network=network)


def learn(
    arrived: Array, learner: Learner, workers: Workers, gradients: Tree, hypers: Any, *, config: Config
) -> tuple[Learner, Workers]:
    """Adds the workers' gradients to what they have, and lets some hand it over: the rule itself.

    Args:
        arrived: `[K]` bool, whose turn it is.
        learner: the shared parameters, their target and their optimiser.
        workers: snapshots and what was added up.
        gradients: `[K, *parameter]`, of the new rollout.
        hypers: numbers; `learning_rate` is used as it stands.
        config: switches.

    Returns:
        `(learner, workers)`; the target is left as it was.
    """
    params, opt_state, workers = asynchrony.hand_over(
        arrived,
        learner.params,
        learner.opt_state,
        workers,
        gradients,
        optimiser=optimiser(hypers),
        shared_statistics=config.shared_statistics,
    )
    return Learner(params, learner.target, opt_state), workers


def init(key: Key, hypers: Hypers, *, network: ValueNetwork) -> State:
    """Makes the state before the first update, with snapshots of the first parameters.  The key is consumed."""
    config, space = network.config, network.spec.observation
    params_key, share_key = jax.random.split(key)
    params = network.init(params_key, jnp.zeros((1, *space.shape), space.dtype))
    opt_state = optimiser(hypers).init(params)
    if not config.shared_statistics:
        opt_state = asynchrony.copies(opt_state, config.num_workers)
    target = jax.tree.map(jnp.copy, params)  # two names for one buffer could not be donated
    shares, chances = jnp.array(FINAL_EPSILONS), jnp.array(CHANCES)
    share = jax.random.choice(share_key, shares, (config.num_workers,), p=chances)
    return State(Learner(params, target, opt_state), asynchrony.start(params, config.num_workers), share)


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ValueNetwork):
    """Learns from one rollout `[T, B]`; the key is consumed by the turns, and by Sarsa's last actions."""
    config, (learner, workers, share) = network.config, state
    hypers = optim.annealed(step, hypers)
    turn_key, action_key = jax.random.split(key)
    own = workers.params, epsilons(step, share, hypers)
    of_each = asynchrony.together(
        functools.partial(gradient, target=learner.target, hypers=hypers, network=network), config.num_workers
    )
    keys = jax.random.split(action_key, config.num_workers)
    gradients, metrics = of_each(keys, own, asynchrony.apart(batch, config.num_workers, 1))
    arrived = asynchrony.turns(turn_key, hypers.mean_age, config.num_workers)
    age = workers.age.astype(jnp.float32).mean()
    learner, workers = learn(arrived, learner, workers, gradients, hypers, config=config)
    target = experience.follow(step, learner.target, learner.params, period=config.target_period)
    means = jax.tree.map(jnp.mean, metrics)
    return State(learner._replace(target=target), workers, share), Metrics(**means, age=age)


def epsilons(step: Array, share: Array, hypers: Any) -> Array:
    """Each worker's chance of an action at random, `[K]`, on its way from `epsilon_start` to its share of the end."""
    return exploration.falling(step, hypers._replace(epsilon_end=jnp.minimum(share * hypers.epsilon_end, 1.0)))


def act(key: Key, own: Tree, obs: Tree, memory: tuple[()], *, network: ValueNetwork):
    """Chooses actions at `[*N, *observation]` with `own`, parameters and an epsilon.  The key is consumed."""
    params, epsilon = own
    return exploration.epsilon_greedy(key, networks.apply(network, params, obs), epsilon), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ValueNetwork) -> Policy:
    """The workers, each ε-greedy in its environments, while exploring; otherwise greedy by the shared parameters.

    Args:
        step: tells how far epsilon has fallen.
        state: of the learner.
        hypers: numbers.
        explore: whether to explore.
        network: the action values.

    Returns:
        A policy without memory; batches of other than `B` inputs explore by the shared parameters, as often as the
        workers do on the average.
    """
    epsilon = epsilons(step, state.share, hypers)
    function = functools.partial(act, network=network)

    def apply(key: Key, obs: Tree, memory: tuple[()]):
        batch_shape = obs.shape[: obs.ndim - len(network.spec.observation.shape)]
        if explore and batch_shape == (network.config.num_envs,):
            own = state.workers.params, epsilon
            return asynchrony.act(key, obs, memory, own, function=function, num_workers=network.config.num_workers)
        return function(key, (state.learner.params, epsilon.mean() if explore else 0.0), obs, memory)

    return memoryless(apply)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds asynchronous Q-learning to a task.

    Args:
        spec: observations of one array, `Discrete` actions.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are not discrete.
    """
    return q_networks.bind(ValueNetwork(spec, config), init, update, policy)
