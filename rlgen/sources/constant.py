"""Gives the same batch at every update: tests, full-batch learning, fixed offline data."""

from typing import Any

from rlgen.core import Source, Tree


def build(batch: Tree) -> Source:
    """Builds a source that always gives `batch`, with no state and no stats."""

    def init(key, policy) -> Any:
        del key, policy
        return ()

    def next_batch(key, step, state, policy):
        del key, step, policy
        return state, batch, ()

    return Source(init, next_batch)
