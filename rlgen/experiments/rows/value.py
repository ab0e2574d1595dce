"""Experiments on methods that learn action values."""

from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows.common import CARTPOLE_LIMIT, gymnax_task
from rlgen.value import dqn

_TINY = {
    "num_envs": 2,
    "rollout_length": 2,
    "batch_size": 4,
    "capacity": 16,
    "warm_up": 3,
    "target_period": 2,
    "hidden_sizes": (8,),
}

ROWS = (
    Experiment(
        name="value/dqn/CartPole-v1",
        algorithm=dqn,
        task=gymnax_task("CartPole-v1"),
        # With the Huber loss, whose pull at a terminal state is bounded, values diverge at so short a period.
        config=dqn.Config(warm_up=10_000, target_period=50, error="squared"),
        hypers=dqn.Hypers(),
        steps=500_000,
        target=Target(475.0, "reward threshold of the task; " + CARTPOLE_LIMIT),
        tiny=_TINY,
    ),
)
