"""Experiments on bandits."""

from typing import Any

from rlgen.envs import bandits
from rlgen.experiments.experiment import Experiment
from rlgen.experiments.rows.common import own
from rlgen.experiments.tabular_tasks import BanditTask
from rlgen.tabular import bandit, gradient_bandit, thompson

_ALL_TRIED = {"num_envs": 8}  # before that, an upper bound does not tell one confidence from another
_POWERS = tuple(2.0**power for power in range(-7, 3))  # of the parameter study, 1/128 to 4


def _bandit(name: str, algorithm: Any, config: Any, hypers: Any, **fields: Any) -> Experiment:
    """Two thousand runs of a thousand steps on the ten-armed test bed, unless the fields say otherwise."""
    given = {"task": BanditTask(own(bandits.Bandit)), "steps": 1_000, "seeds": 2_000}
    return Experiment(
        name=f"tabular/{algorithm.__name__.rpartition('.')[2]}/{name}",
        algorithm=algorithm,
        config=config,
        hypers=hypers,
        **{**given, **fields},
    )


ROWS = (
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
            task=BanditTask(own(bandits.Bandit, mean=4.0)),
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
        task=BanditTask(own(bandits.Bandit, kind="bernoulli")),
    ),
    _bandit(
        "Drift10",
        bandit,
        bandit.Config(),
        bandit.Hypers(),
        task=BanditTask(own(bandits.Bandit, drift=0.01, max_steps=10_000)),
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
