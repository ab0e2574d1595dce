"""Measures what a run costs before its first update: imports, tracing, compiling with and without the cache."""

import json
import statistics
import sys
import tempfile

from benchmarks import measure

EXPERIMENTS = (
    "tabular/q_learning/CliffWalking",
    "policy/ppo/CartPole-v1",
    "policy/ppo/Breakout-MinAtar",
    "value/dqn/CartPole-v1",
    "value/pqn/CartPole-v1",
    "actor_critic/sac/Pendulum-v1",
    "actor_critic/ddpg/Pendulum-v1-td3",
    "evolution/ars/CartPole-v1",
    "generative/vae/digits",
    "generative/flow/moons",
)
IMPORTS = ("jax", "rlgen", "rlgen.lab.runner")
SEEDS = 16


def imported(module: str, repeats: int) -> float:
    """Median seconds of processor that a fresh Python needs to import a module."""
    code = f"import json, time; import {module}; print(json.dumps(time.process_time()))"
    return statistics.median(float(str(measure.call([sys.executable, "-c", code], {}))) for _ in range(repeats))


def compiled(experiment: str) -> dict[str, float]:
    """Seconds of tracing and of compiling a sweep's updates, in a process that finds no cache and in one that does."""
    options = json.dumps({"seeds": SEEDS, "updates": 2})
    command = [sys.executable, "-m", "benchmarks.worker", experiment, options]
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "JAX_NUM_CPU_DEVICES": str(measure.machine()["cores"]),
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        cold, warm = (measure.call(command, environment) for _ in range(2))
    return {
        "lower_seconds": cold["lower_seconds"],
        "compile_seconds": cold["compile_seconds"],
        "cached_seconds": warm["compile_seconds"],
    }


def run(only: str, repeats: int) -> None:
    """Measures rows and imports.

    Args:
        only: pattern of experiment names.
        repeats: of the imports.

    Raises:
        UsageError: if nothing matches, or nothing is repeated.
    """
    measure.check_counts(repeats=repeats)
    for experiment in measure.chosen(only, EXPERIMENTS):
        content = {"experiment": experiment, "seeds": SEEDS, **compiled(experiment), "machine": measure.machine()}
        print(measure.save("compile", experiment, content), flush=True)
    content = {"imports": {module: imported(module, repeats) for module in IMPORTS}, "machine": measure.machine()}
    print(measure.save("compile", "imports", content))
