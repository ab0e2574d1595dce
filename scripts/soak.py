"""Runs vmapped and sharded sweeps for as long as told, and fails if one of them stalls.

jaxlib 0.10 stops dead on the CPU under vmapped seeds: every thread waits and nothing is raised.  The only sign is that
no window of updates finishes, so that is what is watched.  Each sweep runs in a process of its own, one after another
in short turns, because a stall is as likely in the first seconds of a process as in the last.
"""

import argparse
import contextlib
import faulthandler
import itertools
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

NUM_SEEDS = 16
START_UP = 5  # compiling may take this many times as long as a window
WINDOW_SECONDS = 0.5  # windows are doubled until they take this long
TICK = 1.0  # seconds between two looks at the clock


class Case(NamedTuple):
    """A sweep, and over how many host devices its seeds are sharded."""

    experiment: str
    devices: int

    def __str__(self) -> str:
        return f"{self.experiment}, {NUM_SEEDS} seeds on {self.devices} device{'s' * (self.devices > 1)}"


CASES = (Case("policy/ppo/CartPole-v1", 1), Case("policy/ppo/CartPole-v1", 2), Case("value/dqn/CartPole-v1", 1))


class StallError(Exception):
    """No window finished in time, or the process died."""


def work(case: Case) -> None:
    """Sweeps until killed and prints a line of JSON after each window, the first of them empty, to compile.

    Args:
        case: what to run.
    """
    import jax
    import jax.numpy as jnp

    from rlgen import sweep
    from rlgen.experiments import catalogue, experiment

    mesh = sweep.mesh(case.devices)
    bound = experiment.bind(catalogue.find(case.experiment))
    run = sweep.build(bound.make_run, mesh)
    keys = sweep.place(sweep.keys(0, NUM_SEEDS), mesh)
    hypers = sweep.place(sweep.stack([bound.hypers], NUM_SEEDS), mesh)
    start, size, state = 0, 0, run.init((), keys, hypers)
    while True:
        began = time.perf_counter()
        state, report = run.advance((), keys, jnp.int32(start), jnp.int32(start + size), state, hypers)
        jax.block_until_ready((state, report))
        seconds = time.perf_counter() - began
        said = {"steps": size * bound.steps_per_update * NUM_SEEDS, "seconds": seconds}
        print(json.dumps(said), flush=True)
        start += size
        size = max(1, 2 * size if size and seconds < WINDOW_SECONDS else size)
        if start + size > bound.num_updates:
            start, state = 0, run.init((), keys, hypers)


def launch(case: Case) -> subprocess.Popen[str]:
    """Starts a process that works on a case."""
    device = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(case.devices)}
    command = [sys.executable, os.path.abspath(__file__), "--work", *map(str, case)]
    return subprocess.Popen(command, env={**os.environ, **device}, stdout=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str], *, show_stacks: bool) -> None:
    """Kills a process, after it has shown where its threads stand if that is wanted."""
    if show_stacks and process.poll() is None:
        process.send_signal(signal.SIGABRT)  # faulthandler writes every thread's stack, then the process ends
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    process.kill()
    process.wait()


def windows(case: Case, limit: float, turn: float) -> Iterator[tuple[int, float]]:
    """Runs a case and yields what each window did.

    Args:
        case: what to run.
        limit: seconds within which a window must finish.
        turn: seconds to go on for after the first window; there is always one.

    Yields:
        Environment steps of the window, all seeds together, and the seconds that it took; zeros while one is awaited.

    Raises:
        StallError: if none finishes within the limit; every thread's Python stack is on the standard error by then.
    """
    process = launch(case)
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    patience, since = START_UP * limit, time.monotonic()
    stalled, end = False, math.inf
    try:
        while time.monotonic() < end:
            try:
                line = lines.get(timeout=TICK)
            except queue.Empty:
                stalled = time.monotonic() - since > patience
                if stalled:
                    raise StallError(f"{case}: no window finished in {patience:g} s") from None
                yield 0, 0.0
                continue
            if line is None:
                raise StallError(f"{case}: the process ended by itself with status {process.wait()}")
            said = json.loads(line)
            patience, since = limit, time.monotonic()
            if said["steps"]:
                end = min(end, since + turn)
            yield said["steps"], said["seconds"]
    finally:
        stop(process, show_stacks=stalled)
        reader.join()
        if process.stdout:
            process.stdout.close()


def soak(minutes: float, limit: float, turn: float) -> None:
    """Runs all cases in turn and prints a line a minute.

    Args:
        minutes: how long in all.
        limit: seconds within which a window must finish.
        turn: seconds that a process lives after its first window.

    Raises:
        StallError: if a window does not finish in time.
    """
    began = time.monotonic()
    end, next_line = began + 60 * minutes, began + 60
    num_windows = num_steps = 0
    slowest = 0.0
    for case in itertools.cycle(CASES):
        if time.monotonic() >= end:
            break
        for steps, seconds in windows(case, limit, min(turn, max(0.0, end - time.monotonic()))):
            num_windows, num_steps, slowest = num_windows + (steps > 0), num_steps + steps, max(slowest, seconds)
            if time.monotonic() >= next_line:
                passed = (time.monotonic() - began) / 60
                print(
                    f"{passed:5.1f} of {minutes:g} min: {num_windows} windows, {num_steps / 1e6:.1f} M steps,"
                    f" slowest {slowest:.1f} s; now {case}",
                    flush=True,
                )
                next_line += 60
    print(f"no stall: {num_windows} windows, {num_steps / 1e6:.1f} M steps, slowest {slowest:.1f} s", flush=True)


def main() -> None:
    """Reads the command line; exits with 1 after a stall."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="how long to run (default %(default)s)")
    parser.add_argument("--limit", type=float, default=60, help="seconds a window may take (default %(default)s)")
    parser.add_argument("--turn", type=float, default=90, help="seconds a process goes on for (default %(default)s)")
    parser.add_argument("--work", nargs=2, metavar=("EXPERIMENT", "DEVICES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        faulthandler.enable()
        work(Case(args.work[0], int(args.work[1])))
    try:
        soak(args.minutes, args.limit, args.turn)
    except StallError as stall:
        sys.exit(f"STALL: {stall}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
