"""Curves to TensorBoard or Weights & Biases, written from the host after each window of updates."""

import contextlib
import dataclasses
import importlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rlgen.lab.errors import UsageError
from rlgen.lab.request import Plan, Request

RUN_ID = "wandb-id"
TENSORBOARD, WANDB = ("tensorboardX", "tensorboard"), ("wandb", "wandb")  # modules, and the extras that bring them


class Log(Protocol):
    """Where scalars go."""

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Writes scalars by name at a number of environment steps (or examples) of one seed."""
        ...


def check(request: Request) -> None:
    """Checks that what a request logs to is installed, before anything is compiled or written.

    Args:
        request: what is asked for.

    Raises:
        UsageError: if a library is not installed.
    """
    for asked, library in ((request.tensorboard, TENSORBOARD), (request.wandb, WANDB)):
        if asked:
            _library(*library)


def start(made: Plan, folder: Path, done: int | None, process: int, stack: contextlib.ExitStack) -> list[Log]:
    """Opens the logs that a request asks for.

    Args:
        made: the plan of the run.
        folder: the run folder.
        done: environment steps of one seed from which on the run is new, so that what a killed run wrote after its last
            checkpoint is not shown twice; None where later groups of lanes begin at the first step again.
        process: which of those that share the run, from 0.
        stack: closes them.

    Returns:
        The logs.

    Raises:
        UsageError: if a library is not installed.
    """
    logs: list[Log] = []
    if made.request.tensorboard:
        logs.append(TensorBoard(folder, done, process, stack))
    if made.request.wandb:
        logs.append(WeightsAndBiases(folder, made, process, stack))
    return logs


class TensorBoard:
    """Event files in `tensorboard/` of the run folder, or below it those of other processes than the first."""

    def __init__(self, folder: Path, done: int | None, process: int, stack: contextlib.ExitStack):
        """Opens the writer; the stack closes it."""
        module = _library(*TENSORBOARD)
        # Each process has a folder of its own: what begins at a step hides what others wrote there of later ones.
        place = folder / "tensorboard" / (str(process) if process else "")
        writer = module.SummaryWriter(str(place), purge_step=done)
        self._writer = stack.enter_context(writer)

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Writes scalars at a number of steps."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, env_steps)


class WeightsAndBiases:
    """A run of the project `rlgen`, named by its folder and gone on with when the run is resumed."""

    def __init__(self, folder: Path, made: Plan, process: int, stack: contextlib.ExitStack):
        """Opens the run of a process; the stack closes it."""
        module = _library(*WANDB)
        name = f"{made.experiment.name}/{folder.resolve().name}".replace("/", "_")
        # An id of its own, kept with the run: another folder of the same name is another run, and so is what another
        # process logs of the same sweep.
        kept = folder / f"{RUN_ID}-{process}"
        if not kept.exists():
            kept.write_text(uuid.uuid4().hex, encoding="utf-8")
        identity = kept.read_text(encoding="utf-8").strip()
        config = dataclasses.asdict(made.request) | {"config": dataclasses.asdict(made.experiment.config)}
        run = module.init(
            project="rlgen", id=identity, name=name, group=name, dir=str(folder), config=config, resume="allow"
        )
        stack.callback(run.finish)
        run.define_metric("*", step_metric="env_steps")
        self._run = run

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Writes scalars at a number of steps."""
        self._run.log({**values, "env_steps": env_steps})


def _library(module: str, extra: str) -> Any:
    """Imports an optional library.

    Raises:
        UsageError: naming the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed: .venv/bin/pip install -e '.[{extra}]'") from error
