"""IMPALA: an actor-critic whose actors lag behind the learner, corrected by V-trace, arXiv:1802.01561.

Actors collect rollouts with a copy of the learner's parameters that is fewer than `policy_lag` updates old.  The
learner weighs what they did by `π / μ`, the probability of an action under its own policy over that under theirs, and
steps as A2C does: with `policy_lag` 1 the weights are 1, and it is A2C.  `Config.correction` has three of the four
corrections that the paper compares; the fourth adds an epsilon to probabilities, which are logarithms here:

* `"vtrace"`: targets and advantages are those of V-trace, with `ρ = min(ρ̄, π / μ)` and `c = min(c̄, π / μ)`;
* `"one_step_is"`: targets are uncorrected returns, and the advantage over them is multiplied by `ρ`;
* `"none"`: neither is corrected.

Actors and learner take turns where the paper has them run at once, so the lag is exact, and the same in every run: an
update follows each rollout, and the copy is renewed where the number of updates is a multiple of `policy_lag`.  Further
departures: means over steps where the paper has sums, no clipped rewards, `gae_lambda` (the paper's further discount of
the traces) in the advantages too, and those of A2C: separate actor and critic unless there is a core, orthogonal
weights, RMSProp with a smaller epsilon, or Adam, and as switches normalised advantages, observations and rewards.  A
truncated episode bootstraps from its true last observation.

Shape legend: `T` rollout length, `B` environments.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import actor_critic, checks, networks, optim, returns
from rlgen.parts.actor_critic import ActorCritic, Examples
from rlgen.policy import a2c

CORRECTIONS = ("vtrace", "one_step_is", "none")


@dataclasses.dataclass(frozen=True)
class Config(a2c.Config):
    """What shapes the program: that of A2C, and how far off-policy it is.

    Attributes:
        policy_lag: updates after which the actors take the learner's parameters; 1 is on-policy.
        correction: of `CORRECTIONS`.
    """

    rollout_length: int = 20
    policy_lag: int = 4
    correction: str = "vtrace"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of(self, correction=CORRECTIONS)

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        names = {"vtrace": (), "one_step_is": ("c_bar",), "none": ("rho_bar", "c_bar")}[self.correction]
        return super().idle | dict.fromkeys(names, f"config.correction={self.correction!r}")


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 7e-4
    learning_rate_end: float = 0.0  # after `horizon` updates
    horizon: float = float("inf")  # updates over which the learning rate is annealed
    discount: float = 0.99
    gae_lambda: float = 1.0
    rho_bar: float = 1.0  # bound of ρ: whose values are learned; unused without a correction
    c_bar: float = 1.0  # bound of c: how far a reward reaches back; of V-trace alone, and at most `rho_bar`
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5


class State(NamedTuple):
    """What an update changes; a part that is switched off is `()`."""

    learner: a2c.Learner
    actors: Tree  # the parameters that act
    observations: Tree  # `normalise.Moments` of `[*observation]`
    returns: Tree  # `normalise.Returns` of `B` environments


class Metrics(NamedTuple):
    """Means over an update's steps, before the gradient step."""

    loss: Array
    policy_loss: Array
    value_loss: Array
    entropy: Array
    rho: Array  # the weights `min(ρ̄, π / μ)`


def estimate(params: Tree, rollout: Transition, hypers: Hypers, *, network: ActorCritic) -> tuple[Examples, Array]:
    """Corrects a rollout of other parameters for these.

    Args:
        params: the learner's.
        rollout: `[T, B]`, with the `log_prob` of those who acted among its extras.
        hypers: numbers.
        network: the actor and critic.

    Returns:
        Examples whose advantages are weighted, as many as `actor_critic.examples` says, and `ρ`, `[T, B]`.
    """
    log_prob, value, next_value = actor_critic.hindsight(params, rollout, network=network)
    ratio = jnp.exp(log_prob - rollout.extras["log_prob"])
    rho, trace = jnp.minimum(hypers.rho_bar, ratio), jnp.minimum(hypers.c_bar, ratio)
    ends = rollout.terminated, rollout.truncated
    arguments = rollout.reward, value, next_value, *ends, hypers.discount, hypers.gae_lambda
    if network.config.correction == "vtrace":
        target, advantage = returns.vtrace(*arguments, rho, trace)
    else:
        advantage = returns.gae(*arguments)
        target = value + advantage
        if network.config.correction == "one_step_is":
            advantage *= rho
    batch = Examples(rollout.obs, rollout.action, advantage, target)
    return actor_critic.examples(batch, rollout, network=network), rho


def learn(
    learner: a2c.Learner, rollout: Transition, hypers: Hypers, *, network: ActorCritic
) -> tuple[a2c.Learner, Metrics]:
    """Takes one gradient step on one rollout: the rule itself, free of any environment.

    What is descended is A2C's loss, `−ρ Â ln π(a | s) + c ½ (v − V(s))² − β H(π(· | s))`.

    Args:
        learner: parameters and optimiser.
        rollout: `[T, B]`, normalised where that is switched on.
        hypers: numbers; `learning_rate` is used as it stands.
        network: the actor and critic.

    Returns:
        `(learner, metrics)`.
    """
    examples, rho = estimate(learner.params, rollout, hypers, network=network)
    learner, metrics = a2c.learn(learner, examples, hypers, network=network)
    return learner, Metrics(*metrics, rho.mean())


def init(key: Key, hypers: Hypers, *, network: ActorCritic) -> State:
    """Makes the state before the first update.  The key is consumed."""
    learner, *scales = a2c.init(key, hypers, network=network)
    actors = jax.tree.map(jnp.copy, learner.params)  # two names for one buffer could not be donated
    return State(learner, actors, *scales)


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ActorCritic):
    """Learns from one rollout `[T, B]` in one gradient step.  The key is not used."""
    del key
    hypers = optim.annealed(step, hypers)
    rollout, state = actor_critic.normalised(batch, state, hypers.discount, config=network.config)
    learner, metrics = learn(state.learner, rollout, hypers, network=network)
    # It depends on `step` alone, so it stays a branch under a sweep.
    renew = (step + 1) % network.config.policy_lag == 0
    actors = lax.cond(renew, lambda: learner.params, lambda: state.actors)
    return state._replace(learner=learner, actors=actors), metrics


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ActorCritic) -> Policy:
    """The actors' policy while exploring, the learner's otherwise."""
    params = state.actors if explore else state.learner.params
    acting = state._replace(learner=state.learner._replace(params=params))
    return actor_critic.policy(step, acting, hypers, explore=explore, network=network)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds IMPALA to a task.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if discrete observations are to be normalised, or there is no such distribution over the actions.
    """
    return networks.bind(actor_critic.make(spec, config, core=config.core), init, update, policy)
