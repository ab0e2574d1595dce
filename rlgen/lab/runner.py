"""Runs a sweep, goes on with one, and reads one back.

Shape legend: `L` lanes, `G` grid points.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from rlgen import sweep
from rlgen.core import Key
from rlgen.experiments.experiment import Bound, Experiment
from rlgen.lab import devices, folders, lanes, memory, request, results
from rlgen.lab.processes import ALONE, Processes
from rlgen.lab.progress import Progress
from rlgen.lab.request import Plan, Request
from rlgen.lab.results import Summary
from rlgen.lab.training import Interrupts, Work, train


class Trained(NamedTuple):
    """A finished run, on the host.

    Attributes:
        request: what was asked for.
        experiment: with its settings and budget.
        bound: its functions.
        points: `[G]` hyperparameters of the grid.
        data: what all lanes share.
        state: `RunState` of all lanes, leaves `[L, ...]`; lane `point * seeds + seed`.
        keys: `[L]`.
        hypers: leaves `[L]`.
    """

    request: Request
    experiment: Experiment
    bound: Bound
    points: list[Any]
    data: Any
    state: Any
    keys: Key
    hypers: Any


def run(asked: Request, folder: Path, console: Console, processes: Processes = ALONE) -> Summary | None:
    """Runs a sweep.

    Args:
        asked: what is asked for.
        folder: the run folder; made if it is not there.
        console: where progress and the result are printed.
        processes: who shares the sweep.

    Returns:
        What `summary.json` holds; None where another process writes it.

    Raises:
        UsageError: if the request is impossible, or the folder already holds a run or is in use.
        DataError: if data is missing or damaged.
        CheckpointError: if a checkpoint cannot be written.
        Interrupted: after Ctrl-C, once everything is saved.
        StalledDevice: if a device stops.
    """
    made = request.plan(asked)
    with _held(folder, processes, new=True):
        spread, need = _spread(made)
        held = memory.check(need, made.at_a_time, memory.free())
        processes.agree(spread.identity, begin=functools.partial(request.write, folder, made))
        return _sweep(spread, held, folder, console, processes)


def resume(folder: Path, console: Console, processes: Processes = ALONE) -> Summary | None:
    """Goes on with a run, to the same bits as if it had never stopped.

    Args:
        folder: the run folder.
        console: where progress and the result are printed.
        processes: who shares what is left, no matter how many there were.

    Returns:
        What `summary.json` holds; a finished run is left as it is.  None where another process writes it.

    Raises:
        UsageError: if the folder holds no run, is in use, or its `config.json` is damaged.
        CheckpointError: if its newest checkpoint is damaged, or another cannot be written.
        DataError: if data is missing or damaged.
        Interrupted: after Ctrl-C, once everything is saved.
        StalledDevice: if a device stops.
    """
    with _held(folder, processes, new=False):
        if (folder / folders.SUMMARY).exists():
            summary = folders.read_json(folder / folders.SUMMARY)
            _print(console, f"{folder} is finished: there is nothing to do")
            return summary
        made = request.read(folder)
        spread, need = _spread(made)
        # How many are trained at a time is settled: a run that may not fit any more is tried, and told.
        held = memory.told(need, made.at_a_time, memory.free())
        drift = request.drift(folder)
        if drift and processes.index == 0:
            _print(console, drift)
        processes.agree(spread.identity, begin=lambda: None)
        return _sweep(spread, held, folder, console, processes)


def restore(folder: Path) -> Trained:
    """Reads a run that was trained to its end.

    Args:
        folder: the run folder.

    Returns:
        The run, with the states of all lanes.

    Raises:
        UsageError: if the folder holds no run, or one that was not trained to its end.
        CheckpointError: if a checkpoint is damaged.
        DataError: if data is missing or damaged.
    """
    if not (folder / folders.CONFIG).is_file():
        raise folders.FolderError(f"{folder} holds no run: it has no {folders.CONFIG}")
    made = request.read(folder)
    spread = lanes.spread(made, sweep.mesh(1))
    states = [spread.finished(folder, index).state for index in range(len(spread.groups))]
    return Trained(
        request=made.request,
        experiment=made.experiment,
        bound=made.bound,
        points=made.points,
        data=spread.data,
        state=jax.tree.map(lambda *leaves: np.concatenate(leaves), *states),
        keys=spread.keys,
        hypers=spread.hypers,
    )


@contextlib.contextmanager
def _held(folder: Path, processes: Processes, *, new: bool) -> Iterator[None]:
    """Holds a run folder: the first process does so for all, and tells the others if it cannot."""
    with contextlib.ExitStack() as stack:
        if processes.index == 0:
            try:
                stack.enter_context(folders.hold(folder, new=new))
            except folders.FolderError as error:
                processes.refuse(error)
                raise
        yield


def _spread(made: Plan) -> tuple[lanes.Lanes, memory.Need]:
    """Spreads the lanes of a plan over the devices that it asks for, and counts what memory they need."""
    spread = lanes.spread(made, devices.choose(made.request.devices, made.at_a_time))
    return spread, memory.count(made, spread.data)


def _sweep(spread: lanes.Lanes, held: str, folder: Path, console: Console, processes: Processes) -> Summary | None:
    """Trains what is not trained yet; the first process then scores it and writes the results."""
    made = spread.plan
    share = processes.share(len(spread.groups))
    total = made.bound.num_updates * len(share)
    with (
        Progress(console, total=total, quiet=made.request.quiet) as progress,
        Interrupts(progress.say) as interrupts,
    ):
        work = Work(spread, folder, progress, interrupts, processes)
        progress.say(held)
        if processes.count > 1:
            where = f"process {processes.index} of {processes.count}"
            progress.say(f"{where}; should one be lost, all end, and `rlgen resume {folder}` goes on with any number")
        train(work)
        processes.meet("trained")
        if processes.index > 0:
            _print(console, f"process {processes.index} of {processes.count} has trained its share; {folder}")
            return None
        summary = results.write(work, results.score(work))
    _print(console, results.line(made, summary, folder))
    return summary


def _print(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
