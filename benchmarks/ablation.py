"""Takes the parts of an algorithm away one at a time, on a few tasks, and draws what that does.

The details of PPO are the thirteen that its implementations share (Huang et al., "The 37 Implementation Details of
Proximal Policy Optimization", ICLR Blog Track 2022), but for the last, which are metrics and change nothing.  The parts
of Rainbow are its six (arXiv:1710.02298).  The preset of DDPG is the catalogue's for small tasks.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import figures, measure
from rlgen.lab import plots

_LARGE = "1e9"  # a bound that never binds


@dataclasses.dataclass(frozen=True)
class Study:
    """What is taken away from what.

    Attributes:
        figure: name of the picture.
        title: of the picture.
        tasks: by experiment, the steps and the settings that it must have so that every part is there to be taken.
        parts: by label, the settings without that part; `{steps}` stands for the row's rollout over all environments
            and `{learning_rate}` for its rate.
    """

    figure: str
    title: str
    tasks: dict[str, tuple[int, dict[str, str]]]
    parts: dict[str, dict[str, str]]


PPO = Study(
    figure="ppo-details",
    title="PPO without one of its details: IQM over seeds",
    tasks={
        "policy/ppo/CartPole-v1": (100_000, {}),
        "policy/ppo/Acrobot-v1": (200_000, {"hypers.entropy_coefficient": "0.01"}),
    },
    parts={
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
    },
)
_WITHOUT = {
    "double": {"config.double": "False"},
    "priorities": {"config.replay": "uniform"},
    "duelling": {"config.dueling": "False"},
    "several steps": {"config.n_step": "1"},
    "distribution": {"config.head": "expected"},
    "noise": {"config.noisy": "False", "hypers.epsilon_start": "1", "hypers.epsilon_end": "0.05"},
}
RAINBOW = Study(
    figure="rainbow-parts",
    title="Rainbow without one of its parts: IQM over seeds",
    tasks={
        "value/dqn/CartPole-v1-rainbow": (100_000, {}),
        "value/dqn/Acrobot-v1-rainbow": (100_000, {}),
        "value/dqn/DeepSea-10-rainbow": (20_000, {}),
    },
    parts={
        "Rainbow": {},
        **{f"no {part}": changes for part, changes in _WITHOUT.items()},
        "DQN": {name: value for changes in _WITHOUT.values() for name, value in changes.items()},
    },
)
DDPG = Study(
    figure="ddpg-preset",
    title="DDPG's preset for small tasks with one choice made otherwise: IQM over seeds",
    tasks={"actor_critic/ddpg/Pendulum-v1-preset": (50_000, {})},
    parts={
        "preset": {},
        "Ornstein-Uhlenbeck noise": {"config.noise": "ou"},
        "noise of 0.1 throughout": {"hypers.noise_start": "0.1", "hypers.noise_end": "0.1"},
        "target moves by 0.005": {"hypers.tau": "0.005"},
        "rates of 1e-3": {"hypers.learning_rate": "1e-3", "hypers.critic_learning_rate": "1e-3"},
        "layers of 64 and 64": {"config.hidden_sizes": "64,64"},
        "LeCun weights": {"config.initialiser": "lecun"},
        "wider last layers (0.05)": {"config.actor_bound": "0.05", "config.critic_bound": "0.05"},
        "batches of 256": {"config.batch_size": "256"},
    },
)
STUDIES = (PPO, RAINBOW, DDPG)


def run(seeds: int, only: str) -> None:
    """Runs every part's absence on every task and keeps the scores.

    Args:
        seeds: of each.
        only: part of the names of the tasks to run.

    Raises:
        UsageError: if no name has that part, or there are no seeds.
    """
    measure.check_counts(seeds=seeds)
    names = measure.chosen(f"*{only}*", (name for study in STUDIES for name in study.tasks))
    for study in STUDIES:
        for name in study.tasks:
            if name in names:
                print(measure.save("ablation", name, {**_take_away(study, name, seeds), "machine": measure.machine()}))


def _take_away(study: Study, name: str, seeds: int) -> dict[str, object]:
    """Runs one task without each part and gives the scores."""
    from rlgen.experiments import catalogue  # which imports every algorithm

    (steps, base), row = study.tasks[name], catalogue.EXPERIMENTS[name]
    sizes = {"steps": row.config.num_envs * row.config.rollout_length, "learning_rate": row.hypers.learning_rate}
    points = []
    for label, changes in study.parts.items():
        settings = [f"{key}={value.format(**sizes)}" for key, value in {**base, **changes}.items()]
        points.append({"label": label, **_score(name, steps, seeds, settings)})
        print(f"{name}, {label}: {points[-1]['iqm']}", flush=True)
    return {"experiment": name, "env_steps": steps, "seeds": seeds, "points": points}


def _score(name: str, steps: int, seeds: int, settings: list[str]) -> dict[str, object]:
    """Sweeps a row with some settings and gives what became of its seeds."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [str(Path(sys.executable).with_name("rlgen")), "sweep", name, "--quiet"]
        command += ["--seeds", str(seeds), "--steps", str(steps), "--out", f"{scratch}/run"]
        subprocess.run([*command, *(word for text in settings for word in ("--set", text))], check=True)
        (point,) = json.loads((Path(scratch) / "run" / "summary.json").read_text())["points"]
    return {"settings": settings, "iqm": point["iqm"], "ci95": point["ci95"], "per_seed": point["per_seed"]}


def draw() -> list[Path]:
    """Draws the tasks of each study that was run beside each other, a row a part, and says where."""
    return [_draw(study) for study in STUDIES if all(_kept(name).exists() for name in study.tasks)]


def _kept(name: str) -> Path:
    return measure.RESULTS / "ablation" / f"{name.replace('/', '_')}.json"


def _draw(study: Study) -> Path:
    panels = {}
    for name in study.tasks:
        result = json.loads(_kept(name).read_text())
        title = f"{name.split('/')[-1].removesuffix('-rainbow')}, {result['env_steps']:,} steps"
        panels[title] = {point["label"]: np.array(point["per_seed"], float) for point in result["points"]}
    path = figures.FIGURES / f"{study.figure}.png"
    plots.variants(path, panels, xlabel="episode return", title=study.title)
    return path
