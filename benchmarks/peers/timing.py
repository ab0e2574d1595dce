"""What the scripts beside it share: timing a program apart from compiling it, and the line of JSON that they print.

jax is imported where it is used, as not every peer has it.
"""

import importlib.metadata
import json
import os
import resource
import time

import numpy as np

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


def say(seconds, steps, returns, library="jax"):
    """Prints what a run took.

    Args:
        seconds: of lowering, compiling and running.
        steps: that were run, of all seeds together.
        returns: final return of each seed, or of the one there was.
        library: that computed, whose version is kept.
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
                "library": f"{library} {importlib.metadata.version(library)}",
            }
        )
    )
