"""Experiments on decision processes and tabular methods."""

import functools
from collections.abc import Callable
from math import nan
from typing import Any

from rlgen.envs import adapter, bandits, grid, tables
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.tabular_tasks import ActionValueTask, BanditTask, PlanningTask, PredictionTask
from rlgen.experiments.tasks import EnvTask
from rlgen.tabular import (
    bandit,
    batch_prediction,
    dyna_q,
    dynamic_programming,
    gradient_bandit,
    gradient_td,
    monte_carlo,
    monte_carlo_control,
    n_step_td,
    prioritised_sweeping,
    q_learning,
    sarsa,
    sarsa_lambda,
    td_lambda,
    thompson,
)


def _env(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], adapter.Environment]:
    """How to make the environment that a function of `rlgen.envs` gives."""
    return lambda: adapter.make(make(*args, **kwargs))


_cliff = _env(grid.CliffWalking)
_frozen_lake = functools.partial(adapter.make, "FrozenLake-misc")

BOOK = "Sutton and Barto 2018, "
SHORTEST = Target(-13.0, "length of the optimal path; " + BOOK + "example 6.6")
SAFE = Target(-17.0, "length of the path along the upper edge; " + BOOK + "example 6.6")

# Printed to two decimals, so that nothing nearer can be told apart.
_PRINTED = (0.85, 0.89, 0.93, nan, 0.81, nan, 0.68, nan, 0.77, 0.73, 0.70, 0.47)
PRINTED = Target(0.005, "values printed to two decimals, after Russell and Norvig 2010, section 17.2", "min")
# One less the living reward of every step on the shortest way.
_DETERMINISTIC = (0.91, 0.94, 0.97, nan, 0.88, nan, 0.94, nan, 0.85, 0.88, 0.91, 0.88)
FIXED_POINT = Target(1e-5, "Bellman's equation, to float32", "min")
_LINE = (
    (10.0, 10.0), (10.0, -10.0), (-10.0, 10.0), (nan, nan), (10.0, -10.0), (-10.0, 10.0),
    (nan, nan), (10.0, 10.0), (10.0, -10.0), (nan, nan), (nan, nan),
)  # fmt: skip


def _planned(name: str, method: str, **fields: Any) -> Experiment:
    """The 4x3 world, unless the fields say otherwise, by one of the planning methods."""
    given = {
        "task": PlanningTask(_env(grid.four_by_three), reference=_PRINTED),
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


def _bandit(name: str, algorithm: Any, config: Any, hypers: Any, **fields: Any) -> Experiment:
    """Two thousand runs of a thousand steps on the ten-armed test bed, unless the fields say otherwise."""
    given = {"task": BanditTask(_env(bandits.Bandit)), "steps": 1_000, "seeds": 2_000}
    return Experiment(
        name=f"tabular/{algorithm.__name__.rpartition('.')[2]}/{name}",
        algorithm=algorithm,
        config=config,
        hypers=hypers,
        **{**given, **fields},
    )


_ALL_TRIED = {"num_envs": 8}  # before that, an upper bound does not tell one confidence from another
_POWERS = tuple(2.0**power for power in range(-7, 3))  # of the parameter study, 1/128 to 4

PLANNING = (
    _planned("FourByThree", "value_iteration"),
    _planned("FourByThree-policy-iteration", "policy_iteration", steps=10),
    _planned("FourByThree-modified", "modified_policy_iteration", steps=20),
    _planned("FourByThree-gauss-seidel", "gauss_seidel"),
    _planned(
        "FourByThree-deterministic",
        "value_iteration",
        task=PlanningTask(_env(grid.four_by_three, move_probability=1.0), reference=_DETERMINISTIC),
        target=Target(1e-5, "one less 0.03 for every step of the shortest way", "min"),
    ),
    _planned(
        "FourByThree-discounts",
        "value_iteration",
        task=PlanningTask(_env(grid.four_by_three)),
        target=FIXED_POINT,
        grid={"discount": (0.1, 0.5, 0.9, 0.96)},
    ),
    _planned(
        "Line",
        "value_iteration",
        task=PlanningTask(_env(tables.line), reference=_LINE),
        hypers=dynamic_programming.Hypers(discount=0.9),
        target=Target(1e-4, "closed form: every cell from which the way goes on is worth 10", "min"),
    ),
    _planned("FrozenLake-misc", "value_iteration", task=PlanningTask(_frozen_lake), steps=1_000, target=FIXED_POINT),
    _planned("CliffWalking", "value_iteration", task=PlanningTask(_cliff), target=FIXED_POINT),
    Experiment(
        name="tabular/prioritised_sweeping/FourByThree",
        algorithm=prioritised_sweeping,
        task=PlanningTask(_env(grid.four_by_three), reference=_PRINTED),
        config=prioritised_sweeping.Config(),
        hypers=prioritised_sweeping.Hypers(),
        steps=200,
        seeds=1,
        target=PRINTED,
    ),
)

# True values of the random walks under a policy that goes left and right alike.
_WALK19 = tuple(state / 10 - 1 for state in range(1, 20))
_WALK5 = tuple(state / 6 for state in range(1, 6))
_FIRST_TEN: dict[str, Any] = {"rollout_length": 2_560, "reference": _WALK19, "num_episodes": 10}
_walk19 = PredictionTask(_env(tables.random_walk), online=True)
_walk5 = PredictionTask(_env(tables.random_walk, 5, (0.0, 1.0)))
_DRIFTING: dict[str, Any] = {"rollout_length": 256, "behaviour": (0.5, 0.5), "target": (0.3, 0.7)}

PREDICTION = (
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
    Experiment(
        name="tabular/monte_carlo/RandomWalk19",
        algorithm=monte_carlo,
        task=PredictionTask(_env(tables.random_walk)),
        config=monte_carlo.Config(),
        hypers=monte_carlo.Hypers(),
        steps=512_000,
        target=Target(0.05, "set by this project for about 5 000 episodes", "min"),
        tiny={"rollout_length": 128},
    ),
    Experiment(
        name="tabular/monte_carlo/RandomWalk19-every-visit",
        algorithm=monte_carlo,
        task=PredictionTask(_env(tables.random_walk)),
        config=monte_carlo.Config(visits="every"),
        hypers=monte_carlo.Hypers(),
        steps=512_000,
        target=Target(0.05, "set by this project for about 5 000 episodes", "min"),
        tiny={"rollout_length": 128},
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
            task=PredictionTask(_env(tables.baird)),
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

CONTROL = (
    Experiment(
        name="tabular/q_learning/CliffWalking",
        algorithm=q_learning,
        task=EnvTask(_cliff),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.5, discount=1.0, epsilon_start=0.1, epsilon_end=0.1),
        steps=50_000,
        target=SHORTEST,
        tiny={"num_envs": 4},
    ),
    Experiment(
        name="tabular/q_learning/DynaMaze",
        algorithm=q_learning,
        task=EnvTask(_env(grid.dyna_maze), measure="length", higher_is_better=False),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.1, discount=0.95),
        steps=6_000,
        tiny={"num_envs": 4},
    ),
    Experiment(
        name="tabular/q_learning/Line",
        algorithm=q_learning,
        task=ActionValueTask(_env(tables.line), reference=_LINE),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.1, discount=0.9, epsilon_start=1.0, epsilon_end=1.0),
        steps=20_000,
        target=Target(0.05, "closed form: every cell from which the way goes on is worth 10", "min"),
    ),
    Experiment(
        name="tabular/q_learning/FrozenLake-misc",
        algorithm=q_learning,
        task=EnvTask(_frozen_lake),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.05, discount=0.99, epsilon_start=1.0, epsilon_end=0.05),
        steps=200_000,
        target=Target(0.7, "reward threshold of the task (gymnasium, FrozenLake-v1)"),
    ),
    *(
        Experiment(
            name=f"tabular/q_learning/MaximisationBias{'-double' * double}",
            algorithm=q_learning,
            task=EnvTask(_env(tables.maximisation_bias), measure="length", online=True, higher_is_better=False),
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
            task=EnvTask(_cliff),
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
        task=EnvTask(_env(tables.windy_grid)),
        config=sarsa.Config(),
        hypers=sarsa.Hypers(learning_rate=0.2, epsilon_end=0.0),
        steps=50_000,
        target=Target(-15.0, "length of the optimal path; " + BOOK + "example 6.5"),
    ),
    Experiment(
        name="tabular/sarsa_lambda/WindyGrid",
        algorithm=sarsa_lambda,
        task=EnvTask(_env(tables.windy_grid)),
        config=sarsa_lambda.Config(),
        hypers=sarsa_lambda.Hypers(learning_rate=0.1, trace_decay=0.8, epsilon_end=0.0),
        steps=50_000,
        target=Target(-15.0, "length of the optimal path; " + BOOK + "example 6.5"),
    ),
    Experiment(
        name="tabular/monte_carlo_control/FourByThree",
        algorithm=monte_carlo_control,
        task=EnvTask(_env(grid.four_by_three), episodes=1_024),
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
            task=EnvTask(_env(grid.dyna_maze), measure="length", higher_is_better=False),
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
)

BANDITS = (
    _bandit("TestBed10", bandit, bandit.Config(), bandit.Hypers(), grid={"exploration": (0.0, 0.01, 0.1)}),
    _bandit("TestBed10-ucb", bandit, bandit.Config(exploration="ucb"), bandit.Hypers(exploration=2.0), tiny=_ALL_TRIED),
    _bandit("TestBed10-boltzmann", bandit, bandit.Config(exploration="boltzmann"), bandit.Hypers(exploration=0.2)),
    _bandit(
        "TestBed10-optimistic",
        bandit,
        bandit.Config(),
        bandit.Hypers(step_size=0.1, initial_value=5.0, exploration=0.0),
    ),
    *(
        _bandit(
            f"TestBed10{'' if baseline else '-no-baseline'}",
            gradient_bandit,
            gradient_bandit.Config(baseline=baseline),
            gradient_bandit.Hypers(),
            task=BanditTask(_env(bandits.Bandit, mean=4.0)),
            grid={"learning_rate": (0.1, 0.4)},
        )
        for baseline in (True, False)
    ),
    _bandit("TestBed10", thompson, thompson.Config(), thompson.Hypers()),
    _bandit(
        "Bernoulli10",
        thompson,
        thompson.Config(rewards="bernoulli"),
        thompson.Hypers(prior_mean=0.5, prior_weight=2.0),
        task=BanditTask(_env(bandits.Bandit, kind="bernoulli")),
    ),
    _bandit(
        "Drift10",
        bandit,
        bandit.Config(),
        bandit.Hypers(),
        task=BanditTask(_env(bandits.Bandit, drift=0.01, max_steps=10_000)),
        steps=10_000,
        seeds=500,
        grid={"step_size": (0.0, 0.1)},
    ),
    # The parameter study: mean reward over the first thousand steps, each method over its own parameter.
    _bandit("Study10", bandit, bandit.Config(), bandit.Hypers(), grid={"exploration": _POWERS[:6]}),
    _bandit(
        "Study10-ucb",
        bandit,
        bandit.Config(exploration="ucb"),
        bandit.Hypers(),
        tiny=_ALL_TRIED,
        grid={"exploration": _POWERS[3:]},
    ),
    _bandit(
        "Study10-boltzmann",
        bandit,
        bandit.Config(exploration="boltzmann"),
        bandit.Hypers(),
        grid={"exploration": _POWERS[1:9]},
    ),
    _bandit(
        "Study10-optimistic",
        bandit,
        bandit.Config(),
        bandit.Hypers(step_size=0.1, exploration=0.0),
        grid={"initial_value": _POWERS[5:]},
    ),
    _bandit(
        "Study10",
        gradient_bandit,
        gradient_bandit.Config(),
        gradient_bandit.Hypers(),
        grid={"learning_rate": _POWERS[2:]},
    ),
)

ROWS = (
    *PLANNING,
    *PREDICTION,
    *CONTROL,
    *BANDITS,
)
