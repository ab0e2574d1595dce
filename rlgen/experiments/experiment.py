"""What an experiment is, and how it becomes functions to sweep."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax

from rlgen import train
from rlgen.core import Array, Key
from rlgen.experiments import bounds
from rlgen.experiments.tasks import Task

# The key that scores a run is folded with a number that no update reaches.
_SCORE = 2**31 - 1
MOST_UPDATES = _SCORE - 1  # that int32 counts


@dataclasses.dataclass(frozen=True)
class Target:
    """What an experiment has to reach.

    Attributes:
        value: of the experiment's metric, for the IQM over seeds.
        source: where the figure comes from, or the definition that fixes it.
        direction: `"max"` where the result must be at least `value`, `"min"` where at most.
    """

    value: float
    source: str
    direction: str = "max"

    def reached(self, result: float) -> bool:
        """Tells whether a result is good enough; a result that is no number never is."""
        return result >= self.value if self.direction == "max" else result <= self.value


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A row of the catalogue.

    Attributes:
        name: `family/algorithm/task`.
        algorithm: module with `Config`, `Hypers` and `build(spec, config)`.
        task: what it is tried on.
        config: what shapes the program.
        hypers: numbers; a `horizon` of infinity stands for the whole run.
        steps: budget of a seed, in transitions or examples.
        seeds: how many seeds the target is stated for.
        target: what the IQM over seeds must reach, or None while no figure is known.
        tiny: fields of `config` that make the same program small enough to test.
        grid: values by name of a hyperparameter, over whose product a sweep runs unless it is told otherwise.
        chunk: most seeds × grid points at a time, to bound memory, unless a sweep is told otherwise; None for all.
    """

    name: str
    algorithm: ModuleType
    task: Task
    config: Any
    hypers: Any
    steps: int
    seeds: int = 16
    target: Target | None = None
    tiny: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    grid: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    chunk: int | None = None


class Bound(NamedTuple):
    """An experiment as functions.

    Attributes:
        hypers: the experiment's, with its horizon filled in.
        num_updates: updates within the budget.
        steps_per_update: transitions or examples an update.
        make_run: `data -> Run`.
        score: `(data, key, step, algorithm_state, hypers) -> scalar`, where `key` is the run's key.
    """

    hypers: Any
    num_updates: int
    steps_per_update: int
    make_run: Callable[[Any], train.Run]
    score: Callable[[Any, Key, Array, Any, Any], Array]


def bind(experiment: Experiment) -> Bound:
    """Turns an experiment into functions.

    Args:
        experiment: a row, possibly with fields replaced.

    Returns:
        The functions to sweep.

    Raises:
        ValueError: if a value is impossible, the algorithm does not fit the task, or the budget is smaller than one
            update or larger than can be counted.
    """
    algorithm, task, config, hypers = experiment.algorithm, experiment.task, experiment.config, experiment.hypers
    bounds.check_config(config)
    steps_per_update = task.steps_per_update(config)
    num_updates = experiment.steps // steps_per_update
    if num_updates < 1:
        raise ValueError(f"{experiment.steps} steps are fewer than one update's {steps_per_update}")
    if getattr(config, "warm_up", 0) > num_updates * steps_per_update:
        raise ValueError(f"config.warm_up={config.warm_up} leaves nothing of {experiment.steps:,} steps to learn in")
    most_updates = getattr(task, "most_updates", num_updates)
    if num_updates > most_updates:
        raise ValueError(
            f"{num_updates:,} updates are too many: a run of {experiment.name} ends after {most_updates:,}"
        )
    if num_updates > MOST_UPDATES:
        most = MOST_UPDATES * steps_per_update
        raise ValueError(f"{experiment.steps:.4g} steps are more than the {most:,} of {MOST_UPDATES:,} updates")
    if math.isinf(getattr(hypers, "horizon", 0.0)):
        hypers = hypers._replace(horizon=float(num_updates))
    bounds.check_hypers(hypers)
    built = algorithm.build(task.spec, config)
    # Traced once without compiling: networks say only now what they cannot read or do not know.
    jax.eval_shape(lambda: built.init(jax.random.key(0), hypers))

    def make_run(data: Any) -> train.Run:
        return train.make(built, task.source(config, data))

    def score(data: Any, key: Key, step: Array, state: Any, run_hypers: Any) -> Array:
        return task.score(algorithm, config, data)(jax.random.fold_in(key, _SCORE), step, state, run_hypers)

    return Bound(hypers, num_updates, steps_per_update, make_run, score)


def shrink(experiment: Experiment, num_updates: int = 4) -> Experiment:
    """Makes the same program tiny.

    Args:
        experiment: a row.
        num_updates: its new budget.

    Returns:
        The row with `tiny` applied to its config and a budget of a few updates.
    """
    config = dataclasses.replace(experiment.config, **experiment.tiny)
    steps = num_updates * experiment.task.steps_per_update(config)
    return dataclasses.replace(experiment, config=config, steps=steps, target=None)
