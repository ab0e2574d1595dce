"""What rows of several families share: how tasks are made, and where targets come from."""

import functools
from typing import Any

from rlgen.envs import adapter
from rlgen.experiments.tasks import EnvTask

CARTPOLE_LIMIT = "the time limit of 500 steps bounds the return (gymnasium documentation, CartPole-v1)"
ZOO = "RL Baselines3 Zoo, benchmark.md (github.com/DLR-RM/rl-baselines3-zoo)"


def gymnax_task(name: str, **task: Any) -> EnvTask:
    """Episodes in a registered gymnax environment.

    Args:
        name: of the environment.
        **task: fields of `EnvTask`.

    Returns:
        The task.
    """
    return EnvTask(functools.partial(adapter.make, name), **task)
