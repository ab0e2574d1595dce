"""Experiments on decision processes and tabular methods."""

from rlgen.envs import adapter, grid
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.tasks import EnvTask
from rlgen.tabular import q_learning


def _cliff() -> adapter.Environment:
    return adapter.make(grid.CliffWalking())


ROWS = (
    Experiment(
        name="tabular/q_learning/CliffWalking",
        algorithm=q_learning,
        task=EnvTask(_cliff),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.5, discount=1.0, epsilon_start=0.1, epsilon_end=0.1),
        steps=50_000,
        target=Target(-13.0, "length of the optimal path; Sutton and Barto 2018, example 6.6"),
    ),
)
