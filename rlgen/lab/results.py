"""Scores a trained sweep and writes its results: `metrics.npz`, `summary.json` and pictures.

`curves.png` is drawn always, `response.png` where there is a grid, `values.png` where the values of a table lie in a
plane.

Shape legend: `L` lanes, `G` grid points, `S` seeds, `U` windows of updates.
"""

import collections
import dataclasses
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from rlgen import sweep
from rlgen.lab import checkpoints, devices, folders, grids
from rlgen.lab.lanes import compile_score, to_host
from rlgen.lab.request import Plan, revision, versions
from rlgen.lab.training import RUN, Work
from rlgen.train import Report

Summary = dict[str, Any]


class Outcome(NamedTuple):
    """What training came to.

    Attributes:
        history: leaves `[L, U]`.
        scores: `[L]`; nan where a lane diverged, or no episode of an online score ended.
        first_bad: `[L]` window in which a lane diverged, `U` where it did not.
    """

    history: Report
    scores: NDArray[np.float64]
    first_bad: NDArray[np.intp]


def score(work: Work) -> Outcome:
    """Scores every lane by its experiment's own measure, from its last checkpoint or from all of its reports.

    Args:
        work: its clocks are set.

    Returns:
        The outcome.

    Raises:
        CheckpointError: if a checkpoint is damaged.
        Interrupted: if that was asked for.
        StalledDevice: if a device stops.
    """
    lanes, bound = work.lanes, work.lanes.plan.bound
    work.progress.phase("scoring", work.updates)
    online = lanes.plan.experiment.task.online
    step, compiled = np.int32(bound.num_updates), None
    histories, scores, finite, abouts = [], [], [], []
    for index, group in enumerate(lanes.groups):
        work.interrupts.check()
        saved = lanes.finished(work.folder, index)
        finite.append(to_host(sweep.finite(saved.state), len(group)))
        histories.append(saved.history)
        abouts.append(saved.about)
        if online:
            scores.append(_online(lanes.plan, saved.history))
            continue
        keys, hypers = lanes.inputs(index)
        state = lanes.place(saved.state)
        if compiled is None:
            begun = time.perf_counter()
            lowered = compile_score(lanes).lower(lanes.data, keys, step, state.algorithm, hypers)
            compiled = devices.Call(lowered.compile).result()
            work.compile_seconds += time.perf_counter() - begun
        call = devices.Call(compiled, lanes.data, keys, step, state.algorithm, hypers)
        scores.append(to_host(work.wait(call, "the score"), len(group)))
    work.run_seconds = _slowest(abouts)
    history = jax.tree.map(lambda *leaves: np.concatenate(leaves), *histories)
    values = np.concatenate(scores).astype(np.float64)
    # What is scored while it learns may have no value, where no episode ended; any other score is a number, or broke.
    first_bad = _first_bad(history, np.concatenate(finite) & (np.isfinite(values) | online))
    num_windows = len(lanes.plan.bounds) - 1
    return Outcome(history, np.where(first_bad < num_windows, np.nan, values), first_bad)


def _slowest(abouts: Sequence[checkpoints.About]) -> float:
    """Gives how long the processes took side by side, from how long each group of lanes took."""
    seconds: dict[int, float] = collections.defaultdict(float)
    for about in abouts:
        seconds[about.process] += about.seconds[RUN]
    return max(seconds.values())


def _online(made: Plan, history: Report) -> NDArray[np.float64]:
    """Takes the curve of the whole run as one window, `[L]`; nan where it has no value."""
    lengths = np.diff(made.bounds)
    metrics = jax.tree.map(lambda leaf: np.average(leaf, axis=-1, weights=lengths), history.metrics)
    stats = jax.tree.map(lambda leaf: leaf.sum(axis=-1, dtype=np.float64), history.stats)
    with np.errstate(invalid="ignore", divide="ignore"):  # no episode ended, or the metrics of a lane that diverged
        return np.asarray(made.experiment.task.curve(Report(metrics, stats)), np.float64)


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
    from rlgen.lab import statistics  # which imports SciPy

    made, folder = work.lanes.plan, work.folder
    arrays = _arrays(made, outcome)
    folders.write_arrays(folder / folders.METRICS, arrays)
    better = made.experiment.task.higher_is_better
    estimates = statistics.estimates(arrays["score"], higher_is_better=better)
    _draw_curves(folder / folders.CURVES, made, arrays, outcome, estimates.value)
    _draw_response(folder / folders.RESPONSE, made, estimates)
    _draw_values(folder / folders.VALUES, work, outcome)
    diverged = outcome.first_bad.reshape(arrays["score"].shape) < len(arrays["update"])
    summary = _summary(work, arrays["score"], diverged, estimates)
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


def _draw_curves(
    path: Path, made: Plan, arrays: dict[str, NDArray[Any]], outcome: Outcome, iqms: NDArray[np.float64]
) -> None:
    """Draws the curves, of the best points only where there are many; a seed that diverged ranks as the worst."""
    from rlgen.lab import plots  # which imports SciPy and Matplotlib

    bad = np.arange(len(arrays["update"])) >= outcome.first_bad.reshape(arrays["score"].shape)[..., None]
    task = made.experiment.task
    higher_is_better = task.higher_is_better and task.watched is None
    curves = np.where(bad, -np.inf if higher_is_better else np.inf, arrays["curve"])
    seeds, num_points = made.request.seeds, len(made.points)
    points, title = range(num_points), made.experiment.name
    if num_points > grids.MAX_CURVES:
        points = grids.best(iqms, higher_is_better=task.higher_is_better)[: grids.NUM_BEST]
        title += f": the best {len(points)} of {num_points:,} grid points"
    folders.write(
        path,
        lambda partial: plots.learning_curves(
            partial,
            arrays["env_steps"],
            {made.label(point) or f"{seeds} seed{'s'[: seeds > 1]}": curves[point] for point in points},
            ylabel=task.watched or task.metric,
            title=title,
            target=None if task.watched else _target(made),
            higher_is_better=higher_is_better,
        ),
    )


def _draw_response(path: Path, made: Plan, estimates: Any) -> None:
    """Draws how the score depends on the grid, if there is one."""
    from rlgen.lab import plots

    task = made.experiment.task
    points = [{name: getattr(point, name) for name in made.axes} for point in made.points]
    chart = grids.chart(points, estimates.value, higher_is_better=task.higher_is_better)
    if chart is None:
        return
    title = f"{made.experiment.name}: {made.request.seeds} seed{'s'[: made.request.seeds > 1]} a point"
    folders.write(
        path,
        lambda partial: plots.response(
            partial,
            chart,
            estimates,
            ylabel=task.metric,
            title=title,
            target=_target(made),
            higher_is_better=task.higher_is_better,
        ),
    )


def _draw_values(path: Path, work: Work, outcome: Outcome) -> None:
    """Draws the values of the best lane, if they lie in a plane."""
    from rlgen.lab import maps

    made = work.lanes.plan
    where = maps.plane(made.experiment.task)
    if where is None:
        return
    lane = grids.best(outcome.scores, higher_is_better=made.experiment.task.higher_is_better)[0]
    index = next(index for index, group in enumerate(work.lanes.groups) if lane in group)
    at = lane - work.lanes.groups[index].start
    state = jax.tree.map(lambda leaf: leaf[at], work.lanes.finished(work.folder, index).state.algorithm)
    point, seed = divmod(lane, made.request.seeds)
    what = maps.learned(made.experiment, state, made.points[point])
    if what is not None:
        label = ", ".join(filter(None, (f"seed {seed}", made.label(point))))
        title = f"{made.experiment.name}: the best run, {label}"
        folders.write(path, lambda partial: maps.draw(partial, where, what, title=title))


def _target(made: Plan) -> Any:
    """Gives the target as pictures show it."""
    from rlgen.lab import plots

    target = made.experiment.target
    return plots.Target(target.value, target.source) if target else None


def _summary(work: Work, scores: NDArray[np.float64], diverged: NDArray[np.bool_], estimates: Any) -> Summary:
    """Sums a run up; `scores` and `diverged` are `[G, S]`, `estimates` of `[G]`."""
    made, request, bound = work.lanes.plan, work.lanes.plan.request, work.lanes.plan.bound
    env_steps = bound.num_updates * bound.steps_per_update
    points = [_point(*row) for row in zip(made.points, scores, diverged, *estimates, strict=True)]
    target = made.experiment.target
    return {
        "experiment": made.experiment.name,
        "changed": made.changed,
        "seeds": request.seeds,
        "seed": request.seed,
        "env_steps": env_steps,
        "updates": bound.num_updates,
        "compile_seconds": round(work.compile_seconds, 3),
        "run_seconds": round(work.run_seconds, 3),
        "steps_per_second": round(env_steps * made.num_lanes / work.run_seconds, 1),
        "peak_rss_mb": round(_peak_rss_mb(), 1),
        "devices": devices.names(work.lanes.mesh) * work.processes.count,
        "metric": made.experiment.task.metric,
        "points": points,
        "target": target and {"value": target.value, "direction": target.direction, "source": target.source},
        "reached": target and any(point["iqm"] is not None and target.reached(point["iqm"]) for point in points),
        "config": folders.strict(dataclasses.asdict(made.experiment.config)),
        "begun": {name: folders.read_json(work.folder / folders.CONFIG).get(name) for name in ("versions", "git")},
        "versions": versions(),
        "git": revision(),
    }


def _point(
    hypers: Any, scores: NDArray[np.float64], diverged: NDArray[np.bool_], iqm: float, low: float, high: float
) -> dict[str, Any]:
    """Sums a grid point up."""
    summary = {
        "hypers": hypers._asdict(),
        "iqm": float(iqm),
        "ci95": [float(low), float(high)],
        "per_seed": scores.tolist(),
        "diverged_seeds": np.flatnonzero(diverged).tolist(),
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
    aim += f" with {', '.join(summary['changed'])}" if target and summary["changed"] else ""
    num_diverged = sum(len(point["diverged_seeds"]) for point in points)
    diverged = f"; {num_diverged} run{'s'[: num_diverged > 1]} diverged" if num_diverged else ""
    num_without = sum(point["per_seed"].count(None) for point in points) - num_diverged
    diverged += f"; {num_without} run{'s'[: num_without > 1]} without an episode to score" if num_without else ""
    return (
        f"{summary['experiment']}: IQM of the {summary['metric']} {value} over {summary['seeds']} seeds,"
        f" {summary['steps_per_second']:,.0f} steps/s{aim}{diverged}; {folder}"
    )
