"""Times rlgen beside its peers, in turn."""

import json
import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.comparisons import ROWS
from rlgen.lab.errors import UsageError

CHECKOUTS = ("purejaxrl", "purejaxql", "stoix", "cleanrl", "jaxmarl")  # peers that are on no registry


def run(peers: Path, checkouts: Path | None, repeats: int, only: str, peer: str = "*") -> None:
    """Times rows against their peers and saves the medians.

    Args:
        peers: folder of the environments that `scripts/peers` makes.
        checkouts: folder of the checkouts of `CHECKOUTS`, each under its name; rows of absent ones are left out.
        repeats: alternating runs of each side.
        only: pattern of row names.
        peer: pattern of the names of peers.

    Raises:
        UsageError: if no row matches, the checkouts of all that do are absent, the environment of a peer is, or nothing
            is repeated.
    """
    measure.check_counts(repeats=repeats)
    names = measure.chosen(only, (row.name for row in ROWS))
    matching = measure.chosen(peer, (row.peer for row in ROWS), "peer")
    asked = [row for row in ROWS if row.name in names and row.peer in matching]
    if not asked:
        raise UsageError(f"none of the rows that match only={only} is beside peer={peer}")
    absent = [name for name in CHECKOUTS if checkouts is None or not (checkouts / name).is_dir()]
    if all(row.peer in absent for row in asked):
        wanted = ", ".join(dict.fromkeys(row.peer for row in asked))
        raise UsageError(f"only={only} needs the checkout of {wanted}: name its folder with --checkouts")
    asked = [row for row in asked if row.peer not in absent]
    for script in dict.fromkeys(row.script or row.peer for row in asked):
        if not _python(peers, script).exists():
            raise UsageError(f"{_python(peers, script)} is absent: `scripts/peers {script}` makes it")
    cores = str(measure.machine()["cores"])
    for row in asked:
        source, revision = (), None
        if checkouts and row.peer in CHECKOUTS:
            source, revision = (str((checkouts / row.peer).resolve()),), measure.revision(checkouts / row.peer)
        ours = [sys.executable, "-m", "benchmarks.worker", row.experiment, json.dumps(row.options)]
        script = row.script or row.peer
        theirs = [str(_python(peers, script)), "-P", "-m", f"benchmarks.peers.{script}", *source]
        theirs += row.arguments
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        said = measure.alternate(
            {"rlgen": (ours, {"JAX_NUM_CPU_DEVICES": cores}), row.peer: (theirs, environment)}, repeats
        )
        sides = {name: measure.summarise(runs) for name, runs in said.items()}
        ratio = sides["rlgen"]["steps_per_second"] / sides[row.peer]["steps_per_second"]
        content = {"name": row.name, "work": row.work, "peer": row.peer, "ratio": ratio, **sides}
        content |= {"scored": row.options.get("scored", False), "checkout": revision}
        path = measure.save("speed", row.name, {**content, "machine": measure.machine()})
        print(f"{path}: {ratio:.2f} times {row.peer}")


def _python(peers: Path, script: str) -> Path:
    """The Python of a peer's environment."""
    return peers / script / "bin" / "python"
