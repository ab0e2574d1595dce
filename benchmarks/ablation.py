"""Takes the details of PPO away one at a time, on two tasks, and draws what that does.

The details are the thirteen that its implementations share (Huang et al., "The 37 Implementation Details of Proximal
Policy Optimization", ICLR Blog Track 2022), but for the last, which are metrics and change nothing.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import figures, measure
from rlgen.lab import plots

FIGURE, TITLE = "ppo-details", "PPO without one of its details: IQM over seeds"
# Steps, and what the row must have so that every detail is there to be taken away.
TASKS: dict[str, tuple[int, dict[str, str]]] = {
    "policy/ppo/CartPole-v1": (100_000, {}),
    "policy/ppo/Acrobot-v1": (200_000, {"hypers.entropy_coefficient": "0.01"}),
}
_LARGE = "1e9"  # a bound that never binds
DETAILS: dict[str, dict[str, str]] = {
    "all details": {},
    "one environment": {"config.num_envs": "1", "config.rollout_length": "{steps}"},
    "LeCun weights": {"config.initialiser": "lecun"},
    "Adam's own epsilon": {"hypers.adam_epsilon": "1e-8"},
    "constant learning rate": {"hypers.learning_rate_end": "{learning_rate}"},
    "no GAE (λ = 1)": {"hypers.gae_lambda": "1"},
    "no minibatches": {"config.num_minibatches": "1"},
    "raw advantages": {"config.normalise_advantages": "False"},
    "no clip": {"hypers.clip": _LARGE, "config.clip_values": "False"},
    "unclipped values": {"config.clip_values": "False"},
    "no entropy bonus": {"hypers.entropy_coefficient": "0"},
    "unclipped gradients": {"hypers.max_grad_norm": _LARGE},
    "shared layers": {"config.shared": "True"},
}


def run(seeds: int, only: str) -> None:
    """Runs every detail's absence on every task and keeps the scores.

    Args:
        seeds: of each.
        only: part of the names of the tasks to run.
    """
    from rlgen.experiments import catalogue  # which imports every algorithm

    for name, (steps, base) in TASKS.items():
        if only not in name:
            continue
        row = catalogue.EXPERIMENTS[name]
        sizes = {"steps": row.config.num_envs * row.config.rollout_length, "learning_rate": row.hypers.learning_rate}
        points = []
        for label, changes in DETAILS.items():
            settings = [f"{key}={value.format(**sizes)}" for key, value in {**base, **changes}.items()]
            points.append({"label": label, **_score(name, steps, seeds, settings)})
            print(f"{name}, {label}: {points[-1]['iqm']}", flush=True)
        content = {"experiment": name, "env_steps": steps, "seeds": seeds, "points": points}
        print(measure.save("ablation", name, {**content, "machine": measure.machine()}))


def _score(name: str, steps: int, seeds: int, settings: list[str]) -> dict[str, object]:
    """Sweeps a row with some settings and gives what became of its seeds."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [str(Path(sys.executable).with_name("rlgen")), "sweep", name, "--quiet"]
        command += ["--seeds", str(seeds), "--steps", str(steps), "--out", f"{scratch}/run"]
        subprocess.run([*command, *(word for text in settings for word in ("--set", text))], check=True)
        (point,) = json.loads((Path(scratch) / "run" / "summary.json").read_text())["points"]
    return {"settings": settings, "iqm": point["iqm"], "ci95": point["ci95"], "per_seed": point["per_seed"]}


def draw() -> Path:
    """Draws all tasks beside each other, a row a detail, and says where."""
    panels = {}
    for name in TASKS:
        result = json.loads((measure.RESULTS / "ablation" / f"{name.replace('/', '_')}.json").read_text())
        title = f"{name.removeprefix('policy/ppo/')}, {result['env_steps']:,} steps"
        panels[title] = {point["label"]: np.array(point["per_seed"], float) for point in result["points"]}
    path = figures.FIGURES / f"{FIGURE}.png"
    plots.variants(path, panels, xlabel="episode return", title=TITLE)
    return path
