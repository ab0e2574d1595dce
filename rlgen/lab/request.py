"""What was asked for, and everything that is needed to ask for it again.

`config.json` of a run folder holds the request, what it came to (the whole config, the hyperparameters of every grid
point), the versions of the libraries, and the revision of the project where it is a checkout.
"""

import dataclasses
import functools
import importlib.metadata
import math
import platform
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlgen import sweep
from rlgen.experiments import catalogue
from rlgen.experiments.experiment import Bound, Experiment, bind
from rlgen.lab import devices, folders, grids, overrides
from rlgen.lab.devices import Devices
from rlgen.lab.errors import UsageError
from rlgen.lab.folders import FolderError

FORMAT = 1  # of `config.json`
LIBRARIES = ("rlgen", "jax", "jaxlib", "flax", "optax", "gymnax", "distrax", "orbax-checkpoint", "numpy")
MAX_SEED = 2**32 - 1
MOST_LANES = 2**24  # whose keys and hyperparameters, which all groups share, fit into a host's memory


@dataclasses.dataclass(frozen=True)
class Request:
    """A sweep as it was asked for.

    Attributes:
        experiment: full name of a row of the catalogue.
        settings: see `overrides.apply`.
        grid: see `overrides.apply`.
        seeds: how many.
        seed: from which all of them are derived.
        steps: budget of a seed, in transitions or examples; None for the row's.
        devices: how many, or `"auto"`.
        chunk: most lanes at a time, to bound memory; None for all.
        checkpoint_seconds: between two checkpoints.
        stall_seconds: after which a device that finishes nothing counts as stalled.
        windows: points on the curve.
        quiet: whether only the last line is printed.
        tensorboard: whether to write TensorBoard event files.
        wandb: whether to log to Weights & Biases.
    """

    experiment: str
    settings: tuple[str, ...] = ()
    grid: tuple[str, ...] = ()
    seeds: int = 16
    seed: int = 0
    steps: int | None = None
    devices: Devices = "auto"
    chunk: int | None = None
    checkpoint_seconds: float = 60.0
    stall_seconds: float = 600.0
    windows: int = 256
    quiet: bool = False
    tensorboard: bool = False
    wandb: bool = False

    def __post_init__(self):
        for name in ("seeds", "steps", "chunk", "windows", "devices"):
            value = getattr(self, name)
            optional = {"steps": None, "chunk": None, "devices": "auto"}
            if name in optional and value == optional[name]:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{name}={value} is impossible: a whole number of at least 1 is needed")
        if self.seeds > MOST_LANES:
            raise UsageError(f"seeds={self.seeds:.4g} is impossible: {MOST_LANES:,} are the most")
        if not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed={self.seed} is impossible: it must lie in [0, {MAX_SEED}]")
        for name, smallest in (("checkpoint_seconds", 0.0), ("stall_seconds", 1e-3)):
            value, largest = getattr(self, name), threading.TIMEOUT_MAX
            if not isinstance(value, int | float) or not smallest <= value <= largest:
                raise UsageError(f"{name}={value} is impossible: it must lie in [{smallest:g}, {largest:g}]")


class Plan(NamedTuple):
    """What a request comes to."""

    request: Request
    experiment: Experiment  # with settings and budget applied
    bound: Bound
    axes: dict[str, list[float]]  # of the grid, by name
    points: list[Any]  # `[G]` hyperparameters

    @property
    def num_lanes(self) -> int:
        """`G * S`."""
        return len(self.points) * self.request.seeds

    @property
    def at_a_time(self) -> int:
        """Lanes that are trained at a time."""
        return min(self.request.chunk or self.num_lanes, self.num_lanes)

    @property
    def bounds(self) -> list[int]:
        """Where windows of updates begin and end, `[U + 1]`: from none to all updates, as evenly as can be."""
        total = self.bound.num_updates
        windows = min(self.request.windows, total)
        return [round(index * total / windows) for index in range(windows + 1)]

    @property
    def changed(self) -> list[str]:
        """In what a run is not the catalogue's: fewer seeds than its target is stated for, its budget, settings."""
        row, asked = catalogue.find(self.experiment.name), self.request
        fewer = [f"{asked.seeds} of {row.seeds} seeds"] if asked.seeds < row.seeds else []
        steps = self.experiment.steps
        budget = [f"{steps:,} of {row.steps:,} steps"] if steps != row.steps else []
        return [*fewer, *budget, *asked.settings]

    def label(self, point: int) -> str:
        """Names a grid point by what varies; empty without a grid."""
        return grids.label({name: getattr(self.points[point], name) for name in self.axes})


def plan(request: Request) -> Plan:
    """Works out what a request comes to, and sets JAX up for it: building an environment may already start JAX.

    Args:
        request: what was asked for.

    Returns:
        The plan.

    Raises:
        UsageError: if there is no such experiment, a value is impossible, or an extra is missing.
    """
    devices.configure(request.devices)
    try:
        row = catalogue.find(request.experiment)
    except LookupError as error:
        raise UsageError(str(error)) from error
    experiment, axes = overrides.apply(row, request.settings, request.grid)
    num_lanes = request.seeds * math.prod(map(len, axes.values()))
    if num_lanes > MOST_LANES:  # before anything is made for each
        raise UsageError(f"{num_lanes:,} seeds × grid points are impossible: {MOST_LANES:,} are the most")
    if request.steps is not None:
        experiment = dataclasses.replace(experiment, steps=request.steps)
    try:
        bound = bind(experiment)
    except (ValueError, ModuleNotFoundError) as error:  # the latter names the extra that an environment needs
        raise UsageError(str(error)) from error
    if "horizon" in axes:  # infinity stands for the whole run
        axes["horizon"] = [value if math.isfinite(value) else float(bound.num_updates) for value in axes["horizon"]]
    return Plan(request, experiment, bound, axes, sweep.points(bound.hypers, axes))


def write(folder: Path, made: Plan) -> None:
    """Writes `config.json`.

    Args:
        folder: the run folder.
        made: what to write down.
    """
    content = {
        "format": FORMAT,
        "request": dataclasses.asdict(made.request),
        "resolved": _resolved(made),
        "versions": versions(),
        "git": revision(),
    }
    folders.write_json(folder / folders.CONFIG, content)


def read(folder: Path) -> Plan:
    """Reads `config.json`.

    Args:
        folder: the run folder.

    Returns:
        The same plan that was written.

    Raises:
        FolderError: if the file is missing or damaged, of another format, or the catalogue has changed since, so that
            the same request is now another run.
    """
    path = folder / folders.CONFIG
    content = folders.read_json(path)
    if content.get("format") != FORMAT:
        raise FolderError(f"{path} has the format {content.get('format')!r}; this version reads {FORMAT}")
    asked, resolved = content.get("request"), content.get("resolved")
    fields = {field.name for field in dataclasses.fields(Request)}
    if not isinstance(asked, dict) or set(asked) != fields or not isinstance(resolved, dict):
        wrong = sorted(fields ^ set(asked)) if isinstance(asked, dict) else ["request"]
        raise FolderError(f"{path} is damaged: {', '.join(wrong) or 'resolved'} missing or unknown")
    try:
        texts: dict[str, Any] = {name: _texts(asked[name]) for name in ("settings", "grid")}
        made = plan(Request(**{**asked, **texts}))
    except (UsageError, TypeError) as error:
        raise FolderError(f"{path} is damaged, or from another version: {error}") from error
    now = folders.strict(_resolved(made))
    changed = [name for name in now if now[name] != resolved.get(name)]
    if changed:
        raise FolderError(
            f"{path} is damaged, or the catalogue has changed since: {', '.join(changed)} would not be the same"
        )
    return made


def drift(folder: Path) -> str | None:
    """Says what a run that goes on here was begun under, if that was something else.

    Args:
        folder: the run folder.

    Returns:
        One line; None where libraries and revision are the same.

    Raises:
        FolderError: if `config.json` cannot be read.
    """
    content, now = folders.read_json(folder / folders.CONFIG), {**versions(), "rlgen's revision": revision()}
    begun = {**dict(content.get("versions") or {}), "rlgen's revision": content.get("git")}
    changed = [f"{name} {begun.get(name)}, now {now[name]}" for name in now if now[name] != begun.get(name)]
    return f"begun under {'; '.join(changed)}: the rest may differ in its bits" if changed else None


def change(folder: Path, changes: Mapping[str, Any]) -> None:
    """Changes how a run goes on, in its `config.json`: what it comes to and what it began with stay.

    Args:
        folder: the run folder, held.
        changes: values by name of a field of `Request`, none of which is part of what the run comes to.

    Raises:
        FolderError: if `config.json` cannot be read or written.
        UsageError: if a value is impossible.
    """
    made = read(folder)
    asked = dataclasses.replace(made.request, **changes)
    devices.choose(asked.devices, made.at_a_time)
    content = folders.read_json(folder / folders.CONFIG)
    folders.write_json(folder / folders.CONFIG, content | {"request": dataclasses.asdict(asked)})


def _texts(value: Any) -> tuple[str, ...]:
    """Checks a list of texts."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UsageError(f"{value!r} is no list of texts")
    return tuple(value)


def _resolved(made: Plan) -> dict[str, Any]:
    """Writes out what a request came to."""
    return {
        "experiment": made.experiment.name,
        "steps": made.experiment.steps,
        "num_updates": made.bound.num_updates,
        "steps_per_update": made.bound.steps_per_update,
        "config": dataclasses.asdict(made.experiment.config),
        "points": [point._asdict() for point in made.points],
    }


def versions() -> dict[str, str]:
    """Lists the versions of Python and of the libraries that decide a run's bits."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}


@functools.cache
def revision() -> str | None:
    """Names the project's git revision, with `-dirty` where the code differs from it; None where it is no checkout."""
    home = Path(__file__).parents[1]

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(home), *command], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
