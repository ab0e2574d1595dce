"""Runs experiments of the catalogue at the seeds and budget of their targets and keeps their summaries and curves."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from rlgen.experiments import catalogue

POINTS = 64  # of a curve that is kept
SEEDS = 128  # beyond which only means are kept
CURVES = 16  # grid points up to which their curves are kept
NUMBERS = 8_000  # of curves that are kept at most; a line of JSON each


def thin(folder: Path) -> dict[str, Any]:
    """What is small enough to commit of a run.

    Args:
        folder: of the run.

    Returns:
        Its summary, and the main curve `[S, U]` of each seed of each grid point, `[G, S, U]` if there are several.  Of
        many seeds the curves' mean and its 95 % interval `[G, 3, U]` instead, and none of the seeds' scores.  Of a
        large grid no curves either, and what all points share once as `hypers`.
    """
    summary = json.loads((folder / "summary.json").read_text())
    points = summary["points"]
    if len(points) > CURVES:
        varied = measure.varied(summary)
        shared = {name: value for name, value in points[0]["hypers"].items() if name not in varied}
        return {"summary": {**summary, "points": [_essence(point, varied) for point in points], "hypers": shared}}
    with np.load(folder / "metrics.npz", allow_pickle=False) as metrics:
        curves, steps = metrics["curve"], metrics["env_steps"]
        if summary["seeds"] > SEEDS:
            means = {"mean": curves}
            if "stats/total_optimal" in metrics:
                means["best_arm"] = metrics["stats/total_optimal"] / metrics["stats/steps"]
            lean = [{name: value for name, value in point.items() if name != "per_seed"} for point in points]
            return {
                "summary": {**summary, "points": lean},
                "env_steps": steps.tolist(),
                **{name: _means(values) for name, values in means.items()},
            }
    num = min(POINTS, max(2, NUMBERS // (curves.shape[0] * curves.shape[1])))
    index = np.unique(np.linspace(0, len(steps) - 1, num).round().astype(int))
    kept = [[[_rounded(value) for value in seed] for seed in point] for point in _thinned(curves, index)]
    return {"summary": summary, "env_steps": steps[index].tolist(), "curve": kept[0] if len(kept) == 1 else kept}


def _thinned(curves: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Points `index` of curves `[..., U]`, each with the last value known since the point before it; nan for none."""
    parts = np.split(curves, index[:-1] + 1, axis=-1)
    known = [np.where(np.isfinite(part), np.arange(part.shape[-1]), -1).max(-1, keepdims=True) for part in parts]
    last = [np.take_along_axis(part, np.maximum(at, 0), -1) for part, at in zip(parts, known, strict=True)]
    return np.concatenate(last, axis=-1)


def _means(curves: np.ndarray) -> list[list[list[float | None]]]:
    """Mean over the seeds that have a value, and the ends of its 95 % interval: `[G, 3, U]` of `[G, S, U]`."""
    count = np.maximum(np.isfinite(curves).sum(1), 1)
    mean = np.nansum(curves, 1) / count
    half = 1.96 * np.sqrt(np.nansum(np.square(curves - mean[:, None]), 1) / count**2)
    return [
        [[_rounded(value) for value in line] for line in point]
        for point in np.stack([mean, mean - half, mean + half], 1)
    ]


def _essence(point: dict[str, Any], varied: list[str]) -> dict[str, Any]:
    """A grid point without its seeds and what it shares with the others."""
    low, high = point["ci95"]
    hypers = {name: point["hypers"][name] for name in varied}
    return {"hypers": hypers, "iqm": _rounded(point["iqm"]), "ci95": [_rounded(low), _rounded(high)]}


def _rounded(value: float | None) -> float | None:
    """A number in five digits; None where it is not finite."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.5g}")


def run(only: str, out: Path | None, seeds: int | None) -> None:
    """Sweeps every row whose name matches and saves what came of it.

    Args:
        only: pattern of names.
        out: where the run folders go; None for a temporary folder.
        seeds: how many; None for those of each row.

    Raises:
        UsageError: if nothing matches, or there are no seeds.
    """
    measure.check_counts(seeds=seeds)
    names = measure.chosen(only, catalogue.EXPERIMENTS)
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            folder = (out or Path(scratch)) / name.replace("/", "_")
            count = str(catalogue.EXPERIMENTS[name].seeds if seeds is None else seeds)
            command = [str(Path(sys.executable).with_name("rlgen")), "sweep", name, "--seeds", count]
            subprocess.run([*command, "--out", str(folder), "--quiet"], check=True)
            content = {**thin(folder), "machine": measure.machine()}
            print(f"{measure.save('learning', name, content)}: {measure.ranked(content['summary'])[0]['iqm']}")
