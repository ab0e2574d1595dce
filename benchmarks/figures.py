"""Draws the learning curve of every experiment whose result is kept; README and the table page show them."""

import json
from pathlib import Path

import numpy as np

from benchmarks import measure
from rlgen.lab import plots

FIGURES = Path(__file__).parent / "figures"


def write() -> list[Path]:
    """Writes one picture a result and says where."""
    FIGURES.mkdir(exist_ok=True)
    paths = []
    for result in sorted((measure.RESULTS / "learning").glob("*.json")):
        content = json.loads(result.read_text())
        summary, target = content["summary"], content["summary"]["target"]
        path = FIGURES / f"{result.stem}.png"
        plots.learning_curves(
            path,
            content["env_steps"],
            {f"{summary['seeds']} seeds": np.array(content["curve"], float)},
            ylabel=summary["metric"],
            title=summary["experiment"],
            target=plots.Target(target["value"], target["source"]) if target else None,
            higher_is_better=target is None or target["direction"] == "max",
        )
        paths.append(path)
    return paths
