"""Times one write and one sample of the replay ring against flashbax, vmapped over seeds; with priorities as well.

With priorities there is also one update of those drawn, and the rings are full before the clock starts.  Rankings are
timed between two sorts and a sort on its own, because how often to sort is a choice.
"""

import functools
import statistics
import time
from typing import Any

import flashbax
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import measure
from rlgen.core import Transition
from rlgen.parts import priorities, random, replay

CAPACITY, NUM_ENVS, BATCH_SIZE, STEPS = 10_000, 10, 128, 2_000
LARGE, PRIORITISED_STEPS, ALPHA, EPSILON = 1_000_000, 200, 0.6, 0.01


def example() -> Transition:
    """A transition of CartPole without a batch axis."""
    obs = jnp.zeros(4)
    return Transition(obs, jnp.int32(0), jnp.float32(0), obs, jnp.bool_(False), jnp.bool_(False), {})


def ours(key: Any, storage: Any) -> tuple[Any, Any]:
    """Many writes and samples of the ring."""
    batch = jax.tree.map(lambda leaf: jnp.ones((1, NUM_ENVS, *leaf.shape), leaf.dtype), example())

    def body(carry, step):
        storage, total = carry
        storage = replay.add(storage, step, batch)
        rows = replay.filled(storage, step, 1)
        drawn = replay.take(storage, replay.draw(jax.random.fold_in(key, step), storage, rows, BATCH_SIZE))
        return (storage, total + drawn.reward.sum() + drawn.obs.sum() + drawn.next_obs.sum()), None

    return lax.scan(body, (storage, jnp.float32(0)), jnp.arange(STEPS))[0]


def theirs(key: Any, state: Any, *, buffer: Any) -> tuple[Any, Any]:
    """Many writes and samples of a flashbax flat buffer, which keeps each observation once and pairs neighbours."""
    single = {"obs": jnp.ones((NUM_ENVS, 4)), "reward": jnp.ones(NUM_ENVS), "action": jnp.ones(NUM_ENVS, jnp.int32)}
    single["done"] = jnp.zeros(NUM_ENVS, bool)

    def body(carry, step):
        state, total = carry
        state = buffer.add(state, single)
        pair = buffer.sample(state, jax.random.fold_in(key, step)).experience
        return (state, total + pair.first["reward"].sum() + pair.first["obs"].sum() + pair.second["obs"].sum()), None

    return lax.scan(body, (state, jnp.float32(0)), jnp.arange(STEPS))[0]


def ours_prioritised(key: Any, state: Any, *, size: int) -> tuple[Any, Any]:
    """Many writes, samples and updates of the ring with priorities."""
    batch = jax.tree.map(lambda leaf: jnp.ones((1, NUM_ENVS, *leaf.shape), leaf.dtype), example())
    period = size // NUM_ENVS

    def body(carry, step):
        (storage, held), total = carry
        storage = replay.add(storage, step, batch)
        held = priorities.add(held, step, size=size, num=NUM_ENVS, sort_period=period)
        index, probability = priorities.sample(jax.random.fold_in(key, step), held, BATCH_SIZE, ALPHA)
        drawn = replay.take(storage, index)
        held = priorities.update(held, index, error(index), ALPHA, EPSILON)
        total = total + probability.sum() + drawn.reward.sum() + drawn.obs.sum() + drawn.next_obs.sum()
        return ((storage, held), total), None

    # From one past a sort, so that none falls into the time.
    return lax.scan(body, (state, jnp.float32(0)), period + 1 + jnp.arange(PRIORITISED_STEPS))[0]


def theirs_prioritised(key: Any, state: Any, *, buffer: Any) -> tuple[Any, Any]:
    """Many writes, samples and updates of a prioritised flat buffer."""

    def body(carry, step):
        state, total = carry
        state = buffer.add(state, flat_batch())
        drawn = buffer.sample(state, jax.random.fold_in(key, step))
        pair = drawn.experience
        state = buffer.set_priorities(state, drawn.indices, jnp.abs(error(drawn.indices)) + EPSILON)
        total = total + drawn.probabilities.sum() + pair.first["reward"].sum() + pair.first["obs"].sum()
        return (state, total + pair.second["obs"].sum()), None

    return lax.scan(body, (state, jnp.float32(0)), jnp.arange(PRIORITISED_STEPS))[0]


def flat_batch() -> dict[str, Any]:
    """One step of every environment, as flashbax holds it."""
    batch = {"obs": jnp.ones((NUM_ENVS, 4)), "reward": jnp.ones(NUM_ENVS), "action": jnp.ones(NUM_ENVS, jnp.int32)}
    return batch | {"done": jnp.zeros(NUM_ENVS, bool)}


def error(index: Any) -> Any:
    """Errors that differ from slot to slot."""
    return jnp.sin(index.astype(jnp.float32))


def prioritised_sides(size: int) -> dict[str, tuple[Any, Any]]:
    """Every side's program and its full ring."""
    ring = replay.init(example(), capacity=size, num_envs=NUM_ENVS, num_rows=1)
    sides = {}
    for kind in priorities.KINDS:
        held = priorities.add(priorities.init(size, kind=kind), jnp.int32(0), size=size, num=size)
        held = priorities.update(held, jnp.arange(size), error(jnp.arange(size)), ALPHA, EPSILON)
        if kind == "rank":  # sorts
            held = priorities.add(held, jnp.int32(0), size=size, num=NUM_ENVS)
        sides["rlgen_rank" if kind == "rank" else "rlgen"] = (
            functools.partial(ours_prioritised, size=size),
            (ring, held),
        )
    buffer = flashbax.make_prioritised_flat_buffer(
        max_length=size,
        min_length=2 * NUM_ENVS,
        sample_batch_size=BATCH_SIZE,
        add_sequences=False,
        add_batch_size=NUM_ENVS,
        priority_exponent=ALPHA,
    )
    flat = buffer.init(jax.tree.map(lambda leaf: leaf[0], flat_batch()))
    fill = jax.jit(lambda state: lax.fori_loop(0, size // NUM_ENVS, lambda _, s: buffer.add(s, flat_batch()), state))
    sides["flashbax"] = (functools.partial(theirs_prioritised, buffer=buffer), fill(flat))
    return sides


def time_sort(size: int, seeds: int) -> float:
    """Milliseconds that all seeds together take to sort their rankings anew."""
    held = priorities.init(size, kind="rank")
    held = priorities.update(held, jnp.arange(size), error(jnp.arange(size)), ALPHA, EPSILON)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], seeds, axis=0), held)
    add = jax.vmap(functools.partial(priorities.add, size=size, num=NUM_ENVS), in_axes=(0, None))
    program = jax.jit(add).lower(many, jnp.int32(0)).compile()
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(program(many, jnp.int32(0)))
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


def run_prioritised(size: int, seeds: int, repeats: int) -> None:
    """Times all sides in turn and saves microseconds a write, a sample and an update, all seeds together."""
    medians, temporary = alternate(prioritised_sides(size), PRIORITISED_STEPS, seeds, repeats)
    content = {
        "work": f"{NUM_ENVS} transitions written, {BATCH_SIZE} sampled by priority and their priorities updated,"
        f" full ring of {size}, seeds vmapped: {seeds}; rank-based between sorts",
        "microseconds": medians,
        "temporary_bytes": temporary,
        "sort_milliseconds": time_sort(size, seeds),
        "ratio": medians["flashbax"] / medians["rlgen"],
        "machine": measure.machine(),
    }
    name = f"prioritised_replay_{size}_slots_{seeds}_{'seed' if seeds == 1 else 'seeds'}"
    path = measure.save("speed", name, content)
    print(f"{path}: {content['ratio']:.2f} times flashbax")


def alternate(
    sides: dict[str, tuple[Any, Any]], steps: int, seeds: int, repeats: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Runs all sides in turn, once more than is counted.

    Args:
        sides: program of a key and a state, and the state, by name.
        steps: that a program takes.
        seeds: vmapped seeds.
        repeats: timings of each side.

    Returns:
        Median microseconds a step and the compiled program's temporary bytes, by name.
    """
    keys = jax.random.split(random.key(0), seeds)
    programs, states, times = {}, {}, {name: [] for name in sides}
    for name, (function, state) in sides.items():
        states[name] = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], seeds, axis=0), state)
        programs[name] = jax.jit(jax.vmap(function), donate_argnums=1).lower(keys, states[name]).compile()
    for _ in range(repeats + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            states[name], _ = jax.block_until_ready(program(keys, states[name]))
            times[name].append((time.perf_counter() - start) / steps * 1e6)
    medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    return medians, {name: program.memory_analysis().temp_size_in_bytes for name, program in programs.items()}


def run_uniform(seeds: int, repeats: int) -> None:
    """Times both sides in turn and saves microseconds a write and a sample, all seeds together."""
    ring = replay.init(example(), capacity=CAPACITY, num_envs=NUM_ENVS, num_rows=1)
    buffer = flashbax.make_flat_buffer(
        max_length=CAPACITY, min_length=1, sample_batch_size=BATCH_SIZE, add_sequences=False, add_batch_size=NUM_ENVS
    )
    flat = buffer.init(
        {"obs": jnp.zeros(4), "reward": jnp.float32(0), "action": jnp.int32(0), "done": jnp.bool_(False)}
    )
    sides = {"rlgen": (ours, ring), "flashbax": (functools.partial(theirs, buffer=buffer), flat)}
    medians, temporary = alternate(sides, STEPS, seeds, repeats)
    content = {
        "work": f"{NUM_ENVS} transitions written, {BATCH_SIZE} sampled, ring of {CAPACITY}, {seeds} seeds vmapped",
        "microseconds": medians,
        "temporary_bytes": temporary,
        "ratio": medians["flashbax"] / medians["rlgen"],
        "machine": measure.machine(),
    }
    print(f"{measure.save('speed', f'replay_{seeds}_seeds', content)}: {content['ratio']:.2f} times flashbax")


def run(seeds: int, repeats: int) -> None:
    """Times uniform replay, and replay by priority in rings of two sizes."""
    measure.check_counts(seeds=seeds, repeats=repeats)
    run_uniform(seeds, repeats)
    run_prioritised(CAPACITY, seeds, repeats)
    run_prioritised(LARGE, 1, repeats)
