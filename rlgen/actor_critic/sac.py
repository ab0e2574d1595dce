"""Soft actor-critic and what was made of it: TQC, REDQ and DroQ are switches, and so are discrete actions.

Sources: Haarnoja et al. 2018, arXiv:1801.01290, with a temperature that is learned, arXiv:1812.05905; discrete actions,
arXiv:1910.07207; truncated quantile critics (TQC), arXiv:2005.04269; randomised ensembles (REDQ), arXiv:2101.05982;
dropout and layer normalisation in the critics (DroQ), arXiv:2110.02034.

An update of `num_steps` gradient steps on `T * B` transitions has an update-to-data ratio of `num_steps / (T * B)`; the
actor and the temperature learn in one of `actor_period` of them.

Departures from the papers: several environments at a time; a sum of several rewards counts no entropy but that after
its last step; the temperature's loss is linear in its logarithm.  An episode cut by its time limit bootstraps from its
true last observation.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `C`
critics, `D` elements of an action, `J` actions that an expectation is taken over, one that was drawn or all discrete
ones, `K` numbers that predict a return, `L` returns that a target is made of, `N` any batch shape.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Discrete, Key, Policy, Spec, Transition, Tree
from rlgen.parts import checks, control, distributional, ensemble, experience, exploration, networks, optim, soft
from rlgen.parts.ensemble import ActorAndCritics, Critics
from rlgen.parts.replay import Steps
from rlgen.parts.soft import Metrics, StochasticActor

HEADS = ("expected", "quantile")
TEMPERATURES = ("learned", "fixed")
VALUES = ("least", "mean")
NOISES = ("none", *exploration.NOISES)


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps of each environment between updates.
        num_steps: gradient steps an update.
        actor_period: gradient steps of the critics for each of the actor.
        batch_size: `M`.
        capacity: transitions kept, `R * B`; a multiple of `T * B`.
        warm_up: transitions gathered, by actions at random, before learning begins.
        n_step: rewards that are added up before a value is trusted.
        replay: of `experience.REPLAYS`.
        sort_period: updates between two sorts of a replay by rank.
        temperature: `"learned"` or `"fixed"`.
        num_critics: `C`.
        num_targets: critics drawn for each target, whose least value it is; all of them where quantiles are pooled.
        actor_value: whether the actor climbs the `"least"` of the critics' values or their `"mean"`, as quantiles ask.
        head: `"expected"`, or `"quantile"` for truncated quantile critics.
        num_quantiles: of each critic.
        num_dropped: quantiles a critic that are dropped at the top of the pool.
        layer_norm: whether the critics' features are normalised before each activation.
        dropout: share of the critics' units that are left out.
        hidden_sizes: width of each dense layer.
        activation: name in `networks.ACTIVATIONS`.
        initialiser: name in `networks.INITIALISERS`.
        noise: of `NOISES`: `"none"`, or what is added to the actions while exploring, as deterministic policies do.
        critic_bound: half the width of what the weights of the critics' last layer are drawn from.
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
    temperature: str = "learned"
    num_critics: int = 2
    num_targets: int = 2
    actor_value: str = "least"
    head: str = "expected"
    num_quantiles: int = 25
    num_dropped: int = 2
    layer_norm: bool = False
    dropout: float = 0.0
    hidden_sizes: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    initialiser: str = "lecun"
    noise: str = "none"
    critic_bound: float = 0.05
    num_atoms: ClassVar[int] = 0

    def __post_init__(self):
        checks.one_of(
            self,
            temperature=TEMPERATURES,
            actor_value=VALUES,
            head=HEADS,
            replay=experience.REPLAYS,
            initialiser=networks.INITIALISERS,
            noise=NOISES,
        )
        experience.check(self)
        if not 1 <= self.num_targets <= self.num_critics:
            raise ValueError(f"config.num_targets={self.num_targets} is not between 1 and {self.num_critics} critics")
        if self.head == "quantile" and (self.num_targets, self.actor_value) != (self.num_critics, "mean"):
            raise ValueError(
                f"config.head='quantile' pools what all critics say: it takes config.num_targets={self.num_critics} and"
                f" config.actor_value='mean', not {self.num_targets} and {self.actor_value!r}"
            )
        if not 0 <= self.num_dropped < self.num_quantiles:
            raise ValueError(f"config.num_dropped={self.num_dropped} leaves none of {self.num_quantiles} quantiles")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"config.dropout={self.dropout} is no share below 1")

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = experience.idle(self)
        if self.noise == "none":
            reasons |= dict.fromkeys(("noise_start", "noise_end", "exploration_fraction"), "config.noise='none'")
        if self.noise != "ou":
            reasons["noise_return"] = f"config.noise={self.noise!r}"
        if self.replay == "uniform" and self.noise == "none":
            reasons["horizon"] = "config.replay='uniform' and config.noise='none'"
        if self.temperature == "fixed":
            names = ("temperature_learning_rate", "entropy_share")
            reasons |= dict.fromkeys(names, "config.temperature='fixed'")
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 3e-4  # of the actor
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4
    discount: float = 0.99
    tau: float = 0.005  # share of the critics in a move of the target critics
    temperature: float = 1.0  # `α`, or where it is learned the first one
    entropy_share: float = 1.0  # target entropy, in units of `−D` nats, or with discrete actions of `0.98 log A`
    noise_start: float = 0.1  # deviation while exploring, in half widths of the box
    noise_end: float = 0.1
    exploration_fraction: float = 1.0  # of `horizon`, over which the noise goes from start to end
    noise_return: float = 0.15  # of an Ornstein-Uhlenbeck process, share that is lost in a step
    horizon: float = float("inf")  # updates of the whole run
    priority_exponent: float = 0.5  # 0 draws all alike
    importance_start: float = 0.4  # `β` at the start; it is 1 after `horizon` updates


class Learner(NamedTuple):
    """What a gradient step changes."""

    actor: Tree
    critics: Tree  # leaves `[C, ...]`
    target: Tree  # likewise
    log_temperature: Array
    opt_states: dict[str, Tree]


class State(NamedTuple):
    """What an update changes."""

    learner: Learner
    replay: Transition  # leaves `[R, B, ...]`
    priorities: Tree  # `()` where all are drawn alike


def goal(
    key: Key, learner: Learner, minibatch: Steps, hypers: Hypers, *, network: ActorAndCritics
) -> tuple[Array, Array]:
    """What the return of the action taken should be: `r + γ (Q⁻(s', a') − α log π(a' | s'))`.

    Args:
        key: consumed.
        learner: actor and target critics.
        minibatch: `[M, ...]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        Returns and their probabilities, all alike, `[M, L]` each.
    """
    config = network.config
    action_key, critics_key, subset_key = jax.random.split(key, 3)
    chosen = soft.choices(action_key, learner.actor, minibatch.next_obs, actor=network.actor)
    alpha = soft.temperature(learner.log_temperature, hypers, kind=config.temperature)
    bonus = alpha * soft.entropy(chosen)[:, None]
    predicted = network.critics.predict(critics_key, learner.target, minibatch.next_obs, chosen.action)
    if config.head == "quantile":
        onward = distributional.truncated(predicted, config.num_dropped)
    else:
        value = ensemble.least(subset_key, predicted, num=config.num_targets)
        onward = (chosen.probability * value).sum(-1, keepdims=True)
    returns = minibatch.reward[:, None] + minibatch.discount[:, None] * (onward + bonus)
    return ensemble.equally_likely(lax.stop_gradient(returns))


def actor_loss(
    params: Tree, key: Key, learner: Learner, minibatch: Steps, hypers: Hypers, *, network: ActorAndCritics
) -> tuple[Array, Array]:
    """Mean of `α log π(a | s) − Q(s, a)` over the policy's actions; beside it the entropy.

    Args:
        params: of the actor.
        key: consumed.
        learner: critics and temperature.
        minibatch: `[M, ...]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        `(loss, entropy)`, scalars.
    """
    config, (action_key, critics_key) = network.config, jax.random.split(key)
    chosen = soft.choices(action_key, params, minibatch.obs, actor=network.actor)
    predicted = network.critics.predict(critics_key, learner.critics, minibatch.obs, chosen.action)
    if config.head == "quantile":
        predicted = predicted.mean(-1, keepdims=True)
    value = predicted.min(axis=0) if config.actor_value == "least" else predicted.mean(axis=0)
    alpha = soft.temperature(learner.log_temperature, hypers, kind=config.temperature)
    worth = (chosen.probability * value).sum(-1) + alpha * soft.entropy(chosen)
    return -worth.mean(), soft.entropy(chosen).mean()


def improve(
    key: Key, learner: Learner, minibatch: Steps, hypers: Hypers, *, network: ActorAndCritics
) -> tuple[Learner, Array]:
    """Takes one gradient step with the actor and one with the temperature, if that is learned.

    Args:
        key: consumed.
        learner: who learns.
        minibatch: leaves `[M, ...]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        `(learner, entropy)`.
    """
    rules, opt_states = soft.optimisers(hypers), dict(learner.opt_states)
    loss = functools.partial(actor_loss, network=network)
    actor, opt_states["actor"], nats = optim.descend(
        loss, rules["actor"], learner.actor, opt_states["actor"], key, learner, minibatch, hypers
    )
    log_temperature = learner.log_temperature
    if network.config.temperature == "learned":
        target = soft.target_entropy(hypers.entropy_share, network.spec.action)
        log_temperature, opt_states["log_temperature"] = soft.regulate(
            log_temperature, opt_states["log_temperature"], rules["log_temperature"], nats, target
        )
    return learner._replace(actor=actor, log_temperature=log_temperature, opt_states=opt_states), nats


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
        `(learner, metrics, priority)`: the priority is how wrong each example was, `[M]`.  The entropy is 0 when it is
        not the actor's turn.
    """
    config = network.config
    goal_key, critics_key, actor_key = jax.random.split(key, 3)
    target = goal(goal_key, learner, minibatch, hypers, network=network)
    critics, opt_state, (loss, q_value, error) = optim.descend(
        functools.partial(ensemble.loss, critics=network.critics),
        soft.optimisers(hypers)["critics"],
        learner.critics,
        learner.opt_states["critics"],
        critics_key,
        target,
        minibatch,
        weight,
        hypers,
    )
    learner = learner._replace(
        critics=critics,
        target=control.follow(learner.target, critics, hypers.tau),
        opt_states={**learner.opt_states, "critics": opt_state},
    )

    own = functools.partial(improve, actor_key, learner, minibatch, hypers, network=network)
    learner, nats = soft.turn(count, learner, own, period=config.actor_period)
    alpha = soft.temperature(learner.log_temperature, hypers, kind=config.temperature)
    return learner, Metrics(loss, q_value, error.mean(), nats, alpha), lax.stop_gradient(error)


def init(key: Key, hypers: Hypers, *, network: ActorAndCritics) -> State:
    """Makes the state before the first update.  The key is consumed."""
    spec, config = network.spec, network.config
    actor_key, critics_key = jax.random.split(key)
    actor = network.actor.init(actor_key, jnp.zeros((1, *spec.observation.shape), spec.observation.dtype))
    critics = network.critics.begin(critics_key)
    params = {"actor": actor, "critics": critics, "log_temperature": jnp.log(jnp.float32(hypers.temperature))}
    opt_states = {name: rule.init(params[name]) for name, rule in soft.optimisers(hypers).items()}
    target = jax.tree.map(jnp.copy, critics)  # two names for one buffer could not be donated
    learner = Learner(**params, target=target, opt_states=opt_states)
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
    """Draws actions at `[*N, *observation]`, with noise if that is wanted, or takes the likeliest; consumes the key."""
    distribution, first = networks.apply(network.actor, params, obs), experience.warm(network.config)
    take = functools.partial(soft.act, first=first, explore=explore)
    if not explore or network.config.noise == "none":
        return take(key, step, distribution, network.spec.action), {}, memory
    noise_key, action_key = jax.random.split(key)
    shape = distribution.batch_shape + network.spec.action.shape
    noise, memory = exploration.additive(noise_key, step, memory, shape, hypers, kind=network.config.noise)
    return take(action_key, step, distribution, network.spec.action, noise=noise), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ActorAndCritics) -> Policy:
    """The actor, and actions at random before learning begins; the likeliest action when it is evaluated."""
    apply = functools.partial(
        act, step=step, params=state.learner.actor, hypers=hypers, network=network, explore=explore
    )
    kind = network.config.noise if explore else "none"
    return Policy(exploration.additive_memory(kind, network.spec.action.shape), apply)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds soft actor-critic to a task.

    Args:
        spec: observations of one array; actions a vector `Box` with finite bounds, or `Discrete`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are of another kind, or discrete, and quantiles or noise are asked for.
    """
    control.check_actions(spec.action, discrete=True)
    if isinstance(spec.action, Discrete) and config.head != "expected":
        raise ValueError(f"config.head={config.head!r} has no meaning for {spec.action}")
    if isinstance(spec.action, Discrete) and config.noise != "none":
        raise ValueError(f"config.noise={config.noise!r} has no meaning for {spec.action}")
    return networks.bind(ActorAndCritics(StochasticActor(spec, config), Critics(spec, config)), init, update, policy)
