"""Deep Q-networks and what was added to them: every part of Rainbow, a switch each.

Sources: Mnih et al. 2015, doi:10.1038/nature14236; double Q-learning, arXiv:1509.06461; duelling networks,
arXiv:1511.06581; prioritised replay, arXiv:1511.05952; noisy networks, arXiv:1706.10295; C51, arXiv:1707.06887; QR-DQN,
arXiv:1710.10044; IQN, arXiv:1806.06923; all together, Rainbow, arXiv:1710.02298.

Departures from the papers: Adam in place of RMSProp, several environments at a time, and a target network that may
move by a share `tau` where the papers copy it.  An episode cut by its time limit bootstraps from its true last
observation, and so does a sum of several rewards that an episode's end, or the newest row of the ring, cuts short.
Duelling streams pass their whole gradient on, where that paper divides it by the root of two, and IQN takes one number
of fractions for all that it draws and acts on evenly spread ones.  Noise is drawn once for a minibatch, separately for
every network that reads it, and once for every environment that acts.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `A`
actions, `K` numbers that predict a return, `L` returns that a target is made of, `N` any batch shape.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree, memoryless
from rlgen.parts import checks, distributional, experience, exploration, losses, networks, optim, q_networks
from rlgen.parts.q_networks import QNetwork
from rlgen.parts.replay import Steps

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
        n_step: rewards that are added up before a value is trusted.
        double: whether the online network chooses the action that the target network values.
        dueling: whether a value and advantages, each with a hidden layer of its own, make the action values.
        noisy: whether the last hidden layer and the outputs are noisy.
        noise_scale: `σ₀`, deviation of the noise at the start.
        replay: of `experience.REPLAYS`.
        sort_period: updates between two sorts of a replay by rank.
        num_frames: `F` where observations stack so many frames, of which replay keeps the newest alone, in eight bits;
            0 to keep observations as they are.
        head: of `distributional.KINDS`: what is predicted of the return.
        num_atoms: of a categorical distribution, or fixed quantiles.
        num_fractions: quantiles that an implicit distribution is asked for where it learns or acts.
        error: `"huber"` or `"squared"`, of an expected return; distributions have losses of their own.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer.
        activation: name in `networks.ACTIVATIONS`.
        initialiser: of hidden layers, name in `networks.INITIALISERS`; `"uniform"` that of outputs too.
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
    num_frames: int = 0
    head: str = "expected"
    num_atoms: int = 51
    num_fractions: int = 32
    error: str = "huber"
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (120, 84)
    activation: str = "relu"
    initialiser: str = "orthogonal"

    def __post_init__(self):
        checks.one_of(
            self,
            error=ERRORS,
            replay=experience.REPLAYS,
            head=distributional.KINDS,
            initialiser=networks.INITIALISERS,
        )
        experience.check(self)
        if self.capacity < 2 * self.num_frames * self.num_envs:
            raise ValueError(
                f"config.capacity={self.capacity} has too few rows of {self.num_envs} environments for stacks of"
                f" config.num_frames={self.num_frames}"
            )
        checks.two_atoms(self)

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = experience.idle(self)
        if self.head != "categorical":
            reasons |= dict.fromkeys(("lowest_return", "highest_return"), f"config.head={self.head!r}")
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 2.5e-4
    annealed_share: float = 1.0  # of the learning rate, that is left after `horizon` updates
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
    config, chooser = network.config, predicted
    # Fractions that valued an action would also choose it, if an implicit distribution were not asked again.
    if config.double or config.head == "implicit":
        chosen_by = params if config.double else target
        chooser, _ = q_networks.predict(chooser_key, chosen_by, minibatch.next_obs, network=network)
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
    target = jax.tree.map(jnp.copy, params)  # two names for one buffer could not be donated
    learner = Learner(params, target, optimiser(hypers).init(params))
    ring = experience.ring(spec, config, num_frames=config.num_frames)
    return State(learner, ring, experience.ranks(config.capacity, config=config))


def practise(
    key: Key,
    step: Array,
    state: State,
    batch: Transition,
    hypers: Hypers,
    *,
    network: QNetwork,
    learn: Callable[..., tuple[Learner, Metrics, Array]] = learn,
    own: Callable[[Key], Key] | None = None,
) -> tuple[State, Metrics]:
    """Stores a rollout and takes some gradient steps on what is stored.

    Args:
        key: consumed.
        step: updates done before, scalar.
        state: of the algorithm.
        batch: the rollout, `[T, B]`.
        hypers: numbers.
        network: what is predicted.
        learn: the rule.
        own: as `experience.update` takes it.

    Returns:
        `(state, metrics)`: the target is left as it was.
    """

    def rule(key, count, *data):
        del count
        return learn(key, *data, network=network)

    config = network.config
    kept = functools.partial(experience.update, own=own, num_frames=config.num_frames)
    return kept(key, step, state, batch, hypers, config=config, learn=rule, metrics=Metrics)


def follow(step: Array, state: State, hypers: Hypers, *, config: Config) -> State:
    """Moves the target network, if it is time."""
    learner = state.learner
    target = experience.follow(step, learner.target, learner.params, period=config.target_period, tau=hypers.tau)
    return state._replace(learner=learner._replace(target=target))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: QNetwork):
    """Learns from one rollout `[T, B]` and what is stored, and moves the target.  The key is consumed."""
    hypers = optim.slowed(step, hypers, names=("learning_rate",))
    state, metrics = practise(key, step, state, batch, hypers, network=network)
    return follow(step, state, hypers, config=network.config), metrics


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: QNetwork) -> Policy:
    """ε-greedy and noisy while exploring, greedy and without noise otherwise."""
    epsilon = exploration.falling(step, hypers) if explore else 0.0
    return memoryless(
        functools.partial(
            q_networks.act,
            params=state.learner.params,
            hypers=hypers,
            epsilon=epsilon,
            noisy=explore and network.config.noisy,
            network=network,
        )
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
    return q_networks.bind(QNetwork(spec, config), init, update, policy)
