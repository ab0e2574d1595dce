"""Times rejax (github.com/keraJLi/rejax) at settings that are given.

Run by a Python that has rejax and gymnax 0.0.9::

    python benchmarks/peers/rejax.py sac '{"seeds": 16, "env": "Pendulum-v1", "total_timesteps": 20000}'

It prints one line of JSON.  Its evaluation in mid-run is put off to the end, so that training alone is timed; the final
return is that of one evaluation after the last step.
"""

import json
import resource
import sys
import time

import jax
import jax.numpy as jnp
from rejax import get_algo


def main(name, options):
    """Compiles, runs, and prints what it took."""
    seeds = options.pop("seeds", 1)
    steps = options["total_timesteps"]
    algorithm = get_algo(name).create(**{"eval_freq": steps, "skip_initial_evaluation": True, **options})

    def run(key):
        _, (_, returns) = algorithm.train(key)
        return returns[-1].mean()

    keys = jax.random.split(jax.random.PRNGKey(0), seeds) if seeds > 1 else jax.random.PRNGKey(0)
    start = time.perf_counter()
    lowered = jax.jit(jax.vmap(run) if seeds > 1 else run).lower(keys)
    lower_seconds = time.perf_counter() - start
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start
    start = time.perf_counter()
    result = jax.block_until_ready(compiled(keys))
    run_seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "lower_seconds": lower_seconds,
                "compile_seconds": compile_seconds,
                "run_seconds": run_seconds,
                "steps_per_second": seeds * steps / run_seconds,
                "final_return": float(jnp.median(result)),
                "final_returns": jnp.atleast_1d(result).tolist(),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "jax": jax.__version__,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
