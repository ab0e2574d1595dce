"""Compares our LunarLander with the Box2D original by what one policy comes to in each.

The policy is Gymnasium's heuristic, or one that was trained in ours.
"""

import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks import measure
from rlgen import evaluate
from rlgen.core import Discrete, Policy
from rlgen.envs import adapter, lander
from rlgen.lab import runner

LANDED = 200.0  # return of a landing


def run(episodes: int) -> None:
    """Plays in both and keeps what returns and lengths came to.

    Args:
        episodes: in each.
    """
    measure.check_counts(episodes=episodes)
    for kind, continuous in (("discrete", False), ("continuous", True)):
        ours, theirs = _ours(episodes, continuous), _theirs(episodes, continuous, _heuristic)
        tests: list[Any] = [stats.ks_2samp(left, right) for left, right in zip(ours[:2], theirs[:2], strict=True)]
        agreement = {name: float(test.pvalue) for name, test in zip(("return", "length"), tests, strict=True)}
        sides = {"rlgen": _told(*ours), "gymnasium": _told(*theirs)}
        content = {"kind": kind, "episodes": episodes, **sides, "p": agreement, "machine": measure.machine()}
        print(measure.save("lander", kind, content), content["p"])


def transfer(folder: Path, episodes: int) -> None:
    """Plays policies that were trained in ours in both, and keeps what returns came to.

    Args:
        folder: of a run of a LunarLander experiment.
        episodes: of each seed, in each.
    """
    measure.check_counts(episodes=episodes)
    trained = runner.restore(folder)
    experiment = trained.experiment
    task: Any = experiment.task
    env, step = task.env, jnp.int32(trained.bound.num_updates)
    build = experiment.algorithm.build(task.spec, experiment.config)

    def policy(lane: Any) -> Policy:
        return build.policy(step, *lane, explore=False)

    @jax.jit
    def play(key: Any, lane: Any) -> Any:
        return evaluate.episodes(key, policy(lane), env, episodes).total_return.mean()

    @jax.jit
    def act(obs: Any, lane: Any) -> Any:
        bound = policy(lane)
        return bound.apply(jax.random.key(0), obs[None], bound.memory((1,)))[0][0]

    continuous, rows = not isinstance(task.spec.action, Discrete), []
    for seed, key in enumerate(trained.keys):
        lane = jax.tree.map(lambda leaf, seed=seed: jnp.asarray(leaf[seed]), (trained.state.algorithm, trained.hypers))
        totals, _, _ = _theirs(episodes, continuous, lambda _, obs, lane=lane: np.asarray(act(jnp.asarray(obs), lane)))
        rows.append({"seed": seed, "rlgen": float(play(key, lane)), "gymnasium": float(totals.mean())})
        print(rows[-1])
    content = {"experiment": experiment.name, "episodes": episodes, "seeds": rows, "machine": measure.machine()}
    print(measure.save("lander", experiment.name.replace("/", "_"), content))


def _ours(episodes: int, continuous: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns, lengths and steps a second; those of compiling do not count."""
    env = adapter.make(lander.LunarLander(continuous))
    act = jax.vmap(functools.partial(lander.heuristic, is_continuous=continuous))
    policy = Policy(memory=lambda batch_shape: (), apply=lambda key, obs, memory: (act(obs), {}, memory))
    play = jax.jit(lambda key: evaluate.episodes(key, policy, env, episodes)).lower(jax.random.key(0)).compile()
    start = time.perf_counter()
    played = jax.tree.map(np.asarray, play(jax.random.key(0)))
    # Environments go on until the last episode ends, but steps after an episode's own end serve nobody.
    return *played, float(played.length.sum() / (time.perf_counter() - start))


def _heuristic(env: Any, obs: np.ndarray) -> Any:
    """What Gymnasium's own policy does."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    return heuristic(env, obs)


def _theirs(
    episodes: int, continuous: bool, act: Callable[[Any, np.ndarray], Any]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns, lengths and steps a second of the original, under `(env, obs) -> action`."""
    import gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Box2D's wrapper has types without a module
        env: Any = gymnasium.make("LunarLander-v3", continuous=continuous)
    totals, lengths, start = [], [], time.perf_counter()
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        total, length, over = 0.0, 0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(act(env, obs))
            total, length, over = total + float(reward), length + 1, terminated or truncated
        totals.append(total)
        lengths.append(length)
    return np.array(totals), np.array(lengths), float(np.sum(lengths) / (time.perf_counter() - start))


def _told(totals: np.ndarray, lengths: np.ndarray, speed: float) -> dict[str, float]:
    """What many episodes came to."""
    return {
        "mean_return": float(totals.mean()),
        "deviation": float(totals.std()),
        "share_landed": float((totals >= LANDED).mean()),
        "mean_length": float(lengths.mean()),
        "steps_per_second": speed,
    }
