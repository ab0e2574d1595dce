"""Draws every experiment whose result is kept: its learning curves and, of a grid, how the score depends on it.

README and the table page show them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from rlgen.experiments import catalogue
from rlgen.lab import grids, plots
from rlgen.lab.statistics import Estimate

FIGURES = Path(__file__).parent / "figures"
BEST_ARM = "share of steps that took the best arm"
# Several results in one picture: its name, its title, the step it begins at, and a label by the name of each file.
TOGETHER = {
    "cliff-walking": (
        "Cliff walking: the return while it is learned, ε = 0.1",
        7_500,
        {
            "tabular_q_learning_CliffWalking": "Q-learning",
            "tabular_sarsa_CliffWalking": "Sarsa",
            "tabular_sarsa_CliffWalking-expected": "expected Sarsa",
            "tabular_sarsa_CliffWalking-4-step": "4-step Sarsa",
        },
    ),
    "batch-prediction": (
        "Batch updating on the random walk of five states",
        0,
        {
            "tabular_batch_prediction_RandomWalk5": "TD(0)",
            "tabular_batch_prediction_RandomWalk5-monte-carlo": "Monte Carlo",
        },
    ),
    "maximisation-bias": (
        "Maximisation bias: mean length of an episode, 1 for right and 2 for left",
        0,
        {
            "tabular_q_learning_MaximisationBias": "Q-learning",
            "tabular_q_learning_MaximisationBias-double": "double Q-learning",
        },
    ),
    "asynchrony": (
        "CartPole-v1: A2C, and A3C by the mean age of its snapshots in updates",
        0,
        {
            "policy_a2c_CartPole-v1": "A2C",
            "policy_a3c_CartPole-v1-age-1": "A3C, age 1",
            "policy_a3c_CartPole-v1-age-3": "A3C, age 3",
            "policy_a3c_CartPole-v1": "A3C, age 7",
            "policy_a3c_CartPole-v1-own-statistics": "A3C, age 7, RMSProp's statistics not shared",
        },
    ),
    "asynchronous-q-learning": (
        "CartPole-v1: asynchronous 5-step Q-learning by the mean age of its snapshots in updates",
        0,
        {
            "value_async_q_CartPole-v1-age-0": "age 0: synchronous",
            "value_async_q_CartPole-v1-age-1": "age 1",
            "value_async_q_CartPole-v1-age-3": "age 3",
            "value_async_q_CartPole-v1": "age 7",
            "value_async_q_CartPole-v1-own-statistics": "age 7, RMSProp's statistics not shared",
        },
    ),
    "deep-exploration": (
        "DeepSea-20: one sequence of actions in a million is paid",
        0,
        {
            "value_dqn_DeepSea-20": "DQN, ε-greedy",
            "value_dqn_DeepSea-20-noisy": "DQN, noisy layers",
            "value_bootstrapped_dqn_DeepSea-20": "bootstrapped DQN with priors",
        },
    ),
    **{
        f"memory-{name}": (
            f"{name}: PPO with and without memory",
            0,
            {
                f"policy_ppo_{name}": "no memory",
                **{f"policy_ppo_{name}-{core}": core.upper() for core in cores},
            },
        )
        for name, cores in (
            ("MemoryChain-bsuite", ("lstm", "gru")),
            ("RepeatPrevious", ("gru",)),
            ("MaskedCartPole", ("gru",)),
        )
    },
}
STUDY_TITLE = "Ten-armed test bed: mean reward over the first 1,000 steps"
STUDY = {
    "tabular_bandit_Study10": "ε-greedy: ε",
    "tabular_bandit_Study10-ucb": "upper confidence bound: c",
    "tabular_bandit_Study10-optimistic": "optimistic start: Q₀",
    "tabular_bandit_Study10-boltzmann": "Boltzmann: temperature",
    "tabular_gradient_bandit_Study10": "gradient bandit: α",
}


def write() -> list[Path]:
    """Writes the pictures of each result and says where."""
    FIGURES.mkdir(exist_ok=True)
    paths = []
    for result in sorted((measure.RESULTS / "learning").glob("*.json")):
        content = json.loads(result.read_text())
        if "curve" in content:
            paths.append(FIGURES / f"{result.stem}.png")
            _draw_curves(paths[-1], content)
        for name, suffix, ylabel in (("mean", "", content["summary"]["metric"]), ("best_arm", "-best-arm", BEST_ARM)):
            if name in content:
                paths.append(FIGURES / f"{result.stem}{suffix}.png")
                _draw_means(paths[-1], content, name, ylabel)
        if len(content["summary"]["points"]) > 1:
            paths.append(FIGURES / f"{result.stem}-response.png")
            _draw_response(paths[-1], content["summary"])
    for name, (title, begin, labels) in TOGETHER.items():
        paths.append(FIGURES / f"{name}.png")
        _draw_together(paths[-1], title, begin, labels)
    paths.append(FIGURES / "bandit-study.png")
    _draw_study(paths[-1])
    return paths


def _load(stem: str) -> dict[str, Any]:
    return json.loads((measure.RESULTS / "learning" / f"{stem}.json").read_text())


def _draw_together(path: Path, title: str, begin: int, labels: Mapping[str, str]) -> None:
    """Draws the curves of several results, which have their steps in common, from a step on."""
    results = {label: _load(stem) for stem, label in labels.items()}
    first = next(iter(results.values()))
    steps = np.array(first["env_steps"])
    shown = steps >= begin
    lines = {
        label: np.array(result["curve"], float)[:, shown]
        if "curve" in result
        else Estimate(*np.array(result["mean"][0], float)[:, shown])
        for label, result in results.items()
    }
    look = {"ylabel": first["summary"]["metric"], "higher_is_better": measure.higher_is_better(first["summary"])}
    plots.learning_curves(path, steps[shown], lines, title=title, **look)


def _draw_study(path: Path) -> None:
    """Draws the mean reward of each way to explore a bandit against that way's own parameter."""
    x, parts, lines = [], [], []
    for stem, label in STUDY.items():
        summary = _load(stem)["summary"]
        (axis,) = measure.varied(summary)
        begun = len(x)
        x += [point["hypers"][axis] for point in summary["points"]]
        parts.append(np.stack(measure.estimates(summary)))
        lines.append(grids.Line(label, np.arange(begun, len(x))))
    chart = grids.Chart("parameter", np.array(x), lines, len(lines), ordered=False)
    plots.response(path, chart, Estimate(*np.concatenate(parts, axis=1)), ylabel="reward a step", title=STUDY_TITLE)


def _draw_curves(path: Path, content: Mapping[str, Any]) -> None:
    """Draws the learning curves, of the best points only where there are many."""
    summary, curves = content["summary"], np.array(content["curve"], float)
    points = summary["points"]
    watched = catalogue.EXPERIMENTS[summary["experiment"]].task.watched
    look: dict[str, Any] = {"target": None, "higher_is_better": False} if watched else _target(summary)
    title, labels = summary["experiment"], [f"{summary['seeds']} seeds"]
    shown = points if len(points) <= grids.MAX_CURVES else measure.ranked(summary)[: grids.NUM_BEST]
    if len(points) > 1:
        labels = [measure.label(summary, point) for point in shown]
        curves = curves[[points.index(point) for point in shown]]
    if len(shown) < len(points):
        title += f": the best {len(shown)} of {len(points)} grid points"
    plots.learning_curves(
        path,
        content["env_steps"],
        dict(zip(labels, curves if len(points) > 1 else curves[None], strict=True)),
        ylabel=watched or summary["metric"],
        title=title,
        **look,
    )


def _draw_means(path: Path, content: Mapping[str, Any], name: str, ylabel: str) -> None:
    """Draws means over many seeds."""
    summary = content["summary"]
    labels = [measure.label(summary, point) or f"{summary['seeds']:,} seeds" for point in summary["points"]]
    lines = {label: Estimate(*np.array(mean, float)) for label, mean in zip(labels, content[name], strict=True)}
    title = f"{summary['experiment']}: mean of {summary['seeds']:,} seeds"
    plots.learning_curves(path, content["env_steps"], lines, ylabel=ylabel, title=title)


def _draw_response(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws how the score depends on the grid."""
    estimates, look = measure.estimates(summary), _target(summary)
    points = [point["hypers"] for point in summary["points"]]
    chart = grids.chart(points, estimates.value, higher_is_better=look["higher_is_better"])
    if chart is not None:
        title = f"{summary['experiment']}: {summary['seeds']} seeds a point"
        plots.response(path, chart, estimates, ylabel=summary["metric"], title=title, **look)


def _target(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what a picture says of the target, and which end is the better one."""
    target = summary["target"]
    return {
        "target": plots.Target(target["value"], target["source"]) if target else None,
        "higher_is_better": target["direction"] == "max" if target else measure.higher_is_better(summary),
    }
