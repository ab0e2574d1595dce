"""What tabular methods share: tables over states and actions, ε-greedy policies, and learning in time order.

An algorithm's `Hypers` gives `epsilon_start`, `epsilon_end` and `horizon`, the updates over which ε falls.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions, `N` any batch shape.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Discrete, Key, Policy, Spec, Transition, Tree, memoryless
from rlgen.parts import exploration


def shape(spec: Spec) -> tuple[int, int]:
    """Shape of a table over a task's states and actions.

    Args:
        spec: what the policy reads and writes.

    Returns:
        `(S, A)`.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    if not (isinstance(spec.observation, Discrete) and isinstance(spec.action, Discrete)):
        raise ValueError(f"a tabular method needs a table: discrete observations and actions, not {spec}")
    return spec.observation.num, spec.action.num


def epsilon_at(step: Array, hypers: Any) -> Array:
    """Share of random actions after `step` updates, a scalar."""
    return exploration.linear(hypers.epsilon_start, hypers.epsilon_end, step / hypers.horizon)


def expected_value(q_values: Array, epsilon: Array | float) -> Array:
    """Mean value under the ε-greedy policy: `(1 − ε) max Q + ε mean Q`.

    Args:
        q_values: `[*N, A]`.
        epsilon: share of random actions, scalar.

    Returns:
        `[*N]`.
    """
    return (1 - epsilon) * q_values.max(-1) + epsilon * q_values.mean(-1)


def bootstrap(q_values: Array, transition: Transition, epsilon: Array | float) -> Array:
    """Mean value of what follows a transition, zero where the episode terminated.

    Args:
        q_values: `[S, A]`.
        transition: scalars, no batch axis.
        epsilon: share of random actions, scalar.

    Returns:
        A scalar.
    """
    return jnp.where(transition.terminated, 0.0, expected_value(q_values[transition.next_obs], epsilon))


def limit(obs: Array, num_actions: tuple[int, ...]) -> Array | None:
    """How many actions there are at states `[*N]`, or None where `num_actions` is empty: all of them everywhere."""
    return jnp.asarray(num_actions, jnp.int32)[obs] if num_actions else None


def in_time_order(batch: Transition) -> tuple[Array, Transition]:
    """Lines up the transitions of `[T, B]`, the environments of a step one after another.

    Args:
        batch: leaves `[T, B]`.

    Returns:
        The number of the environment, `[T * B]` int32, and the transitions, leaves `[T * B]`.
    """
    num_steps, num_envs = batch.reward.shape
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    return jnp.tile(jnp.arange(num_envs, dtype=jnp.int32), num_steps), flat


def fold(
    rule: Callable[[Tree, Tree, Transition], tuple[Tree, Tree, Tree]], shared: Tree, own: Tree, batch: Transition
) -> tuple[Tree, Tree, Tree]:
    """Learns from `[T, B]` transitions in time order, each environment with a memory of its own.

    Args:
        rule: `(shared, memory, transition) -> (shared, memory, metrics)` for one transition, no batch axis.
        shared: what all environments learn together.
        own: their memories, leaves `[B, ...]`.
        batch: leaves `[T, B]`.

    Returns:
        `(shared, own, means of the metrics)`.
    """

    def body(carry: tuple[Tree, Tree], inputs: tuple[Array, Transition]):
        shared, own = carry
        env, transition = inputs
        shared, memory, metrics = rule(shared, jax.tree.map(lambda leaf: leaf[env], own), transition)
        return (shared, jax.tree.map(lambda leaf, new: leaf.at[env].set(new), own, memory)), metrics

    (shared, own), metrics = lax.scan(body, (shared, own), in_time_order(batch))
    return shared, own, jax.tree.map(jnp.mean, metrics)


def act(
    key: Key,
    obs: Array,
    memory: tuple[()],
    *,
    q_values: Array,
    epsilon: Array | None,
    num_actions: tuple[int, ...] = (),
):
    """Chooses actions at states `[*N]`, the first of the best ones where `epsilon` is None.  The key is consumed."""
    most = limit(obs, num_actions)
    values = exploration.existing(q_values[obs], most)
    if epsilon is None:
        return jnp.argmax(values, axis=-1).astype(jnp.int32), {}, memory
    ties_key, action_key = jax.random.split(key)
    values = exploration.break_ties(ties_key, values)
    return exploration.epsilon_greedy(action_key, values, epsilon, most), {}, memory


def policy(step: Array, state: Any, hypers: Any, *, explore: bool, num_actions: tuple[int, ...] = ()) -> Policy:
    """ε-greedy with ties broken at random while exploring, greedy otherwise.

    Args:
        step: updates done.
        state: with `q_values`, `[S, A]`.
        hypers: with `epsilon_start`, `epsilon_end` and `horizon`.
        explore: whether to explore.
        num_actions: of each state; empty where every state has them all.

    Returns:
        A policy without memory.
    """
    epsilon = epsilon_at(step, hypers) if explore else None
    return memoryless(functools.partial(act, q_values=state.q_values, epsilon=epsilon, num_actions=num_actions))


def greedy_policy(step: Array, state: Any, hypers: Any, *, explore: bool) -> Policy:
    """The best actions by `state.q_values`, ties broken at random: the policy of a planner, which need not explore."""
    del step, hypers, explore

    def apply(key: Key, obs: Array, memory: tuple[()]):
        return exploration.greedy(key, state.q_values[obs]), {}, memory

    return memoryless(apply)
