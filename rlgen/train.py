"""Joins an algorithm and a source into a run: `init`, `update` and a scan of updates.

A run's key is split once: one half makes the first state, the other is folded with the number of the update.  The key
of update `i` therefore depends on the run's key and `i` alone, and a run that is stopped and resumed, or scanned in
pieces of any length, is the same run to the last bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Source


class RunState(NamedTuple):
    """Everything that the next update needs."""

    algorithm: Any
    source: Any


class Report(NamedTuple):
    """What an update says of itself."""

    metrics: Any  # NamedTuple of scalars, of the algorithm
    stats: Any  # NamedTuple of sums, of the source


class Run(NamedTuple):
    """An algorithm fed by a source.

    Attributes:
        init: `(key, hypers) -> RunState`.
        update: `(key, step, state, hypers) -> (RunState, Report)`; `key` is the run's key, not the update's.
    """

    init: Callable[[Key, Any], RunState]
    update: Callable[[Key, Array, RunState, Any], tuple[RunState, Report]]


def make(algorithm: Algorithm, source: Source) -> Run:
    """Joins an algorithm and a source.

    Args:
        algorithm: the learning rule.
        source: where its batches come from, under its own exploring policy.

    Returns:
        A `Run` of two pure functions.
    """

    def init(key, hypers):
        init_key, _ = jax.random.split(key)
        algorithm_key, source_key = jax.random.split(init_key)
        state = algorithm.init(algorithm_key, hypers)
        policy = algorithm.policy(jnp.int32(0), state, hypers, explore=True)
        return RunState(state, source.init(source_key, policy))

    def update(key, step, state, hypers):
        _, updates_key = jax.random.split(key)
        source_key, algorithm_key = jax.random.split(jax.random.fold_in(updates_key, step))
        policy = algorithm.policy(step, state.algorithm, hypers, explore=True)
        source_state, batch, stats = source.next(source_key, step, state.source, policy)
        algorithm_state, metrics = algorithm.update(algorithm_key, step, state.algorithm, batch, hypers)
        return RunState(algorithm_state, source_state), Report(metrics, stats)

    return Run(init, update)


def scan(run: Run, num_updates: int) -> Callable[[Key, Array, RunState, Any], tuple[RunState, Report]]:
    """Runs a fixed number of updates and keeps every report.

    Args:
        run: what to run.
        num_updates: how many updates, `n`.

    Returns:
        `(key, step, state, hypers) -> (state, reports)`, jitted, where `step` is the number of updates done before and
        every leaf of `reports` is `[n]`.  The given state is donated: its buffers are reused and must not be read
        again.
    """

    def many(key, step, state, hypers):
        def body(state, step):
            return run.update(key, step, state, hypers)

        return lax.scan(body, state, step + jnp.arange(num_updates, dtype=jnp.int32))

    return jax.jit(many, donate_argnums=2)


def window(run: Run) -> Callable[[Key, Array, Array, RunState, Any], tuple[RunState, Report]]:
    """Runs updates `start … stop - 1` and reduces their reports to one.

    The bounds are traced, so that one compiled program serves windows of any length.

    Args:
        run: what to run.

    Returns:
        `(key, start, stop, state, hypers) -> (state, report)`, not jitted: metrics are averaged over the window, stats
        are summed.
    """

    def reduced(key, start, stop, state, hypers):
        def body(step, carry):
            state, total, excess = carry
            state, report = run.update(key, step, state, hypers)
            term = jax.tree.map(jnp.subtract, report, excess)
            grown = jax.tree.map(jnp.add, total, term)
            # What the sum took up beyond its term, by Kahan 1965: a float would stop counting after 2²⁴ ones.
            excess = jax.tree.map(lambda new, old, term: (new - old) - term, grown, total, term)
            return state, grown, excess

        shapes = jax.eval_shape(run.update, key, start, state, hypers)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        state, total, _ = lax.fori_loop(start, stop, body, (state, zeros, zeros))
        count = (stop - start).astype(jnp.float32)
        return state, total._replace(metrics=jax.tree.map(lambda leaf: leaf / count, total.metrics))

    return reduced
