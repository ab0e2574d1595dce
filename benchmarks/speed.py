"""Times rlgen beside its peers: same environment, network, batch, epochs and budget on both sides, in turn."""

import dataclasses
import fnmatch
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: of the row, and of its file.
        experiment: of the catalogue.
        options: for `benchmarks.worker`.
        peer: for the peer's script.
        work: what both sides do.
    """

    name: str
    experiment: str
    options: dict[str, Any]
    peer: tuple[str, dict[str, Any]]
    work: str


_PPO = "PPO CartPole-v1, 4 environments × 128 steps, 4 epochs × 4 minibatches, 64-64 tanh"
_DQN = (
    "DQN CartPole-v1, 10 environments, one gradient step of batch 128 every 10 steps, ring of 10 000, 120-84 ReLU,"
    " learning from step 10 000 on"
)


_PIXELS = "PPO Breakout-MinAtar, 64 environments × 128 steps, 4 epochs × 8 minibatches, 64-64 ReLU"


def _row(algorithm: str, experiment: str, work: str, seeds: int, steps: int, **peer: Any) -> Row:
    """A row at purejaxrl's own defaults but for the budget, which is cut so that many repeats fit into an hour.

    Args:
        algorithm: of purejaxrl.
        experiment: of the catalogue.
        work: what both sides do.
        seeds: of both.
        steps: of each seed.
        **peer: further settings of purejaxrl.
    """
    task = experiment.split("/")[-1].split("-")[0].lower()
    return Row(
        name=f"{algorithm}_{task}_{seeds}_seed{'s' if seeds > 1 else ''}",
        experiment=experiment,
        options={"seeds": seeds, "steps": steps},
        peer=(algorithm, {"seeds": seeds, "TOTAL_TIMESTEPS": steps, **peer}),
        work=f"{work}, {steps:,} steps a seed, {seeds} seed{'s' if seeds > 1 else ''}",
    )


_MINATAR = {"ENV_NAME": "Breakout-MinAtar", "NUM_ENVS": 64, "NUM_MINIBATCHES": 8, "LR": 5e-3, "ACTIVATION": "relu"}

ROWS = (
    _row("ppo", "policy/ppo/CartPole-v1", _PPO, 1, 500_000),
    _row("ppo", "policy/ppo/CartPole-v1", _PPO, 16, 200_000),
    _row("ppo", "policy/ppo/Breakout-MinAtar", _PIXELS, 4, 1_000_000, **_MINATAR),
    _row("dqn", "value/dqn/CartPole-v1", _DQN, 1, 200_000),
    _row("dqn", "value/dqn/CartPole-v1", _DQN, 16, 100_000),
)


def run(checkout: Path, python: Path, repeats: int, only: str) -> None:
    """Times every row against purejaxrl and saves the medians.

    Args:
        checkout: a checkout of purejaxrl.
        python: the Python that runs it.
        repeats: alternating runs of each side.
        only: pattern of row names.
    """
    script = str(Path(__file__).parent / "peers" / "purejaxrl.py")
    cores = str(measure.machine()["cores"])
    for row in ROWS:
        if not fnmatch.fnmatch(row.name, only):
            continue
        peer, options = row.peer
        ours = [sys.executable, "-m", "benchmarks.worker", row.experiment, json.dumps(row.options)]
        theirs = [str(python), script, str(checkout), peer, json.dumps(options)]
        said = measure.alternate({"rlgen": (ours, {"JAX_NUM_CPU_DEVICES": cores}), "purejaxrl": (theirs, {})}, repeats)
        sides = {name: measure.summarise(runs) for name, runs in said.items()}
        ratio = sides["rlgen"]["steps_per_second"] / sides["purejaxrl"]["steps_per_second"]
        content = {"name": row.name, "work": row.work, "ratio": ratio, **sides, "machine": measure.machine()}
        print(f"{measure.save('speed', row.name, content)}: {ratio:.2f} times purejaxrl")
