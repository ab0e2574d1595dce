"""What rows of several families share: how tasks are made, and where targets come from."""

import functools
from collections.abc import Callable
from math import nan
from typing import Any

from rlgen.envs import adapter, grid
from rlgen.experiments.experiment import Target
from rlgen.experiments.tasks import EnvTask

CARTPOLE_LIMIT = "the time limit of 500 steps bounds the return (gymnasium documentation, CartPole-v1)"
ZOO = "RL Baselines3 Zoo, benchmark.md (github.com/DLR-RM/rl-baselines3-zoo)"
BOOK = "Sutton and Barto 2018, "

# Action values of `tables.line` at a discount of 0.9, in closed form; nan where an episode has ended.
LINE = (
    (10.0, 10.0), (10.0, -10.0), (-10.0, 10.0), (nan, nan), (10.0, -10.0), (-10.0, 10.0),
    (nan, nan), (10.0, 10.0), (10.0, -10.0), (nan, nan), (nan, nan),
)  # fmt: skip


def gymnax_task(name: str, **task: Any) -> EnvTask:
    """Episodes in a registered gymnax environment.

    Args:
        name: of the environment.
        **task: fields of `EnvTask`.

    Returns:
        The task.
    """
    return EnvTask(functools.partial(adapter.make, name), **task)


def own(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], adapter.Environment]:
    """How to make an environment of ours.

    Args:
        make: a function or class of `rlgen.envs` that gives a native environment.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        A function of no arguments, which says in words what it makes.
    """
    return functools.partial(_made, functools.partial(make, *args, **kwargs))


def _made(make: Callable[[], Any]) -> adapter.Environment:
    return adapter.make(make())


MEMORY_CHAIN = functools.partial(adapter.make, "MemoryChain-bsuite", memory_length=10, max_steps_in_episode=11)
REMEMBERED = Target(0.95, "the best return is 1, and 0 without memory (arXiv:1908.03568)")
SOLVED_LANDING = Target(200.0, "reward threshold of the task (gymnasium documentation, LunarLander-v3)")
cliff = own(grid.CliffWalking)
frozen_lake = functools.partial(adapter.make, "FrozenLake-misc")
