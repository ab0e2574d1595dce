"""What methods share that learn the values of a fixed policy, from its own steps or from those of another.

Both policies take each action with the same probability in every state.  Notation of Sutton and Barto, "Reinforcement
Learning", 2nd edition, sections 5.5 (importance sampling) and 7.1 (the error of the values at the ends of episodes).

Shape legend: `T` time, `B` environments, `S` states, `A` actions, `N` any batch shape.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import Array, Key, Policy, Spec, Transition, memoryless
from rlgen.parts import tabular


class Policies(NamedTuple):
    """Probabilities of the actions, `[A]`, alike in every state."""

    behaviour: tuple[float, ...]  # of the policy that gathers the steps
    target: tuple[float, ...]  # of the policy whose values are learned

    @property
    def differ(self) -> bool:
        """Whether learning is off-policy."""
        return self.behaviour != self.target

    @property
    def ratios(self) -> np.ndarray:
        """`π(a) / b(a)`, `[A]` float32; 0 for an action that neither takes."""
        behaviour, target = np.asarray(self.behaviour), np.asarray(self.target)
        return np.divide(target, behaviour, out=np.zeros(len(target)), where=behaviour > 0).astype(np.float32)


def target_policy(config: Any, num_actions: int) -> np.ndarray:
    """The policy whose values are learned.

    Args:
        config: with `behaviour` and `target`; an empty target is the behaviour, an empty behaviour is uniform.
        num_actions: `A`.

    Returns:
        Probabilities, `[A]` float32.

    Raises:
        ValueError: if either holds no probabilities of `A` actions.
    """
    return np.asarray(_policies(config, num_actions).target, np.float32)


def bind(spec: Spec, config: Any) -> tuple[int, Policies]:
    """Reads off what a table needs.

    Args:
        spec: `Discrete` observations and actions.
        config: with `behaviour`, `target` and `reference`.

    Returns:
        `S` and the policies.

    Raises:
        ValueError: if observations or actions are not discrete, if a policy holds no probabilities, if the target takes
            an action that the behaviour never does, or if more values are known than there are states.
    """
    num_states, num_actions = tabular.shape(spec)
    policies = _policies(config, num_actions)
    if any(wanted > 0 and taken == 0 for taken, wanted in zip(*policies, strict=True)):
        raise ValueError(f"the behaviour {policies.behaviour} never does all that the target {policies.target} does")
    if len(config.reference) > num_states:
        raise ValueError(f"{len(config.reference)} values are known of only {num_states} states")
    return num_states, policies


def _policies(config: Any, num_actions: int) -> Policies:
    behaviour = config.behaviour or (1.0 / num_actions,) * num_actions
    policies = Policies(tuple(behaviour), tuple(config.target or behaviour))
    for name, shares in policies._asdict().items():
        if len(shares) != num_actions or min(shares) < 0 or not np.isclose(sum(shares), 1.0):
            raise ValueError(f"{name}={shares} are not the probabilities of {num_actions} actions")
    return policies


def policy(step: Array, state: Any, hypers: Any, *, explore: bool, policies: Policies) -> Policy:
    """The behaviour while exploring, the target otherwise."""
    del step, state, hypers
    return fixed_policy(policies.behaviour if explore else policies.target)


def values(state: Any) -> Array:
    """The values that were learned, `[S]`."""
    return state.values


def fixed_policy(probabilities: tuple[float, ...]) -> Policy:
    """Draws actions alike in every state.

    Args:
        probabilities: `[A]`.

    Returns:
        A policy without memory.
    """
    return memoryless(functools.partial(act, probabilities=probabilities))


def act(key: Key, obs: Array, memory: tuple[()], *, probabilities: tuple[float, ...]):
    """Draws actions at states `[*N]`.  The key is consumed."""
    if len(set(probabilities)) == 1:  # an integer is cheaper than a float
        return jax.random.randint(key, obs.shape, 0, len(probabilities), dtype=jnp.int32), {}, memory
    bounds = jnp.asarray(np.cumsum(probabilities)[:-1], jnp.float32)
    draw = jax.random.uniform(key, obs.shape)
    return (draw[..., None] >= bounds).sum(-1, dtype=jnp.int32), {}, memory


def streams(batch: Transition) -> Transition:
    """Puts the environments first, so that a scan goes through one environment's steps after the other's.

    Args:
        batch: leaves `[T, B, ...]`.

    Returns:
        Leaves `[B, T, ...]`.
    """
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), batch)


def step_error(values: Array, difference: Array, reference: tuple[float, ...]) -> Array:
    """How wrong the values are after a step.

    Args:
        values: `[S]`.
        difference: scalar, the error of the learning rule.
        reference: known values of the first states; may be empty.

    Returns:
        Scalar: root mean square error over the known values, or without them the size of `difference`.
    """
    if not reference:
        return jnp.abs(difference)
    return jnp.sqrt(jnp.square(values[: len(reference)] - jnp.asarray(reference, jnp.float32)).mean())


def total_error(errors: Array, counts: Array, num_episodes: int = 0) -> tuple[Array, Array]:
    """Adds up errors over the steps that count.

    Args:
        errors: `[*N]`, in the order of learning.
        counts: `[*N]` bool, which to add.
        num_episodes: how many of those that count are added, from the first on; 0 for all.

    Returns:
        `(sum, number)`, float32 scalars.
    """
    counts = counts.reshape(-1)
    if num_episodes:
        counts &= jnp.cumsum(counts) <= num_episodes
    return jnp.where(counts, errors.reshape(-1), 0.0).sum(), counts.sum(dtype=jnp.float32)


def mean_error(errors: Array, counts: Array, num_episodes: int = 0) -> Array:
    """Averages errors over the steps that count.

    Args:
        errors: `[*N]`, in the order of learning.
        counts: `[*N]` bool, which to average; where none counts, the last error stands for all.
        num_episodes: how many of those that count are averaged, from the first on; 0 for all.

    Returns:
        Scalar.
    """
    total, num = total_error(errors, counts, num_episodes)
    return jnp.where(num > 0, total / jnp.maximum(num, 1), errors.reshape(-1)[-1])


def report(errors: Array, stream: Transition, reference: tuple[float, ...], num_episodes: int) -> Array:
    """The error that an algorithm reports.

    Args:
        errors: `[B, T]` of `step_error`.
        stream: leaves `[B, T]`.
        reference: known values; with them the ends of episodes count, without them every step does.
        num_episodes: how many ends count, from the first on; 0 for all.  Learning goes on unchanged after them.

    Returns:
        Scalar; the error after the last step where no episode ended.
    """
    if not reference:
        return errors.mean()
    return mean_error(errors, stream.terminated | stream.truncated, num_episodes)
