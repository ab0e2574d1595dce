"""Times one write and one sample of the replay ring against flashbax, vmapped over seeds."""

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
from rlgen.parts import random, replay

CAPACITY, NUM_ENVS, BATCH_SIZE, STEPS = 10_000, 10, 128, 2_000


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
        drawn = replay.sample(jax.random.fold_in(key, step), storage, rows, BATCH_SIZE)
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


def run(seeds: int, repeats: int) -> None:
    """Times both sides in turn and saves microseconds a write and a sample, all seeds together."""
    keys = jax.random.split(random.key(0), seeds)
    ring = replay.init(example(), capacity=CAPACITY, num_envs=NUM_ENVS, num_rows=1)
    buffer = flashbax.make_flat_buffer(
        max_length=CAPACITY, min_length=1, sample_batch_size=BATCH_SIZE, add_sequences=False, add_batch_size=NUM_ENVS
    )
    flat = buffer.init(
        {"obs": jnp.zeros(4), "reward": jnp.float32(0), "action": jnp.int32(0), "done": jnp.bool_(False)}
    )
    sides = {"rlgen": (ours, ring), "flashbax": (functools.partial(theirs, buffer=buffer), flat)}
    programs, states, times = {}, {}, {name: [] for name in sides}
    for name, (function, state) in sides.items():
        states[name] = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], seeds, axis=0), state)
        programs[name] = jax.jit(jax.vmap(function), donate_argnums=1).lower(keys, states[name]).compile()
    for _ in range(repeats + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            states[name], _ = jax.block_until_ready(program(keys, states[name]))
            times[name].append((time.perf_counter() - start) / STEPS * 1e6)
    medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    temporary = {name: program.memory_analysis().temp_size_in_bytes for name, program in programs.items()}
    content = {
        "work": f"{NUM_ENVS} transitions written, {BATCH_SIZE} sampled, ring of {CAPACITY}, {seeds} seeds vmapped",
        "microseconds": medians,
        "temporary_bytes": temporary,
        "ratio": medians["flashbax"] / medians["rlgen"],
        "machine": measure.machine(),
    }
    print(f"{measure.save('speed', f'replay_{seeds}_seeds', content)}: {content['ratio']:.2f} times flashbax")
