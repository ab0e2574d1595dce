"""Runs timings in processes of their own, in turn, and keeps what they said."""

import difflib
import fnmatch
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import timing
from rlgen.lab import grids
from rlgen.lab.errors import UsageError
from rlgen.lab.statistics import Estimate

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Says what the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "git": revision(Path(__file__).parent),
        "date": time.strftime("%Y-%m-%d"),
    }


def revision(folder: Path) -> str | None:
    """Gives the short name of the commit that a folder is at; None where git knows of none."""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def chosen(only: str, names: Iterable[str], option: str = "only") -> list[str]:
    """Chooses names by a pattern.

    Args:
        only: the pattern.
        names: that there are.
        option: that the pattern was given as, for the error.

    Returns:
        Those that match, in their order.

    Raises:
        UsageError: if none does.
    """
    names = list(dict.fromkeys(names))
    matching = fnmatch.filter(names, only)
    if not matching:
        near = difflib.get_close_matches(only, names, n=3, cutoff=0.3) or names[:3]
        raise UsageError(f"{option}={only} matches none of {len(names)} names, such as {', '.join(near)}")
    return matching


def check_counts(**counts: int | None) -> None:
    """Refuses counts below 1; None stands for a default.

    Raises:
        UsageError: with the name of the first such count.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UsageError(f"{name}={count} is impossible: at least 1 is needed")


def call(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs a command whose last line of output is JSON.

    Raises:
        RuntimeError: with the end of what it printed, if it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def alternate(
    sides: Mapping[str, tuple[Sequence[str], Mapping[str, str]]], repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Runs every side once, then every side again, so that a slow minute of the machine meets all of them.

    Each time names a seed of its own, the same for all sides, so that none is judged by one lucky run.

    Args:
        sides: command and environment of each, by name.
        repeats: how many times.

    Returns:
        What each side said, by name.
    """
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, (command, environment) in sides.items():
            said[name].append(call(command, {**environment, timing.SEED: str(repeat)}))
    return said


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median of every number, the range of the speed, what ran, and the returns of all seeds of all runs."""
    keys = [key for key, value in runs[0].items() if isinstance(value, int | float)]
    medians: dict[str, Any] = {key: statistics.median(run[key] for run in runs) for key in keys}
    speeds = [run["steps_per_second"] for run in runs]
    kept: dict[str, Any] = {key: runs[0][key] for key in ("versions", "device") if key in runs[0]}
    if "final_returns" in runs[0]:
        kept["final_returns"] = [value for run in runs for value in run["final_returns"]]
    return {**medians, "repeats": len(runs), "range": [min(speeds), max(speeds)], **kept}


def higher_is_better(summary: Mapping[str, Any]) -> bool:
    """Tells whether a larger score is the better one in an experiment of the catalogue."""
    from rlgen.experiments import catalogue  # which imports every algorithm

    return catalogue.EXPERIMENTS[summary["experiment"]].task.higher_is_better


def ranked(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gives the grid points of a run from the best to the worst."""
    points = summary["points"]
    if len(points) == 1:
        return points
    order = grids.best(estimates(summary).value, higher_is_better=higher_is_better(summary))
    return [points[index] for index in order]


def varied(summary: Mapping[str, Any]) -> list[str]:
    """Names the hyperparameters in which the grid points of a run differ."""
    points = [point["hypers"] for point in summary["points"]]
    return [name for name in points[0] if len({point[name] for point in points}) > 1]


def label(summary: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """Names a grid point by what varies; empty without a grid."""
    return grids.label({name: point["hypers"][name] for name in varied(summary)})


def estimates(summary: Mapping[str, Any]) -> Estimate:
    """Gives the IQMs and intervals of the grid points of a run as arrays `[G]`, nan for null."""
    rows = [(point["iqm"], *point["ci95"]) for point in summary["points"]]
    return Estimate(*np.array(rows, float).T)


def save(kind: str, name: str, content: Mapping[str, Any]) -> Path:
    """Writes a result as JSON below `results/`."""
    path = RESULTS / kind / f"{name.replace('/', '_')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
