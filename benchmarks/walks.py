"""Times 100 000 runs of n-step TD on the random walk: the catalogue's grid, its walks made once for all grid points.

The policy that walks does not depend on what is learned, so the walks of a seed serve all window lengths and step
sizes.  Composing the pure functions of the algorithm and of its source so, seeds outside and hyperparameters inside,
gives the numbers of the ordinary sweep, which makes every walk a thousand times over.
"""

import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from rlgen import sweep
from rlgen.experiments import catalogue
from rlgen.experiments.experiment import Bound, Experiment, bind
from rlgen.lab import devices

NAME = "tabular/n_step_td/RandomWalk19"
SEEDS, SEEDS_AT_A_TIME, CHECKED = 100, 10, 7  # seeds, and every how many grid points are checked against the sweep


def learned(key: Any, points: Any, *, row: Experiment) -> jax.Array:
    """The error of one seed at every grid point, `[G]`."""
    algorithm, source = row.algorithm.build(row.task.spec, row.config), row.task.source(row.config, ())
    init_key, updates_key = jax.random.split(key)
    algorithm_key, source_key = jax.random.split(init_key)
    states = jax.vmap(algorithm.init, (None, 0))(algorithm_key, points)
    step = jnp.int32(0)
    policy = algorithm.policy(step, jax.tree.map(lambda leaf: leaf[0], states), row.hypers, explore=True)
    walks = source.init(source_key, policy)
    source_key, algorithm_key = jax.random.split(jax.random.fold_in(updates_key, 0))
    _, batch, _ = source.next(source_key, step, walks, policy)
    return jax.vmap(algorithm.update, (None, None, 0, None, 0))(algorithm_key, step, states, batch, points)[1].error


def checked(row: Experiment, bound: Bound, points: list[Any], errors: np.ndarray) -> None:
    """Compares some grid points with the ordinary sweep's.

    Raises:
        RuntimeError: if they differ.
    """
    some, seeds = points[::CHECKED], SEEDS_AT_A_TIME
    hypers, keys = sweep.stack(some, seeds), sweep.keys(0, SEEDS)[:seeds]
    functions = sweep.build(bound.make_run, sweep.mesh(1))
    lanes = jnp.tile(keys, len(some))
    state = functions.init((), lanes, hypers)
    _, report = functions.advance((), lanes, jnp.int32(0), jnp.int32(1), state, hypers)
    if not np.allclose(report.metrics.error.reshape(len(some), seeds).T, errors[:seeds, ::CHECKED], rtol=1e-5):
        raise RuntimeError("the walks that are shared do not give what the sweep gives")


def run(repeats: int) -> None:
    """Times all runs and saves the median.

    Args:
        repeats: timings.
    """
    measure.check_counts(repeats=repeats)
    devices.configure("auto")
    row = catalogue.find(NAME)
    bound = bind(row)
    points, mesh = sweep.points(bound.hypers, row.grid), sweep.mesh()
    hypers = jax.tree.map(lambda *leaves: jnp.array(leaves, jnp.float32), *points)
    keys = sweep.keys(0, SEEDS)
    begun = time.perf_counter()
    function = jax.jit(sweep.spread(functools.partial(learned, row=row), mesh, (True, False)))
    program = function.lower(sweep.place(keys[:SEEDS_AT_A_TIME], mesh), hypers).compile()
    compile_seconds = time.perf_counter() - begun
    wall, processor, errors = [], [], np.zeros(0)
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        pieces = [
            np.asarray(program(sweep.place(keys[start : start + SEEDS_AT_A_TIME], mesh), hypers))
            for start in range(0, SEEDS, SEEDS_AT_A_TIME)
        ]
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
        errors = np.concatenate(pieces)
    checked(row, bound, points, errors)
    content = {
        "work": f"{NAME}: {len(points):,} grid points × {SEEDS} seeds, {bound.steps_per_update:,} steps each",
        "compile_seconds": compile_seconds,
        "seconds": statistics.median(wall),
        "processor_seconds": statistics.median(processor),
        "runs": errors.size,
        "lowest_error": float(errors.mean(0).min()),
        "at": points[int(errors.mean(0).argmin())]._asdict(),
        "machine": measure.machine(),
    }
    path = measure.save("speed", "tabular_walks", content)
    print(
        f"{path}: {errors.size:,} runs in {content['seconds']:.1f} s, {content['processor_seconds']:.1f} s of processor"
    )
