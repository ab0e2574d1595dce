"""What soft actor-critics share: a policy that is drawn from, its entropy, and the temperature that weighs it.

Sources: arXiv:1801.01290; a temperature that is learned, arXiv:1812.05905; discrete actions, arXiv:1910.07207.

Shape legend: `N` any batch shape, `D` elements of an action, `A` discrete actions, `J` actions that an expectation is
taken over, one that was drawn or all discrete ones.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Discrete, Key, Space, Spec, Tree
from rlgen.parts import control, distributions, networks, optim

_LOG_STD = (-20.0, 2.0)
_ATTAINED = 0.98  # of `log A`, as in the code of arXiv:1910.07207's author


def squashed(mean: Array, log_std: Array) -> Any:
    """The distribution over actions between −1 and 1 that a network's outputs `[*N, D]` stand for."""
    return distributions.tanh_normal(mean, jnp.clip(log_std, *_LOG_STD))


class Choices(NamedTuple):
    """Actions that an expectation over the policy is taken over."""

    action: Array | None  # [*N, D] between −1 and 1; None for all discrete ones
    probability: Array  # [*N, J]
    log_prob: Array  # [*N, J]


class Metrics(NamedTuple):
    """Means over an update's gradient steps; zero before learning begins."""

    loss: Array  # of the critics
    q_value: Array  # of the actions taken
    error: Array  # mean absolute temporal-difference error
    entropy: Array  # of the actor
    temperature: Array


class StochasticActor(nn.Module):
    """The parameters of the policy.

    Attributes:
        spec: of the task.
        config: with `hidden_sizes`, `activation` and `initialiser`.
    """

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array) -> Any:
        """Gives the distribution over actions, between −1 and 1 if they are continuous, at `[*N, *observation]`."""
        config, action = self.config, self.spec.action
        torso = networks.torso(
            "mlp", config.hidden_sizes, config.activation, self.spec.observation, initialiser=config.initialiser
        )
        features = torso(networks.encode(obs, self.spec.observation))
        if isinstance(action, Discrete):
            return distributions.categorical(networks.head(action.num)(features))
        mean, log_std = jnp.split(networks.head(2 * action.shape[0])(features), 2, axis=-1)
        return squashed(mean, log_std)


def choices(key: Key, params: Tree, obs: Tree, *, actor: StochasticActor) -> Choices:
    """What the actor would do at `[*N, *observation]`: an action drawn, or all of them.  The key is consumed."""
    policy = networks.apply(actor, params, obs)
    if isinstance(actor.spec.action, Discrete):
        return Choices(None, jnp.exp(policy.logits), policy.logits)
    action, log_prob = policy.sample_and_log_prob(seed=key)
    return Choices(action, jnp.ones_like(log_prob)[..., None], log_prob[..., None])


def entropy(chosen: Choices) -> Array:
    """Entropy of the policy, or of a draw the estimate `−log π`: `[*N]`."""
    return -(chosen.probability * chosen.log_prob).sum(-1)


def optimisers(hypers: Any, *, first_moment_decay: float = 0.9) -> dict[str, Any]:
    """Adam for the actor, the critics and the temperature, by name; the decay is that of the networks."""
    return {
        "actor": optim.adam(hypers.learning_rate, b1=first_moment_decay),
        "critics": optim.adam(hypers.critic_learning_rate, b1=first_moment_decay),
        "log_temperature": optim.adam(hypers.temperature_learning_rate),
    }


def turn(count: Array, learner: Any, improve: Callable[[], tuple[Any, Array]], *, period: int) -> tuple[Any, Array]:
    """Lets the actor and the temperature learn in one of some gradient steps.

    Args:
        count: gradient steps before, scalar; nothing else decides, so that it stays a branch under a sweep.
        learner: who learns.
        improve: `() -> (learner, entropy)`, what happens when it is their turn.
        period: gradient steps between two turns.

    Returns:
        `(learner, entropy)`.  The entropy is `period` times what it was, and otherwise 0: a mean over steps is that
        over turns.
    """
    if period == 1:
        return improve()
    learner, nats = lax.cond((count + 1) % period == 0, improve, lambda: (learner, jnp.float32(0)))
    return learner, nats * period


def temperature(log_temperature: Array, hypers: Any, *, kind: str) -> Array:
    """`α`, scalar: the `"learned"` one, or what `hypers` say where it is `"fixed"`."""
    return jnp.exp(log_temperature) if kind == "learned" else jnp.asarray(hypers.temperature)


def target_entropy(share: Array | float, space: Space) -> Array:
    """Nats that a learned temperature holds the policy at, scalar: a share of `−D`, or of nearly `log A`.

    The most that discrete actions can have, `log A`, is no target: the temperature could only ever rise.
    """
    nats = _ATTAINED * math.log(space.num) if isinstance(space, Discrete) else -float(math.prod(space.shape))
    return share * jnp.float32(nats)


def temperature_loss(log_temperature: Array, excess: Array) -> tuple[Array, tuple[()]]:
    """Its gradient is `excess`, by which the entropy is above its target."""
    return log_temperature * excess, ()


def regulate(log_temperature: Array, opt_state: Tree, rule: Any, nats: Array, target: Array) -> tuple[Array, Tree]:
    """Takes one gradient step with the temperature, towards an entropy of `target` nats.

    Args:
        log_temperature: scalar.
        opt_state: its optimiser's state.
        rule: its optimiser.
        nats: the entropy that the policy has, scalar.
        target: what it should have, scalar.

    Returns:
        `(log_temperature, opt_state)`.
    """
    log_temperature, opt_state, _ = optim.descend(temperature_loss, rule, log_temperature, opt_state, nats - target)
    return log_temperature, opt_state


def act(
    key: Key, step: Array, policy: Any, space: Space, *, first: int, explore: bool, noise: Array | None = None
) -> Array:
    """Draws from the policy while exploring, and at random before update `first`; else takes the likeliest.

    Args:
        key: consumed.
        step: updates done before, scalar.
        policy: distribution over actions, batch shape `[*N]`.
        space: of the actions.
        first: updates after which learning begins.
        explore: whether to explore.
        noise: added to continuous actions while exploring, in half widths of the box, `[*N, D]`; None for none.

    Returns:
        Actions in the task's box, `[*N, *action]`.
    """
    if not explore:
        return control.to_box(policy.mode(), space)
    action_key, random_key = jax.random.split(key)
    action = policy.sample(seed=action_key)
    if noise is not None:
        action = jnp.clip(action + noise, -1.0, 1.0)
    action = control.to_box(action, space)
    return control.warming(random_key, step, action, space, first)
