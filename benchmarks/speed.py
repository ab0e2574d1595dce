"""Times rlgen beside its peers, in turn."""

import fnmatch
import json
import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.comparisons import ROWS

CHECKOUTS = ("purejaxrl", "purejaxql", "stoix", "cleanrl")  # peers that are on no registry


def run(peers: Path, checkouts: Path | None, repeats: int, only: str) -> None:
    """Times rows against their peers and saves the medians.

    Args:
        peers: folder of the environments that `scripts/peers` makes.
        checkouts: folder of the checkouts of `CHECKOUTS`, each under its name; rows of absent ones are left out.
        repeats: alternating runs of each side.
        only: pattern of row names.
    """
    cores = str(measure.machine()["cores"])
    for row in ROWS:
        if not fnmatch.fnmatch(row.name, only):
            continue
        source = ()
        if row.peer in CHECKOUTS:
            if checkouts is None or not (checkouts / row.peer).is_dir():
                continue
            source = (str((checkouts / row.peer).resolve()),)
        ours = [sys.executable, "-m", "benchmarks.worker", row.experiment, json.dumps(row.options)]
        script = row.script or row.peer
        theirs = [str(peers / script / "bin" / "python"), "-P", "-m", f"benchmarks.peers.{script}", *source]
        theirs += row.arguments
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        said = measure.alternate(
            {"rlgen": (ours, {"JAX_NUM_CPU_DEVICES": cores}), row.peer: (theirs, environment)}, repeats
        )
        sides = {name: measure.summarise(runs) for name, runs in said.items()}
        ratio = sides["rlgen"]["steps_per_second"] / sides[row.peer]["steps_per_second"]
        content = {"name": row.name, "work": row.work, "peer": row.peer, "ratio": ratio, **sides}
        path = measure.save("speed", row.name, {**content, "machine": measure.machine()})
        print(f"{path}: {ratio:.2f} times {row.peer}")
