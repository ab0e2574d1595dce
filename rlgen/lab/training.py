"""Trains the groups of lanes of a sweep in windows of updates, saves them, and says how it goes.

Everything between two windows happens here, on the host, so nothing inside the compiled programs calls back.  The next
window is under way while the host works on the report of the last one.

Shape legend: `N` lanes of one group, `W` windows done.
"""

import contextlib
import dataclasses
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from rlgen.lab import checkpoints, devices, logging
from rlgen.lab.lanes import Lanes, Programs, compile_training, to_host
from rlgen.lab.processes import ALONE, Processes
from rlgen.lab.progress import Progress
from rlgen.train import Report

RUN, COMPILE = "run", "compile"  # clocks in a checkpoint


class Interrupted(Exception):  # noqa: N818 (no error: the user asked for it)
    """A run that was asked to stop and has saved what it had.  It can be resumed."""


class Interrupts:
    """A context in which the first Ctrl-C only asks, and the second one aborts."""

    def __init__(self, say: Callable[[str], None]):
        """Prepares to say so when asked."""
        self._say = say
        self.asked = False

    def __enter__(self) -> "Interrupts":
        """Takes Ctrl-C over, where this is the main thread and it is not ignored, as in the background."""
        is_main = threading.current_thread() is threading.main_thread()
        self._taken = is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        self._before = signal.signal(signal.SIGINT, self._handle) if self._taken else None
        return self

    def __exit__(self, *_: object) -> None:
        """Gives Ctrl-C back."""
        if self._taken:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._say("stopping after this window of updates; Ctrl-C again to abort")

    def check(self) -> None:
        """Stops the run if that was asked for.

        Raises:
            Interrupted: if it was.
        """
        if self.asked:
            raise Interrupted("interrupted; what was done is saved")


@dataclasses.dataclass
class Work:
    """A sweep under way.

    Attributes:
        lanes: what is trained.
        folder: the run folder.
        progress: where it is shown.
        interrupts: whether it should stop.
        processes: who shares it.
        compile_seconds: of this part of the run and of the earlier ones.
        run_seconds: that training took, likewise.
        updates: done, of all groups.
        steps: environment steps of all lanes in this part.
    """

    lanes: Lanes
    folder: Path
    progress: Progress
    interrupts: Interrupts
    processes: Processes = ALONE
    compile_seconds: float = 0.0
    run_seconds: float = 0.0
    updates: int = 0
    steps: int = 0

    def wait(self, call: devices.Call, what: str) -> Any:
        """Waits for a call, but not for ever."""
        where = ", ".join(devices.names(self.lanes.mesh))
        return call.result(self.lanes.plan.request.stall_seconds, f"{what} on {where}")


class History:
    """The reports of a group of lanes so far, and what they come to."""

    def __init__(self, lanes: Lanes, index: int, saved: checkpoints.Saved | None):
        """Begins empty, or with what was saved."""
        self._plan, self.lanes = lanes.plan, lanes.groups[index]
        earlier = saved.history if saved else None
        count = jax.tree.leaves(earlier)[0].shape[-1] if saved else 0
        self._reports: list[Report] = [jax.tree.map(lambda leaf, w=w: leaf[:, w], earlier) for w in range(count)]
        self.curve = np.full(len(self.lanes), np.nan)  # the last value of each lane, nan before the first
        self.diverged = np.zeros(len(self.lanes), bool)
        for report in self._reports:
            self._follow(report)

    def append(self, report: Report) -> NDArray[np.intp]:
        """Adds the report of a window, leaves `[N]`.

        Returns:
            The lanes of the sweep that diverged in it.
        """
        before = self.diverged
        self._reports.append(report)
        self._follow(report)
        return self.lanes.start + np.flatnonzero(self.diverged & ~before)

    def stacked(self) -> Report:
        """Gives all reports as one, leaves `[N, W]`."""
        return jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), *self._reports)

    def by_point(self) -> dict[int, slice]:
        """Gives the lanes of each grid point, as slices of this group."""
        seeds, first, last = self._plan.request.seeds, self.lanes.start, self.lanes.stop
        points = range(first // seeds, (last - 1) // seeds + 1)
        return {point: slice(max(point * seeds - first, 0), min((point + 1) * seeds, last) - first) for point in points}

    def iqms(self) -> dict[int, float]:
        """Computes the IQM of the curve so far over the seeds of each grid point; nan before there is any."""
        from rlgen.lab import statistics  # which imports SciPy

        task = self._plan.experiment.task
        better = task.higher_is_better and task.watched is None
        worst = np.where(self.diverged, -np.inf, self.curve)
        known = {point: worst[lanes][~np.isnan(worst[lanes])] for point, lanes in self.by_point().items()}
        return {point: statistics.iqm(values, higher_is_better=better) for point, values in known.items()}

    def _follow(self, report: Report) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):  # a window in which no episode ended
            curve = np.asarray(self._plan.experiment.task.curve(report), np.float64)
        self.curve = np.where(np.isnan(curve), self.curve, curve)
        finite = [np.isfinite(leaf) for leaf in jax.tree.leaves(report.metrics)]
        self.diverged = self.diverged | ~np.logical_and.reduce(finite)


def train(work: Work) -> None:
    """Trains the groups of this process one after another, each from where it was saved.

    Args:
        work: its clocks are set.

    Raises:
        CheckpointError: if a checkpoint is damaged or cannot be written.
        Interrupted: if that was asked for, once everything is saved.
        StalledDevice: if a device stops.
        UsageError: if what is logged to is not installed.
    """
    lanes, last = work.lanes, work.lanes.plan.bound.num_updates
    share = work.processes.share(len(lanes.groups))
    saved = [lanes.reached(work.folder, index) for index in share]
    before = {about.devices for _, about in saved if about is not None} - {lanes.mesh.size}
    if before:
        work.progress.say(
            f"devices: {', '.join(map(str, sorted(before)))} before, {lanes.mesh.size} now: with another number of"
            " seeds on each, results are as good but not the same to the last bit"
        )
    clocks = [about.seconds for _, about in saved if about is not None]
    work.run_seconds = sum(clock[RUN] for clock in clocks)
    work.compile_seconds = max((clock[COMPILE] for clock in clocks), default=0.0)
    work.updates = sum(step for step, _ in saved)
    if all(step == last for step, _ in saved):
        return
    logging.check(lanes.plan.request)
    work.progress.phase("compiling", work.updates)
    programs = devices.Call(compile_training, lanes).result()
    work.compile_seconds += programs.seconds
    work.interrupts.check()
    work.progress.phase("training", work.updates)
    with contextlib.ExitStack() as stack:
        # Of several groups the later ones begin again at the first step, and what they wrote is not to go.
        begun = saved[0][0] * lanes.plan.bound.steps_per_update if len(saved) == 1 else None
        logs = logging.start(lanes.plan, work.folder, begun, work.processes.index, stack)
        for index, (step, _) in zip(share, saved, strict=True):
            if step < last:  # read one at a time: a group fills what memory there is
                _train_group(work, programs, index, lanes.saved(work.folder, index)[1], logs, step)


def _train_group(
    work: Work,
    programs: Programs,
    index: int,
    saved: checkpoints.Saved | None,
    logs: list[logging.Log],
    step: int,
) -> None:
    """Trains a group of lanes from a step to its end."""
    lanes, request = work.lanes, work.lanes.plan.request
    history, bounds = History(lanes, index, saved), lanes.plan.bounds
    windows = list(itertools.pairwise(bounds[bounds.index(step) :]))
    keys, hypers = lanes.inputs(index)
    if saved is None:
        state = work.wait(devices.Call(programs.init, lanes.data, keys, hypers), "the first state")
    else:
        state = lanes.place(saved.state)

    def dispatch(window: tuple[int, int], state: Any) -> devices.Call:
        # The state is donated: nobody reads it after this.
        start, stop = (np.int32(update) for update in window)
        return devices.Call(programs.advance, lanes.data, keys, start, stop, state, hypers)

    earlier = saved.about.seconds[RUN] if saved else 0.0
    work.run_seconds -= earlier
    begun = saved_at = time.perf_counter()
    call = dispatch(windows[0], state)
    for number, window in enumerate(windows, start=1):
        state, report = work.wait(call, f"the window of updates {window[0]} to {window[1]}")
        report = to_host(report, len(history.lanes))
        fresh = history.append(report)
        due = time.perf_counter() - saved_at >= request.checkpoint_seconds
        if due or work.interrupts.asked or number == len(windows):
            seconds = {RUN: earlier + time.perf_counter() - begun, COMPILE: work.compile_seconds}
            host = to_host(state, len(history.lanes))
            where = {"run": lanes.identity, "devices": lanes.mesh.size, "process": work.processes.index}
            checkpoints.save(work.folder, index, window[1], host, history.stacked(), seconds, **where)
            saved_at = time.perf_counter()
            work.interrupts.check()
        if number < len(windows):
            call = dispatch(windows[number], state)
        _tell(work, window, report, history, fresh, logs)
    work.run_seconds += earlier + time.perf_counter() - begun


def _tell(
    work: Work,
    window: tuple[int, int],
    report: Report,
    history: History,
    fresh: NDArray[np.intp],
    logs: list[logging.Log],
) -> None:
    """Shows and logs how a group stands after a window."""
    made, (start, stop) = work.lanes.plan, window
    for point, lanes in itertools.groupby(fresh.tolist(), key=lambda lane: lane // made.request.seeds):
        seeds = [str(lane % made.request.seeds) for lane in lanes]
        where = f" at {made.label(point)}" if made.axes else ""
        many = f"seed{'s'[: len(seeds) > 1]} {', '.join(seeds)}{where}"
        work.progress.say(f"{many} diverged within updates {start} to {stop}; the others go on")
    work.updates += stop - start
    work.steps += (stop - start) * made.bound.steps_per_update * len(history.lanes)
    iqms = history.iqms()
    task = made.experiment.task
    best = max if task.higher_is_better and task.watched is None else min
    known = [value for value in iqms.values() if not math.isnan(value)]
    work.progress.update(work.updates, work.steps, best(known, default=math.nan))
    if not logs:
        return
    values: dict[str, float] = {}
    for point, lanes in history.by_point().items():
        group = f"{made.label(point) or 'run'}{f', lanes from {history.lanes.start}' if made.request.chunk else ''}"
        means: Mapping[str, Any] = report.metrics._asdict()
        good = np.flatnonzero(~history.diverged[lanes])  # one lane's NaN would hide what the others do
        values |= {f"{group}/{name}": float(np.mean(leaf[lanes][good])) for name, leaf in means.items() if good.size}
        values[f"{group}/IQM of {task.watched or task.metric}"] = iqms[point]
    for log in logs:
        log.write(stop * made.bound.steps_per_update, values)
