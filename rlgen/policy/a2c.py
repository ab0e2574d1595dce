"""Advantage actor-critic: the synchronous form of arXiv:1602.01783, and policy gradient with a learned baseline.

One gradient step a rollout, on advantages by GAE (arXiv:1506.02438): `gae_lambda` 1 gives the paper's n-step returns
that bootstrap at the end of the rollout, and 0 one-step errors.  Departures from the paper are those of its later
synchronous implementations: separate actor and critic, orthogonal weights, clipped gradient norm, and as switches Adam,
normalised advantages, observations and rewards.  A truncated episode bootstraps from its true last observation.

Shape legend: `T` rollout length, `B` environments, `M` examples in a minibatch.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

from rlgen.core import Algorithm, Array, Key, Spec, Transition, Tree
from rlgen.parts import actor_critic, checks, losses, networks, normalise, optim
from rlgen.parts.actor_critic import ActorCritic, Examples, policy

OPTIMISERS = ("rmsprop", "adam")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer, of actor and critic alike.
        activation: name in `networks.ACTIVATIONS`.
        distribution: of `distributions.KINDS`, over actions in a `Box`.
        core: of `actor_critic.CORES`, between the layers and the heads; with one, an example is a whole rollout.
        optimiser: of `OPTIMISERS`.
        normalise_advantages: to mean 0 and variance 1 in each minibatch.
        normalise_observations: by running moments.
        normalise_rewards: by the running deviation of the discounted return.
    """

    num_envs: int = 8
    rollout_length: int = 5
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    distribution: str = "normal"
    core: str = "none"
    optimiser: str = "rmsprop"
    normalise_advantages: bool = False
    normalise_observations: bool = False
    normalise_rewards: bool = False

    def __post_init__(self):
        checks.one_of(self, optimiser=OPTIMISERS)
        checks.normalisable(self, self.num_envs * self.rollout_length)

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        return actor_critic.idle(self)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 7e-4
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    discount: float = 0.99
    gae_lambda: float = 1.0
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5


class Learner(NamedTuple):
    """What a minibatch changes."""

    params: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: Learner
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Metrics(NamedTuple):
    """Means over an update's examples, before the step."""

    loss: Array
    policy_loss: Array
    value_loss: Array
    entropy: Array


def optimiser(hypers: Any, *, config: Config) -> Any:
    """Behind a clip of the gradient norm, Adam, or RMSProp as the paper has it.

    That adds its epsilon under the root and starts its mean of squares at 1, so that the first steps are small.
    """
    if config.optimiser == "adam":
        return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=1e-5)
    return optim.rmsprop(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm)


def loss(
    params: Tree, minibatch: Examples, hypers: Any, scale: normalise.Scale | None = None, *, network: ActorCritic
) -> tuple[Array, Metrics]:
    """Policy gradient, value error and entropy bonus: `−Â ln π(a | s) + c ½ (G − V(s))² − β H(π(· | s))`.

    With the `scale` of all advantages given, it is a mean over a minibatch's rows, each by itself.
    """
    distribution, value = actor_critic.evaluate(params, minibatch, network=network)
    advantage = minibatch.advantage
    if network.config.normalise_advantages:
        advantage = normalise.rescale(advantage, scale)
    policy_loss = -(advantage * distribution.log_prob(minibatch.action)).mean()
    value_loss = losses.squared(minibatch.target - value).mean()
    entropy = distribution.entropy().mean()
    total = policy_loss + hypers.value_coefficient * value_loss - hypers.entropy_coefficient * entropy
    return total, Metrics(total, policy_loss, value_loss, entropy)


def learn(learner: Learner, minibatch: Examples, hypers: Any, *, network: ActorCritic) -> tuple[Learner, Metrics]:
    """Takes one gradient step on one minibatch: the rule itself, free of any environment.

    Args:
        learner: parameters and optimiser.
        minibatch: leaves `[M, ...]`.
        hypers: numbers; `learning_rate` is used as it stands.
        network: the actor and critic.

    Returns:
        `(learner, metrics)`.
    """
    params, opt_state, metrics = optim.descend(
        functools.partial(loss, network=network),
        optimiser(hypers, config=network.config),
        *learner,
        minibatch,
        hypers,
        normalise.scale(minibatch.advantage),
        by_rows=True,
    )
    return Learner(params, opt_state), metrics


def init(key: Key, hypers: Any, *, network: ActorCritic) -> State:
    """Makes the state before the first update.  The key is consumed."""
    params = actor_critic.initial_params(key, network)
    opt_state = optimiser(hypers, config=network.config).init(params)
    return State(Learner(params, opt_state), *actor_critic.initial_scales(network))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]` in one gradient step.  The key is not used."""
    del key
    hypers = optim.annealed(step, hypers)
    rollout, state = actor_critic.normalised(batch, state, hypers.discount, config=network.config)
    examples = actor_critic.estimate(state.learner.params, rollout, hypers, network=network)
    learner, metrics = learn(state.learner, examples, hypers, network=network)
    return state._replace(learner=learner), metrics


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds advantage actor-critic to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    return networks.bind(actor_critic.make(spec, config, core=config.core), init, update, policy)
