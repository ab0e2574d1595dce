"""Films of trained policies, made from the episodes that are kept.

What is kept is what the policy saw, did and earned, so that the film can be drawn again without training.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import figures, measure
from rlgen.experiments import catalogue
from rlgen.lab import film, runner
from rlgen.lab.drawings import Episode

KEPT = measure.RESULTS / "film"


def run(folder: Path, episodes: int) -> None:
    """Plays the policy of a run's first seed and keeps its episodes.

    Args:
        folder: of a run that was trained to its end.
        episodes: how many.

    Raises:
        SystemExit: if its task has no episodes.
    """
    measure.check_counts(episodes=episodes)
    learned = film.lane(runner.restore(folder), 0)
    env = getattr(learned.experiment.task, "env", None)
    if env is None:
        raise SystemExit(f"{learned.experiment.name} has no episodes to film")
    played = film.episodes(learned, env, episodes)
    print(keep(learned.experiment.name, played), [episode.reward.sum(axis=0).tolist() for episode in played])


def keep(experiment: str, played: Sequence[Episode]) -> Path:
    """Writes what happened in some episodes of an experiment and says where."""
    arrays = {}
    for index, episode in enumerate(played):
        for name, value in episode._asdict().items():
            # Of several agents each has an array of its own.
            parts = {f"_{k}": part for k, part in enumerate(value)} if isinstance(value, tuple) else {"": value}
            arrays |= {f"{name}_{index}{suffix}": part for suffix, part in parts.items()}
    about = {"experiment": experiment, "episodes": len(played), "machine": measure.machine()}
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{experiment.replace('/', '_')}.npz"
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)
    return path


def titles() -> dict[str, str]:
    """The films that are kept: the name of each picture and its title."""
    return {f"{path.stem}-film": _about(path)["experiment"] for path in sorted(KEPT.glob("*.npz"))}


def draw() -> list[Path]:
    """Draws the films that are kept and says where."""
    paths = []
    for kept in sorted(KEPT.glob("*.npz")):
        about = _about(kept)
        with np.load(kept) as arrays:
            played = [
                Episode(*(_kept(arrays, f"{name}_{index}") for name in Episode._fields))
                for index in range(about["episodes"])
            ]
        task: Any = catalogue.EXPERIMENTS[about["experiment"]].task
        paths.append(figures.FIGURES / f"{kept.stem}-film.gif")
        film.film(paths[-1], task.env, played)
    return paths


def _kept(arrays: Any, name: str) -> Any:
    """An array, or of several agents a tuple of them."""
    if name in arrays:
        return arrays[name]
    names = itertools.takewhile(lambda part: part in arrays, (f"{name}_{k}" for k in itertools.count()))
    return tuple(arrays[part] for part in names)


def _about(kept: Path) -> dict[str, Any]:
    with np.load(kept) as arrays:
        return json.loads(str(arrays["about"]))
