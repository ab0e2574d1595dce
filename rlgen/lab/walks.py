"""Sheets of what a trained model makes of images: samples, reconstructions, walks between them, and its weights.

A walk goes in equal steps along the straight line between the latents of two held-out images; or, of a generator that
encodes no images, between what it makes for two inputs.

An algorithm's module says what can be shown: `build_coder(spec, config)` gives `encode(key, state, images)` and
`decode(state, latents)`, `build_walk(spec, config)` gives `(key, state, first, last, share) -> images`,
`build_damage(spec, config)` gives `(key, images, hypers) -> images` or None, and `build_filters(spec, config)` gives
`state -> images`.  A task may say what is shown, `shown(data, num) -> inputs`.

Shape legend: `N` images, `H W C` image, `L` stations of a walk, `F` weights as images.
"""

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
    return _apply(learned, key, _inputs(learned.experiment, num))


class Sheet(NamedTuple):
    """Images side by side.

    Attributes:
        images: `[N, H, W, 3]` uint8.
        num_columns: images a row; None for a grid as square as can be.
        headings: one beside each row, or none.
    """

    images: np.ndarray
    num_columns: int | None = None
    headings: tuple[str, ...] = ()

    def draw(self, path: Path, title: str) -> None:
        """Writes it whole or not at all.

        Raises:
            UsageError: if it cannot be written.
        """
        how = {"num_columns": self.num_columns, "title": title, "headings": self.headings}
        folders.write(path, lambda partial: sheets.image_grid(partial, self.images, **how))


def show(learned: Learned, key: Key, path: Path, *, title: str) -> list[Path]:
    """Draws what a model of images comes to.

    Args:
        learned: the model.
        key: consumed.
        path: of the first sheet; the others are named after it.
        title: of all sheets.

    Returns:
        The paths of what was written.

    Raises:
        UsageError: if the model gives no images, or a sheet cannot be written.
        DataError: if the dataset, whose held-out images are shown, is missing.
    """
    named = {place(path, name): sheet for name, sheet in drawn(learned, key).items()}
    for where, sheet in named.items():
        sheet.draw(where, title)
    return list(named)


def place(path: Path, name: str) -> Path:
    """Names a sheet after the first one, which has no name of its own."""
    return path.with_name(f"{path.stem}-{name}.png") if name else path


def drawn(learned: Learned, key: Key) -> dict[str, Sheet]:
    """Gives the sheets of a model of images.  The key is consumed.

    Args:
        learned: the model.
        key: consumed.

    Returns:
        Sheets by name: first, named `""`, samples, or what becomes of images where the model reads one.

    Raises:
        UsageError: if the model gives no images.
        DataError: if the dataset, whose held-out images are shown, is missing.
    """
    experiment = learned.experiment
    if not _is_image(experiment.task.spec.action):
        raise UsageError(f"{experiment.name} has nothing to show: what it gives is no image")
    first_key, *keys = jax.random.split(key, 3)
    if not _is_image(experiment.task.spec.observation):
        made = Sheet(sheets.pixels(samples(learned, first_key)))
        return {"": made, **_coded(learned, keys), **_wandered(learned, keys[0])}
    return {"": _restored(learned, first_key), **_filters(learned), **_coded(learned, keys)}


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


def _inputs(experiment: Experiment, num: int) -> Array:
    """Gives what a generator reads, at most `[num, ...]`: held-out inputs, where it reads any."""
    reads = experiment.task.spec.observation != NOTHING
    return held_out(experiment, num) if reads else jnp.zeros((num, *NOTHING.shape))


def _restored(learned: Learned, key: Key) -> Sheet:
    """Lays out rows of what becomes of images, twice."""
    stages = restored(learned, key, held_out(learned.experiment, 2 * NUM_COLUMNS))
    images = [sheets.pixels(stage) for stage in stages.values()]
    rows = [stage[half * NUM_COLUMNS :][:NUM_COLUMNS] for half in range(2) for stage in images]
    return Sheet(np.concatenate(rows), NUM_COLUMNS, (*stages, *stages))


def _coded(learned: Learned, keys: Sequence[Key]) -> dict[str, Sheet]:
    """Lays out reconstructions, where the first sheet has none, and walks, of a module that has a coder."""
    if not hasattr(learned.experiment.algorithm, "build_coder"):
        return {}
    images = held_out(learned.experiment, max(NUM_ROWS * NUM_COLUMNS, 2 * NUM_WALKS))
    first, last = images[:NUM_WALKS], images[NUM_WALKS : 2 * NUM_WALKS]
    _, stations = walk(learned, keys[0], first, last)
    ways = zip(first[:, None], stations, last[:, None], strict=True)
    walked = Sheet(np.concatenate([sheets.pixels(part) for way in ways for part in way]), NUM_COLUMNS)
    if _is_image(learned.experiment.task.spec.observation):
        return {"walk": walked}
    rebuilt, _ = walk(learned, keys[1], images, images)
    rows = [np.split(sheets.pixels(part)[: NUM_ROWS * NUM_COLUMNS], NUM_ROWS) for part in (images, rebuilt)]
    pairs = [row for pair in zip(*rows, strict=True) for row in pair]
    return {
        "reconstructions": Sheet(np.concatenate(pairs), NUM_COLUMNS, ("held out", "rebuilt") * NUM_ROWS),
        "walk": walked,
    }


def _wandered(learned: Learned, key: Key) -> dict[str, Sheet]:
    """Lays out walks of a module that encodes no images.  The key is consumed."""
    experiment = learned.experiment
    build_walk = getattr(experiment.algorithm, "build_walk", None)
    if build_walk is None:
        return {}
    ends = jnp.split(_inputs(experiment, 2 * NUM_WALKS), 2)
    share = jnp.linspace(0.0, 1.0, NUM_COLUMNS)
    walked = jax.jit(build_walk(experiment.task.spec, experiment.config))(key, learned.state, *ends, share)
    return {"walk": Sheet(sheets.pixels(walked.reshape(-1, *walked.shape[2:])), NUM_COLUMNS)}


def _filters(learned: Learned) -> dict[str, Sheet]:
    """Lays out the weights of the first layer: grey is zero, and the largest of each unit is black or white."""
    experiment = learned.experiment
    build_filters = getattr(experiment.algorithm, "build_filters", None)
    if build_filters is None:
        return {}
    weights = np.asarray(build_filters(experiment.task.spec, experiment.config)(learned.state))
    weights = weights[np.linspace(0, len(weights) - 1, min(len(weights), NUM_FILTERS)).astype(int)]
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    return {"weights": Sheet(sheets.pixels(0.5 + 0.5 * weights / np.maximum(largest, 1e-12)))}


def _apply(learned: Learned, key: Key, inputs: Array) -> np.ndarray:
    """Gives the outputs `[N, *output]` of a trained policy."""
    acts = policy(learned[2:], experiment=learned.experiment, explore=False)
    return np.asarray(acts.apply(key, inputs, acts.memory((len(inputs),)))[0])


def _is_image(space: Any) -> bool:
    return isinstance(space, Box) and len(space.shape) == 3
