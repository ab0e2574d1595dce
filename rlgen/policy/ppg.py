"""Phasic policy gradient, arXiv:2009.04416: policy and value networks apart, whose features meet in a phase of its own.

An update is one iteration of the policy phase: on one rollout, passes of PPO's clipped surrogate over the policy
network, then passes of the value error over the value network.  Every `num_policy_updates` of them an auxiliary phase
follows.  Over the observations and value targets of all rollouts since the last one, the policy network learns to tell
values too, by a head of its own, while a divergence from the policy before the phase holds what it does; and the value
network is fitted to the same targets.  Advantages are GAE (arXiv:1506.02438).

Adam keeps moments of their own for the surrogate and for the auxiliary loss, as in the authors' code
(github.com/openai/phasic-policy-gradient), and one set for the error of the value network, which is the same in both
phases.  Departures, each a switch or a coefficient, are those of PPO: orthogonal weights, clipped gradient norm,
advantages normalised in each minibatch, normalised observations.  A truncated episode bootstraps from its true last
observation.

Shape legend: `T` rollout length, `B` environments, `R` rows of the ring of rollouts, `M` examples in a minibatch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition, Tree
from rlgen.parts import actor_critic, checks, losses, networks, normalise, optim, replay
from rlgen.parts.actor_critic import ActorCritic, policy
from rlgen.policy import ppo


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        num_policy_updates: rollouts before each auxiliary phase, which goes through all of them; the paper's `N_π`.
        num_policy_epochs: passes of the policy network over each rollout, `E_π`.
        num_value_epochs: passes of the value network over each rollout, `E_V`.
        num_auxiliary_epochs: passes of an auxiliary phase over its rollouts, `E_aux`.
        num_minibatches: minibatches a pass over one rollout; must divide `T * B`.
        num_auxiliary_minibatches: minibatches that a pass of an auxiliary phase takes a rollout; must divide `T * B`.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer, of policy and value network alike.
        activation: name in `networks.ACTIVATIONS`.
        distribution: of `distributions.KINDS`, over actions in a `Box`.
        normalise_advantages: to mean 0 and variance 1 in each minibatch.
        normalise_observations: by running moments.
        normalise_rewards: by the running deviation of the discounted return; errors of values, which are weighed
            against a divergence, then have one scale on every task.
    """

    num_envs: int = 16
    rollout_length: int = 128
    num_policy_updates: int = 32
    num_policy_epochs: int = 1
    num_value_epochs: int = 1
    num_auxiliary_epochs: int = 6
    num_minibatches: int = 8
    num_auxiliary_minibatches: int = 16
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    distribution: str = "normal"
    normalise_advantages: bool = True
    normalise_observations: bool = False
    normalise_rewards: bool = True

    def __post_init__(self):
        checks.rollouts_divided(self, "num_minibatches", "num_auxiliary_minibatches")
        checks.normalisable(self, self.num_envs * self.rollout_length // max(self.num_minibatches, 1))

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        reasons = actor_critic.idle(self)
        if self.num_policy_epochs * self.num_minibatches == 1:  # the policy is still the one that acted
            reasons["clip"] = "config.num_policy_epochs=1 and config.num_minibatches=1"
        return reasons


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 5e-4  # of both phases
    discount: float = 0.999
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_coefficient: float = 0.01
    clone_coefficient: float = 1.0  # of the divergence from the old policy in an auxiliary phase
    max_grad_norm: float = 0.5


class Learner(NamedTuple):
    """What a minibatch changes."""

    params: Tree  # of both networks
    opt_state: dict[str, Tree]  # by name in `OPTIMISERS`


class Targets(NamedTuple):
    """What values are learned from."""

    obs: Tree  # [M, *observation]
    target: Array  # [M], the λ-return


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: Learner
    replay: Targets  # leaves `[R, B, ...]`; observations are not normalised
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Minibatch(NamedTuple):
    """What an iteration of the policy phase learns from."""

    obs: Tree  # [M, *observation], normalised where that is switched on
    action: Tree  # [M, *action]
    log_prob: Array  # [M], of the action when it was taken
    advantage: Array  # [M]
    target: Array  # [M], the λ-return


class Metrics(NamedTuple):
    """Means over an update's minibatches; the last three are zero where no auxiliary phase followed."""

    policy_loss: Array
    entropy: Array
    kl: Array  # estimate `(ρ − 1) − log ρ` of the divergence from the policy that acted
    clip_fraction: Array
    value_loss: Array
    auxiliary_loss: Array  # of the values that the policy network tells
    clone_kl: Array  # divergence of the policy before the auxiliary phase from the present one
    distilled_value_loss: Array  # of the value network, in the auxiliary phase


# Each keeps moments of all parameters; those that its loss does not read have no gradient and never move.
OPTIMISERS = ("policy", "value", "auxiliary")


class PhasicNetwork(ActorCritic):
    """A policy network that also tells values, and a value network apart from it."""

    def setup(self):
        """Builds both networks, and the policy network's second head."""
        super().setup()
        self.auxiliary_head = nn.Dense(1, kernel_init=networks.INITIALISERS[self.initialiser](1.0))

    def auxiliary(self, obs: Array) -> tuple[Any, Array]:
        """Gives the distribution over actions at `[*N, *observation]` and the policy network's own values `[*N]`."""
        features = self.actor_torso(networks.encode(obs, self.spec.observation))
        return self.distribution(features), self.auxiliary_head(features)[..., 0]

    def everything(self, obs: Array) -> tuple[Any, Array, Array]:
        """Gives what `auxiliary` gives, and the value network's values `[*N]`."""
        return *self.auxiliary(obs), self.critic(obs)


def optimiser(hypers: Hypers) -> Any:
    """Adam behind a clip of the gradient norm.

    At the start of a phase the divergence has no gradient but rounding, which a smaller epsilon would turn into steps.
    """
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=1e-5)


def policy_loss(params: Tree, minibatch: Minibatch, *, hypers: Hypers, network: PhasicNetwork):
    """PPO's clipped surrogate and an entropy bonus; beside it, the metrics `policy_loss` to `clip_fraction`."""
    distribution = networks.apply(network, params, minibatch.obs, method="actor")
    descended, kl, clip_fraction = ppo.surrogate(distribution, minibatch, hypers, config=network.config)
    entropy = distribution.entropy().mean()
    return descended - hypers.entropy_coefficient * entropy, (descended, entropy, kl, clip_fraction)


def value_loss(params: Tree, minibatch: Targets, *, network: PhasicNetwork) -> tuple[Array, Array]:
    """`½ (V(s) − V_targ)²` of the value network, twice: to descend and to report."""
    error = losses.squared(networks.apply(network, params, minibatch.obs, method="critic") - minibatch.target).mean()
    return error, error


def joint_loss(params: Tree, minibatch: Targets, *, old_params: Tree, hypers: Hypers, network: PhasicNetwork):
    """The paper's `L_joint`, `½ (V_aux(s) − V_targ)² + β_clone KL(π_old(· | s), π(· | s))`; beside it, both means."""
    old = networks.apply(network, old_params, minibatch.obs, method="actor")
    new, value = networks.apply(network, params, minibatch.obs, method="auxiliary")
    error = losses.squared(value - minibatch.target).mean()
    divergence = old.kl_divergence(new).mean()
    return error + hypers.clone_coefficient * divergence, (error, divergence)


def descend(learner: Learner, minibatch: Tree, *, name: str, loss: Callable[..., Any], hypers: Hypers):
    """Takes one gradient step of a loss `(params, minibatch)` with the optimiser of that name."""
    params, opt_state, facts = optim.descend(
        loss, optimiser(hypers), learner.params, learner.opt_state[name], minibatch
    )
    return Learner(params, {**learner.opt_state, name: opt_state}), facts


def passes(key: Key, learner: Learner, examples: Tree, step: Callable[..., Any], num_epochs: int, num_minibatches: int):
    """Takes a step `(learner, minibatch) -> (learner, facts)` on every minibatch of shuffled passes.

    Args:
        key: consumed.
        learner: parameters and optimisers.
        examples: leaves `[num_minibatches * M, ...]`.
        step: what to do with a minibatch.
        num_epochs: how many passes.
        num_minibatches: minibatches a pass.

    Returns:
        `(learner, facts)`, facts averaged over all minibatches.
    """

    def one(learner, key):
        return lax.scan(step, learner, actor_critic.shuffled(key, examples, num_minibatches))

    learner, facts = lax.scan(one, learner, jax.random.split(key, num_epochs))
    return learner, jax.tree.map(jnp.mean, facts)


def learn(
    key: Key, learner: Learner, batch: Minibatch, hypers: Hypers, *, network: PhasicNetwork
) -> tuple[Learner, tuple[Array, ...]]:
    """Takes an iteration of the policy phase: the rule itself, free of any environment.

    Args:
        key: consumed.
        learner: parameters and optimisers.
        batch: leaves `[T * B, ...]`, of one rollout.
        hypers: numbers.
        network: the policy and value networks.

    Returns:
        `(learner, metrics)`, the first five.
    """
    config = network.config
    surrogate = functools.partial(policy_loss, hypers=hypers, network=network)
    policy_step = functools.partial(descend, name="policy", loss=surrogate, hypers=hypers)
    regression = functools.partial(value_loss, network=network)
    value_step = functools.partial(descend, name="value", loss=regression, hypers=hypers)

    policy_key, value_key = jax.random.split(key)
    learner, facts = passes(policy_key, learner, batch, policy_step, config.num_policy_epochs, config.num_minibatches)
    targets = Targets(batch.obs, batch.target)
    learner, error = passes(value_key, learner, targets, value_step, config.num_value_epochs, config.num_minibatches)
    return learner, (*facts, error)


def distil(
    key: Key, learner: Learner, stored: Targets, observations: Tree, hypers: Hypers, *, network: PhasicNetwork
) -> tuple[Learner, tuple[Array, ...]]:
    """Takes an auxiliary phase: brings values into the policy network, whose policy stays, and into the value network.

    Args:
        key: consumed.
        learner: parameters and optimisers; its policy is the one to stay with.
        stored: leaves `[R, B, ...]`, of all rollouts since the last phase.
        observations: `normalise.Moments` of `[*observation]`, or `()`.
        hypers: numbers.
        network: the policy and value networks.

    Returns:
        `(learner, metrics)`, the last three.
    """
    config = network.config
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), stored)
    # The old distributions come from the old parameters, minibatch by minibatch: to run one network once more costs
    # little beside the gradients of two, and those of a whole phase need no room.
    joint = functools.partial(joint_loss, old_params=learner.params, hypers=hypers, network=network)
    regression = functools.partial(value_loss, network=network)

    def step(learner, index):
        minibatch = jax.tree.map(lambda leaf: leaf.at[index].get(mode="promise_in_bounds"), flat)
        if config.normalise_observations:
            minibatch = minibatch._replace(obs=normalise.standardise(minibatch.obs, observations))
        learner, facts = descend(learner, minibatch, name="auxiliary", loss=joint, hypers=hypers)
        learner, value_error = descend(learner, minibatch, name="value", loss=regression, hypers=hypers)
        return learner, (*facts, value_error)

    # Indices are shuffled in place of examples, which would take as much room again.
    indices = jnp.arange(flat.target.shape[0])
    num_minibatches = config.num_policy_updates * config.num_auxiliary_minibatches
    return passes(key, learner, indices, step, config.num_auxiliary_epochs, num_minibatches)


def init(key: Key, hypers: Hypers, *, network: PhasicNetwork) -> State:
    """Makes the state before the first update.  The key is consumed."""
    config, space = network.config, network.spec.observation
    params = actor_critic.initial_params(key, network, "everything")
    learner = Learner(params, {name: optimiser(hypers).init(params) for name in OPTIMISERS})
    rows = config.num_policy_updates * config.rollout_length
    example = Targets(jnp.zeros(space.shape, space.dtype), jnp.float32(0))
    ring = replay.init(
        example, capacity=rows * config.num_envs, num_envs=config.num_envs, num_rows=config.rollout_length
    )
    return State(learner, ring, *actor_critic.initial_scales(network))


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: PhasicNetwork):
    """Learns from one rollout `[T, B]`, and when it is due from all since the last auxiliary phase.

    The key is consumed.
    """
    rollout, state = actor_critic.normalised(batch, state, hypers.discount, config=network.config)
    obs, action, advantage, target, _ = actor_critic.estimate(state.learner.params, rollout, hypers, network=network)
    # Raw observations keep the environment's dtype, often a quarter of the size, and the auxiliary phase reads them all
    # on one scale: that on which the policy it holds still is going to act.
    ring = replay.add(state.replay, step, Targets(batch.obs, target.reshape(batch.reward.shape)))
    learn_key, distil_key = jax.random.split(key)
    examples = Minibatch(obs, action, batch.extras["log_prob"].ravel(), advantage, target)
    learner, facts = learn(learn_key, state.learner, examples, hypers, network=network)

    def phase(learner):
        return distil(distil_key, learner, ring, state.observations, hypers, network=network)

    def wait(learner):
        zero = jnp.float32(0)
        return learner, (zero, zero, zero)

    # The condition depends on `step` alone, so it stays a branch under a sweep; where it holds, the ring is full.
    due = (step + 1) % network.config.num_policy_updates == 0
    learner, auxiliary_facts = lax.cond(due, phase, wait, learner)
    return state._replace(learner=learner, replay=ring), Metrics(*(*facts, *auxiliary_facts))


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds PPG to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    return networks.bind(actor_critic.make(spec, config, PhasicNetwork), init, update, policy)
