"""Runs: what a window says of its updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlgen import train


class Metrics(NamedTuple):
    value: jax.Array


class Stats(NamedTuple):
    count: jax.Array


def test_a_window_counts_on_where_a_float_would_stop():
    def update(key, step, state, hypers):
        large = jnp.float32(2**24)
        return state, train.Report(Metrics(jnp.where(step < 3, large, 1.0)), Stats(jnp.where(step < 3, large, 1.0)))

    window = jax.jit(train.window(train.Run(lambda key, hypers: (), update)))
    _, report = window(jax.random.key(0), jnp.int32(2), jnp.int32(1003), (), ())
    assert report.stats.count == 2**24 + 1000  # each of the ones alone would be lost
    assert abs(report.metrics.value - (2**24 + 1000) / 1001) < 1e-2
