"""Judges the digits of a public DCGAN as those of our own models are judged.

Distances by the features of a classifier that is trained here say nothing beside published ones, whose features are
others.  So a DCGAN of plain PyTorch learns from as many images as our GAN, and the same classifier looks at its digits.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from benchmarks.peers import timing
from rlgen.core import Tree
from rlgen.experiments import catalogue, judges
from rlgen.experiments.pictures import Data
from rlgen.lab import lanes
from rlgen.lab.errors import UsageError
from rlgen.parts import quality

EXPERIMENT, JUDGE, SCRIPT = "generative/gan/mnist", "mnist", "vae"
NUM = 10_000  # digits that are judged


def run(peers: Path, seeds: int, images: int | None) -> None:
    """Trains the peer, judges its digits and those that it learned from, and keeps the distances.

    Args:
        peers: folder of the environments that `scripts/peers` makes.
        seeds: how many.
        images: to learn from; as many as our GAN if left out.

    Raises:
        UsageError: if the environment is absent, or a count is below 1.
    """
    measure.check_counts(seeds=seeds, images=images)
    python = peers / SCRIPT / "bin" / "python"
    if not python.exists():
        raise UsageError(f"{python} is absent: `scripts/peers {SCRIPT}` makes it")
    row = catalogue.find(EXPERIMENT)
    steps, data = images or row.steps, lanes.load_data(row)
    said, distances = [], []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "digits.npy")
        options = json.dumps({"steps": steps, "num": NUM, "out": str(out)})
        for seed in range(seeds):
            command = [str(python), "-P", "-m", "benchmarks.peers.dcgan", options]
            environment = {"PYTHONPATH": str(Path(__file__).parents[1]), timing.SEED: str(seed)}
            said.append(measure.call(command, environment))
            distances.append(distance(np.load(out), data))
            print(f"seed {seed}: {distances[-1]:.1f}", flush=True)
    content: dict[str, Any] = {
        "work": f"DCGAN of plain PyTorch on MNIST, {steps:,} images, {NUM:,} digits",
        "experiment": EXPERIMENT,
        "peer": measure.summarise(said),
        "distances": distances,
        "training_digits": distance(data.train[:NUM], data),
        "machine": measure.machine(),
    }
    print(measure.save("digits", "dcgan", content))


def distance(images: Tree, data: Data) -> float:
    """Fréchet distance of images `[N, 28, 28, 1]` bytes to the held-out ones, by the features of the judge."""

    @jax.jit
    def between(images: Tree, held_out: Tree, judge: Tree) -> jax.Array:
        seen, expected = (judges.features(JUDGE, judge, each) for each in (images, held_out))
        return quality.frechet_distance(quality.moments(seen), quality.moments(expected))

    return float(between(images, data.test, data.judge))
