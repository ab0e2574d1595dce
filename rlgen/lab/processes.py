"""Several processes, on one machine or many, that share a sweep and its folder.

Lanes never speak to each other, so that each process trains groups of lanes of its own on its own devices, and saves
them in the folder that all of them see; the first process holds the folder, and reports once all are done.  JAX's
coordination service brings them together, and ends the others when one is lost.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import jax

from rlgen.lab.devices import Call
from rlgen.lab.errors import UsageError

DETECT = "auto"  # as a coordinator: what SLURM, MPI or a cloud says of the job
HEARTBEAT_SECONDS = 30  # without a sign of life, after which a process counts as lost
_PATIENCE_MS = 2_000_000_000  # 23 days; a lost process is noticed by its heartbeat
_MOMENT = 1.0  # seconds
_GO = "go"


@dataclasses.dataclass(frozen=True)
class Processes:
    """Who shares a sweep.

    Attributes:
        count: how many.
        index: of this one.
    """

    count: int = 1
    index: int = 0

    def share(self, num_groups: int) -> range:
        """Gives the groups of lanes that this process trains."""
        return range(self.index, num_groups, self.count)

    def chunk(self, num_lanes: int, chunk: int | None) -> int | None:
        """Gives the lanes of a group, so that nobody has more than an equal share, rounded up.

        Raises:
            UsageError: if there are fewer lanes than processes.
        """
        if num_lanes < self.count:
            raise UsageError(f"{self.count} processes cannot share {num_lanes} seeds × grid points")
        if self.count == 1:
            return chunk
        return min(chunk or num_lanes, -(-num_lanes // self.count))

    def agree(self, run: str, begin: Callable[[], None]) -> None:
        """Begins once it is known that all were asked for the same run; Ctrl-C is heard meanwhile.

        Args:
            run: what tells the run from others.
            begin: what the first process does before anybody goes on.

        Raises:
            UsageError: in all processes, if they were asked for different runs, or the first one refuses.
        """
        if self.index > 0:
            _tell(f"run/{self.index}", run)
            verdict = _ask("verdict")
            if verdict != _GO:
                raise UsageError(f"process 0 refuses: {verdict}")
            return
        others = [index for index in range(1, self.count) if _ask(f"run/{index}") != run]
        if others:
            many = f"process{'es'[: 2 * (len(others) > 1)]} {', '.join(map(str, others))}"
            error = UsageError(f"{many} and process 0 were asked for different runs")
            self.refuse(error)
            raise error
        begin()
        if self.count > 1:
            _tell("verdict", _GO)

    def refuse(self, error: Exception) -> None:
        """Tells all others why the first process, which this is, does not begin."""
        if self.count > 1:
            _tell("verdict", str(error))

    def meet(self, place: str) -> None:
        """Waits for all others to come to a place, however long they take; Ctrl-C is heard meanwhile."""
        if self.count > 1:
            Call(_client().wait_at_barrier, f"rlgen/{place}", _PATIENCE_MS).result()


ALONE = Processes()


def part() -> bool:
    """Waits a while for the others to leave too; for a process that cannot go on.

    Those that do not come, because nothing has befallen them, then lose this process, and end.

    Returns:
        Whether there are others.  An ordinary end would wait for them for ever, and they for this process: leave by
        `os._exit`.
    """
    if _client() is None:
        return False
    with contextlib.suppress(Exception):  # whatever the service says, if it still says anything
        Call(_client().wait_at_barrier, "rlgen/left", 1_000 * HEARTBEAT_SECONDS).result()
        if jax.process_index() == 0:
            time.sleep(_MOMENT)  # its end is the service's, which the others are still hearing
    return True


def _client() -> Any:
    """The coordination service.

    JAX's own barrier is a collective of all devices, whose connections do not wait for a process that has more to do.
    """
    from jax._src import distributed  # where orbax finds it too

    return distributed.global_state.client


def _tell(name: str, value: str) -> None:
    _client().key_value_set(f"rlgen/{name}", value)


def _ask(name: str) -> str:
    return Call(_client().blocking_key_value_get, f"rlgen/{name}", _PATIENCE_MS).result()


def join(coordinator: str | None, count: int | None, index: int | None) -> Processes:
    """Joins the processes of a sweep; to be called before anything makes JAX count its devices.

    Args:
        coordinator: address and port of the first process, `HOST:PORT`; `"auto"` to ask the cluster's environment; None
            where there is one process only.
        count: how many processes.
        index: of this one, from 0.

    Returns:
        Who they are.

    Raises:
        UsageError: if these do not go together, or the processes do not find each other.
    """
    given = [name for name, value in (("--processes", count), ("--process-id", index)) if value is not None]
    if coordinator == DETECT and given:
        raise UsageError(f"{' and '.join(given)} beside --coordinator auto, which knows how many there are")
    if coordinator is None:
        if given:
            raise UsageError(f"{' and '.join(given)} without --coordinator: where do they meet?")
        return ALONE
    settings: dict[str, Any] = {}
    if coordinator != DETECT:
        if count is None or index is None:
            raise UsageError("--coordinator HOST:PORT needs --processes and --process-id")
        if not 0 <= index < count:
            raise UsageError(f"process-id={index} is impossible: {count} processes are numbered 0 to {count - 1}")
        settings = {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, and nothing would come of it
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # at 3 JAX would not say why it ends when a process is lost
    try:
        # The others wait while the first one scores and writes.
        jax.distributed.initialize(
            **settings, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=_PATIENCE_MS // 1_000
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the processes of --coordinator {coordinator} did not find each other: {reason}") from error
    return Processes(jax.process_count(), jax.process_index())
