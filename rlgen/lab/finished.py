"""Finished runs as they are read back: `summary.json` and `metrics.npz` of a run folder, checked before use.

Shape legend: `G` grid points, `S` seeds, `U` windows of updates.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlgen.lab.folders import METRICS, SUMMARY

SUMMARY_KEYS = (
    *(
        "experiment",
        "changed",
        "seeds",
        "seed",
        "env_steps",
        "updates",
        "compile_seconds",
        "run_seconds",
        "steps_per_second",
    ),
    *("peak_rss_mb", "devices", "metric", "points", "target", "reached", "config", "begun"),
    *("versions", "git"),
)
POINT_KEYS = ("hypers", "iqm", "ci95", "per_seed", "diverged_seeds")
TARGET_KEYS = ("value", "direction", "source")
REAL = "iuf"  # kinds of arrays that hold real numbers
SHOWN = 40  # letters of a wrong value that a message repeats


class Kind(NamedTuple):
    """What a value of a summary may be: the test, and how a message calls it."""

    fits: Callable[[Any], bool]
    words: str


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(_number(value))
    except (TypeError, OverflowError):
        return False


TEXT = Kind(lambda value: isinstance(value, str), "a text")
WHOLE = Kind(lambda value: _is_whole(value) and value >= 0, "a whole number")
COUNT = Kind(lambda value: _is_whole(value) and value >= 1, "a whole number of at least 1")
NUMBER = Kind(_is_number, "a number")
OPTIONAL = Kind(lambda value: value is None or _is_number(value), "a number")
DIRECTION = Kind(lambda value: value in ("max", "min"), "max or min")
OBJECT = Kind(lambda value: isinstance(value, dict), "an object")
WHOLES = Kind(lambda value: isinstance(value, list) and all(map(_is_whole, value)), "a list of whole numbers")
TEXTS = Kind(lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of texts")
LIST = Kind(lambda value: isinstance(value, list), "a list")


class RunError(ValueError):
    """A run folder that cannot be read.  The message names the file and what is wrong with it."""


class Point(NamedTuple):
    """What a run's seeds came to at one point of its grid.

    Attributes:
        hypers: values by name.
        iqm: of the scores; nan if it is not defined.
        interval: its 95 % interval; a bound that is not defined is nan.
        scores: `[S]` float64; nan for a seed that diverged, or has none.
        diverged: `[S]` bool.
    """

    hypers: Mapping[str, Any]
    iqm: float
    interval: tuple[float, float]
    scores: NDArray[np.float64]
    diverged: NDArray[np.bool_]


class RunFolder(NamedTuple):
    """A finished run.

    Attributes:
        path: of the folder.
        summary: `summary.json` as it stands.
        points: one for each point of the grid, `G`.
        update: `[U]` updates done at the end of each window.
        env_steps: `[U]` environment steps of one seed by then.
        curve: `[G, S, U]` the main curve, higher is better; nan where a window brought nothing.
    """

    path: Path
    summary: Mapping[str, Any]
    points: Sequence[Point]
    update: NDArray[Any]
    env_steps: NDArray[Any]
    curve: NDArray[np.float64]

    @property
    def task(self) -> str:
        """The last part of the experiment's name."""
        return self.summary["experiment"].rpartition("/")[2]


def load(folder: Path) -> RunFolder:
    """Reads a run folder.

    Args:
        folder: with `summary.json` and `metrics.npz`.

    Returns:
        The run.

    Raises:
        RunError: if a file is missing, damaged or incomplete, or the two do not fit each other.
    """
    folder = Path(folder)
    summary = _read_summary(folder / SUMMARY)
    points = tuple(_point(folder / SUMMARY, point, summary["seeds"]) for point in summary["points"])
    update, env_steps, curve = _read_metrics(folder / METRICS, ("update", "env_steps", "curve"))
    if not all(array.dtype.kind in REAL for array in (update, env_steps, curve)):
        raise RunError(f"{folder / METRICS} is damaged: update, env_steps and curve are not all numbers")
    expected = (len(points), summary["seeds"], update.size)
    if curve.shape != expected or env_steps.shape != update.shape or update.ndim != 1 or not update.size:
        found = f"update {list(update.shape)}, env_steps {list(env_steps.shape)}, curve {list(curve.shape)}"
        raise RunError(f"{folder / METRICS} does not fit {SUMMARY}: {found}, but the curve should be {list(expected)}")
    return RunFolder(folder, summary, points, update, env_steps, curve.astype(np.float64))


def _number(value: Any) -> float:
    """Reads a number of a summary, where null is nan.

    Raises:
        TypeError: if it is none.
        OverflowError: if it is a whole number that no float holds.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r}")
    return float(value)


def _read_summary(path: Path) -> dict[str, Any]:
    """Reads `summary.json` and checks that what is read of it is there."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: not a run folder, or the run has not finished") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8, or nested a thousand deep
        raise RunError(f"{path} is damaged: {error}") from error
    _check_keys(path, "", summary, SUMMARY_KEYS)
    _check_values(path, "", summary, {"experiment": TEXT, "metric": TEXT, "seeds": COUNT, "env_steps": WHOLE})
    _check_values(path, "", summary, {"steps_per_second": OPTIONAL, "changed": TEXTS})
    if summary["target"] is not None:
        _check_keys(path, "target", summary["target"], TARGET_KEYS)
        _check_values(path, "target", summary["target"], {"value": NUMBER, "direction": DIRECTION, "source": TEXT})
    if not isinstance(summary["points"], list) or not summary["points"]:
        raise RunError(f"{path} is damaged: points is no list, or empty")
    for index, point in enumerate(summary["points"]):
        _check_keys(path, f"points[{index}]", point, POINT_KEYS)
        _check_values(path, f"points[{index}]", point, {"hypers": OBJECT, "ci95": LIST, "per_seed": LIST})
        _check_values(path, f"points[{index}]", point, {"diverged_seeds": WHOLES})
    return summary


def _check_keys(path: Path, part: str, found: Any, keys: Sequence[str]) -> None:
    """Refuses a part of a summary that is no object or lacks a key."""
    missing = [key for key in keys if key not in found] if isinstance(found, dict) else list(keys)
    if missing:
        raise RunError(f"{path} is damaged: {part + ' ' if part else ''}lacks {', '.join(missing)}")


def _check_values(path: Path, part: str, found: Mapping[str, Any], wanted: Mapping[str, Kind]) -> None:
    """Refuses a part of a summary of which a value is of another kind."""
    for name, kind in wanted.items():
        if not kind.fits(found[name]):
            where = f"{part}.{name}" if part else name
            raise RunError(f"{path} is damaged: {where} is {json.dumps(found[name])[:SHOWN]}, and not {kind.words}")


def _point(path: Path, point: Mapping[str, Any], num_seeds: int) -> Point:
    """Reads a point of a summary."""
    try:
        scores = np.array([_number(score) for score in point["per_seed"]])
        low, high = (_number(bound) for bound in point["ci95"])
        iqm = _number(point["iqm"])
    except (TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path} is damaged: a point holds what is no number ({error})") from error
    if len(scores) != num_seeds:
        raise RunError(f"{path} is damaged: a point has {len(scores)} scores for {num_seeds} seeds")
    hypers = {name: math.inf if value is None else value for name, value in point["hypers"].items()}  # null: no limit
    diverged = np.isin(np.arange(num_seeds), point["diverged_seeds"])
    return Point(hypers, iqm, (low, high), scores, diverged)


def _read_metrics(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Reads named arrays of `metrics.npz`; a pickled one is refused unread."""
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing") from error
    except KeyError as error:
        raise RunError(f"{path} is incomplete: {error.args[0]}") from error
    except Exception as error:  # of a dozen types, according to which byte is damaged
        raise RunError(f"{path} is damaged: {error}") from error
