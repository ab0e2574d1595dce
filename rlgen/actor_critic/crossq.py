"""CrossQ, arXiv:1902.05605: soft actor-critic without target networks, whose critics and actor are normalised.

Critics see what was done and what will be in one batch, so that batch renormalisation treats both alike and no target
network has to hold them steady.  Adam's first moment decays by a half in both.  The actor and the temperature learn in
one of `actor_period` gradient steps.

Departures from the paper: several environments at a time; the temperature's loss is linear in its logarithm; the
critics' width, 2048 in the paper, is the task's.  An episode cut by its time limit bootstraps from its true last
observation.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `C`
critics, `D` elements of an action, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree, memoryless
from rlgen.parts import checks, control, experience, losses, networks, optim, renorm, soft
from rlgen.parts.renorm import Networks
from rlgen.parts.replay import Steps
from rlgen.parts.soft import Metrics


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
        num_critics: `C`.
        hidden_sizes: width of each dense layer of the actor.
        critic_sizes: likewise of the critics.
        activation: name in `networks.ACTIVATIONS`.
        decay: share of the running statistics that a batch leaves.
        renorm_warm_up: batches that a network normalises plainly at first; the actor's are those that it learns from.
    """

    num_envs: int = 1
    rollout_length: int = 1
    num_steps: int = 1
    actor_period: int = 3
    batch_size: int = 256
    capacity: int = 50_000
    warm_up: int = 1_000
    n_step: int = 1
    num_critics: int = 2
    hidden_sizes: tuple[int, ...] = (256, 256)
    critic_sizes: tuple[int, ...] = (2048, 2048)
    activation: str = "relu"
    decay: float = 0.99
    renorm_warm_up: int = 100_000
    replay: ClassVar[str] = "uniform"

    def __post_init__(self):
        checks.one_of(self, activation=networks.ACTIVATIONS)
        experience.check(self)
        if self.batch_size == 1:
            raise ValueError("config.batch_size=1: normalisation by a batch leaves nothing of an example that is alone")
        if not 0 <= self.decay < 1:
            raise ValueError(f"config.decay={self.decay} is no share below 1")


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3  # of the actor
    critic_learning_rate: float = 1e-3
    temperature_learning_rate: float = 1e-3
    discount: float = 0.99
    temperature: float = 1.0  # the first `α`
    entropy_share: float = 1.0  # target entropy, in units of `−D` nats


class Learner(NamedTuple):
    """What a gradient step changes."""

    actor: Tree
    critics: Tree  # leaves `[C, ...]`
    statistics: dict[str, Tree]  # running ones, of both
    log_temperature: Array
    opt_states: dict[str, Tree]


class State(NamedTuple):
    """What an update changes."""

    learner: Learner
    replay: Transition  # leaves `[R, B, ...]`
    priorities: tuple[()]


def optimisers(hypers: Hypers) -> dict[str, Any]:
    """Adam for each of those who learn; networks forget the direction they came from sooner than usual."""
    return soft.optimisers(hypers, first_moment_decay=0.5)


def act_upon(
    key: Key, params: Tree, statistics: Tree, obs: Array, *, network: Networks, train: bool
) -> tuple[Array, Array, Tree]:
    """Draws actions of the policy.

    Args:
        key: consumed.
        params: of the actor.
        statistics: running ones of the actor.
        obs: `[M, *observation]`.
        network: actor and critics.
        train: whether `obs` is a batch to normalise by, and to remember.

    Returns:
        `(actions [M, D] between −1 and 1, log_prob [M], statistics)`.
    """
    variables = {**params, renorm.STATISTICS: statistics}
    mutable = [renorm.STATISTICS] if train else []
    policy, after = network.actor.apply(variables, obs, train=train, mutable=mutable)
    action, log_prob = policy.sample_and_log_prob(seed=key)
    return action, log_prob, after.get(renorm.STATISTICS, statistics)


def critics_loss(
    params: Tree, key: Key, learner: Learner, minibatch: Steps, weight: Array, hypers: Hypers, *, network: Networks
) -> tuple[Array, tuple[Tree, tuple[Array, Array, Array]]]:
    """Errors of what was predicted for the actions taken: their weighted mean, summed over critics.

    Args:
        params: of the critics.
        key: consumed.
        learner: actor, statistics and temperature.
        minibatch: `[M, ...]`.
        weight: of each example, `[M]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        `(loss, (statistics, (loss, q_value, error)))`: those of the critics after this batch, the mean value, and how
        wrong each example is, `[M]`.
    """
    next_action, log_prob, _ = act_upon(
        key, learner.actor, learner.statistics["actor"], minibatch.next_obs, network=network, train=False
    )
    taken = jnp.asarray(control.from_box(minibatch.action, network.spec.action))
    # One batch of both, by whose statistics both are normalised.
    obs, action = jnp.concatenate([minibatch.obs, minibatch.next_obs]), jnp.concatenate([taken, next_action])
    variables = {**params, renorm.STATISTICS: learner.statistics["critics"]}
    predicted, after = network.critics.apply(variables, obs, action, True, mutable=[renorm.STATISTICS])
    value, onward = jnp.split(predicted, 2, axis=1)
    bonus = jnp.exp(learner.log_temperature) * -log_prob
    returns = lax.stop_gradient(minibatch.reward + minibatch.discount * (onward.min(axis=0) + bonus))
    loss = (weight * losses.squared(returns - value)).mean(axis=1).sum()
    error = jnp.abs(returns - value).mean(axis=0)
    return loss, (after[renorm.STATISTICS], (loss, value.mean(), error))


def actor_loss(
    params: Tree, key: Key, learner: Learner, minibatch: Steps, hypers: Hypers, *, network: Networks
) -> tuple[Array, tuple[Tree, Array]]:
    """Mean of `α log π(a | s) − min Q(s, a)`; beside it the actor's statistics after this batch, and the entropy.

    Args:
        params: of the actor.
        key: consumed.
        learner: critics, statistics and temperature.
        minibatch: `[M, ...]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        `(loss, (statistics, entropy))`.
    """
    action, log_prob, after = act_upon(
        key, params, learner.statistics["actor"], minibatch.obs, network=network, train=True
    )
    variables = {**learner.critics, renorm.STATISTICS: learner.statistics["critics"]}
    value = network.critics.apply(variables, minibatch.obs, action, False).min(axis=0)
    worth = value - jnp.exp(learner.log_temperature) * log_prob
    return -worth.mean(), (after, -log_prob.mean())


def improve(
    key: Key, learner: Learner, minibatch: Steps, hypers: Hypers, *, network: Networks
) -> tuple[Learner, Array]:
    """Takes one gradient step with the actor and one with the temperature.

    Args:
        key: consumed.
        learner: who learns.
        minibatch: leaves `[M, ...]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        `(learner, entropy)`.
    """
    rules, opt_states = optimisers(hypers), dict(learner.opt_states)
    loss = functools.partial(actor_loss, network=network)
    actor, opt_states["actor"], (statistics, nats) = optim.descend(
        loss, rules["actor"], learner.actor, opt_states["actor"], key, learner, minibatch, hypers
    )
    target = soft.target_entropy(hypers.entropy_share, network.spec.action)
    log_temperature, opt_states["log_temperature"] = soft.regulate(
        learner.log_temperature, opt_states["log_temperature"], rules["log_temperature"], nats, target
    )
    statistics = {**learner.statistics, "actor": statistics}
    return Learner(actor, learner.critics, statistics, log_temperature, opt_states), nats


def learn(
    key: Key, count: Array, learner: Learner, minibatch: Steps, weight: Array, hypers: Hypers, *, network: Networks
) -> tuple[Learner, Metrics, Array]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        key: consumed.
        count: gradient steps before, scalar, outside a sweep's batch; it says whether it is the actor's turn.
        learner: who learns.
        minibatch: leaves `[M, ...]`, actions in the task's box.
        weight: of each example, `[M]`.
        hypers: numbers.
        network: actor and critics.

    Returns:
        `(learner, metrics, priority)`: the priority is how wrong each example was, `[M]`.  The entropy is 0 when it is
        not the actor's turn.
    """
    config = network.config
    critics_key, actor_key = jax.random.split(key)
    critics, opt_state, (statistics, (loss, q_value, error)) = optim.descend(
        functools.partial(critics_loss, network=network),
        optimisers(hypers)["critics"],
        learner.critics,
        learner.opt_states["critics"],
        critics_key,
        learner,
        minibatch,
        weight,
        hypers,
    )
    learner = learner._replace(
        critics=critics,
        statistics={**learner.statistics, "critics": statistics},
        opt_states={**learner.opt_states, "critics": opt_state},
    )

    own = functools.partial(improve, actor_key, learner, minibatch, hypers, network=network)
    learner, nats = soft.turn(count, learner, own, period=config.actor_period)
    alpha = jnp.exp(learner.log_temperature)
    return learner, Metrics(loss, q_value, error.mean(), nats, alpha), lax.stop_gradient(error)


def init(key: Key, hypers: Hypers, *, network: Networks) -> State:
    """Makes the state before the first update.  The key is consumed."""
    spec, config = network.spec, network.config
    actor_key, critics_key = jax.random.split(key)
    obs, action = jnp.zeros((1, *spec.observation.shape), spec.observation.dtype), jnp.zeros((1, *spec.action.shape))
    made = {
        "actor": dict(network.actor.init(actor_key, obs, train=True)),
        "critics": dict(network.critics.init(critics_key, obs, action, True)),
    }
    statistics = {name: variables.pop(renorm.STATISTICS) for name, variables in made.items()}
    params = {**made, "log_temperature": jnp.log(jnp.float32(hypers.temperature))}
    opt_states = {name: rule.init(params[name]) for name, rule in optimisers(hypers).items()}
    learner = Learner(**params, statistics=statistics, opt_states=opt_states)
    return State(learner, experience.ring(spec, config), ())


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: Networks):
    """Stores a rollout `[T, B]` and takes some gradient steps on what is stored.  The key is consumed."""
    rule = functools.partial(learn, network=network)
    return experience.update(key, step, state, batch, hypers, config=network.config, learn=rule, metrics=Metrics)


def act(key: Key, obs: Tree, memory: tuple[()], *, step: Array, learner: Learner, network: Networks, explore: bool):
    """Draws actions at `[*N, *observation]`, or takes the likeliest.  The key is consumed."""
    variables = {**learner.actor, renorm.STATISTICS: learner.statistics["actor"]}
    distribution, first = network.actor.apply(variables, obs, train=False), experience.warm(network.config)
    return soft.act(key, step, distribution, network.spec.action, first=first, explore=explore), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: Networks) -> Policy:
    """The actor, and actions at random before learning begins; the likeliest action when it is evaluated."""
    del hypers
    return memoryless(functools.partial(act, step=step, learner=state.learner, network=network, explore=explore))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds CrossQ to a task.

    Args:
        spec: observations a vector; actions a vector `Box` with finite bounds.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are of another kind.
    """
    control.check_actions(spec.action)
    return networks.bind(Networks(spec, config), init, update, policy)
