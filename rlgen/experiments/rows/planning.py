"""Experiments on planning in known processes."""

from math import nan
from typing import Any

from rlgen.envs import grid, tables
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows.common import LINE, cliff, frozen_lake, own
from rlgen.experiments.tabular_tasks import PlanningTask
from rlgen.tabular import dynamic_programming, prioritised_sweeping

# Printed to two decimals, so that nothing nearer can be told apart.
_PRINTED = (0.85, 0.89, 0.93, nan, 0.81, nan, 0.68, nan, 0.77, 0.73, 0.70, 0.47)
PRINTED = Target(0.005, "values printed to two decimals, after Russell and Norvig 2010, section 17.2", "min")
# One less the living reward of every step on the shortest way.
_DETERMINISTIC = (0.91, 0.94, 0.97, nan, 0.88, nan, 0.94, nan, 0.85, 0.88, 0.91, 0.88)
FIXED_POINT = Target(1e-5, "Bellman's equation, to float32", "min")


def _planned(name: str, method: str, **fields: Any) -> Experiment:
    """The 4x3 world, unless the fields say otherwise, by one of the planning methods."""
    given = {
        "task": PlanningTask(own(grid.four_by_three), reference=_PRINTED),
        "hypers": dynamic_programming.Hypers(),
        "steps": 100,
        "seeds": 1,
        "target": PRINTED,
    }
    return Experiment(
        name=f"tabular/dynamic_programming/{name}",
        algorithm=dynamic_programming,
        config=dynamic_programming.Config(method=method),
        **{**given, **fields},
    )


ROWS = (
    _planned("FourByThree", "value_iteration"),
    _planned("FourByThree-policy-iteration", "policy_iteration", steps=10),
    _planned("FourByThree-modified", "modified_policy_iteration", steps=20),
    _planned("FourByThree-gauss-seidel", "gauss_seidel"),
    _planned(
        "FourByThree-deterministic",
        "value_iteration",
        task=PlanningTask(own(grid.four_by_three, move_probability=1.0), reference=_DETERMINISTIC),
        target=Target(1e-5, "one less 0.03 for every step of the shortest way", "min"),
    ),
    _planned(
        "FourByThree-discounts",
        "value_iteration",
        task=PlanningTask(own(grid.four_by_three)),
        target=FIXED_POINT,
        grid={"discount": (0.1, 0.5, 0.9, 0.96)},
    ),
    _planned(
        "Line",
        "value_iteration",
        task=PlanningTask(own(tables.line), reference=LINE),
        hypers=dynamic_programming.Hypers(discount=0.9),
        target=Target(1e-4, "closed form: every cell from which the way goes on is worth 10", "min"),
    ),
    _planned("FrozenLake-misc", "value_iteration", task=PlanningTask(frozen_lake), steps=1_000, target=FIXED_POINT),
    _planned("CliffWalking", "value_iteration", task=PlanningTask(cliff), target=FIXED_POINT),
    Experiment(
        name="tabular/prioritised_sweeping/FourByThree",
        algorithm=prioritised_sweeping,
        task=PlanningTask(own(grid.four_by_three), reference=_PRINTED),
        config=prioritised_sweeping.Config(),
        hypers=prioritised_sweeping.Hypers(),
        steps=200,
        seeds=1,
        target=PRINTED,
    ),
)
