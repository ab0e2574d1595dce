"""Trust region policy optimisation, arXiv:1502.05477, in its single-path form.

The actor takes one natural-gradient step an update: a direction by conjugate gradient on products with the Fisher
matrix, its length from the quadratic model of the divergence, and a backtracking line search which accepts only what
improves the surrogate and holds the mean divergence within `max_kl`.  The critic is then fitted to the λ-returns of the
rollout by Adam.  Advantages are GAE (arXiv:1506.02438), whose value function was itself fitted in a trust region.

Departures from the paper: the Fisher matrix is damped and advantages are normalised, as in the authors' code
(github.com/joschu/modular_rl); observations and rewards may be normalised.  Actor and critic share no parameter, so
that neither step moves the other.  A truncated episode bootstraps from its true last observation.

Shape legend: `T` rollout length, `B` environments, `M` examples in a batch or minibatch.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition, Tree
from rlgen.parts import actor_critic, checks, losses, natural, networks, normalise, optim
from rlgen.parts.actor_critic import ActorCritic, Examples, policy


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        num_epochs: passes of the critic over each rollout.
        num_minibatches: minibatches a pass; must divide `T * B`.
        num_cg_iterations: products with the Fisher matrix an update, at most.
        num_backtracks: lengths of the step that are tried, at most.
        curvature_subsample: the Fisher matrix is that of every so many-th observation.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer, of actor and critic alike.
        activation: name in `networks.ACTIVATIONS`.
        distribution: of `distributions.KINDS`, over actions in a `Box`.
        normalise_advantages: to mean 0 and variance 1 in each rollout.
        normalise_observations: by running moments.
        normalise_rewards: by the running deviation of the discounted return.
    """

    num_envs: int = 2
    rollout_length: int = 512
    num_epochs: int = 10
    num_minibatches: int = 8
    num_cg_iterations: int = 15
    num_backtracks: int = 10
    curvature_subsample: int = 1
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    distribution: str = "normal"
    normalise_advantages: bool = True
    normalise_observations: bool = False
    normalise_rewards: bool = False

    def __post_init__(self):
        checks.rollouts_divided(self, "num_minibatches")
        checks.normalisable(self, self.num_envs * self.rollout_length)

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = actor_critic.idle(self)
        if self.num_backtracks == 1:
            reasons["backtrack"] = "config.num_backtracks=1"
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3  # of the critic
    discount: float = 0.99
    gae_lambda: float = 0.95
    max_kl: float = 0.01
    damping: float = 0.1
    backtrack: float = 0.8  # by which the line search shortens the step


class Learner(NamedTuple):
    """What a rollout changes."""

    params: Tree
    opt_state: Tree  # of the critic


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: Learner
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Metrics(NamedTuple):
    """Of an update; a step that was not accepted counts as zeros."""

    improvement: Array  # of the surrogate
    kl: Array  # mean divergence of the old policy from the new one
    accepted: Array  # 1 where the line search found a step
    step_scale: Array  # share of the full step that was taken
    entropy: Array  # of the policy that acted
    value_loss: Array  # mean over the critic's minibatches


def optimiser(hypers: Hypers) -> Any:
    """Adam, for the critic."""
    return optim.adam(hypers.learning_rate, eps=1e-5)


def divergence(params: Tree, old_params: Tree, obs: Tree, *, network: ActorCritic) -> Array:
    """Mean divergence of the old policy from another over observations `[M, *observation]`."""
    old, new = (networks.apply(network, each, obs, method="actor") for each in (old_params, params))
    return old.kl_divergence(new).mean()


def surrogate(params: Tree, old_params: Tree, batch: Examples, *, network: ActorCritic) -> Array:
    """The paper's equation 14, what the actor maximises: mean of `π(a | s) / π_old(a | s) Â` over the batch."""
    new, old = (
        networks.apply(network, each, batch.obs, method="actor").log_prob(batch.action) for each in (params, old_params)
    )
    return (jnp.exp(new - old) * batch.advantage).mean()


def value_loss(params: Tree, minibatch: Examples, *, network: ActorCritic) -> tuple[Array, Array]:
    """Squared error of the critic, twice: to descend and to report."""
    value = networks.apply(network, params, minibatch.obs, method="critic")
    error = losses.squared(value - minibatch.target).mean()
    return error, error


def improve(params: Tree, batch: Examples, hypers: Hypers, *, network: ActorCritic):
    """Takes the actor's step on a batch.

    Args:
        params: of the policy that acted.
        batch: leaves `[M, ...]`.
        hypers: numbers.
        network: the actor and critic.

    Returns:
        `(params, (improvement, kl, accepted, step_scale))`; the parameters are the old ones where no step was accepted.
    """
    objective = functools.partial(surrogate, old_params=params, batch=batch, network=network)
    distance = functools.partial(divergence, old_params=params, network=network)
    value, gradient = jax.value_and_grad(objective)(params)
    product = natural.fisher_product(
        functools.partial(distance, obs=batch.obs[:: network.config.curvature_subsample]), params
    )
    direction = natural.natural_direction(product, gradient, hypers.damping, network.config.num_cg_iterations)
    step = natural.trust_region_step(gradient, direction, hypers.max_kl)

    def attempt(scale):
        moved = optax.tree.add_scale(params, scale, step)
        improvement, kl = objective(moved) - value, distance(moved, obs=batch.obs)
        return (improvement > 0) & (kl <= hypers.max_kl), (improvement, kl)

    scale, (improvement, kl) = natural.backtrack(attempt, hypers.backtrack, network.config.num_backtracks)
    accepted = scale > 0
    # A step that is no number is never accepted, and must not reach the parameters as 0 times itself.
    params = jax.tree.map(lambda leaf, change: jnp.where(accepted, leaf + scale * change, leaf), params, step)
    return params, (improvement, kl, accepted.astype(jnp.float32), scale)


def fit(key: Key, learner: Learner, batch: Examples, hypers: Hypers, *, network: ActorCritic):
    """Fits the critic in one pass over shuffled minibatches.  The key is consumed."""

    def descend(learner, minibatch):
        params, opt_state, error = optim.descend(
            functools.partial(value_loss, network=network), optimiser(hypers), *learner, minibatch
        )
        return Learner(params, opt_state), error

    return lax.scan(descend, learner, actor_critic.shuffled(key, batch, network.config.num_minibatches))


def learn(
    key: Key, learner: Learner, batch: Examples, hypers: Hypers, *, network: ActorCritic
) -> tuple[Learner, Metrics]:
    """Improves the actor and fits the critic: the rule itself, free of any environment.

    Args:
        key: consumed.
        learner: parameters and the critic's optimiser.
        batch: leaves `[M, ...]`, drawn by the policy of these parameters.
        hypers: numbers.
        network: the actor and critic.

    Returns:
        `(learner, metrics)`.
    """
    entropy = networks.apply(network, learner.params, batch.obs, method="actor").entropy().mean()
    if network.config.normalise_advantages:
        batch = batch._replace(advantage=normalise.rescale(batch.advantage))
    params, step_facts = improve(learner.params, batch, hypers, network=network)
    learner, errors = lax.scan(
        lambda learner, key: fit(key, learner, batch, hypers, network=network),
        learner._replace(params=params),
        jax.random.split(key, network.config.num_epochs),
    )
    return learner, Metrics(*step_facts, entropy, errors.mean())


def init(key: Key, hypers: Hypers, *, network: ActorCritic) -> State:
    """Makes the state before the first update.  The key is consumed."""
    params = actor_critic.initial_params(key, network)
    return State(Learner(params, optimiser(hypers).init(params)), *actor_critic.initial_scales(network))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]`.  The key is consumed."""
    del step
    rollout, state = actor_critic.normalised(batch, state, hypers.discount, config=network.config)
    examples = actor_critic.estimate(state.learner.params, rollout, hypers, network=network)
    learner, metrics = learn(key, state.learner, examples, hypers, network=network)
    return state._replace(learner=learner), metrics


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds TRPO to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    return networks.bind(actor_critic.make(spec, config), init, update, policy)
