"""Times many independent tabular learners beside plain loops, with the machine's memory bandwidth as the limit."""

import json
import sys
from pathlib import Path

from benchmarks import measure

LEARNERS, STEPS = 4096, 10_000
FEWER = {"numpy": (4, 20_000), "numpy_vectorised": (LEARNERS, 1_000)}  # slow sides do less of the same work
# What a step has to move: the values of two states and one of them written, the successor, the reward, the state.
BYTES_PER_STEP = 4 * (4 + 4 + 1 + 1 + 1 + 2)


def run(python: Path, repeats: int) -> None:
    """Times rlgen's Q-learning beside loops in NumPy and numba, in turn, and saves the medians.

    Args:
        python: the Python that has NumPy and numba.
        repeats: alternating runs of each side.
    """
    measure.check_counts(repeats=repeats)
    script = str(Path(__file__).parent / "peers" / "tabular.py")
    cores = str(measure.machine()["cores"])

    def peer(side: str) -> list[str]:
        learners, steps = FEWER.get(side, (LEARNERS, STEPS))
        return [str(python), script, side, json.dumps({"learners": learners, "steps": steps})]

    options = {"seeds": LEARNERS, "steps": STEPS}
    ours = [sys.executable, "-m", "benchmarks.worker", "tabular/q_learning/CliffWalking", json.dumps(options)]
    said = measure.alternate(
        {
            "rlgen": (ours, {"JAX_NUM_CPU_DEVICES": cores}),
            **{side: (peer(side), {}) for side in ("numpy", "numpy_vectorised", "numba")},
        },
        repeats,
    )
    sides = {name: measure.summarise(runs) for name, runs in said.items()}
    limit = measure.call(peer("bandwidth"), {})["bytes_per_second"]
    content = {
        "work": f"Q-learning on cliff walking, {LEARNERS:,} learners of {STEPS:,} steps",
        "learners": sides,
        "bytes_per_second": limit,
        "bytes_per_step": BYTES_PER_STEP,
        "machine": measure.machine(),
    }
    path = measure.save("speed", "tabular_learners", content)
    speeds = ", ".join(f"{name} {side['steps_per_second']:,.0f}" for name, side in sides.items())
    print(f"{path}: steps/s {speeds}; bandwidth alone would allow {limit / BYTES_PER_STEP:,.0f}")
