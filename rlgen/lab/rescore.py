"""Scores the trained policies of a finished run again, with random numbers that the run has not seen.

Shape legend: `L` lanes, `G` grid points, `S` seeds.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from rlgen import sweep
from rlgen.experiments.experiment import bind
from rlgen.experiments.tasks import EnvTask
from rlgen.lab import devices, lanes, request, runner
from rlgen.lab.errors import UsageError

_AGAIN = 2**31 - 3  # folded into a run's key: neither an update nor the run's own score has this number


def scores(folder: Path, num_episodes: int | None = None) -> tuple[request.Plan, NDArray[np.float64]]:
    """Scores every lane of a run.

    Args:
        folder: the run folder.
        num_episodes: whole episodes a lane; None for as many as the run was scored by.

    Returns:
        `(plan, scores [G, S])`, nan where a lane diverged.

    Raises:
        UsageError: if the folder holds no finished run, its task has no episodes to count, or the run was scored while
            it learned.
        CheckpointError: if a checkpoint is damaged.
        DataError: if data is missing or damaged.
    """
    made = request.read(folder)
    if made.experiment.task.online:
        raise UsageError(f"{made.experiment.name} is scored while it learns: there is nothing left to score")
    trained = runner.restore(folder)
    if num_episodes is not None:
        made = _with_episodes(made, num_episodes)
    at_a_time = min(made.request.chunk or made.num_lanes, made.num_lanes)
    spread = lanes.spread(made, devices.choose("auto", at_a_time))
    spread = spread._replace(keys=jax.vmap(lambda key: jax.random.fold_in(key, _AGAIN))(trained.keys))
    score = jax.jit(sweep.spread(made.bound.score, spread.mesh, (False, True, False, True, True)))
    step = np.int32(made.bound.num_updates)
    found = []
    for index, group in enumerate(spread.groups):
        keys, hypers = spread.inputs(index)
        state = jax.tree.map(lambda leaf, group=group: leaf[group.start : group.stop], trained.state.algorithm)
        result = score(spread.data, keys, step, spread.place(state), hypers)
        found.append(lanes.to_host(result, len(group)))
    # Parameters that are no numbers still choose some action, whose return says nothing.
    values = np.where(np.asarray(sweep.finite(trained.state)), np.concatenate(found), np.nan)
    return made, values.astype(np.float64).reshape(len(made.points), made.request.seeds)


def _with_episodes(made: request.Plan, num_episodes: int) -> request.Plan:
    """Changes by how many episodes a plan is scored."""
    task = made.experiment.task
    if not isinstance(task, EnvTask):
        raise UsageError(f"{made.experiment.name} is scored by {task.metric}: it has no episodes")
    if num_episodes < 1:
        raise UsageError(f"episodes={num_episodes} is impossible: at least 1 is needed")
    experiment = dataclasses.replace(made.experiment, task=dataclasses.replace(task, episodes=num_episodes))
    return made._replace(experiment=experiment, bound=bind(experiment))
