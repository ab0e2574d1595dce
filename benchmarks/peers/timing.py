"""What the scripts beside it share: timing a program apart from compiling it, and the line of JSON that they print.

jax is imported where it is used, as not every peer has it.
"""

import contextlib
import importlib.metadata
import json
import os
import resource
import sys
import time

import numpy as np

# Packages by the names that they are imported by.
LIBRARIES = {
    **{
        name: name
        for name in (
            *("jax", "jaxlib", "flax", "optax", "distrax", "chex", "gymnax", "gymnasium", "torch", "numpy", "numba"),
            *("rejax", "flowjax", "equinox", "nflows", "flashbax", "brax", "jaxmarl"),
        )
    },
    "sbx": "sbx-rl",
    "stable_baselines3": "stable-baselines3",
    "stoa": "stoa-env",
}
SEED = "BENCHMARK_SEED"  # the environment variable that says which seed a run has


def seed():
    """Gives the number that all randomness of this run comes from."""
    return int(os.environ.get(SEED, "0"))


def tail(num):
    """Gives how many of a run's updates are its last tenth, whose returns or losses are kept."""
    return max(num // 10, 1)


def phases(run, *args):
    """Lowers, compiles and runs a function.

    Args:
        run: a function that jax can compile.
        *args: its arguments.

    Returns:
        `(seconds, result)`; the seconds are `(lowering, compiling, running)`.
    """
    import jax

    start = time.perf_counter()
    lowered = jax.jit(run).lower(*args)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    result = jax.block_until_ready(compiled(*args))
    return (middle - start, end - middle, time.perf_counter() - end), result


def seeded(run, seeds):
    """Gives `(key or keys) -> result` over some seeds, one of which needs no batch axis, and its argument."""
    import jax

    key = jax.random.PRNGKey(seed())
    return (jax.vmap(run), jax.random.split(key, seeds)) if seeds > 1 else (run, key)


def versions():
    """Gives the versions of the libraries that are loaded and that a timing may depend on."""
    found = {}
    for name, package in LIBRARIES.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # as of a mock
            if name in sys.modules:
                found[name] = importlib.metadata.version(package)
    return found


def device():
    """Gives what jax computes on, such as `2 × cpu`; None where it is not loaded."""
    if "jax" not in sys.modules:
        return None
    devices = sys.modules["jax"].devices()
    return f"{len(devices)} × {devices[0].device_kind}"


def say(seconds, steps, returns):
    """Prints what a run took.

    Args:
        seconds: of lowering, compiling and running.
        steps: that were run, of all seeds together.
        returns: final return of each seed, or of the one there was.
    """
    returns = np.atleast_1d(np.asarray(returns, float))
    lower_seconds, compile_seconds, run_seconds = seconds
    print(
        json.dumps(
            {
                "lower_seconds": lower_seconds,
                "compile_seconds": compile_seconds,
                "run_seconds": run_seconds,
                "steps_per_second": steps / run_seconds,
                "final_return": float(np.median(returns)),
                "final_returns": returns.tolist(),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "versions": versions(),
                "device": device(),
            }
        )
    )
