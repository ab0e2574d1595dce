"""Deterministic policy gradients with deep networks: DDPG, TD3, D4PG and SDPG are switches of one rule.

Sources: DDPG, Lillicrap et al. 2016, arXiv:1509.02971; TD3, which takes the lesser of two critics, delays the actor and
smooths its targets, arXiv:1802.09477; D4PG, whose critic is a categorical distribution learned from several steps and
prioritised replay, arXiv:1804.08617; SDPG, whose critic makes samples of the return from noise, arXiv:2001.02652.

Departures from the papers: several environments at a time, which are D4PG's exploring actors, in place of processes;
actions enter the critic with the observation; weights are not decayed, nor is anything batch-normalised; all last
layers start near zero; noise is in units of half the width of the task's box; targets follow by `tau` each time that
the actor learns, also D4PG's, which its paper copies every hundred steps.  SDPG's samples are sorted, so that the k-th
of `K` is compared as the quantile `(k + ½) / K` with those of the target by the quantile Huber loss.  An episode cut by
its time limit bootstraps from its true last observation.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `C`
critics, `D` elements of an action, `K` numbers that predict a return, `L` returns that a target is made of, `N` any
batch shape.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import checks, control, distributional, ensemble, experience, exploration, networks, optim, q_networks
from rlgen.parts.control import DeterministicActor
from rlgen.parts.ensemble import ActorAndCritics, Critics
from rlgen.parts.replay import Steps

HEADS = ("expected", "categorical", "sampled")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps of each environment between updates.
        num_steps: gradient steps an update.
        actor_period: gradient steps of the critics for each of the actor, after which the targets move.
        batch_size: `M`.
        capacity: transitions kept, `R * B`; a multiple of `T * B`.
        warm_up: transitions gathered, by actions at random, before learning begins.
        n_step: rewards that are added up before a value is trusted.
        replay: of `experience.REPLAYS`.
        sort_period: updates between two sorts of a replay by rank.
        num_critics: `C`; the least of them is the target, and the first one is climbed.
        smoothing: whether noise is added to the target actor's actions.
        noise: `"gaussian"`, drawn anew at every step, or `"ou"`, an Ornstein-Uhlenbeck process through an episode.
        head: `"expected"`, `"categorical"` (D4PG) or `"sampled"` (SDPG); the latter two have one critic.
        num_atoms: of a categorical distribution.
        num_quantiles: samples of a return that are made at a time.
        layer_norm: whether the critics' features are normalised before each activation.
        hidden_sizes: width of each dense layer.
        activation: name in `networks.ACTIVATIONS`.
        initialiser: name in `networks.INITIALISERS`.
        actor_bound: half the width of what the weights of the actor's last layer are drawn from.
        critic_bound: that of the critics.
    """

    num_envs: int = 1
    rollout_length: int = 1
    num_steps: int = 1
    actor_period: int = 1
    batch_size: int = 256
    capacity: int = 50_000
    warm_up: int = 1_000
    n_step: int = 1
    replay: str = "uniform"
    sort_period: int = 1
    num_critics: int = 1
    smoothing: bool = False
    noise: str = "gaussian"
    head: str = "expected"
    num_atoms: int = 51
    num_quantiles: int = 51
    layer_norm: bool = False
    hidden_sizes: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    initialiser: str = "lecun"
    actor_bound: float = 0.003
    critic_bound: float = 0.003
    dropout: ClassVar[float] = 0.0

    def __post_init__(self):
        checks.one_of(
            self, noise=exploration.NOISES, head=HEADS, replay=experience.REPLAYS, initialiser=networks.INITIALISERS
        )
        experience.check(self)
        checks.two_atoms(self)
        if self.head != "expected" and self.num_critics > 1:
            raise ValueError(f"config.num_critics={self.num_critics}: distributions of {self.head!r} are not compared")

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = experience.idle(self)
        if not self.smoothing:
            reasons |= dict.fromkeys(("target_noise", "target_noise_clip"), "config.smoothing=False")
        if self.noise != "ou":
            reasons["noise_return"] = f"config.noise={self.noise!r}"
        if self.head != "categorical":
            reasons |= dict.fromkeys(("lowest_return", "highest_return"), f"config.head={self.head!r}")
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3  # of the actor
    critic_learning_rate: float = 1e-3
    discount: float = 0.99
    tau: float = 0.005  # share of the online networks in a move of the target networks
    noise_start: float = 0.1  # deviation while exploring, in half widths of the box
    noise_end: float = 0.1
    exploration_fraction: float = 1.0  # of `horizon`, over which the noise goes from start to end
    noise_return: float = 0.15  # of an Ornstein-Uhlenbeck process, share that is lost in a step
    horizon: float = float("inf")  # updates of the whole run
    target_noise: float = 0.2
    target_noise_clip: float = 0.5
    lowest_return: float = -10.0  # of a categorical distribution
    highest_return: float = 10.0
    priority_exponent: float = 0.5  # 0 draws all alike
    importance_start: float = 0.4  # `β` at the start; it is 1 after `horizon` updates


class Learner(NamedTuple):
    """What a gradient step changes."""

    actor: Tree
    critics: Tree  # leaves `[C, ...]`
    target_actor: Tree
    target_critics: Tree
    opt_states: dict[str, Tree]


class State(NamedTuple):
    """What an update changes."""

    learner: Learner
    replay: Transition  # leaves `[R, B, ...]`
    priorities: Tree  # `()` where all are drawn alike


class Metrics(NamedTuple):
    """Means over an update's gradient steps; zero before learning begins."""

    loss: Array  # of the critics
    q_value: Array  # of the actions taken
    error: Array  # mean absolute temporal-difference error


def optimisers(hypers: Hypers) -> dict[str, Any]:
    """Adam for the actor and for the critics."""
    return {"actor": optim.adam(hypers.learning_rate), "critics": optim.adam(hypers.critic_learning_rate)}


def goal(
    key: Key, learner: Learner, minibatch: Steps, hypers: Hypers, *, network: ActorAndCritics
) -> tuple[Array, Array]:
    """What the return of the action taken should be: `r + γ Z⁻(s', μ⁻(s'))`.

    Args:
        key: consumed.
        learner: target actor and target critics.
        minibatch: `[M, ...]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        Returns and their probabilities, `[M, L]` each.
    """
    noise_key, critics_key = jax.random.split(key)
    action = networks.apply(network.actor, learner.target_actor, minibatch.next_obs)
    if network.config.smoothing:
        noise = hypers.target_noise * jax.random.normal(noise_key, action.shape)
        action = action + jnp.clip(noise, -hypers.target_noise_clip, hypers.target_noise_clip)
        action = jnp.clip(action, -1.0, 1.0)
    predicted = network.critics.predict(critics_key, learner.target_critics, minibatch.next_obs, action).min(axis=0)
    atoms = q_networks.atoms(hypers, config=network.config)
    onward = predicted if atoms is None else jnp.broadcast_to(atoms, predicted.shape)
    returns = minibatch.reward[:, None] + minibatch.discount[:, None] * onward
    return ensemble.equally_likely(returns) if atoms is None else (returns, jax.nn.softmax(predicted))


def actor_loss(
    params: Tree, key: Key, critics: Tree, minibatch: Steps, hypers: Hypers, *, network: ActorAndCritics
) -> tuple[Array, tuple[()]]:
    """Mean of `−Q(s, μ(s))` by the first critic."""
    action = networks.apply(network.actor, params, minibatch.obs)
    predicted = network.critics.predict_first(key, critics, minibatch.obs, action)
    return -distributional.mean(predicted, q_networks.atoms(hypers, config=network.config)).mean(), ()


def improve(key: Key, learner: Learner, minibatch: Steps, hypers: Hypers, *, network: ActorAndCritics) -> Learner:
    """Takes one gradient step with the actor, and moves the targets.

    Args:
        key: consumed.
        learner: who learns.
        minibatch: leaves `[M, ...]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        The learner.
    """
    opt_states, loss = dict(learner.opt_states), functools.partial(actor_loss, network=network)
    actor, opt_states["actor"], _ = optim.descend(
        loss, optimisers(hypers)["actor"], learner.actor, opt_states["actor"], key, learner.critics, minibatch, hypers
    )
    target_actor = control.follow(learner.target_actor, actor, hypers.tau)
    target_critics = control.follow(learner.target_critics, learner.critics, hypers.tau)
    return Learner(actor, learner.critics, target_actor, target_critics, opt_states)


def learn(
    key: Key,
    count: Array,
    learner: Learner,
    minibatch: Steps,
    weight: Array,
    hypers: Hypers,
    *,
    network: ActorAndCritics,
) -> tuple[Learner, Metrics, Array]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        key: consumed.
        count: gradient steps before, scalar, outside a sweep's batch; it says whether it is the actor's turn.
        learner: who learns.
        minibatch: leaves `[M, ...]`, actions in the task's box.
        weight: of each example, `[M]`; 1 where all were drawn alike.
        hypers: numbers.
        network: actor and critics.

    Returns:
        `(learner, metrics, priority)`: the priority is how wrong each example was, `[M]`.
    """
    goal_key, critics_key, actor_key = jax.random.split(key, 3)
    target = lax.stop_gradient(goal(goal_key, learner, minibatch, hypers, network=network))
    critics, opt_state, (loss, q_value, priority) = optim.descend(
        functools.partial(ensemble.loss, critics=network.critics),
        optimisers(hypers)["critics"],
        learner.critics,
        learner.opt_states["critics"],
        critics_key,
        target,
        minibatch,
        weight,
        hypers,
    )
    learner = learner._replace(critics=critics, opt_states={**learner.opt_states, "critics": opt_state})

    def turn():
        return improve(actor_key, learner, minibatch, hypers, network=network)

    period = network.config.actor_period
    learner = turn() if period == 1 else lax.cond((count + 1) % period == 0, turn, lambda: learner)
    return learner, Metrics(loss, q_value, priority.mean()), lax.stop_gradient(priority)


def init(key: Key, hypers: Hypers, *, network: ActorAndCritics) -> State:
    """Makes the state before the first update.  The key is consumed."""
    spec, config = network.spec, network.config
    actor_key, critics_key = jax.random.split(key)
    actor = network.actor.init(actor_key, jnp.zeros((1, *spec.observation.shape), spec.observation.dtype))
    params = {"actor": actor, "critics": network.critics.begin(critics_key)}
    opt_states = {name: rule.init(params[name]) for name, rule in optimisers(hypers).items()}
    copies = jax.tree.map(jnp.copy, params)  # two names for one buffer could not be donated
    learner = Learner(actor, params["critics"], copies["actor"], copies["critics"], opt_states)
    return State(learner, experience.ring(spec, config), experience.ranks(config.capacity, config=config))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorAndCritics):
    """Stores a rollout `[T, B]` and takes some gradient steps on what is stored.  The key is consumed."""
    rule = functools.partial(learn, network=network)
    return experience.update(key, step, state, batch, hypers, config=network.config, learn=rule, metrics=Metrics)


def act(
    key: Key,
    obs: Tree,
    memory: Tree,
    *,
    step: Array,
    params: Tree,
    hypers: Hypers,
    network: ActorAndCritics,
    explore: bool,
):
    """Acts at `[*N, *observation]`, with noise while exploring.  The key is consumed."""
    noise_key, random_key = jax.random.split(key)
    action, space, config = networks.apply(network.actor, params, obs), network.spec.action, network.config
    if not explore:
        return control.to_box(action, space), {}, memory
    added, memory = exploration.additive(noise_key, step, memory, action.shape, hypers, kind=config.noise)
    action = control.to_box(jnp.clip(action + added, -1.0, 1.0), space)
    return control.warming(random_key, step, action, space, experience.warm(config)), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ActorAndCritics) -> Policy:
    """The actor, with noise while exploring, and actions at random before learning begins."""
    kind = network.config.noise if explore else "none"
    apply = functools.partial(
        act, step=step, params=state.learner.actor, hypers=hypers, network=network, explore=explore
    )
    return Policy(exploration.additive_memory(kind, network.spec.action.shape), apply)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds a deterministic policy gradient to a task.

    Args:
        spec: observations of one array; actions a vector `Box` with finite bounds.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are of another kind.
    """
    control.check_actions(spec.action)
    return networks.bind(ActorAndCritics(DeterministicActor(spec, config), Critics(spec, config)), init, update, policy)
