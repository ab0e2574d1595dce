"""Times CleanRL's DQN in JAX (github.com/vwxyzjn/cleanrl, dqn_jax.py at fe8d8a0) at its own defaults, from a checkout.

Run by a Python that has jax, flax, optax, torch, gymnasium 0.29 and tyro::

    python -m benchmarks.peers.cleanrl CHECKOUT '{"total_timesteps": 20000}'

It prints what the script prints, and then one line of JSON.  Options are arguments of the script, which is run as it
stands, but that its log is kept here and not written.  What is timed is its loop over steps, less what jax spent in
tracing, lowering and compiling there.
"""

import json
import runpy
import sys
import time
import types

import gymnasium
import numpy as np
from jax import monitoring

from benchmarks.peers import timing

COMPILED = "/jax/core/compile/backend_compile_duration"
LOWERED = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")

clock = {}
spans = {"lower": [], "compile": []}
episodes = []


class Environments(gymnasium.vector.SyncVectorEnv):
    """Environments that note when they were last reset, just before the loop, and when they were closed, after it."""

    def reset(self, **kwargs):
        """Resets them all, and starts the clock."""
        result = super().reset(**kwargs)
        clock["start"] = time.perf_counter()
        return result

    def close(self, **kwargs):
        """Stops the clock."""
        clock.setdefault("end", time.perf_counter())
        super().close(**kwargs)


class Log:
    """Stands in for the script's log, and keeps the returns of episodes."""

    def __init__(self, *args):
        del args

    def add_scalar(self, name, value, step):
        """Keeps `(step, return)` where an episode ended."""
        if name == "charts/episodic_return":
            episodes.append((step, np.asarray(value, float).item()))

    def add_text(self, *args):
        """Nothing."""

    def close(self):
        """Nothing."""


def note(event, seconds, **kwargs):
    """Keeps when jax lowered or compiled."""
    del kwargs
    now = time.perf_counter()
    if event == COMPILED or event in LOWERED:
        spans["compile" if event == COMPILED else "lower"].append((now - seconds, now))


def covered(intervals, start, end):
    """Gives the seconds between start and end that intervals cover, which may lie inside each other."""
    total, reached = 0.0, start
    for left, right in sorted(intervals):
        total += max(min(right, end) - max(left, reached), 0.0)
        reached = max(reached, right)
    return total


def final_return(steps):
    """Mean return of the episodes that ended in the last tenth of the steps, or of the last ten if none did."""
    last = [value for step, value in episodes if step >= steps - timing.tail(steps)]
    return np.mean(last or [value for _, value in episodes[-10:]])


def main(checkout, options):
    """Runs the script, and prints what its loop took."""
    options = {"total_timesteps": 500_000, "seed": timing.seed(), **options}
    sys.path.insert(0, str(checkout))
    sys.modules["torch.utils.tensorboard"] = types.SimpleNamespace(SummaryWriter=Log)
    gymnasium.vector.SyncVectorEnv = Environments
    monitoring.register_event_duration_secs_listener(note)
    sys.argv = ["dqn_jax.py", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]
    runpy.run_path(f"{checkout}/cleanrl/dqn_jax.py", run_name="__main__")

    start, end = clock["start"], clock["end"]
    lowering, compiling = (covered(spans[name], start, end) for name in ("lower", "compile"))
    seconds = (lowering, compiling, end - start - lowering - compiling)
    timing.say(seconds, options["total_timesteps"], final_return(options["total_timesteps"]))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
