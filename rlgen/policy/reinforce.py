"""REINFORCE, Williams 1992, doi:10.1007/BF00992696; Sutton and Barto, 2nd edition, section 13.3, baseline 13.4.

The gradient is `Σ_t γ^t (G_t − b(S_t)) ∇ ln π(A_t | S_t)` over whole episodes, with returns that run to their ends.

Episodes do not end where rollouts do.  Waiting for those that finish would favour short ones, and keeping their steps
for later would mix actions of one policy with the gradients of another.  Instead every environment carries the
eligibility trace (Williams 1992; arXiv:1106.0665) of the episode that is open: the discounted sum of `∇ ln π` of its
steps, taken with the parameters that acted.  An update credits the steps of its rollout with the rewards seen so far,
and the trace with those that have come since.  Over successive rollouts every step is thus credited with its whole
return, once, and the sum of the gradients is the same wherever episodes were cut; divided by a number of steps that is
constant, its expectation under a fixed policy is the gradient of the episode's return over the mean length of an
episode.  The value baseline learns by the same trace towards the same returns, `Σ_t (G_t − V(S_t)) ∇ V(S_t)`.  It also
lends each rollout the value of the observation at its end, and the next update pays the difference to what came: that
changes no sum and spares the updates between most of the variance.

Departures: Adam behind a clip of the gradient norm in place of plain ascent, several environments at a time, separate
networks with orthogonal weights.  An episode that the time limit truncates has the return it was cut at, unless there
is a value baseline, which then stands for what would have followed.  Rewards, where they are normalised, are scaled as
they come.

Shape legend: `T` rollout length, `B` environments.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition, Tree
from rlgen.parts import actor_critic, checks, losses, networks, optim, returns
from rlgen.parts.actor_critic import ActorCritic, policy

BASELINES = ("none", "value")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`; episodes may be longer.
        discount_states: whether a step counts by `γ^t`, `t` steps into its episode, as the discounted return's gradient
            has it; without, all steps count alike, as is usual.
        baseline: of `BASELINES`; `"value"` is a learned value of the observation.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer, of actor and critic alike.
        activation: name in `networks.ACTIVATIONS`.
        distribution: of `distributions.KINDS`, over actions in a `Box`.
        normalise_observations: by running moments.
        normalise_rewards: by the running deviation of the discounted return.
    """

    num_envs: int = 8
    rollout_length: int = 128
    discount_states: bool = False
    baseline: str = "value"
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    distribution: str = "normal"
    normalise_observations: bool = False
    normalise_rewards: bool = False

    def __post_init__(self):
        checks.one_of(self, baseline=BASELINES)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 5e-3
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    discount: float = 0.99
    max_grad_norm: float = 0.5


class Learner(NamedTuple):
    """What a gradient step changes."""

    params: Tree
    opt_state: Tree


class Pending(NamedTuple):
    """What the open episodes still have to come to; a part that is switched off is `()`, or 0."""

    trace: Tree  # [B, *parameter], `Σ_k γ^(t − k) ∇ score_k` over the steps since the start of the episode
    lent: Array  # [B], the value that the last rollout took for what was to follow
    weight: Tree  # [B], `γ^t` of the next step


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: Learner
    pending: Pending
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Minibatch(NamedTuple):
    """What the rule learns from."""

    obs: Tree  # [T, B, *observation], normalised where that is switched on
    action: Tree  # [T, B, *action]
    episode_return: Array  # [T, B] from each step on, as far as the rollout knows
    weight: Array  # [T, B], `γ^t` or 1
    credit: Tree  # [*parameter], what earlier steps have earned since, as an ascent direction


class Metrics(NamedTuple):
    """Means over an update's steps, before the gradient step."""

    policy_loss: Array  # of the rollout's own steps
    value_loss: Array
    entropy: Array


def optimiser(hypers: Hypers) -> Any:
    """Adam behind a clip of the gradient norm."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=1e-5)


def loss(params: Tree, minibatch: Minibatch, *, network: ActorCritic) -> tuple[Array, Metrics]:
    """The scalar whose gradient is REINFORCE's, and the value error."""
    distribution = networks.apply(network, params, minibatch.obs, method="actor")
    advantage, value_loss = minibatch.episode_return, jnp.float32(0)
    if network.config.baseline == "value":
        error = advantage - networks.apply(network, params, minibatch.obs, method="critic")
        advantage, value_loss = lax.stop_gradient(error), losses.squared(error).mean()
    policy_loss = -(minibatch.weight * advantage * distribution.log_prob(minibatch.action)).mean()
    total = policy_loss + value_loss - optax.tree.vdot(minibatch.credit, params)
    return total, Metrics(policy_loss, value_loss, distribution.entropy().mean())


def learn(learner: Learner, minibatch: Minibatch, hypers: Hypers, *, network: ActorCritic) -> tuple[Learner, Metrics]:
    """Takes one gradient step: the rule itself, free of any environment.

    Args:
        learner: parameters and optimiser.
        minibatch: of whole or cut episodes.
        hypers: numbers; `learning_rate` is used as it stands.
        network: the actor and, with a value baseline, the critic.

    Returns:
        `(learner, metrics)`.
    """
    params, opt_state, metrics = optim.descend(
        functools.partial(loss, network=network), optimiser(hypers), *learner, minibatch
    )
    return Learner(params, opt_state), metrics


def step_weights(weight: Tree, done: Array, hypers: Hypers, *, network: ActorCritic) -> tuple[Tree, Array]:
    """Weights of a rollout's steps, `γ^t` or 1.

    Args:
        weight: of the first step, `[B]`, or `()`.
        done: `[T, B]` bool, whether the episode ended with the step.
        hypers: numbers.
        network: knows the switch.

    Returns:
        `(weight of the step after the rollout, weights [T, B])`.
    """
    if not network.config.discount_states:
        return weight, jnp.ones(done.shape)
    return lax.scan(lambda now, ended: (jnp.where(ended, 1.0, hypers.discount * now), now), weight, done)


def estimate(params: Tree, pending: Pending, rollout: Transition, hypers: Hypers, *, network: ActorCritic):
    """Works out what a rollout is worth to its own steps and to those before it.

    Args:
        params: that acted.
        pending: of the episodes that were open before the rollout.
        rollout: `[T, B]`.
        hypers: numbers.
        network: the actor and the critic.

    Returns:
        `(Minibatch, Pending)`.
    """
    done = rollout.terminated | rollout.truncated
    next_value, lent = jnp.zeros(done.shape), pending.lent
    if network.config.baseline == "value":
        next_value = networks.apply(network, params, rollout.next_obs, method="critic")
    episode_return = returns.lambda_return(
        rollout.reward, next_value, rollout.terminated, rollout.truncated, hypers.discount, 1.0
    )
    # A new episode has a trace of zeros, so that what its first step is worth pays nobody.
    surprise = hypers.discount * (episode_return[0] - lent) / done.size
    credit = jax.tree.map(lambda leaf: jnp.tensordot(surprise, leaf, axes=1), pending.trace)
    weight, weights = step_weights(pending.weight, done, hypers, network=network)
    minibatch = Minibatch(rollout.obs, rollout.action, episode_return, weights, credit)
    trace = eligibility(params, pending.trace, minibatch, done, hypers, network=network)
    return minibatch, Pending(trace, next_value[-1], weight)


def eligibility(
    params: Tree, trace: Tree, minibatch: Minibatch, done: Array, hypers: Hypers, *, network: ActorCritic
) -> Tree:
    """Carries the traces of open episodes over a rollout, at the parameters that acted.

    Args:
        params: that acted.
        trace: `[B, *parameter]`.
        minibatch: of the rollout.
        done: `[T, B]` bool, whether the episode ended with the step.
        hypers: numbers.
        network: the actor and the critic.

    Returns:
        `[B, *parameter]`, zero where the episode ended with the rollout.
    """

    def score(params, obs, action, weight, decay):
        log_prob = networks.apply(network, params, obs, method="actor").log_prob(action)
        total = weight * log_prob
        if network.config.baseline == "value":
            total += networks.apply(network, params, obs, method="critic")
        return (decay * total).sum()

    # γ^(T − 1 − t) where the episode of step t is still open at the end, else 0.
    factors = jnp.where(done, 0.0, hypers.discount).at[-1].set(~done[-1])
    decay = lax.cumprod(factors, reverse=True)
    scores = jax.vmap(jax.grad(score), in_axes=(None, 1, 1, 1, 1))(
        params, minibatch.obs, minibatch.action, minibatch.weight, decay
    )
    kept = hypers.discount * decay[0]
    return jax.tree.map(lambda old, new: new + jax.vmap(jnp.multiply)(kept, old), trace, scores)


def init(key: Key, hypers: Hypers, *, network: ActorCritic) -> State:
    """Makes the state before the first update.  The key is consumed."""
    config = network.config
    params = actor_critic.initial_params(key, network, "__call__" if config.baseline == "value" else "actor")
    pending = Pending(
        trace=jax.tree.map(lambda leaf: jnp.zeros((config.num_envs, *leaf.shape)), params),
        lent=jnp.zeros(config.num_envs),
        weight=jnp.ones(config.num_envs) if config.discount_states else (),
    )
    learner = Learner(params, optimiser(hypers).init(params))
    return State(learner, pending, *actor_critic.initial_scales(network))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]` in one gradient step.  The key is not used."""
    del key
    hypers = optim.annealed(step, hypers)
    rollout, state = actor_critic.normalised(batch, state, hypers.discount, config=network.config)
    minibatch, pending = estimate(state.learner.params, state.pending, rollout, hypers, network=network)
    learner, metrics = learn(state.learner, minibatch, hypers, network=network)
    return state._replace(learner=learner, pending=pending), metrics


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds REINFORCE to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    return networks.bind(actor_critic.make(spec, config), init, update, policy)
