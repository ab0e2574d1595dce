"""Compares finished runs: a Markdown table, pictures, and how likely one run is to beat another.

The numbers of the table are those of the summaries; runs are compared after Agarwal et al. 2021 (arXiv:2108.13264).
Where a run has several grid points and is set against another run, its best point stands for it, picked on the very
scores that are compared: optimistic where the grid is large.

Shape legend: `G` grid points, `S` seeds, `U` windows of updates.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlgen.lab import folders, grids, plots, statistics
from rlgen.lab.finished import Point, RunFolder

REPORT = "report.md"
MAX_ROWS = 50  # of a run in the table


def markdown(runs: Sequence[RunFolder]) -> str:
    """Writes the table of the points of all runs, and how likely the first run beats the second.

    Of a run with more than `MAX_ROWS` points the best are listed, from the best down.

    Args:
        runs: as loaded.

    Returns:
        A Markdown document without pictures.
    """
    header = ("run", "experiment", "hypers", "seeds", "steps", "IQM [95 % interval]", "target", "reached", "steps/s")
    header += ("changed",)
    rows = [header, ("---",) * len(header)]
    varied = _varied(runs)
    for run, label in zip(runs, _labels(runs), strict=True):
        points = [run.points[index] for index in _listed(run, MAX_ROWS, MAX_ROWS)]
        rows += [_row(run, point, label, varied[run.summary["experiment"]]) for point in points]
    table = "\n".join(f"| {' | '.join(_escape(cell) for cell in row)} |" for row in rows)
    plural = "" if len(runs) == 1 else "s"
    parts = [f"# Report on {len(runs)} run{plural}", table]
    parts += [
        f"Of the {len(run.points):,} grid points of {label} the best {MAX_ROWS} are listed."
        for run, label in zip(runs, _labels(runs), strict=True)
        if len(run.points) > MAX_ROWS
    ]
    if len(runs) > 1:
        parts.append(_improvement(runs))
    return "\n\n".join(parts) + "\n"


def write(runs: Sequence[RunFolder], out: Path) -> Path:
    """Writes a report on runs: `report.md` and its pictures.

    Args:
        runs: as loaded.
        out: the folder to write into, made if it is not there.

    Returns:
        The path of `report.md`.

    Raises:
        FolderError: if a file cannot be written; what was there before is left as it was.
        ValueError: if there are no runs.
    """
    if not runs:
        raise ValueError("a report needs a run")
    out.mkdir(parents=True, exist_ok=True)
    labels = _labels(runs)
    pictures = []
    for number, measure in enumerate(dict.fromkeys(map(_measure, runs)), start=1):
        group = [(run, label) for run, label in zip(runs, labels, strict=True) if _measure(run) == measure]
        task = _task([run for run, _ in group])
        suffix = "" if number == 1 else f"-{number}"
        _draw(group, out / f"comparison{suffix}.png", out / f"profile{suffix}.png")
        pictures += [f"![Learning curves and final scores of {task}](comparison{suffix}.png)"]
        pictures += [f"![Performance profiles of {task}](profile{suffix}.png)"]
    path = out / REPORT
    text = "\n\n".join([markdown(runs).rstrip(), *pictures]) + "\n"
    folders.write(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return path


def _draw(group: Sequence[tuple[RunFolder, str]], comparison: Path, profile: Path) -> None:
    """Draws runs that share a measure: every point of a single run (of many points the best), or the best of each."""
    runs = [run for run, _ in group]
    varied = _varied(runs)
    alone = runs[0] if len(runs) == 1 else None
    by_step = all(run.env_steps.any() for run in runs)
    higher_is_better = _higher_is_better(runs)
    lines = []
    for run, label in group:
        for index in _listed(run, grids.MAX_CURVES, grids.NUM_BEST) if alone else (_best(run, higher_is_better),):
            hypers = _hypers(run.points[index], varied[run.summary["experiment"]])
            name = hypers if alone and hypers else f"{label} {hypers}".strip()
            lines.append(_line(run, index, name, by_step, higher_is_better))
    targets = {run.summary["target"]["value"]: run.summary["target"] for run in runs if run.summary["target"]}
    target = next(iter(targets.values())) if len(targets) == 1 else None
    metric = runs[0].summary["metric"].replace("_", " ")
    subject = alone.summary["experiment"] if alone else _task(runs)
    few = ""
    if alone and len(lines) < len(alone.points):
        few = f", the best {len(lines)} of {len(alone.points):,} grid points"
    folders.write(
        comparison,
        lambda partial: plots.comparison(
            partial,
            lines,
            xlabel="environment steps" if by_step else "updates",
            ylabel=metric,
            title=f"{subject}{few}: interquartile mean over seeds with 95 % interval",
            target=plots.Target(target["value"], target["source"]) if target else None,
            higher_is_better=higher_is_better,
        ),
    )
    scores = {line.label: line.scores for line in lines}
    title = f"{subject}{few}: performance profiles"
    folders.write(
        profile,
        lambda partial: plots.profile(partial, scores, xlabel=metric, title=title, higher_is_better=higher_is_better),
    )


def _line(run: RunFolder, index: int, label: str, by_step: bool, higher_is_better: bool) -> plots.Line:
    """Makes the line of a grid point.

    The nans at the end of a seed that diverged are its divergence and not windows without news.
    """
    point, curves = run.points[index], run.curve[index]
    ended = np.logical_and.accumulate(np.isnan(curves)[:, ::-1], axis=1)[:, ::-1]
    curves = np.where(ended & point.diverged[:, None], -np.inf if higher_is_better else np.inf, curves)
    return plots.Line(label, run.env_steps if by_step else run.update, curves, point.scores)


def _measure(run: RunFolder) -> tuple[str, str]:
    """Says what scores mean, in words of which none but this process has use: runs that differ cannot be compared."""
    from rlgen.experiments.catalogue import EXPERIMENTS  # which imports every algorithm

    row = EXPERIMENTS.get(run.summary["experiment"])
    return run.task if row is None else repr(row.task), run.summary["metric"]


def _task(runs: Sequence[RunFolder]) -> str:
    """Names what runs have in common, by the words with which the names of their tasks begin."""
    words = [run.task.split("-") for run in runs]
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return "-".join(column[0] for column in shared) or runs[0].task


def _higher_is_better(runs: Sequence[RunFolder]) -> bool:
    """Tells whether a higher score is better, as the experiments of runs that share a measure say."""
    from rlgen.experiments.catalogue import EXPERIMENTS  # which imports every algorithm

    rows = [EXPERIMENTS.get(run.summary["experiment"]) for run in runs]
    targets = [run.summary["target"] for run in runs]
    return all(row.task.higher_is_better for row in rows if row) and all(
        target["direction"] == "max" for target in targets if target
    )


def _best(run: RunFolder, higher_is_better: bool) -> int:
    """Finds the grid point of the best IQM; the first one if all diverged."""
    return grids.best([point.iqm for point in run.points], higher_is_better=higher_is_better)[0]


def _listed(run: RunFolder, most: int, num_best: int) -> Sequence[int]:
    """Gives all grid points of a run, or the best ones, from the best down, where there are more than `most`."""
    if len(run.points) <= most:
        return range(len(run.points))
    return grids.best([point.iqm for point in run.points], higher_is_better=_higher_is_better([run]))[:num_best]


def _improvement(runs: Sequence[RunFolder]) -> str:
    """Says how likely a seed of the first run beats one of the second, or why that has no meaning."""
    first, second = runs[:2]
    names = _labels(runs)[:2]
    if _measure(first) != _measure(second):
        return f"{names[0]} and {names[1]} measure different things, so neither improves on the other."
    higher_is_better = _higher_is_better((first, second))
    scores = [run.points[_best(run, higher_is_better)].scores for run in (first, second)]
    chance = statistics.probability_of_improvement(*scores, higher_is_better=higher_is_better)
    best = " at their best grid points" if len(first.points) + len(second.points) > 2 else ""
    words = f"{chance.value:.2f} {_bounds(chance[1:], '.2f')}"
    return f"Probability that a seed of {names[0]} does better than one of {names[1]}{best}: **{words}**."


def _row(run: RunFolder, point: Point, label: str, varied: Sequence[str]) -> tuple[str, ...]:
    """Writes a point's cells of the table."""
    from rlgen.experiments.experiment import Target  # which imports jax

    summary, target = run.summary, run.summary["target"]
    num_diverged = np.count_nonzero(point.diverged)
    diverged = f", {num_diverged} diverged" if num_diverged else ""
    num_without = np.count_nonzero(~np.isfinite(point.scores) & ~point.diverged)
    diverged += f", {num_without} without a score" if num_without else ""
    sign = "≥" if _higher_is_better([run]) else "≤"
    speed = summary["steps_per_second"]
    return (
        label if label != summary["experiment"] else run.path.name,
        summary["experiment"],
        _hypers(point, varied) or "—",
        str(summary["seeds"]),
        f"{summary['env_steps']:,}",
        f"{point.iqm:.5g} {_bounds(point.interval, '.5g')}{diverged}",
        f"{sign} {target['value']:g} ({target['source']})" if target else "—",
        ("yes" if Target(**target).reached(point.iqm) else "no") if target else "—",
        f"{speed:,.0f}" if speed is not None else "—",
        ", ".join(summary["changed"]) or "—",
    )


def _bounds(bounds: Sequence[float], form: str) -> str:
    """Writes an interval; a bound that is not defined is a dash."""
    return "[{}, {}]".format(*("—" if np.isnan(bound) else format(bound, form) for bound in bounds))


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    """Names runs by experiment, or by folder where that is ambiguous, or by path where that is too."""
    experiments = [run.summary["experiment"] for run in runs]
    last = [run.path.name for run in runs]
    named = [run.path.name if experiments.count(experiments[i]) > 1 else experiments[i] for i, run in enumerate(runs)]
    return [str(run.path) if last.count(run.path.name) > 1 else name for run, name in zip(runs, named, strict=True)]


def _varied(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """Lists for each experiment the hyperparameters in which its points differ, over all runs of it."""
    points: dict[str, list[Point]] = {}
    for run in runs:
        points.setdefault(run.summary["experiment"], []).extend(run.points)
    names = {
        experiment: dict.fromkeys(name for point in group for name in point.hypers)
        for experiment, group in points.items()
    }
    return {
        experiment: [name for name in names[experiment] if len({str(point.hypers.get(name)) for point in group}) > 1]
        for experiment, group in points.items()
    }


def _hypers(point: Point, names: Sequence[str]) -> str:
    """Writes the named hyperparameters of a point."""
    return grids.label({name: point.hypers[name] for name in names if name in point.hypers})


def _escape(cell: str) -> str:
    """Keeps a cell of a Markdown table in its column and on its line."""
    return cell.replace("|", r"\|").replace("\n", " ")
