"""Experiments on the prediction of values."""

from typing import Any

from rlgen.envs import tables
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows.common import BOOK, own
from rlgen.experiments.tabular_tasks import PredictionTask
from rlgen.tabular import batch_prediction, gradient_td, monte_carlo, n_step_td, td_lambda

# True values of the random walks under a policy that goes left and right alike.
_WALK19 = tuple(state / 10 - 1 for state in range(1, 20))
_WALK5 = tuple(state / 6 for state in range(1, 6))
_FIRST_TEN: dict[str, Any] = {"rollout_length": 2_560, "reference": _WALK19, "num_episodes": 10}
_walk19 = PredictionTask(own(tables.random_walk), online=True)
_walk5 = PredictionTask(own(tables.random_walk, 5, (0.0, 1.0)))
_DRIFTING: dict[str, Any] = {"rollout_length": 256, "behaviour": (0.5, 0.5), "target": (0.3, 0.7)}

ROWS = (
    Experiment(
        name="tabular/n_step_td/RandomWalk19",
        algorithm=n_step_td,
        task=_walk19,
        config=n_step_td.Config(**_FIRST_TEN),
        hypers=n_step_td.Hypers(),
        steps=2_560,
        seeds=100,
        target=Target(0.28, "lowest point of figure 7.2, as read off it; " + BOOK + "section 7.1", "min"),
        tiny={"rollout_length": 64},
        grid={
            "num_steps": tuple(2.0**power for power in range(10)),
            "learning_rate": tuple(share / 100 for share in range(1, 101)),
        },
        chunk=10_000,
    ),
    *(
        Experiment(
            name=f"tabular/td_lambda/RandomWalk19{suffix}",
            algorithm=td_lambda,
            task=_walk19,
            config=config,
            hypers=td_lambda.Hypers(),
            steps=2_560,
            seeds=100,
            target=target,
            tiny={"rollout_length": 64},
            grid={
                "trace_decay": (0.0, 0.4, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0),
                "learning_rate": tuple(share / 20 for share in range(1, 21)),
            },
            chunk=10_000,
        )
        for suffix, config, target in (
            ("", td_lambda.Config(traces="accumulating", **_FIRST_TEN), None),
            ("-replacing", td_lambda.Config(traces="replacing", **_FIRST_TEN), None),
            (
                "-dutch",
                td_lambda.Config(traces="dutch", **_FIRST_TEN),
                Target(0.28, "lowest point of figure 12.8, as read off it; " + BOOK + "12.5", "min"),
            ),
        )
    ),
    *(
        Experiment(
            name=f"tabular/monte_carlo/RandomWalk19{ending}",
            algorithm=monte_carlo,
            task=PredictionTask(own(tables.random_walk)),
            config=config,
            hypers=monte_carlo.Hypers(),
            steps=512_000,
            target=Target(0.05, "set by this project for about 5 000 episodes", "min"),
            tiny={"rollout_length": 128},
        )
        for ending, config in (("", monte_carlo.Config()), ("-every-visit", monte_carlo.Config(visits="every")))
    ),
    *(
        Experiment(
            name=f"tabular/monte_carlo/RandomWalk5-{config.importance}",
            algorithm=monte_carlo,
            task=_walk5,
            config=config,
            hypers=monte_carlo.Hypers(),
            steps=256_000,
            target=target,
            tiny={"rollout_length": 128},
        )
        for config, target in (
            (monte_carlo.Config(importance="ordinary", **_DRIFTING), None),
            (
                monte_carlo.Config(importance="weighted", **_DRIFTING),
                Target(0.05, "set by this project for about 28 000 episodes", "min"),
            ),
        )
    ),
    Experiment(
        name="tabular/n_step_td/RandomWalk5-off-policy",
        algorithm=n_step_td,
        task=_walk5,
        config=n_step_td.Config(**_DRIFTING),
        hypers=n_step_td.Hypers(learning_rate=0.01, num_steps=2.0),
        steps=256_000,
        target=Target(0.05, "set by this project", "min"),
        tiny={"rollout_length": 64},
    ),
    *(
        Experiment(
            name=f"tabular/batch_prediction/RandomWalk5{suffix}",
            algorithm=batch_prediction,
            task=_walk5,
            config=config,
            hypers=batch_prediction.Hypers(initial_value=0.5),
            steps=1_600,
            seeds=100,
            tiny={"num_sweeps": 4},
        )
        for suffix, config in (
            ("", batch_prediction.Config(method="td", reference=_WALK5)),
            ("-monte-carlo", batch_prediction.Config(method="monte_carlo", reference=_WALK5)),
        )
    ),
    *(
        Experiment(
            name=f"tabular/gradient_td/Baird{suffix}",
            algorithm=gradient_td,
            task=PredictionTask(own(tables.baird)),
            config=gradient_td.Config(
                features=gradient_td.BAIRD_FEATURES,
                initial_weights=gradient_td.BAIRD_WEIGHTS,
                behaviour=(6 / 7, 1 / 7),
                target=(0.0, 1.0),
                reference=(0.0,) * 7,
            ),
            hypers=hypers,
            steps=steps,
            target=target,
        )
        for suffix, hypers, steps, target in (
            (
                "",
                gradient_td.Hypers(),
                20_000,
                Target(3.0, "stays bounded, near 2 in figure 11.5; " + BOOK + "section 11.7", "min"),
            ),
            ("-semi-gradient", gradient_td.Hypers(learning_rate=0.01, correction=0.0), 1_000, None),
        )
    ),
)
