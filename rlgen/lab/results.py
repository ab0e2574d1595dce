"""Scores a trained sweep and writes its results: `metrics.npz`, `curves.png` and `summary.json`.

Shape legend: `L` lanes, `G` grid points, `S` seeds, `U` windows of updates.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from rlgen import sweep
from rlgen.lab import devices, folders
from rlgen.lab.lanes import compile_score, to_host
from rlgen.lab.request import Plan, revision, versions
from rlgen.lab.training import Work
from rlgen.train import Report

Summary = dict[str, Any]


class Outcome(NamedTuple):
    """What training came to.

    Attributes:
        history: leaves `[L, U]`.
        scores: `[L]`; nan where a lane diverged.
        first_bad: `[L]` window in which a lane diverged, `U` where it did not.
    """

    history: Report
    scores: NDArray[np.float64]
    first_bad: NDArray[np.intp]


def score(work: Work) -> Outcome:
    """Scores every lane by its experiment's own measure, from its last checkpoint.

    Args:
        work: its clock of compilation is set forward.

    Returns:
        The outcome.

    Raises:
        CheckpointError: if a checkpoint is damaged.
        Interrupted: if that was asked for.
        StalledDevice: if a device stops.
    """
    lanes, bound = work.lanes, work.lanes.plan.bound
    work.progress.phase("scoring", work.updates)
    function = compile_score(lanes)
    step, compiled = np.int32(bound.num_updates), None
    histories, scores, finite = [], [], []
    for index, group in enumerate(lanes.groups):
        work.interrupts.check()
        saved = lanes.finished(work.folder, index)
        keys, hypers = lanes.inputs(index)
        state = lanes.place(saved.state)
        if compiled is None:
            begun = time.perf_counter()
            lowered = function.lower(lanes.data, keys, step, state.algorithm, hypers)
            compiled = devices.Call(lowered.compile).result()
            work.compile_seconds += time.perf_counter() - begun
        call = devices.Call(compiled, lanes.data, keys, step, state.algorithm, hypers)
        scores.append(to_host(work.wait(call, "the score"), len(group)))
        finite.append(to_host(sweep.finite(saved.state), len(group)))
        histories.append(saved.history)
    history = jax.tree.map(lambda *leaves: np.concatenate(leaves), *histories)
    values = np.concatenate(scores).astype(np.float64)
    first_bad = _first_bad(history, np.concatenate(finite) & np.isfinite(values))
    num_windows = len(lanes.plan.bounds) - 1
    return Outcome(history, np.where(first_bad < num_windows, np.nan, values), first_bad)


def _first_bad(history: Report, finite_end: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Finds the window in which each lane diverged, `[L]`; `U` where it did not."""
    good = np.logical_and.reduce([np.isfinite(leaf) for leaf in jax.tree.leaves(history.metrics)])
    good[:, -1] &= finite_end
    return np.where(good.all(axis=1), good.shape[1], np.argmin(good, axis=1))


def write(work: Work, outcome: Outcome) -> Summary:
    """Writes the results, `summary.json` last: a run is finished where there is one.

    Args:
        work: what was done.
        outcome: what it came to.

    Returns:
        The summary.
    """
    made, folder = work.lanes.plan, work.folder
    arrays = _arrays(made, outcome)
    folders.write_arrays(folder / folders.METRICS, arrays)
    _draw(folder / folders.CURVES, made, arrays, outcome)
    summary = _summary(work, arrays["score"])
    folders.write_json(folder / folders.SUMMARY, summary)
    return summary


def _arrays(made: Plan, outcome: Outcome) -> dict[str, NDArray[Any]]:
    """Lays lanes out as `[G, S, U]`."""
    shape = (len(made.points), made.request.seeds)
    update = np.array(made.bounds[1:])
    with np.errstate(invalid="ignore", divide="ignore"):  # windows in which no episode ended
        curve = np.asarray(made.experiment.task.curve(outcome.history), np.float64)
    curve = np.where(np.arange(len(update)) >= outcome.first_bad[:, None], np.nan, curve)
    arrays = {"update": update, "env_steps": update * made.bound.steps_per_update, "curve": curve}
    for path, leaf in jax.tree.leaves_with_path(outcome.history):
        arrays[jax.tree_util.keystr(path, simple=True, separator="/")] = leaf
    arrays["score"] = outcome.scores
    shared = ("update", "env_steps")
    return {name: leaf if name in shared else leaf.reshape(shape + leaf.shape[1:]) for name, leaf in arrays.items()}


def _draw(path: Path, made: Plan, arrays: dict[str, NDArray[Any]], outcome: Outcome) -> None:
    """Draws the curves; a seed that diverged ranks as the worst from there on."""
    from rlgen.lab import plots  # which imports SciPy and Matplotlib

    bad = np.arange(len(arrays["update"])) >= outcome.first_bad.reshape(arrays["score"].shape)[..., None]
    task = made.experiment.task
    curves = np.where(bad, -np.inf if task.higher_is_better else np.inf, arrays["curve"])
    seeds, target = made.request.seeds, made.experiment.target
    folders.write(
        path,
        lambda partial: plots.learning_curves(
            partial,
            arrays["env_steps"],
            {made.label(point) or f"{seeds} seed{'s'[: seeds > 1]}": curve for point, curve in enumerate(curves)},
            ylabel=task.metric,
            title=made.experiment.name,
            target=plots.Target(target.value, target.source) if target else None,
            higher_is_better=task.higher_is_better,
        ),
    )


def _summary(work: Work, scores: NDArray[np.float64]) -> Summary:
    """Sums a run up; `scores` are `[G, S]`."""
    made, request, bound = work.lanes.plan, work.lanes.plan.request, work.lanes.plan.bound
    env_steps = bound.num_updates * bound.steps_per_update
    points = [_point(made, point, values) for point, values in enumerate(scores)]
    target = made.experiment.target
    return {
        "experiment": made.experiment.name,
        "seeds": request.seeds,
        "seed": request.seed,
        "env_steps": env_steps,
        "updates": bound.num_updates,
        "compile_seconds": round(work.compile_seconds, 3),
        "run_seconds": round(work.run_seconds, 3),
        "steps_per_second": round(env_steps * made.num_lanes / work.run_seconds, 1),
        "peak_rss_mb": round(_peak_rss_mb(), 1),
        "devices": devices.names(work.lanes.mesh),
        "metric": made.experiment.task.metric,
        "points": points,
        "target": target and {"value": target.value, "direction": target.direction, "source": target.source},
        "reached": target and any(point["iqm"] is not None and target.reached(point["iqm"]) for point in points),
        "versions": versions(),
        "git": revision(),
    }


def _point(made: Plan, point: int, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Sums a grid point up."""
    from rlgen.lab import statistics  # which imports SciPy

    better = made.experiment.task.higher_is_better
    summary = {
        "hypers": made.points[point]._asdict(),
        "iqm": statistics.iqm(scores, higher_is_better=better),
        "ci95": list(statistics.interval(scores, higher_is_better=better)),
        "per_seed": scores.tolist(),
        "diverged_seeds": np.flatnonzero(np.isnan(scores)).tolist(),
    }
    return folders.strict(summary)


def _peak_rss_mb() -> float:
    """The most memory that this process has held; Linux counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def line(made: Plan, summary: Summary, folder: Path) -> str:
    """Says in one line what a run came to, at its best grid point.

    Args:
        made: the plan of the run.
        summary: of the run.
        folder: the run folder.

    Returns:
        The line.
    """
    target, points = summary["target"], summary["points"]
    sign = 1 if made.experiment.task.higher_is_better else -1
    known = [index for index, point in enumerate(points) if point["iqm"] is not None]
    best = max(known, key=lambda index: sign * points[index]["iqm"], default=0)
    iqm, (low, high) = points[best]["iqm"], points[best]["ci95"]
    value = "not defined" if iqm is None else f"{iqm:.5g}"
    value += "" if low is None or high is None else f" [{low:.5g}, {high:.5g}]"
    value += f" at {made.label(best)}" if made.axes else ""
    aim = f"; target {target['value']:g} {'' if summary['reached'] else 'not '}reached" if target else ""
    num_diverged = sum(len(point["diverged_seeds"]) for point in points)
    diverged = f"; {num_diverged} run{'s'[: num_diverged > 1]} diverged" if num_diverged else ""
    return (
        f"{summary['experiment']}: IQM of the {summary['metric']} {value} over {summary['seeds']} seeds,"
        f" {summary['steps_per_second']:,.0f} steps/s{aim}{diverged}; {folder}"
    )
