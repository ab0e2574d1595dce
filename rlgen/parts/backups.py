"""One step of dynamic programming: look-aheads, and what a planner repeats.

Every function takes a dense or a sparse process and works in its floating dtype.  With a sparse process nothing larger
than its arrays is made, but for the linear solve, which refuses it.

Sources: Sutton and Barto, "Reinforcement Learning: An Introduction", 2nd edition, chapter 4; modified policy iteration
is Puterman and Shin 1978, doi:10.1287/mnsc.24.11.1127.

Departure: policy iteration shares the probability of equally good actions, where the book takes any of them.  Rounding
then cannot make it go round in circles, and where nothing is known yet it starts from the uniformly random policy,
under which episodes end wherever they can.  As what rounding hides may still add up over many steps, the first of the
best actions alone are evaluated too, and kept where they prove better.

Shape legend: `N` any batch shape, `S` states, `A` actions, `K` states that an action may lead to.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array
from rlgen.envs.mdp import MDP, SparseMDP, expected

Process: TypeAlias = MDP | SparseMDP
Scalar: TypeAlias = Array | float
Step: TypeAlias = Callable[[Process, Array, Scalar], tuple[Array, Array]]
_Kind = TypeVar("_Kind", bound=MDP | SparseMDP)

# Units in the last place that a look-ahead may be off: actions whose values differ by less are equally good.
_ROUNDING = 64


def action_values(process: Process, values: Array, discount: Scalar) -> Array:
    """Looks one step ahead.

    Args:
        process: what to look into.
        values: `[S]`.
        discount: `γ`.

    Returns:
        `R(s, a) + γ Σ_s' P(s' | s, a) values(s')`, `[S, A]`.
    """
    return process.reward + discount * expected(process, values)


def greedy_policy(q_values: Array, margin: Scalar = 0.0) -> Array:
    """Gives the best actions all the probability, in equal shares.

    Args:
        q_values: `[*N, A]`.
        margin: by how much an action may fall short of the best and still count as one; broadcastable to `[*N, 1]`.

    Returns:
        Probabilities, `[*N, A]`.
    """
    best = q_values >= q_values.max(-1, keepdims=True) - margin
    return best / best.sum(-1, keepdims=True, dtype=q_values.dtype)


def follow(process: _Kind, policy: Array) -> _Kind:
    """Lets a policy choose: what is left is a process of one action, whose optimal values are the policy's.

    Args:
        process: with `A` actions.
        policy: actions `[S]` of an integer dtype, or probabilities `[S, A]`.

    Returns:
        The process with `A` = 1; of a sparse one and probabilities, `K` becomes `A · K`.
    """
    if jnp.issubdtype(policy.dtype, jnp.integer):
        return _act(process, policy)
    reward = (policy * process.reward).sum(-1, keepdims=True)
    if isinstance(process, MDP):
        transition = jnp.einsum("sa,sat->st", policy, process.transition, precision="highest")
        return process._replace(transition=transition[:, None], reward=reward)
    flat = (len(reward), 1, -1)
    probability = (policy[..., None] * process.probability).reshape(flat)
    return process._replace(successor=process.successor.reshape(flat), probability=probability, reward=reward)


def _act(process: _Kind, actions: Array) -> _Kind:
    """Keeps one action `[S]` of every state."""
    states = jnp.arange(len(actions))
    reward = process.reward[states, actions][:, None]
    if isinstance(process, MDP):
        return process._replace(transition=process.transition[states, actions][:, None], reward=reward)
    rows = jnp.minimum(states, process.probability.shape[0] - 1)  # all states may share one row
    successor, probability = process.successor[states, actions], process.probability[rows, actions]
    return process._replace(successor=successor[:, None], probability=probability[:, None], reward=reward)


def solve(process: Process, policy: Array, discount: Scalar) -> Array:
    """Finds the exact values of a policy: `(I − γ P_π) v = r_π`.

    Args:
        process: dense.
        policy: actions `[S]`, or probabilities `[S, A]`.
        discount: `γ`; at one, the policy must reach an end from every state, or the values are not finite.

    Returns:
        Values, `[S]`.

    Raises:
        TypeError: if the process is sparse.
    """
    if not isinstance(process, MDP):
        raise TypeError("a linear solve needs the whole matrix; evaluate a sparse process by sweeps")
    chain = follow(process, policy)
    # Without the way into the ends, whose values are zero, the matrix is regular at discount one.
    onward = jnp.where(process.terminal, 0.0, chain.transition[:, 0])
    return jnp.linalg.solve(jnp.eye(len(onward), dtype=onward.dtype) - discount * onward, chain.reward[:, 0])


def start(process: Process, initial_values: Scalar) -> Array:
    """Values to begin with: zero at the ends, `initial_values`, a scalar or `[S]`, elsewhere."""
    return jnp.where(process.terminal, 0.0, jnp.asarray(initial_values, process.reward.dtype))


def value_step(process: Process, values: Array, discount: Scalar) -> tuple[Array, Array]:
    """Backs every state up at once: `v(s) ← max_a q(s, a)`.

    Args:
        process: what to plan in; so with every step below.
        values: `[S]`, zero at the ends.
        discount: `γ`.

    Returns:
        `(values, q_values)`, `[S]` and `[S, A]`: the new values, and the look-ahead from the old ones that they come
        from.
    """
    q_values = action_values(process, values, discount)
    return q_values.max(-1), q_values


def uniform_step(process: Process, values: Array, discount: Scalar) -> tuple[Array, Array]:
    """Backs every state up under the uniformly random policy: `v(s) ← mean_a q(s, a)`."""
    q_values = action_values(process, values, discount)
    return q_values.mean(-1), q_values


def gauss_seidel_step(process: Process, values: Array, discount: Scalar) -> tuple[Array, Array]:
    """Backs the states up one after another in place, so that each sees the values that the ones before left."""

    def body(state: Array, carry: tuple[Array, Array]):
        values, q_values = carry
        q_row = action_values_at(process, values, discount, state)
        return values.at[state].set(q_row.max()), q_values.at[state].set(q_row)

    return lax.fori_loop(0, values.shape[0], body, (values, jnp.zeros_like(process.reward)))


def policy_step(process: Process, values: Array, discount: Scalar) -> tuple[Array, Array]:
    """Makes the policy greedy and solves for its values; the process is dense."""
    q_values = action_values(process, values, discount)
    # The sums behind a look-ahead round in proportion to their terms, however small the look-ahead itself.
    terms = action_values(process._replace(reward=jnp.abs(process.reward)), jnp.abs(values), discount)
    margin = _ROUNDING * jnp.finfo(terms.dtype).eps * terms.max(-1)
    shared = solve(process, greedy_policy(q_values, margin[:, None]), discount)
    first = solve(process, q_values.argmax(-1), discount)
    gain = first - shared  # no number where an episode under the first actions never ends
    better = (gain >= -margin).all() & (gain > margin).any() & jnp.isfinite(first).all()
    return jnp.where(better, first, shared), q_values


def modified_step(process: Process, values: Array, discount: Scalar, *, num_sweeps: int) -> tuple[Array, Array]:
    """Makes the policy greedy and backs every state up under it `num_sweeps` times; once is value iteration."""
    new_values, q_values = value_step(process, values, discount)
    chain = follow(process, q_values.argmax(-1))

    def sweep(_: Array, values: Array) -> Array:
        return action_values(chain, values, discount)[:, 0]

    return lax.fori_loop(0, num_sweeps - 1, sweep, new_values), q_values


def action_values_at(process: Process, values: Array, discount: Scalar, state: Array) -> Array:
    """Looks one step ahead from one state.

    Args:
        process: what to look into.
        values: `[S]`.
        discount: `γ`.
        state: int32 scalar.

    Returns:
        Values of its actions, `[A]`.
    """
    # An index past the end is clipped, which is right for probabilities that all states share.
    one = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, state), process)
    return action_values(one, values, discount)[0]
