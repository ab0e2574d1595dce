"""Prioritised experience replay, proportional and rank-based, arXiv:1511.05952.

A structure over the slots of a replay ring, numbered row by row, that knows nothing of what is stored.  Proportional
priorities `(|δ| + ε)^α` are the leaves of a sum tree.  Its nodes have many children: a draw then follows fewer reads
that wait for one another than in the binary tree of the paper, and the program compiles sooner.  A parent is always
summed afresh from its children, so that float32 does not drift.  Ranks are kept in an order that is sorted now and
then.  All writes are in place, also under a sweep: the slots that `add` writes and the time to sort follow from `step`
alone.

Departures from the paper: ranks are drawn by inverting the exact cumulative of `rank^-α`, to float32, in place of a
piecewise linear fit to it; the order is a sorted array in place of a heap, and slots written since the last sort stand
in front of it, newest first.

Draws have the 24 bits of a float32: of a million equal slots, each is drawn with its probability to within 6%.

Shape legend: `N` slots, `F` of them filled, `M` examples, `A` children of a node.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rlgen.core import Array, Key

KINDS = ("proportional", "rank")
LEAST = 1e-6  # a proportional priority's usual `epsilon`
_EXACT_RANKS = 32  # ranks below have a mass of their own; the integral is 1e-4 off from there on


class SumTree(NamedTuple):
    """Proportional priorities."""

    levels: tuple[Array, ...]  # leaves first; each padded with zeros to whole nodes of `A` children, the last is one
    largest: Array  # priority of new slots, to the power α


class Ranking(NamedTuple):
    """Rank-based priorities."""

    error: Array  # [N], |δ|; -1 where nothing is stored
    order: Array  # [N] int32, slots by falling error at the last sort
    rank: Array  # [N] int32, where each slot stood at the last sort
    ranked: Array  # how many slots were filled at the last sort
    fresh: Array  # how many were written since
    end: Array  # one past the slot written last
    largest: Array  # |δ| of new slots


Priorities = SumTree | Ranking


def init(size: int, *, kind: str, arity: int = 8) -> Priorities:
    """Makes the priorities of an empty ring.

    Args:
        size: `N`, the ring's capacity.
        kind: one of `KINDS`.
        arity: `A`, children of a node of the sum tree.

    Returns:
        The priorities.

    Raises:
        ValueError: if the kind is unknown, the size below 1 or the arity below 2.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    if size < 1 or arity < 2:
        raise ValueError(f"size={size} must be at least 1 and arity={arity} at least 2")
    if kind == "rank":
        slots, error = lax.iota(jnp.int32, size), jnp.full(size, -1, jnp.float32)
        # Every leaf has a buffer of its own, since two names for one could not be donated.
        return Ranking(error, slots, jnp.copy(slots), jnp.int32(0), jnp.int32(0), jnp.int32(0), jnp.float32(1))
    nodes = [-(-size // arity)]
    while nodes[-1] > 1:
        nodes.append(-(-nodes[-1] // arity))
    return SumTree(tuple(jnp.zeros(num * arity) for num in nodes), jnp.float32(1))


def add(priorities: Priorities, step: Array, *, size: int, num: int, sort_period: int = 1) -> Priorities:
    """Gives the slots that `replay.add` writes at update `step` the largest priority so far.

    Args:
        priorities: of `N` slots.
        step: updates done before, scalar; the same for all lanes of a sweep.
        size: `N`.
        num: slots written, the ring's `T * B`.
        sort_period: updates between two sorts of a ranking, which take place here.

    Returns:
        The priorities.

    Raises:
        ValueError: if `num` does not divide `N`, or the ring turns over between two sorts.
    """
    if num < 1 or size % num:
        raise ValueError(f"size={size} is no multiple of the {num} slots written an update")
    start = (step % (size // num)) * num
    if isinstance(priorities, SumTree):
        return _add_to_tree(priorities, start, num)
    if not 1 <= sort_period <= size // num:
        raise ValueError(f"sort_period={sort_period} is not between 1 and the {size // num} updates that fill the ring")
    error = lax.dynamic_update_slice(priorities.error, jnp.full(num, priorities.largest), (start,))
    since = step % sort_period
    order, rank = lax.cond(since == 0, ranks, lambda _: (priorities.order, priorities.rank), error)
    ranked = jnp.minimum(step - since + 1, size // num) * num
    ranked, fresh, end = (leaf.astype(jnp.int32) for leaf in (ranked, since * num, start + num))
    return Ranking(error, order, rank, ranked, fresh, end, priorities.largest)


def update(priorities: Priorities, index: Array, error: Array, alpha: Array | float, epsilon: Array | float):
    """Sets the priorities of drawn slots.

    Where a slot occurs more than once, the largest of its errors counts.

    Args:
        priorities: of `N` slots.
        index: `[M]`, slots.
        error: `[M]`, temporal-difference errors of either sign.
        alpha: how much priorities count, 0 for not at all; a ranking takes it when it is drawn from.
        epsilon: added to a proportional priority, so that no slot is lost; no part of a ranking.

    Returns:
        The priorities.
    """
    error = jnp.abs(error)
    if isinstance(priorities, Ranking):
        largest = jnp.maximum(priorities.largest, error.max())
        return priorities._replace(error=_put(priorities.error, index, error), largest=largest)
    priority = (error + epsilon) ** alpha
    arity = priorities.levels[-1].size
    levels = [_put(priorities.levels[0], index, priority)]
    for parents in priorities.levels[1:]:
        index = index // arity
        levels.append(parents.at[index].set(_nodes(levels[-1], index, arity).sum(-1), mode="promise_in_bounds"))
    return SumTree(tuple(levels), jnp.maximum(priorities.largest, priority.max()))


def sample(key: Key, priorities: Priorities, batch_size: int, alpha: Array | float) -> tuple[Array, Array]:
    """Draws one slot from each of `M` ranges of equal mass.

    Args:
        key: consumed.
        priorities: with at least one slot filled.
        batch_size: `M`.
        alpha: exponent of the ranks; proportional priorities have it in them since their update.

    Returns:
        `(index, probability)`: `[M]` int32, slots, and `[M]`, the chance `P(i)` of each in one draw from all ranges.
    """
    quantile = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size
    if isinstance(priorities, Ranking):
        return _sample_ranks(quantile, priorities, jnp.asarray(alpha, jnp.float32))
    arity = priorities.levels[-1].size
    total = priorities.levels[-1].sum()
    rest, index = quantile * total, jnp.zeros(batch_size, jnp.int32)
    mass = total
    for children in reversed(priorities.levels):
        child, rest, mass = _descend(_nodes(children, index, arity), rest)
        index = index * arity + child
    return index, mass / total


def ranks(error: Array) -> tuple[Array, Array]:
    """Sorts slots by falling error, `[N]`; gives `(order, rank)` as a `Ranking` holds them."""
    slots = lax.iota(jnp.int32, error.size)
    order = lax.sort((-error, slots), num_keys=1, is_stable=True)[1]
    return order, jnp.zeros_like(slots).at[order].set(slots, unique_indices=True, mode="promise_in_bounds")


def weights(probability: Array, beta: Array | float) -> Array:
    """Importance weights `(N P(i))^-β` over the largest of them, in which `N` cancels.

    Args:
        probability: `[M]`, as drawn.
        beta: how much of the bias to take away, 1 for all.

    Returns:
        `[M]`, at most 1.
    """
    return (probability.min() / probability) ** beta


def _put(array: Array, index: Array, value: Array) -> Array:
    # A scatter may write what occurs twice in any order; a maximum over zero does not depend on it.
    cleared = array.at[index].set(0.0, mode="promise_in_bounds")
    return cleared.at[index].max(value, mode="promise_in_bounds")


def _nodes(level: Array, index: Array, arity: int) -> Array:
    # Levels are flat, because a write of a slice through a reshape would copy the whole level.
    return level.reshape(-1, arity).at[index].get(mode="promise_in_bounds")


def _add_to_tree(tree: SumTree, start: Array, num: int) -> SumTree:
    arity = tree.levels[-1].size
    value, levels = jnp.full(num, tree.largest), []
    for level in tree.levels:
        level = lax.dynamic_update_slice(level, value, (start,))
        levels.append(level)
        num_nodes = level.size // arity
        # So many nodes may hold a run of this length; any others among them are summed to what they were.
        touched = min((value.size - 2) // arity + 2, num_nodes)
        start = jnp.minimum(start // arity, num_nodes - touched)
        value = lax.dynamic_slice(level, (start * arity,), (touched * arity,)).reshape(touched, arity).sum(-1)
    return SumTree(tuple(levels), tree.largest)


def _descend(masses: Array, rest: Array) -> tuple[Array, Array, Array]:
    """Finds in rows `[M, A]` the child where the running sum passes `rest`; gives it, what is left, and its mass."""
    arity = masses.shape[-1]
    # A product with a triangle compiles sooner than a cumulative sum and is faster for few children.
    before = jnp.dot(masses, jnp.triu(jnp.ones((arity, arity)), 1), precision="highest")
    # The last child that begins at or before `rest` and is not empty: rounding cannot lead beyond it.
    child = jnp.where((masses > 0) & (before <= rest[:, None]), lax.iota(jnp.int32, arity), 0).max(-1)
    begins, mass = (jnp.take_along_axis(row, child[:, None], -1)[:, 0] for row in (before, masses))
    return child, rest - begins, mass


def _sample_ranks(quantile: Array, ranking: Ranking, alpha: Array) -> tuple[Array, Array]:
    size, fresh, ranked = ranking.error.size, ranking.fresh, ranking.ranked
    place, total = _invert(quantile, fresh + ranked, size, alpha)
    sorted_slot = ranking.order.at[jnp.clip(place - fresh, 0, size - 1)].get(mode="promise_in_bounds")
    index = jnp.where(place < fresh, (ranking.end - 1 - place) % size, sorted_slot)
    # A slot written since the last sort is drawn by its place in front and by the rank that it had before.
    age = (ranking.end - 1 - index) % size
    old = ranking.rank.at[index].get(mode="promise_in_bounds")
    in_front = jnp.where(age < fresh, (age + 1.0) ** -alpha, 0.0)
    in_order = jnp.where(old < ranked, (old + fresh + 1.0) ** -alpha, 0.0)
    return index, (in_front + in_order) / total


def _invert(quantile: Array, num: Array, size: int, alpha: Array) -> tuple[Array, Array]:
    """Finds the place from 0 on at each quantile `[M]` of `P ∝ (place + 1)^-α` over `num` places; gives `Σ` as well.

    Places are grouped: the first ones each on their own, then octaves, whose masses are integrals of `x^-α` around
    their whole numbers.  An integral over an octave keeps the precision that one from the beginning would lose.
    """
    octaves = _EXACT_RANKS * 2 ** np.arange((2 * size // _EXACT_RANKS + 1).bit_length())
    first = jnp.asarray(np.concatenate([np.arange(1, _EXACT_RANKS), octaves]), jnp.float32)
    last = jnp.minimum(jnp.concatenate([first[1:] - 1, 2 * first[-1:]]), num.astype(jnp.float32))
    slope = jnp.where(jnp.abs(1 - alpha) < 1e-6, 1e-6, 1 - alpha)  # the logarithm at α = 1 is its limit
    low, high = first - 0.5, jnp.maximum(last, first) + 0.5
    integral = low**slope * jnp.expm1(slope * jnp.log(high / low)) / slope
    masses = jnp.where(first > num, 0.0, jnp.where(first < _EXACT_RANKS, first**-alpha, integral))
    total = masses.sum()
    rows = jnp.broadcast_to(masses, (*quantile.shape, masses.size))
    group, rest, _ = _descend(rows, quantile * total)
    low, first, last = low[group], first[group], last[group]
    ratio = jnp.maximum(rest * slope * low**-slope, -1 + 1e-6)
    place = jnp.floor(low * jnp.exp(jnp.log1p(ratio) / slope) + 0.5)
    return jnp.clip(place, first, last).astype(jnp.int32) - 1, total
