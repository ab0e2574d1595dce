"""The lanes of a sweep on their devices: keys, hyperparameters, groups, data and compiled programs.

Lanes are trained in groups of one size, the last one padded, so that all of them share one program.  On the host and in
checkpoints a group has its real lanes only: padding belongs to the devices, and a run may go on with another number of
them.

Shape legend: `L` lanes of all groups, `N` lanes of one group, `E` lanes of a group after padding, `W` windows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlgen import sweep
from rlgen.core import Key, Tree
from rlgen.experiments.experiment import Bound, Experiment
from rlgen.lab import checkpoints, devices, products
from rlgen.lab.folders import FolderError
from rlgen.lab.request import Plan
from rlgen.parts import random
from rlgen.train import Report


class Lanes(NamedTuple):
    """The lanes of a plan.

    Attributes:
        plan: what they are lanes of.
        mesh: their devices.
        data: what all of them share, on every device.
        keys: `[L]`.
        hypers: leaves `[L]` float32.
        groups: ranges of lanes that are trained together.
        sweep: the functions, not compiled.
    """

    plan: Plan
    mesh: Mesh
    data: Any
    keys: Key
    hypers: Any
    groups: list[range]
    sweep: sweep.Sweep

    def place(self, tree: Tree) -> Tree:
        """Pads the lanes of a group, `[N, ...]` to `[E, ...]`, and puts them on the devices."""
        return sweep.place(sweep.pad(tree, len(self.groups[0])), self.mesh)

    def inputs(self, index: int) -> tuple[Key, Any]:
        """Gives a group's keys and hyperparameters on the devices, `[E]`."""
        group = self.groups[index]
        return self.place(jax.tree.map(lambda leaf: leaf[group.start : group.stop], (self.keys, self.hypers)))

    def like(self, index: int, num_windows: int) -> tuple[Tree, Report]:
        """Describes a group's state, leaves `[N, ...]`, and history, leaves `[N, W]`, without computing them."""
        num_lanes, (keys, hypers) = len(self.groups[index]), self.inputs(index)
        state = jax.eval_shape(self.sweep.init, self.data, keys, hypers)
        _, report = jax.eval_shape(self.sweep.advance, self.data, keys, jnp.int32(0), jnp.int32(1), state, hypers)

        def resized(leaf, *shape):
            return jax.ShapeDtypeStruct((num_lanes, *shape), leaf.dtype)

        history = jax.tree.map(lambda leaf: resized(leaf, num_windows), report)
        return jax.tree.map(lambda leaf: resized(leaf, *leaf.shape[1:]), state), history

    def saved(self, folder: Path, index: int) -> tuple[int, checkpoints.Saved | None]:
        """Reads a group's newest checkpoint.

        Args:
            folder: the run folder.
            index: number of the group.

        Returns:
            `(updates done, what was saved)`, or `(0, None)` where there is none.

        Raises:
            CheckpointError: if it is damaged.
        """
        return self._newest(folder, index, checkpoints.restore)

    def reached(self, folder: Path, index: int) -> tuple[int, checkpoints.About | None]:
        """Checks a group's newest checkpoint as `saved` does, and reads no arrays."""
        return self._newest(folder, index, checkpoints.check)

    def _newest(self, folder: Path, index: int, read: Callable[..., Any]) -> tuple[int, Any]:
        path = checkpoints.latest(folder, index)
        if path is None:
            return 0, None
        step = int(path.name)
        if step not in self.plan.bounds:
            raise checkpoints.CheckpointError(f"the checkpoint {path} is of another run: no window ends there")
        return step, read(path, self.like(index, self.plan.bounds.index(step)), self.identity)

    @property
    def identity(self) -> str:
        """Tells this run from others: a hash of all that decides which lanes there are and what becomes of them."""
        made, asked = self.plan, self.plan.request
        content = {
            "experiment": made.experiment.name,
            "config": dataclasses.asdict(made.experiment.config),
            "points": [point._asdict() for point in made.points],
            "bounds": made.bounds,
            "seed": asked.seed,
            "seeds": asked.seeds,
            "chunk": asked.chunk,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def finished(self, folder: Path, index: int) -> checkpoints.Saved:
        """Reads the checkpoint of a group that was trained to its end.

        Args:
            folder: the run folder.
            index: number of the group.

        Returns:
            What was saved.

        Raises:
            CheckpointError: if it is damaged.
            FolderError: if the group was not trained to its end.
        """
        step, saved = self.saved(folder, index)
        if saved is None or step < self.plan.bound.num_updates:
            raise FolderError(f"{folder} has not finished: resume it first")
        return saved


class Programs(NamedTuple):
    """Compiled functions, as in `sweep.Sweep`, for one group after another."""

    init: Any
    advance: Any
    seconds: float  # that compiling took


def spread(made: Plan, mesh: Mesh) -> Lanes:
    """Makes the lanes of a plan.

    Args:
        made: the plan.
        mesh: of devices; a single small lane gets a device of its own in their place.

    Returns:
        The lanes, with the data that they need on every device.

    Raises:
        DataError: if the task's dataset cannot be loaded.
    """
    request, data = made.request, load_data(made.experiment)
    groups = sweep.groups(made.num_lanes, request.chunk)
    mesh = suited(mesh, len(groups[0]), made.bound, data)
    data = jax.device_put(data, NamedSharding(mesh, PartitionSpec()))
    return Lanes(
        plan=made,
        mesh=mesh,
        data=data,
        keys=sweep.keys(request.seed, request.seeds, len(made.points)),
        hypers=sweep.stack(made.points, request.seeds),
        groups=groups,
        sweep=sweep.build(made.bound.make_run, mesh),
    )


def suited(mesh: Mesh, num_lanes: int, bound: Bound, data: Any) -> Mesh:
    """Gives the devices that suit so many lanes at a time: a single small one does best on one with a single thread."""
    return devices.single_threaded() if num_lanes == 1 and is_small(bound, data) else mesh


def is_small(bound: Bound, data: Any) -> bool:
    """Tells whether one lane, alone on the CPU of this process, is trained in operations that are all small."""
    if jax.default_backend() != "cpu" or jax.process_count() > 1:
        return False
    run, key, step = bound.make_run(data), random.key(0), jnp.int32(0)
    state = jax.eval_shape(run.init, key, bound.hypers)
    return products.are_small(jax.make_jaxpr(run.update)(key, step, state, bound.hypers).jaxpr)


def load_data(experiment: Experiment) -> Any:
    """Loads what an experiment's task needs: its datasets and its judge, or `()`."""
    task = experiment.task
    if not task.datasets and task.judge is None:
        return ()
    from rlgen.lab import data, judges  # which import what only datasets need

    judge = () if task.judge is None else judges.load(task.judge)
    return task.prepare([data.load(name) for name in task.datasets], judge)


def compile_training(lanes: Lanes) -> Programs:
    """Compiles what trains a group, ahead of time."""
    keys, hypers = lanes.inputs(0)
    begun = time.perf_counter()
    init = lanes.sweep.init.lower(lanes.data, keys, hypers).compile()
    state = jax.eval_shape(lanes.sweep.init, lanes.data, keys, hypers)
    shardings = init.output_shardings
    state = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, shardings)
    start, stop = np.int32(0), np.int32(1)
    advance = lanes.sweep.advance.lower(lanes.data, keys, start, stop, state, hypers).compile()
    return Programs(init, advance, time.perf_counter() - begun)


def compile_score(lanes: Lanes) -> Any:
    """Gives the jitted `(data, keys, step, algorithm_state, hypers) -> score [E]`."""
    return jax.jit(sweep.spread(lanes.plan.bound.score, lanes.mesh, (False, True, False, True, True)))


def to_host(tree: Tree, num_lanes: int) -> Tree:
    """Copies the first lanes to the host, as NumPy arrays that share nothing with the devices."""
    return jax.tree.map(lambda leaf: np.array(leaf)[:num_lanes], tree)
