"""Settings and grids as text, applied to an experiment.

A setting is `config.num_envs=8` or `hypers.learning_rate=1e-3`; an axis of a grid is `hypers.discount=0.9,0.99`.
Values are typed by the field that they set, and refused here, by name, before anything is compiled.
"""

import dataclasses
import difflib
import itertools
import math
import types
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlgen.experiments import bounds
from rlgen.experiments.experiment import Experiment
from rlgen.lab.errors import UsageError

CONFIG, HYPERS = "config.", "hypers."
EMPTY = "()"  # how a list of nothing is written


def apply(
    experiment: Experiment, settings: Sequence[str], grid: Sequence[str]
) -> tuple[Experiment, dict[str, list[float]]]:
    """Applies settings to an experiment and reads a grid over its hyperparameters.

    Args:
        experiment: a row of the catalogue.
        settings: such as `hypers.learning_rate=1e-3`, `config.hidden_sizes=64,64` or `config.double=true`.
        grid: such as `hypers.discount=0.9,0.99`; the grid is the product of its axes.

    Returns:
        `(experiment, axes)`: the changed row, and values by name of a hyperparameter.

    Raises:
        UsageError: if a name is unknown or given twice, a value is missing, of the wrong type or impossible, or a
            switch of the config leaves what is set without effect.
    """
    kinds = _kinds(experiment)
    values: dict[str, Any] = {}
    for text in settings:
        name, value = _split(text, kinds)
        if name in values:
            raise UsageError(f"{name} is set twice")
        values[name] = _convert(name, value, kinds[name])
    axes: dict[str, list[float]] = {}
    for text in grid:
        name, value = _split(text, kinds)
        if name.startswith(CONFIG):
            raise UsageError(f"{name} is static: it shapes the program, so run one sweep for each of its values")
        if name in axes or name in values:
            raise UsageError(f"{name} is given twice")
        axes[name] = _axis(name, value)
    experiment = _replace(experiment, values)
    reasons = getattr(experiment.config, "idle", {})
    for name in (name for name in (*values, *axes) if name.removeprefix(HYPERS) in reasons):
        raise UsageError(f"{name} has no effect with {reasons[name.removeprefix(HYPERS)]}")
    leaves = {name.removeprefix(HYPERS): axis for name, axis in axes.items()}
    for name, axis in leaves.items():
        for value in axis:
            _checked(bounds.check_hyper, name, value)
    for pair in (pair for pair in (*bounds.ASCENDING, *bounds.NOT_ABOVE) if set(pair) & set(leaves)):
        both = {name: leaves[name] for name in pair if name in leaves}
        for point in itertools.product(*both.values()):
            _checked(bounds.check_pairs, experiment.hypers._replace(**dict(zip(both, point, strict=True))))
    return experiment, leaves


def default_grid(experiment: Experiment, settings: Sequence[str]) -> tuple[str, ...]:
    """Writes the grid of a row as text, without the axes that settings fix.

    Args:
        experiment: a row of the catalogue.
        settings: as `apply` takes them.

    Returns:
        Axes, as `apply` takes them.

    Raises:
        UsageError: if a name in the settings is unknown, or a value is missing.
    """
    kinds = _kinds(experiment)
    fixed = {_split(text, kinds)[0] for text in settings}
    axes = {HYPERS + name: values for name, values in experiment.grid.items()}
    return tuple(f"{name}={','.join(map(repr, map(float, axes[name])))}" for name in axes if name not in fixed)


def _kinds(experiment: Experiment) -> dict[str, Any]:
    """Gives the type of every setting, by its full name."""
    hints = typing.get_type_hints(type(experiment.config))
    config = {CONFIG + field.name: hints[field.name] for field in dataclasses.fields(experiment.config)}
    return config | {HYPERS + name: float for name in experiment.hypers._fields}


def _split(text: str, kinds: dict[str, Any]) -> tuple[str, str]:
    """Splits `name=value` and checks the name."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise UsageError(f"{text!r} has no '=': write it as hypers.learning_rate=1e-3")
    if name not in kinds:
        leaf = name.rpartition(".")[2]
        exact = [full for full in kinds if full.rpartition(".")[2] == leaf]
        leaves = {full.rpartition(".")[2]: full for full in kinds}
        near = exact or [leaves[close] for close in difflib.get_close_matches(leaf, leaves, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(kinds)}"
        raise UsageError(f"there is no setting {name!r}: {hint}")
    if not value:
        raise UsageError(f"{name} has no value")
    return name, value


def _convert(name: str, text: str, kind: Any) -> Any:
    """Reads a value of a type.

    Raises:
        UsageError: if it is none of that type.
    """
    text = text.strip()
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if text == EMPTY:
            return ()
        return tuple(_convert(name, part, arguments[0]) for part in text.split(","))
    if origin in (types.UnionType, typing.Union):
        if text.lower() == "none":
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _convert(name, text, kind)
    if origin is typing.Literal and text in arguments:
        return text
    if kind is str:
        return text
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float):
        return _number(name, text, kind)
    needed = "true or false" if kind is bool else f"one of {', '.join(map(str, arguments))}"
    raise UsageError(f"{name}={text} is impossible: {needed} is needed")


def _number(name: str, text: str, kind: type) -> int | float:
    """Reads a number; a real one must survive as float32, and be infinite only where that means unlimited."""
    try:
        value = kind(text)
    except ValueError as error:
        needed = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name}={text} is impossible: {needed} is needed") from error
    if value == math.inf and value in bounds.HYPERS.get(name.removeprefix(HYPERS), bounds.REAL):
        return value
    with np.errstate(over="ignore"):
        if kind is float and not np.isfinite(np.float32(value)):
            raise UsageError(f"{name}={text} is impossible: a finite number (float32) is needed")
        if value and not np.float32(value):
            raise UsageError(f"{name}={text} is impossible: it is so small that float32 takes it for 0")
    return value


def _axis(name: str, text: str) -> list[float]:
    """Reads the values of one axis of a grid."""
    parts = text.split(",")
    if not all(part.strip() for part in parts):
        raise UsageError(f"{name}={text} holds an empty value")
    values = [float(_number(name, part.strip(), float)) for part in parts]
    if len({float(np.float32(value)) for value in values}) < len(values):
        raise UsageError(f"{name}={text} holds a value twice")
    return values


def _replace(experiment: Experiment, values: dict[str, Any]) -> Experiment:
    """Sets fields, and checks them together."""
    config = {name.removeprefix(CONFIG): value for name, value in values.items() if name.startswith(CONFIG)}
    hypers = {name.removeprefix(HYPERS): value for name, value in values.items() if name.startswith(HYPERS)}
    changed = dataclasses.replace(
        experiment,
        config=_checked(dataclasses.replace, experiment.config, **config),
        hypers=experiment.hypers._replace(**hypers),
    )
    _checked(bounds.check_config, changed.config)
    _checked(bounds.check_hypers, changed.hypers)
    return changed


def _checked(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a function whose `ValueError` is the user's."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise UsageError(str(error)) from error
