"""Measures what sweeps hold beside what is counted before they are compiled."""

import json
import sys

from benchmarks import measure
from benchmarks.compiling import EXPERIMENTS

SEEDS = (1, 16)


def run(only: str) -> None:
    """Measures experiments with one seed and with many.

    Args:
        only: pattern of experiment names.

    Raises:
        UsageError: if none matches.
    """
    from rlgen.lab import lanes, memory, request  # which import every algorithm

    names = measure.chosen(only, EXPERIMENTS)
    cores = str(measure.machine()["cores"])
    for experiment in names:
        sweeps = []
        for seeds in SEEDS:
            made = request.plan(request.Request(experiment, seeds=seeds))
            need = memory.count(made, lanes.load_data(made.experiment))
            options = json.dumps({"seeds": seeds, "updates": 2})
            command = [sys.executable, "-m", "benchmarks.worker", experiment, options]
            said = measure.call(command, {"JAX_NUM_CPU_DEVICES": cores})
            kept = {key: said[key] for key in ("state_bytes", "temporary_mb", "peak_rss_mb")}
            sweeps.append({"seeds": seeds, "counted_bytes": seeds * need.state, **kept})
        content = {"experiment": experiment, "sweeps": sweeps, "machine": measure.machine()}
        print(measure.save("memory", experiment, content), flush=True)
