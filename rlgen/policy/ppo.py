"""Proximal policy optimisation, arXiv:1707.06347: clipped surrogate, adaptive penalty on the divergence, or both.

The clip is off where `hypers.clip` is too large to bind, and the penalty where `hypers.penalty` is 0.  The divergence
`KL(π_old, π)` is estimated from the actions taken, by `(ρ − 1) − log ρ` (Schulman's estimator: unbiased, as is its
gradient, and never negative), and the penalty is adapted to its mean over the minibatches of the last pass over a
rollout, each before its own step, where the paper looks once more after the last one.

Advantages are GAE (arXiv:1506.02438).  Departures from the paper, each a switch or a coefficient, are those of the
authors' code (github.com/openai/baselines): separate actor and critic, orthogonal weights, normalised advantages,
clipped value loss, clipped gradient norm, annealed learning rate, normalised observations and rewards.  A truncated
episode bootstraps from its true last observation.

Shape legend: `T` rollout length, `B` environments, `M` examples in a minibatch.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition, Tree
from rlgen.parts import actor_critic, checks, losses, networks, normalise, optim, returns
from rlgen.parts.actor_critic import ActorCritic, policy

MOST = 1e9  # that an adaptive penalty can become, and least one in so many


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        num_epochs: passes over each rollout.
        num_minibatches: minibatches a pass; must divide `T * B`, or with a core `B`.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer, of actor and critic alike.
        activation: name in `networks.ACTIVATIONS`.
        distribution: of `distributions.KINDS`, over actions in a `Box`.
        core: of `actor_critic.CORES`, between the layers and the heads; with one, an example is a whole rollout.
        shared: whether actor and critic share their layers; with a core they always do.
        initialiser: of the layers, name in `networks.INITIALISERS`.
        normalise_advantages: to mean 0 and variance 1 in each minibatch.
        normalise_observations: by running moments.
        normalise_rewards: by the running deviation of the discounted return.
        clip_values: whether the value loss is clipped as the surrogate is.
    """

    num_envs: int = 4
    rollout_length: int = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    distribution: str = "normal"
    core: str = "none"
    shared: bool = False
    initialiser: str = "orthogonal"
    normalise_advantages: bool = True
    normalise_observations: bool = False
    normalise_rewards: bool = False
    clip_values: bool = True

    def __post_init__(self):
        if self.core == "none":
            checks.rollouts_divided(self, "num_minibatches")
        else:
            what = f"the sequences of {self.num_envs} environments, which a core reads whole"
            checks.divides(self, "num_minibatches", self.num_envs, what)
        checks.normalisable(self, self.num_envs * self.rollout_length // max(self.num_minibatches, 1))

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = actor_critic.idle(self)
        if self.num_epochs * self.num_minibatches == 1:
            # The policy is still the one that acted: the ratio is 1, the divergence 0, and so is its gradient.
            names = ("clip", "penalty", "target_kl")
            reasons |= dict.fromkeys(names, "config.num_epochs=1 and config.num_minibatches=1")
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 2.5e-4
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5
    adam_epsilon: float = 1e-5
    penalty: float = 0.0  # coefficient of the divergence at the start; 0 for none, ever
    target_kl: float = 0.01  # divergence that the penalty is adapted to


class Learner(NamedTuple):
    """What a minibatch changes."""

    params: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: Learner
    penalty: Array  # float32 scalar, coefficient of the divergence
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Minibatch(NamedTuple):
    """What the rule learns from; with a core, `[M]` stands for `[M, T]`."""

    obs: Tree  # [M, *observation], normalised where that is switched on
    action: Tree  # [M, *action]
    log_prob: Array  # [M], of the action when it was taken
    value: Array  # [M], before the update
    advantage: Array  # [M]
    recall: Tree = ()  # `actor_critic.Recall`, with a core


class Metrics(NamedTuple):
    """Means over an update's minibatches."""

    loss: Array
    policy_loss: Array
    value_loss: Array
    entropy: Array
    kl: Array  # estimate `(ρ − 1) − log ρ` of the divergence from the policy that acted
    clip_fraction: Array


def optimiser(hypers: Hypers) -> Any:
    """Adam behind a clip of the gradient norm."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=hypers.adam_epsilon)


def surrogate(
    distribution: Any, minibatch: Any, hypers: Any, scale: normalise.Scale | None = None, *, config: Any
) -> tuple[Array, Array, Array]:
    """The paper's equation 7, clipped surrogate, as what is to be descended.

    Args:
        distribution: of the policy, at the minibatch's observations.
        minibatch: with `action`, `log_prob` and `advantage`.
        hypers: with `clip`.
        scale: on which advantages are normalised; their own if left out.
        config: with `normalise_advantages`.

    Returns:
        Means of the loss, of the estimated divergence and of whether the clip bound.
    """
    log_ratio = distribution.log_prob(minibatch.action) - minibatch.log_prob
    ratio, advantage = jnp.exp(log_ratio), minibatch.advantage
    if config.normalise_advantages:
        advantage = normalise.rescale(advantage, scale)
    descended = losses.clipped_surrogate(ratio, advantage, hypers.clip).mean()
    return descended, (ratio - 1 - log_ratio).mean(), (jnp.abs(ratio - 1) > hypers.clip).mean()


def loss(
    params: Tree,
    minibatch: Minibatch,
    hypers: Hypers,
    scale: normalise.Scale | None = None,
    *,
    network: ActorCritic,
) -> tuple[Array, Metrics]:
    """The paper's equation 9, clipped surrogate, value error and entropy bonus, and the penalty of its equation 8.

    With the `scale` of all advantages given, it is a mean over a minibatch's rows, each by itself.
    """
    config = network.config
    distribution, value = actor_critic.evaluate(params, minibatch, network=network)
    policy_loss, kl, clip_fraction = surrogate(distribution, minibatch, hypers, scale, config=config)
    target = minibatch.value + minibatch.advantage
    if config.clip_values:
        value_loss = losses.clipped_value(value, minibatch.value, target, hypers.clip).mean()
    else:
        value_loss = losses.squared(value - target).mean()
    entropy = distribution.entropy().mean()
    total = policy_loss + hypers.value_coefficient * value_loss - hypers.entropy_coefficient * entropy
    total += hypers.penalty * kl
    return total, Metrics(total, policy_loss, value_loss, entropy, kl, clip_fraction)


def learn(learner: Learner, minibatch: Minibatch, hypers: Hypers, *, network: ActorCritic) -> tuple[Learner, Metrics]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        learner: parameters and optimiser.
        minibatch: leaves `[M, ...]`.
        hypers: numbers; `learning_rate` and `penalty` are used as they stand.
        network: the actor and critic.

    Returns:
        `(learner, metrics)`.
    """
    rule, scale = functools.partial(loss, network=network), normalise.scale(minibatch.advantage)
    params, opt_state, metrics = optim.descend(
        rule, optimiser(hypers), *learner, minibatch, hypers, scale, by_rows=True
    )
    return Learner(params, opt_state), metrics


def estimate(params: Tree, rollout: Transition, hypers: Hypers, *, network: ActorCritic) -> Minibatch:
    """Values and advantages of a rollout `[T, B]`, as examples."""
    value, next_value = actor_critic.values(params, rollout, network=network)
    advantage = returns.gae(
        rollout.reward, value, next_value, rollout.terminated, rollout.truncated, hypers.discount, hypers.gae_lambda
    )
    batch = Minibatch(rollout.obs, rollout.action, rollout.extras["log_prob"], value, advantage)
    return actor_critic.examples(batch, rollout, network=network)


def epoch(key: Key, learner: Learner, batch: Minibatch, hypers: Hypers, *, network: ActorCritic):
    """Passes once over the examples in shuffled minibatches.  The key is consumed."""
    minibatches = actor_critic.shuffled(key, batch, network.config.num_minibatches)
    return lax.scan(lambda learner, minibatch: learn(learner, minibatch, hypers, network=network), learner, minibatches)


def adapt(penalty: Array, kl: Array, hypers: Hypers) -> Array:
    """The coefficient for the next update: half of it, or twice, where the divergence is 1.5 times off its target.

    Unless there is none, it stays between `1 / MOST` and `MOST`: a float could otherwise become 0 or infinite for good.
    """
    lower, higher = kl < hypers.target_kl / 1.5, kl > hypers.target_kl * 1.5
    changed = penalty * jnp.where(lower, 0.5, jnp.where(higher, 2.0, 1.0))
    return jnp.where(penalty > 0, jnp.clip(changed, 1 / MOST, MOST), 0.0)


def init(key: Key, hypers: Hypers, *, network: ActorCritic) -> State:
    """Makes the state before the first update.  The key is consumed."""
    params = actor_critic.initial_params(key, network)
    learner = Learner(params, optimiser(hypers).init(params))
    penalty = jnp.array(hypers.penalty, jnp.float32)  # a copy: a state may be donated, and hyperparameters not
    return State(learner, penalty, *actor_critic.initial_scales(network))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]` in several epochs.  The key is consumed."""
    hypers = optim.annealed(step, hypers)._replace(penalty=state.penalty)
    rollout, state = actor_critic.normalised(batch, state, hypers.discount, config=network.config)
    examples = estimate(state.learner.params, rollout, hypers, network=network)
    learner, metrics = lax.scan(
        lambda learner, key: epoch(key, learner, examples, hypers, network=network),
        state.learner,
        jax.random.split(key, network.config.num_epochs),
    )
    penalty = adapt(state.penalty, metrics.kl[-1].mean(), hypers)
    return state._replace(learner=learner, penalty=penalty), jax.tree.map(jnp.mean, metrics)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds PPO to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    fields = {"core": config.core, "shared": config.shared, "initialiser": config.initialiser}
    return networks.bind(actor_critic.make(spec, config, **fields), init, update, policy)
