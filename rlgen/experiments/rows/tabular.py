"""Experiments on tabular methods: control here, then planning, prediction and bandits."""

from rlgen.envs import grid, tables
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows import bandits, planning, prediction
from rlgen.experiments.rows.common import BOOK, LINE, cliff, frozen_lake, own
from rlgen.experiments.tabular_tasks import ActionValueTask
from rlgen.experiments.tasks import EnvTask
from rlgen.tabular import dyna_q, monte_carlo_control, q_learning, sarsa, sarsa_lambda

SHORTEST = Target(-13.0, "length of the optimal path; " + BOOK + "example 6.6")
ONLINE = Target(-30.0, "Sarsa's return while it learns, about −25; Q-learning's is about −50: " + BOOK + "example 6.6")
SAFE = Target(-17.0, "length of the path along the upper edge; " + BOOK + "example 6.6")

ROWS = (
    Experiment(
        name="tabular/q_learning/CliffWalking",
        algorithm=q_learning,
        task=EnvTask(cliff),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.5, discount=1.0, epsilon_start=0.1, epsilon_end=0.1),
        steps=50_000,
        target=SHORTEST,
        tiny={"num_envs": 4},
    ),
    *(
        Experiment(
            name=f"tabular/{name}/CliffWalking-online",
            algorithm=algorithm,
            task=EnvTask(cliff, online=True),
            config=algorithm.Config(),
            hypers=algorithm.Hypers(learning_rate=0.5, discount=1.0, epsilon_start=0.1, epsilon_end=0.1),
            steps=50_000,
            seeds=100,
            target=target,
            tiny={"num_envs": 4},
        )
        for name, algorithm, target in (("q_learning", q_learning, None), ("sarsa", sarsa, ONLINE))
    ),
    Experiment(
        name="tabular/q_learning/DynaMaze",
        algorithm=q_learning,
        task=EnvTask(own(grid.dyna_maze), measure="length", higher_is_better=False),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.1, discount=0.95),
        steps=6_000,
        tiny={"num_envs": 4},
    ),
    Experiment(
        name="tabular/q_learning/Line",
        algorithm=q_learning,
        task=ActionValueTask(own(tables.line), reference=LINE),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.1, discount=0.9, epsilon_start=1.0, epsilon_end=1.0),
        steps=20_000,
        target=Target(0.05, "closed form: every cell from which the way goes on is worth 10", "min"),
    ),
    Experiment(
        name="tabular/q_learning/FrozenLake-misc",
        algorithm=q_learning,
        task=EnvTask(frozen_lake),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.05, discount=0.99, epsilon_start=1.0, epsilon_end=0.05),
        steps=200_000,
        target=Target(0.7, "reward threshold of the task (gymnasium, FrozenLake-v1)"),
    ),
    *(
        Experiment(
            name=f"tabular/q_learning/MaximisationBias{'-double' * double}",
            algorithm=q_learning,
            task=EnvTask(own(tables.maximisation_bias), measure="length", online=True, higher_is_better=False),
            config=q_learning.Config(double=double, num_actions=(2, 10, 1)),
            hypers=q_learning.Hypers(learning_rate=0.1),
            steps=400,
            seeds=1_000,
            tiny={"num_envs": 4, "rollout_length": 16},
        )
        for double in (False, True)
    ),
    *(
        Experiment(
            name=f"tabular/sarsa/CliffWalking{suffix}",
            algorithm=sarsa,
            task=EnvTask(cliff),
            config=config,
            hypers=sarsa.Hypers(learning_rate=learning_rate),
            steps=50_000,
            target=SAFE,
            tiny={"rollout_length": config.num_steps},
        )
        for suffix, config, learning_rate in (
            ("", sarsa.Config(), 0.1),
            ("-expected", sarsa.Config(target="expected"), 0.5),
            ("-4-step", sarsa.Config(num_steps=4), 0.05),
        )
    ),
    Experiment(
        name="tabular/sarsa/WindyGrid",
        algorithm=sarsa,
        task=EnvTask(own(tables.windy_grid)),
        config=sarsa.Config(),
        hypers=sarsa.Hypers(learning_rate=0.2, epsilon_end=0.0),
        steps=50_000,
        target=Target(-15.0, "length of the optimal path; " + BOOK + "example 6.5"),
    ),
    Experiment(
        name="tabular/sarsa_lambda/WindyGrid",
        algorithm=sarsa_lambda,
        task=EnvTask(own(tables.windy_grid)),
        config=sarsa_lambda.Config(),
        hypers=sarsa_lambda.Hypers(learning_rate=0.1, trace_decay=0.8, epsilon_end=0.0),
        steps=50_000,
        target=Target(-15.0, "length of the optimal path; " + BOOK + "example 6.5"),
    ),
    Experiment(
        name="tabular/monte_carlo_control/FourByThree",
        algorithm=monte_carlo_control,
        task=EnvTask(own(grid.four_by_three), episodes=1_024),
        config=monte_carlo_control.Config(),
        hypers=monte_carlo_control.Hypers(step_exponent=0.7, epsilon_start=0.3, epsilon_end=0.0),
        tiny={"num_envs": 4, "rollout_length": 16, "max_length": 10},
        steps=50_000,
        target=Target(0.75, "0.77, the value of the start, less what 1 024 episodes may miss it by"),
    ),
    *(
        Experiment(
            name=f"tabular/dyna_q/DynaMaze{suffix}",
            algorithm=dyna_q,
            task=EnvTask(own(grid.dyna_maze), measure="length", higher_is_better=False),
            config=config,
            hypers=dyna_q.Hypers(learning_rate=learning_rate),
            steps=6_000,
            target=Target(14.0, "length of the optimal path; " + BOOK + "example 8.1", "min"),
            tiny={"num_planning": min(config.num_planning, 3)},
        )
        for suffix, config, learning_rate in (
            ("", dyna_q.Config(num_planning=50), 0.1),
            ("-5-steps", dyna_q.Config(num_planning=5), 0.1),
            ("-prioritised", dyna_q.Config(num_planning=5, prioritised=True), 1.0),
        )
    ),
    *planning.ROWS,
    *prediction.ROWS,
    *bandits.ROWS,
)
