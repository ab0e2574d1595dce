"""Runs experiments of the catalogue at the seeds and budget of their targets and keeps their summaries and curves."""

import fnmatch
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import measure
from rlgen.experiments import catalogue

POINTS = 64  # of a curve that is kept


def thin(folder: Path) -> dict[str, list]:
    """The main curve of each seed, at few enough points to commit."""
    with np.load(folder / "metrics.npz", allow_pickle=False) as metrics:
        curve, steps = metrics["curve"][0], metrics["env_steps"]
    index = np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(int))
    values = [[None if not np.isfinite(v) else float(f"{v:.5g}") for v in row] for row in curve[:, index]]
    return {"env_steps": steps[index].tolist(), "curve": values}


def run(only: str, out: Path | None, seeds: int | None) -> None:
    """Sweeps every row whose name matches and saves what came of it.

    Args:
        only: pattern of names.
        out: where the run folders go; None for a temporary folder.
        seeds: how many; None for those of each row.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name, row in catalogue.EXPERIMENTS.items():
            if not fnmatch.fnmatch(name, only):
                continue
            folder = (out or Path(scratch)) / name.replace("/", "_")
            command = [str(Path(sys.executable).with_name("rlgen")), "sweep", name, "--seeds", str(seeds or row.seeds)]
            subprocess.run([*command, "--out", str(folder), "--quiet"], check=True)
            summary = json.loads((folder / "summary.json").read_text())
            content = {"summary": summary, **thin(folder), "machine": measure.machine()}
            print(f"{measure.save('learning', name, content)}: {summary['points'][0]['iqm']}")
