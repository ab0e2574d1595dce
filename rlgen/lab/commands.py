"""What the commands of `rlgen.lab.cli` do."""

import dataclasses
import inspect
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from rlgen.lab import cli

MOST_COLUMNS = 400  # of a table of experiments
MOST_VALUES = 12  # of an axis that are all listed


def run(command: Any) -> None:
    """Does what a command says.

    Args:
        command: one of the commands of `rlgen.lab.cli`.

    Raises:
        Exception: what went wrong; `exit_code` tells whose fault it is.
    """
    HANDLERS[type(command)](command)


def list_experiments(command: cli.List) -> None:
    """Prints the catalogue as a table or as JSON."""
    from rlgen.experiments.catalogue import EXPERIMENTS

    if command.json:
        sys.stdout.write(json.dumps([row(experiment) for experiment in EXPERIMENTS.values()], indent=2) + "\n")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("experiment", no_wrap=True)
    table.add_column("metric")
    for heading in ("budget", "target", "seeds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for experiment in EXPERIMENTS.values():
        budget = f"{experiment.steps:,}"
        table.add_row(experiment.name, experiment.task.metric, budget, _target(experiment), str(experiment.seeds))
    console = _console()
    options = console.options.update(width=MOST_COLUMNS)
    # A name that is cut off cannot be asked for, so that narrow terminals get long lines.
    console.width = max(console.width, Measurement.get(console, options, table).maximum)
    console.print(table)


def row(experiment: Any) -> dict[str, Any]:
    """Describes an experiment in what JSON can hold; an infinite number is null.

    Args:
        experiment: a row of the catalogue.

    Returns:
        Its name, config, hypers, grid, budget, number of seeds and target.
    """
    hypers = {name: value if math.isfinite(value) else None for name, value in experiment.hypers._asdict().items()}
    return {
        "name": experiment.name,
        "config": dataclasses.asdict(experiment.config),
        "hypers": hypers,
        "grid": {name: list(values) for name, values in experiment.grid.items()},
        "steps": experiment.steps,
        "seeds": experiment.seeds,
        "target": dataclasses.asdict(experiment.target) if experiment.target else None,
    }


def show(command: cli.Show) -> None:
    """Prints all about an experiment, its settings as `--set` takes them."""
    from rlgen.lab import overrides

    experiment = _find(command.name)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    unit = "examples" if experiment.task.datasets else "environment steps"
    table.add_row("metric", f"{experiment.task.metric}{', while it learns' if experiment.task.online else ''}")
    table.add_row("budget", f"{experiment.steps:,} {unit} a seed, {experiment.seeds} seeds")
    num_points = math.prod(map(len, experiment.grid.values()))
    table.add_row("grid", f"{num_points:,} points" if experiment.grid else "none")
    for name, values in experiment.grid.items():
        table.add_row("", f"hypers.{name}={_axis(values)}")
    target = experiment.target
    table.add_row("target", f"{_target(experiment)}: {target.source}" if target else "none")
    settings = {f"config.{key}": value for key, value in dataclasses.asdict(experiment.config).items()}
    settings |= {f"hypers.{key}": value for key, value in experiment.hypers._asdict().items()}
    for key, value in settings.items():
        table.add_row(key, (",".join(map(str, value)) or overrides.EMPTY) if isinstance(value, tuple) else str(value))
    console = _console()
    console.print(experiment.name, style="bold")
    console.print()
    console.print(table)
    console.print()
    console.print(inspect.getdoc(experiment.algorithm) or "")


def sweep(command: cli.Sweep) -> None:
    """Runs a sweep."""
    from rlgen.lab import devices, processes
    from rlgen.lab.errors import UsageError

    devices.configure(command.devices)
    together = processes.join(command.coordinator, command.processes, command.process_id)
    from rlgen.lab import folders, lanes, logging, memory, overrides, request, runner

    experiment = _find(command.name)
    asked = dataclasses.asdict(command)
    settings, out = asked["set"], asked["out"]
    for key in ("name", "set", "out", "coordinator", "processes", "process_id"):
        del asked[key]
    if together.count > 1 and out is None:
        raise UsageError("several processes share one run folder: name it with --out")
    given = {key: value for key, value in asked.items() if value is not None}
    given = (
        {"seeds": experiment.seeds, "chunk": experiment.chunk}
        | given
        | {"experiment": experiment.name, "settings": settings}
    )
    given["grid"] = command.grid or overrides.default_grid(experiment, settings)
    if command.chunk == memory.AUTO:
        made = request.plan(request.Request(**{**given, "chunk": None}))
        given["chunk"] = memory.fit(made, lanes.load_data(made.experiment))
    wanted = request.Request(**given)
    made = request.plan(wanted)  # what is impossible is refused before a folder is made
    wanted = dataclasses.replace(wanted, chunk=together.chunk(made.num_lanes, wanted.chunk))
    devices.choose(wanted.devices, made._replace(request=wanted).at_a_time)
    logging.check(wanted)
    runner.run(wanted, out or folders.default(experiment.name), _console(), together)


def resume(command: cli.Resume) -> None:
    """Goes on with a run."""
    _configure(command.folder, command.devices)
    from rlgen.lab import folders, processes

    together = processes.join(command.coordinator, command.processes, command.process_id)
    from rlgen.lab import request, runner

    names = ("devices", "checkpoint_seconds", "stall_seconds")
    changes = {name: value for name in names if (value := getattr(command, name)) is not None}
    if changes and together.index == 0 and not (command.folder / folders.SUMMARY).exists():
        with folders.hold(command.folder, new=False):
            request.change(command.folder, changes)
    together.meet("changed")  # the others read what the first process wrote
    runner.resume(command.folder, _console(), together)


def evaluate(command: cli.Evaluate) -> None:
    """Prints new scores of a run, a row for each point of its grid."""
    _configure(command.folder)
    from rlgen.experiments.tasks import EnvTask
    from rlgen.lab import rescore, statistics

    made, scores = rescore.scores(command.folder, command.episodes)
    task, better = made.experiment.task, made.experiment.task.higher_is_better
    console = _console()
    what = f"{task.metric}, {task.episodes} episodes a seed" if isinstance(task, EnvTask) else task.metric
    seeds, target = made.request.seeds, _target(made.experiment)
    console.print(f"{made.experiment.name}: {what}, {seeds} seeds, target {target}", soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (*(("point", "hypers") if made.axes else ()), "IQM", "95 % interval", "diverged"):
        table.add_column(heading, no_wrap=heading != "hypers")
    estimates = zip(*statistics.estimates(scores, higher_is_better=better), strict=True)
    for point, (values, (iqm, low, high)) in enumerate(zip(scores, estimates, strict=True)):
        interval = "—" if math.isnan(low) and math.isnan(high) else f"[{low:.5g}, {high:.5g}]"
        diverged = str(sum(not math.isfinite(value) for value in values))
        cells = (f"{iqm:.5g}", interval, diverged)
        table.add_row(*((str(point), made.label(point)) if made.axes else ()), *cells)
    console.print(table)


def report(command: cli.Report) -> None:
    """Writes a report on runs and prints its table."""
    from rlgen.lab import finished
    from rlgen.lab import report as reports
    from rlgen.lab.errors import UsageError

    if not command.folders:
        raise UsageError("a report needs a run folder")
    out = command.out or (command.folders[0] if len(command.folders) == 1 else Path("report"))
    runs = [finished.load(folder) for folder in command.folders]
    path = reports.write(runs, out)
    console = _console()
    console.print(reports.markdown(runs), soft_wrap=True)
    console.print(f"written to {path}", soft_wrap=True)


def play(command: cli.Play) -> None:
    """Makes the pictures of the lane that was asked for, or of the best one."""
    _configure(command.folder)
    from rlgen.lab import film, request, runner
    from rlgen.lab.errors import UsageError

    made = request.read(command.folder)
    if not 1 <= command.episodes <= film.MAX_EPISODES:
        raise UsageError(f"episodes={command.episodes} is impossible: it must lie in [1, {film.MAX_EPISODES}]")
    for name, value, count in (("seed", command.seed, made.request.seeds), ("point", command.point, len(made.points))):
        if value is not None and value >= count:
            raise UsageError(f"{name}={value} is impossible: the run has {name}s 0 to {count - 1}")
    trained = runner.restore(command.folder)
    point, seed = _best(command, made.experiment.task.higher_is_better)
    learned = film.lane(trained, point * made.request.seeds + seed)
    label = ", ".join(filter(None, (f"seed {seed}", made.label(point))))
    out = command.out or command.folder / "play"
    out.parent.mkdir(parents=True, exist_ok=True)
    for path in film.show(learned, out, label=label, num_episodes=command.episodes):
        _console().print(f"{label}: {path}", soft_wrap=True)


def said(error: Exception) -> str:
    """Says what went wrong, for an error that has an exit code."""
    if not _is_memory(error):
        return str(error)
    reason = (str(error) or "memory").splitlines()[0]
    return f"out of memory ({reason}): a sweep begun anew with --chunk N trains N lanes at a time, with auto what fits"


def exit_code(error: Exception) -> int | None:
    """Tells which exit code an error ends the program with.

    Args:
        error: what `run` raised.

    Returns:
        The code, or None for an error in the program itself, which keeps its traceback.
    """
    from rlgen.lab.checkpoints import CheckpointError
    from rlgen.lab.data import DataError
    from rlgen.lab.errors import UsageError
    from rlgen.lab.finished import RunError
    from rlgen.lab.folders import WriteError
    from rlgen.lab.training import Interrupted

    if isinstance(error, Interrupted):
        return cli.INTERRUPTED
    failures = (CheckpointError, DataError, WriteError, OSError)
    if isinstance(error, UsageError | RunError) and not isinstance(error, failures):
        return cli.WRONG
    return cli.FAILED if isinstance(error, failures) or is_stuck(error) or _is_memory(error) else None


def is_stuck(error: Exception) -> bool:
    """Tells whether a device has stopped, so that the process would hang if it ended in the ordinary way."""
    from rlgen.lab.devices import StalledDevice

    return isinstance(error, StalledDevice)


def _is_memory(error: Exception) -> bool:
    """Tells whether the memory of a device or of the host was too small."""
    from jax.errors import JaxRuntimeError

    exhausted = isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return exhausted or isinstance(error, MemoryError)


def _axis(values: Sequence[float]) -> str:
    """Writes the values of an axis, of many the first ones and the last."""
    words = [f"{value:g}" for value in values]
    if len(words) <= MOST_VALUES:
        return ",".join(words)
    return f"{','.join(words[:3])},…,{words[-1]} ({len(words)} values)"


def _find(name: str) -> Any:
    """Finds an experiment; a wrong name is the user's."""
    from rlgen.experiments import catalogue
    from rlgen.lab.errors import UsageError

    try:
        return catalogue.find(name)
    except LookupError as error:
        raise UsageError(str(error)) from error


def _configure(folder: Path, wanted: int | Literal["auto"] | None = None) -> None:
    """Sets up as many devices as wanted, or as a run was started with, before anything else makes JAX count them."""
    from rlgen.lab import devices, folders

    path = folder / folders.CONFIG
    if not path.is_file():
        raise folders.FolderError(f"{folder} holds no run: it has no {folders.CONFIG}")
    asked = folders.read_json(path).get("request")
    count = wanted or (asked.get("devices") if isinstance(asked, dict) else None)
    devices.configure(count if isinstance(count, int) and count > 0 else "auto")


def _best(command: cli.Play, higher_is_better: bool) -> tuple[int, int]:
    """Chooses point and seed: those that were asked for, and else the best by score; what diverged comes last."""
    import numpy as np

    from rlgen.lab import finished

    if command.point is not None and command.seed is not None:
        return command.point, command.seed
    scores = np.stack([point.scores for point in finished.load(command.folder).points])
    rank = np.where(np.isfinite(scores), scores if higher_is_better else -scores, -np.inf)
    points = range(len(rank)) if command.point is None else [command.point]
    seeds = range(rank.shape[1]) if command.seed is None else [command.seed]
    return max(((point, seed) for point in points for seed in seeds), key=lambda lane: rank[lane])


def _target(experiment: Any) -> str:
    """Writes what has to be reached, a dash where nothing has."""
    target = experiment.target
    return f"{'≥' if target.direction == 'max' else '≤'} {target.value:g}" if target else "—"


def _console() -> Console:
    """Where results are printed, word for word: brackets are shapes here and no markup."""
    return Console(markup=False, highlight=False)


HANDLERS: dict[type, Callable[[Any], None]] = {
    cli.List: list_experiments,
    cli.Show: show,
    cli.Sweep: sweep,
    cli.Resume: resume,
    cli.Evaluate: evaluate,
    cli.Report: report,
    cli.Play: play,
}
