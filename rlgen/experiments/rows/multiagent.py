"""Experiments with several agents."""

from typing import Any

from rlgen.envs import scenarios
from rlgen.experiments.experiment import Experiment
from rlgen.experiments.rows.common import own
from rlgen.experiments.tasks import EnvTask
from rlgen.multiagent import ippo

# Environments, steps and passes of github.com/FLAIROx/JaxMARL's IPPO on these tasks, as are PPO's own numbers.
_JAXMARL = {"num_envs": 16}
_TINY = {"num_envs": 2, "rollout_length": 8, "num_epochs": 8, "num_minibatches": 2, "hidden_sizes": (8,)}


def _ippo(name: str, task: EnvTask, **config: Any) -> Experiment:
    """A row from what differs from the defaults."""
    return Experiment(
        name=f"multiagent/ippo/{name}",
        algorithm=ippo,
        task=task,
        config=ippo.Config(**_JAXMARL, **config),
        hypers=ippo.Hypers(),
        steps=2_000_000,
        tiny=_TINY,
    )


ROWS = (
    _ippo("SimpleSpread", EnvTask(own(scenarios.simple_spread), whose="all agents")),
    _ippo("SimpleSpread-own", EnvTask(own(scenarios.simple_spread), whose="all agents"), share_parameters=False),
    _ippo("SimpleSpread-continuous", EnvTask(own(scenarios.simple_spread, continuous=True), whose="all agents")),
    # Against opponents that learn as well: these scores say how the sides stand, and not how good either is.
    _ippo("SimpleAdversary", EnvTask(own(scenarios.simple_adversary), counted=(1,), whose="a good agent")),
    _ippo("SimpleTag", EnvTask(own(scenarios.simple_tag), counted=(0,), whose="an adversary")),
)
