"""Times value iteration: a sparse grid of a million states, and dense processes beside NumPy and pymdptoolbox."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mdptoolbox.mdp
import numpy as np

from benchmarks import measure
from benchmarks.peers import tabular
from rlgen.envs import grid, mdp
from rlgen.parts import backups, planning

SIDE, NUM_STATES, NUM_ACTIONS, DISCOUNT = 1000, 500, 8, 0.99
SPARSE_SWEEPS, DENSE_SWEEPS = 10, 100


def slippery_grid() -> mdp.SparseMDP:
    """A grid without walls, from one corner to the other."""
    row = "." * SIDE
    layout = "\n".join(["S" + row[1:], *[row] * (SIDE - 2), row[1:] + "+"])
    return grid.GridWorld(layout, move_probability=0.8, living_reward=-0.01).sparse()


def random_process() -> tuple[np.ndarray, np.ndarray]:
    """A process without an end in which every action may lead everywhere: `[S, A, S]` and `[S, A]`."""
    rng = np.random.default_rng(0)
    transition = rng.random((NUM_STATES, NUM_ACTIONS, NUM_STATES))
    return transition / transition.sum(-1, keepdims=True), rng.normal(size=(NUM_STATES, NUM_ACTIONS))


def compiled(process: backups.Process, sweeps: int) -> tuple[Callable[[], np.ndarray], int]:
    """Value iteration of this project, compiled ahead of time.

    Returns:
        A function of no arguments that gives the values, and the bytes that it needs beside arguments and results.
    """

    def values(process: backups.Process) -> jax.Array:
        return planning.value_iteration(process, DISCOUNT, tolerance=0.0, max_iterations=sweeps).values

    program = jax.jit(values).lower(process).compile()
    memory = program.memory_analysis()
    return lambda: np.asarray(program(process)), memory.temp_size_in_bytes if memory else 0


def with_numpy(transition: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """The same sweeps as one product of a matrix and a vector each."""
    values, rows = np.zeros(NUM_STATES, reward.dtype), transition.reshape(-1, NUM_STATES)
    for _ in range(DENSE_SWEEPS):
        values = (reward + reward.dtype.type(DISCOUNT) * (rows @ values).reshape(reward.shape)).max(-1)
    return values


def with_toolbox(transition: np.ndarray, reward: np.ndarray) -> Callable[[], np.ndarray]:
    """The same sweeps by pymdptoolbox, its checks of the arrays left out of the time."""
    planner = mdptoolbox.mdp.ValueIteration(np.ascontiguousarray(transition.swapaxes(0, 1)), reward, DISCOUNT)
    planner.max_iter, planner.thresh = DENSE_SWEEPS, 0.0

    def values() -> np.ndarray:
        planner.V, planner.iter = np.zeros(NUM_STATES), 0
        planner.run()
        return np.asarray(planner.V)

    return values


def alternate(sides: Mapping[str, Callable[[], np.ndarray]], repeats: int, sweeps: int) -> dict[str, float]:
    """Median seconds a sweep of each side, timed in turn; the first round does not count.

    Raises:
        RuntimeError: if the sides do not find the same values.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    found = {}
    for _ in range(repeats + 1):
        for name, function in sides.items():
            start = time.perf_counter()
            found[name] = function()
            times[name].append((time.perf_counter() - start) / sweeps)
    first = next(iter(found.values()))
    if not all(np.allclose(values, first, rtol=1e-4) for values in found.values()):
        raise RuntimeError("the sides do not find the same values")
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def time_sparse(repeats: int) -> dict[str, Any]:
    """Seconds a sweep over the large grid, what it holds and what it moves."""
    process = jax.block_until_ready(slippery_grid())
    function, temporary = compiled(process, SPARSE_SWEEPS)
    seconds = alternate({"sweep": function}, repeats, SPARSE_SWEEPS)["sweep"]
    num_states = SIDE**2
    values = process.reward.itemsize * num_states
    held = sum(leaf.nbytes for leaf in process) + values
    # Each sweep reads who follows whom, how probably and for what, and reads and writes the values.
    moved = process.successor.nbytes + process.probability.nbytes + process.reward.nbytes + 2 * values
    bandwidth = statistics.median(tabular.bandwidth() for _ in range(3))
    return {
        "work": f"slippery grid of {num_states:,} states, {process.reward.shape[1]} actions, three successors each",
        "seconds_a_sweep": seconds,
        "bytes_held": held,
        "bytes_temporary": temporary,
        "bytes_moved_a_sweep": moved,
        "bytes_per_second": moved / seconds,
        "machine_bytes_per_second": bandwidth,
        "share_of_bandwidth": moved / seconds / bandwidth,
    }


def time_dense(repeats: int) -> dict[str, Any]:
    """Seconds a sweep of every side, in single and double precision."""
    transition, reward = random_process()
    single = transition.astype(np.float32), reward.astype(np.float32)
    start, terminal = np.full(NUM_STATES, 1 / NUM_STATES), np.zeros(NUM_STATES, bool)
    with jax.enable_x64(True):
        double, _ = compiled(mdp.build(transition, reward, start, terminal), DENSE_SWEEPS)
    sides = {
        "rlgen": compiled(mdp.build(*single, start, terminal), DENSE_SWEEPS)[0],
        "numpy": lambda: with_numpy(*single),
        "rlgen_double": double,
        "numpy_double": lambda: with_numpy(transition, reward),
        "pymdptoolbox_double": with_toolbox(transition, reward),
    }
    seconds = alternate(sides, repeats, DENSE_SWEEPS)
    return {
        "work": f"random dense processes of {NUM_STATES} states and {NUM_ACTIONS} actions",
        "seconds_a_sweep": seconds,
        "bytes_held": int(jnp.dtype(jnp.float32).itemsize * transition.size),
        "ratio_to_numpy": seconds["numpy"] / seconds["rlgen"],
        "ratio_to_pymdptoolbox": seconds["pymdptoolbox_double"] / seconds["rlgen_double"],
    }


def run(repeats: int) -> None:
    """Times both and saves medians.

    Args:
        repeats: timings of each side.
    """
    measure.check_counts(repeats=repeats)
    sparse, dense = time_sparse(repeats), time_dense(repeats)
    path = measure.save("speed", "planning", {"sparse": sparse, "dense": dense, "machine": measure.machine()})
    sweeps = ", ".join(f"{name} {seconds * 1e6:,.0f} µs" for name, seconds in dense["seconds_a_sweep"].items())
    print(
        f"{path}: {sparse['seconds_a_sweep'] * 1e3:.1f} ms a sweep of {SIDE**2:,} states, "
        f"{sparse['bytes_held'] / 1e6:.0f} MB held, {sparse['share_of_bandwidth']:.0%} of the bandwidth; "
        f"dense processes: {sweeps}"
    )
