"""Measures how close the rows of the speed table come to what the machine allows.

Three limits of each row, measured in the same process as its speed: the machine's peak of large float32 products, the
time that the row's own products take alone, at their shapes, and the speed of its environments under a random policy
with nothing learned.  The row's speed is that of the second half of its run, when every update learns.

`python -m benchmarks.limits EXPERIMENT OPTIONS` measures one row and prints one line of JSON.
"""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks import comparisons, measure, products, worker
from rlgen import sweep, train
from rlgen.core import Algorithm, Array, Key, Policy, Space, memoryless
from rlgen.experiments import catalogue
from rlgen.experiments.experiment import Bound, Experiment, bind
from rlgen.experiments.tasks import Rollouts
from rlgen.lab import lanes
from rlgen.lab.products import count, flops
from rlgen.parts import control

CEILING_SECONDS = 1.0  # how long the environments alone are run for, about


def idle(space: Space | tuple[Space, ...]) -> Algorithm:
    """An algorithm that acts at random, with several agents each by itself, and learns nothing."""

    def policy(step: Array, state: Any, hypers: Any, *, explore: bool) -> Policy:
        del step, state, hypers, explore

        def apply(key: Key, obs: Any, memory: Any):
            shape = jax.tree.leaves(obs)[0].shape[:1]
            if not isinstance(space, tuple):
                return control.at_random(key, space, shape), {}, memory
            keys = jax.random.split(key, len(space))
            return tuple(control.at_random(*each, shape) for each in zip(keys, space, strict=True)), {}, memory

        return memoryless(apply)

    return Algorithm(lambda key, hypers: (), lambda key, step, state, batch, hypers: (state, ()), policy)


def ceiling(row: Experiment, seeds: int, mesh: Mesh) -> float | None:
    """Steps a second of a row's environments under a random policy; None where it has none."""
    task = row.task
    if not isinstance(task, Rollouts):
        return None

    def make_run(data: Any) -> train.Run:
        return train.make(idle(task.spec.action), task.source(row.config, data))

    program = sweep.build(make_run, mesh)
    keys = sweep.place(sweep.keys(0, seeds), mesh)
    state = program.init((), keys, ())

    def timed(state: Any, updates: int) -> tuple[float, Any]:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program.advance((), keys, jnp.int32(0), jnp.int32(updates), state, ()))
        return time.perf_counter() - start, state

    _, state = timed(state, 1)
    updates = 1
    while True:
        taken, state = timed(state, updates)
        if taken > CEILING_SECONDS / 2:
            return seeds * updates * task.steps_per_update(row.config) / taken
        updates = max(2 * updates, int(updates * CEILING_SECONDS / max(taken, 1e-6)))


def limits(row: Experiment, bound: Bound, seeds: int, mesh: Mesh) -> dict[str, Any]:
    """Measures a row and its limits."""
    mesh = lanes.suited(mesh, seeds, bound, lanes.load_data(row))  # as the row is timed, and as it is swept
    prepared = worker.prepare(row, bound, seeds, mesh)
    traced = prepared.advance.trace(*prepared.arguments())
    compiled = traced.lower().compile()
    counts = count(traced.jaxpr.jaxpr)
    stop, state = bound.num_updates, prepared.state
    for first, last in ((0, stop // 2), (stop // 2, stop)):
        start = time.perf_counter()
        state, _ = compiled(prepared.data, prepared.keys, jnp.int32(first), jnp.int32(last), state, prepared.hypers)
        jax.block_until_ready(state)
        seconds = (time.perf_counter() - start) / (last - first)
    work, alone = mesh.size * flops(counts), products.seconds(counts, mesh)
    peak = products.peak(sweep.mesh(jax.device_count()))  # with every device busy, whichever the row has
    steps = seeds * bound.steps_per_update
    return {
        "steps_per_second": steps / seconds,
        "flops_per_step": work / steps,
        "flops_per_second": work / seconds,
        "peak_flops_per_second": peak,
        "share_of_peak": work / seconds / peak,
        "share_of_products": alone / seconds,
        "ceiling_steps_per_second": ceiling(row, seeds, mesh),
    }


def run(only: str) -> None:
    """Measures rows of the speed table beside their limits; rows that differ in the peer alone are measured once.

    Args:
        only: pattern of row names.

    Raises:
        UsageError: if none matches.
    """
    names = measure.chosen(only, (row.name for row in comparisons.ROWS))
    cores, known = str(measure.machine()["cores"]), set()
    for row in comparisons.ROWS:
        asked = json.dumps(row.options)
        if row.name not in names or (row.experiment, asked) in known:
            continue
        known.add((row.experiment, asked))
        command = [sys.executable, "-m", "benchmarks.limits", row.experiment, asked]
        said = measure.call(command, {"JAX_NUM_CPU_DEVICES": cores})
        content = {"name": row.name, "work": row.work, **said, "machine": measure.machine()}
        print(f"{measure.save('limits', row.name, content)}: {said['share_of_products']:.0%} in matrix products")


def main(name: str, options: dict[str, Any]) -> None:
    """Measures one row and prints it beside its limits."""
    seeds = options.get("seeds", 1)
    row = worker.replaced(catalogue.find(name), options)
    print(json.dumps(limits(row, bind(row), seeds, sweep.mesh(min(jax.device_count(), seeds)))))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
