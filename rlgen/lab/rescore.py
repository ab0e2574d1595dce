"""Scores the trained policies of a finished run again, with random numbers that the run has not seen.

Shape legend: `L` lanes, `G` grid points, `S` seeds.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from rlgen import sweep
from rlgen.experiments.experiment import bind
from rlgen.experiments.tasks import EnvTask
from rlgen.lab import devices, lanes, memory, request, runner
from rlgen.lab.errors import UsageError

MAX_EPISODES = 1_000_000  # of a lane: the error of a mean is a thousandth of one episode's spread by then
_AGAIN = 2**31 - 3  # folded into a run's key: neither an update nor the run's own score has this number


def scores(folder: Path, num_episodes: int | None = None) -> tuple[request.Plan, NDArray[np.float64]]:
    """Scores every lane of a run.

    Args:
        folder: the run folder.
        num_episodes: whole episodes a lane; None for as many as the run was scored by.

    Returns:
        `(plan, scores [G, S])`, nan where a lane diverged.

    Raises:
        UsageError: if the folder holds no finished run, its task has no episodes to count, there are too many or too
            few of them, or the run was scored while it learned.
        CheckpointError: if a checkpoint is damaged.
        DataError: if data is missing or damaged.
    """
    made = request.read(folder)
    if made.experiment.task.online:
        raise UsageError(f"{made.experiment.name} is scored while it learns: there is nothing left to score")
    if num_episodes is not None:
        made = _with_episodes(made, num_episodes)
    trained = runner.restore(folder)
    at_a_time = min(made.request.chunk or made.num_lanes, made.num_lanes)
    spread = lanes.spread(made, devices.choose("auto", at_a_time))
    spread = spread._replace(keys=jax.vmap(lambda key: jax.random.fold_in(key, _AGAIN))(trained.keys))
    step, score = np.int32(made.bound.num_updates), None
    found = []
    for index, group in enumerate(spread.groups):
        keys, hypers = spread.inputs(index)
        state = jax.tree.map(lambda leaf, group=group: leaf[group.start : group.stop], trained.state.algorithm)
        state = spread.place(state)
        if score is None:  # one program for all groups
            score = lanes.compile_score(spread).lower(spread.data, keys, step, state, hypers).compile()
            _check_memory(score.memory_analysis(), spread)
        found.append(lanes.to_host(score(spread.data, keys, step, state, hypers), len(group)))
    # Parameters that are no numbers still choose some action, whose return says nothing.
    values = np.where(np.asarray(sweep.finite(trained.state)), np.concatenate(found), np.nan)
    return made, values.astype(np.float64).reshape(len(made.points), made.request.seeds)


def _with_episodes(made: request.Plan, num_episodes: int) -> request.Plan:
    """Changes by how many episodes a plan is scored."""
    task = made.experiment.task
    if not isinstance(task, EnvTask):
        raise UsageError(f"{made.experiment.name} is scored by {task.metric}: it has no episodes")
    if not 1 <= num_episodes <= MAX_EPISODES:
        raise UsageError(f"episodes={num_episodes} is impossible: it must lie in [1, {MAX_EPISODES}]")
    experiment = dataclasses.replace(made.experiment, task=dataclasses.replace(task, episodes=num_episodes))
    return made._replace(experiment=experiment, bound=bind(experiment))


def _check_memory(analysis: Any, spread: lanes.Lanes) -> None:
    """Refuses what does not fit: all episodes of a group are played side by side.

    Args:
        analysis: the compiler's, of one device; None where it has none.
        spread: whose score it is.

    Raises:
        UsageError: if more is needed than is free.
    """
    free = memory.free()
    if analysis is None or free is None:
        return
    need = analysis.temp_size_in_bytes * spread.mesh.size
    if need > free:
        task: Any = spread.plan.experiment.task
        what = f"episodes={task.episodes} is" if isinstance(task, EnvTask) else "the score is"
        size = f"{memory.human(need)} for {len(spread.groups[0])} lanes at a time, and {memory.human(free)} are free"
        raise UsageError(f"{what} impossible: that takes {size}")
