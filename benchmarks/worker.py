"""Times one experiment of the catalogue in a process of its own and prints one line of JSON.

Run it as::

    JAX_NUM_CPU_DEVICES=2 python -m benchmarks.worker policy/ppo/CartPole-v1 '{"seeds": 16}'

Options: `seeds`, `steps` or `updates` of each, `config` and `hypers` (fields to replace), and `scored`: whether the
final return is what the trained policies score, and not that of the last episodes of training.  Lanes are sharded over
all devices, and a single small one has a thread of its own, as in a sweep.
"""

import dataclasses
import itertools
import json
import resource
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.peers import timing
from rlgen import sweep
from rlgen.experiments import catalogue
from rlgen.experiments.experiment import Bound, Experiment, bind
from rlgen.lab import lanes

WINDOW = 4_000  # updates in a call at most; of each, XLA's CPU backend holds on to a little memory until the call ends


def replaced(row: Experiment, options: dict[str, Any]) -> Experiment:
    """The row with fields of its config, hypers and budget replaced."""
    config = dataclasses.replace(row.config, **options.get("config", {}))
    steps = options.get("steps", row.steps)
    if "updates" in options:
        steps = options["updates"] * row.task.steps_per_update(config)
    hypers = row.hypers._replace(**options.get("hypers", {}))
    return dataclasses.replace(row, config=config, hypers=hypers, steps=steps)


class Prepared(NamedTuple):
    """A sweep before its first update.

    Attributes:
        advance: of its `Sweep`.
        data: what its lanes share.
        keys: `[L]`.
        hypers: leaves `[L]`.
        state: leaves `[L, ...]`.
    """

    advance: jax.stages.Wrapped
    data: Any
    keys: Any
    hypers: Any
    state: Any

    def arguments(self) -> tuple[Any, ...]:
        """What `advance` takes for the first update."""
        return self.data, self.keys, jnp.int32(0), jnp.int32(1), self.state, self.hypers


def prepare(row: Experiment, bound: Bound, seeds: int, mesh: Mesh) -> Prepared:
    """Compiles and runs what makes the first state."""
    data = lanes.load_data(row)
    program = sweep.build(bound.make_run, mesh)
    keys = sweep.place(sweep.keys(timing.seed(), seeds), mesh)
    hypers = sweep.place(sweep.stack([bound.hypers], seeds), mesh)
    return Prepared(program.advance, data, keys, hypers, jax.block_until_ready(program.init(data, keys, hypers)))


def measure(row: Experiment, bound: Bound, seeds: int, *, scored: bool = False) -> dict[str, Any]:
    """Compiles a whole run ahead of time, then times it from its first to its last update."""
    mesh = lanes.suited(sweep.mesh(min(jax.device_count(), seeds)), seeds, bound, lanes.load_data(row))
    prepared = prepare(row, bound, seeds, mesh)
    data, keys, hypers, state = prepared.data, prepared.keys, prepared.hypers, prepared.state
    memory_held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    stop, tail = bound.num_updates, bound.num_updates - timing.tail(bound.num_updates)
    edges = [*range(0, tail, WINDOW), tail]

    start = time.perf_counter()
    lowered = prepared.advance.lower(*prepared.arguments())
    lower_seconds = time.perf_counter() - start
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()

    start = time.perf_counter()
    for window in itertools.pairwise(edges):
        state, _ = compiled(data, keys, *map(jnp.int32, window), state, hypers)
    state, report = jax.block_until_ready(compiled(data, keys, jnp.int32(tail), jnp.int32(stop), state, hypers))
    run_seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    returns = row.task.curve(report)
    if scored:
        score = jax.jit(sweep.spread(bound.score, mesh, (False, True, False, True, True)))
        returns = score(data, keys, jnp.int32(stop), state.algorithm, hypers)
    returns = np.asarray(returns, float)
    return {
        "lower_seconds": lower_seconds,
        "compile_seconds": compile_seconds,
        "run_seconds": run_seconds,
        "steps_per_second": seeds * bound.num_updates * bound.steps_per_update / run_seconds,
        "final_return": float(np.nanmedian(returns)),
        "final_returns": returns.ravel().tolist(),
        "state_bytes": memory_held,
        "peak_rss_mb": peak / 1024,
        "temporary_mb": memory.temp_size_in_bytes / 2**20 if memory else None,
        "versions": timing.versions(),
        "device": timing.device(),
    }


def main(name: str, options: dict[str, Any]) -> None:
    """Measures one row and prints what it took."""
    seeds, scored = options.get("seeds", 1), options.get("scored", False)
    row = replaced(catalogue.find(name), options)
    print(json.dumps(measure(row, bind(row), seeds, scored=scored)))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
