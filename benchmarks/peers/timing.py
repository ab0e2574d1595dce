"""What the scripts beside it share: timing a program apart from compiling it, and the line of JSON that they print."""

import json
import resource
import time

import jax
import jax.numpy as jnp


def phases(run, *args):
    """Lowers, compiles and runs a function.

    Args:
        run: a function that jax can compile.
        *args: its arguments.

    Returns:
        `(seconds, result)`; the seconds are `(lowering, compiling, running)`.
    """
    start = time.perf_counter()
    lowered = jax.jit(run).lower(*args)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    result = jax.block_until_ready(compiled(*args))
    return (middle - start, end - middle, time.perf_counter() - end), result


def seeded(run, seeds):
    """Gives `(key or keys) -> result` over some seeds, one of which needs no batch axis, and its argument."""
    key = jax.random.PRNGKey(0)
    return (jax.vmap(run), jax.random.split(key, seeds)) if seeds > 1 else (run, key)


def say(seconds, steps, returns):
    """Prints what a run took.

    Args:
        seconds: of lowering, compiling and running.
        steps: that were run, of all seeds together.
        returns: final return of each seed.
    """
    lower_seconds, compile_seconds, run_seconds = seconds
    print(
        json.dumps(
            {
                "lower_seconds": lower_seconds,
                "compile_seconds": compile_seconds,
                "run_seconds": run_seconds,
                "steps_per_second": steps / run_seconds,
                "final_return": float(jnp.median(returns)),
                "final_returns": jnp.atleast_1d(returns).tolist(),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "jax": jax.__version__,
            }
        )
    )
