"""How much memory a sweep holds, known before anything is compiled.

What is counted is what stays: the state of the lanes that are trained at a time (replay memory above all), their
reports, and the data that they share.  On the CPU a checkpoint holds the state once more.  What an update needs
meanwhile is known to the compiler alone, so that a sweep that is counted to fit may still not.

Shape legend: `L` lanes at a time, `W` windows.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen.core import Tree
from rlgen.lab.errors import UsageError
from rlgen.lab.request import Plan

AUTO = "auto"
ROOM = 0.5  # share of the free memory that `fit` fills: the rest is for what updates need meanwhile
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Need(NamedTuple):
    """Bytes that a sweep holds.

    Attributes:
        state: of one lane.
        replay: of it, the replay memory.
        history: reports of one lane over all windows.
        shared: data, of all lanes together.
        copies: how many times the state is held.
    """

    state: int
    replay: int
    history: int
    shared: int
    copies: int

    def total(self, num_lanes: int) -> int:
        """Bytes of `L` lanes."""
        return self.shared + num_lanes * (self.copies * self.state + self.history)

    def most(self, free: int) -> int:
        """The most lanes that fit into `free` bytes; 0 if none does."""
        return max(0, free - self.shared) // (self.copies * self.state + self.history)


def size(tree: Tree) -> int:
    """Counts the bytes of arrays, or of their descriptions."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def count(made: Plan, data: Any) -> Need:
    """Counts what a plan holds, by tracing one lane.

    Args:
        made: the plan.
        data: what its lanes share.

    Returns:
        The bytes.
    """
    run, bound = made.bound.make_run(data), made.bound
    key, step = jax.random.key(0), jnp.int32(0)
    state = jax.eval_shape(run.init, key, bound.hypers)
    _, report = jax.eval_shape(run.update, key, step, state, bound.hypers)
    on_host = jax.default_backend() == "cpu"
    return Need(
        state=size(state),
        replay=size(getattr(state.algorithm, "replay", ())),
        history=size(report) * (len(made.bounds) - 1),
        shared=size(data) * (jax.local_device_count() if on_host else 1),
        copies=2 if on_host else 1,
    )


def free() -> int | None:
    """Bytes that are free to this process: on its accelerators, or else on the host; None where nobody says."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stat and "bytes_limit" in stat for stat in stats):
        return sum(stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats)
    lines = _lines(Path("/proc/meminfo"))
    host = [int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable")]
    return min([*host, *_allowed()], default=None)


def _allowed(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that are left of each limit that a container or a batch system sets, by Linux's control groups.

    Args:
        groups: which groups the process is in, a line each: `number:controllers:path`.
        root: where they are mounted, those of version 1 by controller.

    Returns:
        What is left of every limit on the way from the process's own group up to the root.
    """
    left = []
    for line in _lines(groups):
        _, controllers, path = line.split(":", 2)
        names, top = ("memory.max", "memory.current"), root
        if controllers:
            names, top = ("memory.limit_in_bytes", "memory.usage_in_bytes"), root / "memory"
        if controllers and "memory" not in controllers.split(","):
            continue
        # A container often sees its own group as the root, under another path.
        own = top / path.strip("/")
        for group in (own, *own.parents):
            limit, used = ("".join(_lines(group / name)) for name in names)
            if limit.isdecimal() and used.isdecimal():
                left.append(max(int(limit) - int(used), 0))
            if group == top:
                break
    return left


def _lines(path: Path) -> list[str]:
    """Reads the lines of a file of the system's; none where there is no such file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def fit(made: Plan, data: Any) -> int | None:
    """Chooses how many lanes to train at a time.

    Args:
        made: the plan.
        data: what its lanes share.

    Returns:
        As many as fill half of the free memory, in groups of equal size; None for all.

    Raises:
        UsageError: if not even one fits.
    """
    available = free()
    if available is None:
        return None
    need = count(made, data)
    most = need.most(int(ROOM * available))
    if most < 1:
        check(need, 1, available)
    num_groups = -(-made.num_lanes // max(most, 1))
    return None if num_groups == 1 else -(-made.num_lanes // num_groups)


def check(need: Need, num_lanes: int, available: int | None) -> str:
    """Refuses what cannot fit, and else says in one line what is held.

    Args:
        need: of the sweep.
        num_lanes: `L`.
        available: bytes that are free; None where nobody says.

    Returns:
        The line.

    Raises:
        UsageError: if more is needed; it says how many lanes would fit.
    """
    if available is not None and need.total(num_lanes) > available:
        most = need.most(available)
        advice = f"train at most {most} at a time with --chunk {most}, or --chunk auto" if most else "not one fits"
        held = human(need.total(num_lanes))
        raise UsageError(f"{num_lanes} lanes at a time hold {held} and {human(available)} are free: {advice}")
    return told(need, num_lanes, available)


def told(need: Need, num_lanes: int, available: int | None) -> str:
    """Says in one line what a sweep of `L` lanes at a time holds, of how many bytes that are free."""
    replay = f", {human(need.replay)} of it replay" if need.replay else ""
    each = f"a state of {human(need.state)} each{replay}, and reports of {human(need.history)}"
    left = f" of {human(available)} that are free" if available else ""
    return f"memory: {human(need.total(num_lanes))}{left} for {num_lanes} lanes at a time, {each}"


def human(num_bytes: float) -> str:
    """Writes a number of bytes as people read it."""
    power = min(int(math.log2(max(num_bytes, 1)) // 10), len(_UNITS) - 1)
    return f"{num_bytes / 2 ** (10 * power):.3g} {_UNITS[power]}"
