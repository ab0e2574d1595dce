"""Devices: how many there are, what they compile once and for all, and what to do when one stops.

The CPU is split into one XLA device a core, because XLA does not use a second core well for small networks.  Where a
single small lane is trained, it gets a device that has but one thread: with more, XLA hands operations of a few
microseconds from one to the other.  Compiled programs are kept in the user's cache folder, so that a second run of the
same program compiles nothing.
"""

import contextlib
import functools
import hashlib
import os
import platform
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jaxlib.version
import numpy as np
import pooch
from jax.sharding import AxisType, Mesh
from jaxlib import xla_client

from rlgen import sweep
from rlgen.lab.errors import UsageError

Devices = int | Literal["auto"]
MOST = 4096  # devices of a host: each has threads of its own
_THREADS = "PJRT_NPROC"  # threads of a client of the CPU
UNSET = -1  # what `jax_num_cpu_devices` is until somebody sets it


class StalledDevice(RuntimeError):  # noqa: N818 (an event, told by its name)
    """A device that finished nothing for too long.

    The thread that waits for it cannot be ended: leave the process by `os._exit`, or it may hang as it ends.
    """


def configure(devices: Devices) -> None:
    """Sets up JAX: one CPU device a core, or as many as asked for, and the cache of compiled programs.

    The number of CPU devices can only be set before JAX is first used, which importing gymnax already does; later it is
    left as it is, as it is where the user has set it.  It changes nothing where there is an accelerator.

    Args:
        devices: how many are asked for, or `"auto"`.

    Raises:
        UsageError: if they are too many for any machine.
    """
    if devices != "auto" and devices > MOST:
        raise UsageError(f"{devices:,} devices asked for: {MOST:,} are the most")
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    if jax.config.values["jax_num_cpu_devices"] != UNSET:
        return
    try:
        jax.config.update("jax_num_cpu_devices", num_cores() if devices == "auto" else devices)
    except RuntimeError:
        return  # JAX has its devices already


def num_cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Names the user's folder of compiled programs, one for each kind of processor: machines may share a home."""
    description = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        description += "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return Path(pooch.os_cache("rlgen"), "compiled", hashlib.sha256(description.encode()).hexdigest()[:16])


def choose(devices: Devices, num_lanes: int) -> Mesh:
    """Chooses the devices of a sweep.

    Args:
        devices: how many, or `"auto"` for all that there are, but no more than there are lanes.
        num_lanes: lanes at a time.

    Returns:
        The mesh.

    Raises:
        UsageError: if there are fewer than asked for, or more than lanes to train on them.
    """
    if devices == "auto":
        return sweep.mesh(min(jax.local_device_count(), num_lanes))
    if devices > num_lanes:  # the others would train copies, which a host pays for
        raise UsageError(f"{devices} devices asked for, which is more than the {num_lanes} lanes at a time: use auto")
    try:
        return sweep.mesh(devices)
    except ValueError as error:
        raise UsageError(str(error)) from error


def single_threaded() -> Mesh:
    """Makes a mesh of one CPU device with one thread, beside those that JAX counts.

    On a busy machine small operations are done in a little more than half the time, on an idle one in nine tenths.
    """
    return Mesh(np.array([_client().local_devices()[0]]), (sweep.LANE,), axis_types=(AxisType.Auto,))


@functools.cache
def _client() -> Any:
    """A second client of the CPU; XLA asks the environment how many threads it is to have."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        return xla_client.make_cpu_client(num_devices=1)
    finally:
        del os.environ[_THREADS]
        if before is not None:
            os.environ[_THREADS] = before


def names(devices: Mesh) -> list[str]:
    """Names the devices of a mesh, such as `cpu 0`."""
    return [f"{device.device_kind} {device.id}" for device in devices.devices.flat]


def wait(tree: Any) -> Any:
    """Waits until the arrays of a tree are there, and gives it back."""
    return jax.block_until_ready(tree)


class Call:
    """A call on a thread of its own, so that a device that stops does not stop the process."""

    def __init__(self, function: Callable[..., Any], *args: Any):
        """Starts the call.

        Args:
            function: what to call; its result is waited for too.
            *args: its arguments.
        """
        self._done = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(function, args), daemon=True).start()

    def _run(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        try:
            self._result = wait(function(*args))
        except BaseException as error:  # carried to the thread that asks for the result
            self._error = error
        self._done.set()

    def result(self, seconds: float | None = None, what: str = "") -> Any:
        """Waits for the result; a signal, such as Ctrl-C, is handled meanwhile.

        Args:
            seconds: how long at most; None for ever.
            what: is being waited for, to be named in the message.

        Returns:
            What the function returned.

        Raises:
            StalledDevice: if it took longer.
        """
        if not self._done.wait(seconds):
            raise StalledDevice(
                f"{what} did not finish within {seconds:g} s; this is jaxlib {jaxlib.version.__version__} on"
                f" {jax.default_backend()}.  jaxlib 0.10 is known to stop dead on the CPU, with every thread idle and"
                " no error: use 0.9.2.  A window that is only slow needs a larger --stall-seconds or more --windows"
            )
        if self._error is not None:
            raise self._error
        return self._result
