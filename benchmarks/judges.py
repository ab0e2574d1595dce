"""Trains the classifiers whose features measure generated images, and keeps them with the package."""

import tempfile
from pathlib import Path

import jax
from rich.console import Console

from benchmarks import measure
from rlgen.lab import judges, request, runner

# The experiment that each judge comes from.
EXPERIMENTS = {"mnist": "applied/classifier/mnist", "captions": "applied/matcher/captions"}


def run(only: str) -> None:
    """Trains judges, one seed each.

    Args:
        only: name of a judge, or "" for all.

    Raises:
        UsageError: if there is no such judge.
    """
    for name in measure.chosen(only or "*", EXPERIMENTS):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "run")
            runner.run(request.Request(EXPERIMENTS[name], seeds=1, quiet=True), out, Console())
            keep(name, out)


def keep(name: str, folder: Path) -> None:
    """Keeps what the first lane of a run came to as a judge."""
    (params,) = runner.restore(folder).state.algorithm.params.values()
    judges.save(name, jax.tree.map(lambda leaf: leaf[0], params))
    print(judges.path(name))
