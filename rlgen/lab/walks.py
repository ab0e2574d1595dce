"""Sheets of what a trained model makes of images: samples, reconstructions, walks between them, and its weights.

A walk goes in equal steps along the straight line between the latents of two held-out images.

An algorithm's module says what can be shown: `build_coder(spec, config)` gives `encode(key, state, images)` and
`decode(state, latents)`, `build_damage(spec, config)` gives `(key, images, hypers) -> images` or None, and
`build_filters(spec, config)` gives `state -> images`.  A task may say what is shown, `shown(data, num) -> inputs`.

Shape legend: `N` images, `H W C` image, `L` stations of a walk, `F` weights as images.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import NOTHING, Array, Box, Key, Policy
from rlgen.experiments.experiment import Experiment
from rlgen.lab import folders, lanes, sheets
from rlgen.lab.errors import UsageError

NUM_IMAGES = 64  # samples
NUM_COLUMNS = 12  # of other sheets
NUM_ROWS = 4  # of reconstructions
NUM_WALKS = 8
NUM_STATIONS = NUM_COLUMNS - 2  # at either end of a walk is a held-out image
NUM_FILTERS = 100


class Learned(NamedTuple):
    """What one lane came to.

    Attributes:
        experiment: the row, with its settings applied.
        key: of the run.
        step: updates done, int32 scalar.
        state: of the algorithm, no lane axis.
        hypers: numbers of the lane.
    """

    experiment: Experiment
    key: Key
    step: Array
    state: Any
    hypers: Any


def policy(learned: tuple[Array, Any, Any], *, experiment: Experiment, explore: bool) -> Policy:
    """Makes the policy of `(step, state, hypers)`."""
    algorithm = experiment.algorithm.build(experiment.task.spec, experiment.config)
    return algorithm.policy(*learned, explore=explore)


def samples(learned: Learned, key: Key, num: int = NUM_IMAGES) -> np.ndarray:
    """Draws from a trained generator, `[N, *output]`, for held-out inputs where it reads any.  The key is consumed."""
    experiment = learned.experiment
    reads = experiment.task.spec.observation != NOTHING
    return _apply(learned, key, held_out(experiment, num) if reads else jnp.zeros((num, *NOTHING.shape)))


def show(learned: Learned, key: Key, path: Path, *, title: str) -> list[Path]:
    """Draws what a model of images comes to.

    Args:
        learned: the model.
        key: consumed.
        path: of the first sheet: samples, or what becomes of images where the model reads one; the others are named
            after it.
        title: of all sheets.

    Returns:
        The paths of what was written.

    Raises:
        UsageError: if the model gives no images, or a sheet cannot be written.
        DataError: if the dataset, whose held-out images are shown, is missing.
    """
    experiment = learned.experiment
    if not _is_image(experiment.task.spec.action):
        raise UsageError(f"{experiment.name} has nothing to show: what it gives is no image")
    first_key, *keys = jax.random.split(key, 3)
    if not _is_image(experiment.task.spec.observation):
        _draw(path, samples(learned, first_key), title=title)
        return [path, *_coded(learned, keys, path, title)]
    _restored(learned, first_key, path, title)
    return [path, *_filters(learned, path, title), *_coded(learned, keys, path, title)]


def restored(learned: Learned, key: Key, images: Array) -> dict[str, np.ndarray]:
    """Gives images `[N, H, W, C]` by heading: held-out ones, damaged where the model mends, and what it makes of them.

    The key is consumed.
    """
    experiment = learned.experiment
    build_damage = getattr(experiment.algorithm, "build_damage", None)
    damage = build_damage and build_damage(experiment.task.spec, experiment.config)
    damage_key, policy_key = jax.random.split(key)
    if damage is None:
        return {"given": np.asarray(images), "made of it": _apply(learned, policy_key, images)}
    damaged = damage(damage_key, images, learned.hypers)
    mended = _apply(learned, policy_key, damaged)
    return {"clean": np.asarray(images), "damaged": np.asarray(damaged), "restored": mended}


def walk(learned: Learned, key: Key, first: Array, last: Array) -> tuple[np.ndarray, np.ndarray]:
    """Goes from images to others, both `[N, H, W, C]` uint8.  The key is consumed.

    Returns:
        `(reconstructions [N, H, W, C] of the first ones, stations [N, L, H, W, C])`; the first station is the
        reconstruction, too.
    """
    experiment = learned.experiment
    encode, decode = experiment.algorithm.build_coder(experiment.task.spec, experiment.config)

    @jax.jit
    def go(key: Key, state: Any, first: Array, last: Array) -> tuple[Array, Array]:
        ends = encode(key, state, jnp.concatenate([first, last]))
        start, end = jnp.split(ends[:, None], 2)
        share = jnp.linspace(0.0, 1.0, NUM_STATIONS).reshape(-1, *[1] * (ends.ndim - 1))
        return decode(state, start[:, 0]), decode(state, start + share * (end - start))

    rebuilt, stations = go(key, learned.state, first, last)
    return np.asarray(rebuilt), np.asarray(stations)


def held_out(experiment: Experiment, num: int) -> Array:
    """Gives what a model is shown, at most `[num, ...]`: what its task says, or its first held-out images, uint8."""
    data, shown = lanes.load_data(experiment), getattr(experiment.task, "shown", None)
    return jnp.asarray(data.test[:num] if shown is None else shown(data, num))


def _restored(learned: Learned, key: Key, path: Path, title: str) -> None:
    """Draws rows of what becomes of images, twice."""
    stages = restored(learned, key, held_out(learned.experiment, 2 * NUM_COLUMNS))
    headings, images = [*stages] * 2, [sheets.pixels(stage) for stage in stages.values()]
    rows = [stage[half * NUM_COLUMNS :][:NUM_COLUMNS] for half in range(2) for stage in images]
    _draw(path, np.concatenate(rows), num_columns=NUM_COLUMNS, title=title, headings=headings)


def _coded(learned: Learned, keys: Sequence[Key], path: Path, title: str) -> list[Path]:
    """Draws reconstructions, where the first sheet has none, and walks, of a module that has a coder."""
    if not hasattr(learned.experiment.algorithm, "build_coder"):
        return []
    draw = functools.partial(_draw, num_columns=NUM_COLUMNS, title=title)
    reconstructions, walks = (path.with_name(f"{path.stem}-{name}.png") for name in ("reconstructions", "walk"))
    images = held_out(learned.experiment, max(NUM_ROWS * NUM_COLUMNS, 2 * NUM_WALKS))
    first, last = images[:NUM_WALKS], images[NUM_WALKS : 2 * NUM_WALKS]
    _, stations = walk(learned, keys[0], first, last)
    ways = zip(first[:, None], stations, last[:, None], strict=True)
    draw(walks, np.concatenate([sheets.pixels(part) for way in ways for part in way]))
    if _is_image(learned.experiment.task.spec.observation):
        return [walks]
    rebuilt, _ = walk(learned, keys[1], images, images)
    rows = [np.split(sheets.pixels(part)[: NUM_ROWS * NUM_COLUMNS], NUM_ROWS) for part in (images, rebuilt)]
    pairs = [row for pair in zip(*rows, strict=True) for row in pair]
    draw(reconstructions, np.concatenate(pairs), headings=["held out", "rebuilt"] * NUM_ROWS)
    return [reconstructions, walks]


def _filters(learned: Learned, path: Path, title: str) -> list[Path]:
    """Draws the weights of the first layer: grey is zero, and the largest of each unit is black or white."""
    experiment = learned.experiment
    build_filters = getattr(experiment.algorithm, "build_filters", None)
    if build_filters is None:
        return []
    weights = np.asarray(build_filters(experiment.task.spec, experiment.config)(learned.state))
    weights = weights[np.linspace(0, len(weights) - 1, min(len(weights), NUM_FILTERS)).astype(int)]
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    path = path.with_name(f"{path.stem}-weights.png")
    _draw(path, 0.5 + 0.5 * weights / np.maximum(largest, 1e-12), title=title)
    return [path]


def _draw(path: Path, images: np.ndarray, **how: Any) -> None:
    """Writes a sheet whole or not at all."""
    folders.write(path, lambda partial: sheets.image_grid(partial, images, **how))


def _apply(learned: Learned, key: Key, inputs: Array) -> np.ndarray:
    """Gives the outputs `[N, *output]` of a trained policy."""
    acts = policy(learned[2:], experiment=learned.experiment, explore=False)
    return np.asarray(acts.apply(key, inputs, acts.memory((len(inputs),)))[0])


def _is_image(space: Any) -> bool:
    return isinstance(space, Box) and len(space.shape) == 3
