"""Measures how far deep Q-networks over-estimate, with and without double Q-learning (arXiv:1509.06461), and draws it.

On CartPole, where every step earns 1, the value of the first state under the greedy policy follows from how long its
episodes last: `(1 − γ^L) / (1 − γ)`, and `1 / (1 − γ)` where only the time limit ended one.
"""

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import figures, measure
from rlgen import evaluate, train
from rlgen.core import Array, Key
from rlgen.envs import adapter
from rlgen.lab import plots
from rlgen.parts import q_networks
from rlgen.sources import rollout
from rlgen.value import dqn

FIGURE, TITLE = "overestimation", "CartPole-v1: what is predicted at the start beyond what is earned"
STEPS, NUM_POINTS, NUM_EPISODES = 200_000, 40, 64
VARIANTS = {"DQN": False, "double DQN": True}


def run(seeds: int) -> None:
    """Trains both, compares predictions with returns on the way, and keeps the differences.

    Args:
        seeds: of each.
    """
    measure.check_counts(seeds=seeds)
    from rlgen.experiments import catalogue  # which imports every algorithm

    row, env = catalogue.EXPERIMENTS["value/dqn/CartPole-v1"], adapter.make("CartPole-v1")
    num_updates = STEPS // (row.config.num_envs * row.config.rollout_length)
    hypers, curves = row.hypers._replace(horizon=float(num_updates)), {}
    stops = np.linspace(0, num_updates, NUM_POINTS + 1).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), seeds)
    for label, double in VARIANTS.items():
        config = dataclasses.replace(row.config, double=double)
        source = rollout.build(env, num_envs=config.num_envs, length=config.rollout_length)
        learner = train.make(dqn.build(env.spec, config), source)
        advance = jax.jit(jax.vmap(train.window(learner), in_axes=(0, None, None, 0, None)), donate_argnums=3)
        compare = jax.jit(jax.vmap(functools.partial(_excess, hypers=hypers, config=config, env=env)))
        state, points = jax.vmap(learner.init, in_axes=(0, None))(keys, hypers), []
        for start, stop in itertools.pairwise(stops):
            state, _ = advance(keys, start, stop, state, hypers)
            points.append(np.asarray(compare(keys, state.algorithm)))
        curves[label] = np.stack(points, 1).tolist()
        print(f"{label}: {np.mean(points[-10:]):.2f}", flush=True)
    env_steps = (stops[1:] * (STEPS // num_updates)).tolist()
    content = {"env_steps": env_steps, "curves": curves, "machine": measure.machine()}
    print(measure.save("overestimation", "dqn", content))


def _excess(key: Key, state: dqn.State, *, hypers: dqn.Hypers, config: dqn.Config, env: adapter.Environment) -> Array:
    """The mean of `max Q` at the start of episodes, less the mean return of the greedy policy; a scalar."""
    start_key, play_key = jax.random.split(key)
    network = q_networks.QNetwork(env.spec, config)
    _, obs = env.reset(start_key, NUM_EPISODES)
    predicted = q_networks.q_values(None, state.learner.params, obs, hypers, network=network).max(-1).mean()
    policy = dqn.policy(jnp.int32(0), state, hypers, explore=False, network=network)
    length = evaluate.episodes(play_key, policy, env, NUM_EPISODES).length
    onward: Any = jnp.where(length < env.max_steps, hypers.discount**length, 0.0)
    return predicted - ((1 - onward) / (1 - hypers.discount)).mean()


def draw() -> list[Path]:
    """Draws the differences over training, where they were measured, and says where."""
    kept = measure.RESULTS / "overestimation" / "dqn.json"
    if not kept.exists():
        return []
    result = json.loads(kept.read_text())
    path = figures.FIGURES / f"{FIGURE}.png"
    curves = {label: np.array(values) for label, values in result["curves"].items()}
    plots.learning_curves(path, result["env_steps"], curves, ylabel="max Q − return", title=TITLE)
    return [path]
