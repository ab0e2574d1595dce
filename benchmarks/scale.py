"""Measures how speed, compilation and memory grow with seeds and with environments, and draws it.

Every point is a process of its own.  A run is cut to a few updates, so that its speed is that of a full machine and not
of learning.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import figures, measure
from rlgen.lab import canvas

CPU = "cpu"  # what jax calls its kind
FIGURE, TITLE = "scale", "Total speed, compilation and memory as a sweep grows"
PANELS = (
    ("steps_per_second", "steps a second, of all seeds", "log"),
    ("compile_seconds", "seconds of compiling", "linear"),
    ("bytes_per_lane", "KiB held for a seed or environment", "log"),
)


class Curve(NamedTuple):
    """What grows in which experiment.

    Attributes:
        experiment: of the catalogue.
        counts: how many.
        updates: of each run.
        over: `"seeds"` or `"environments"`.
    """

    experiment: str
    counts: tuple[int, ...]
    updates: int
    over: str = "seeds"

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.experiment.replace('/', '_')}_{self.over}"

    def options(self, count: int, row: Any) -> dict[str, Any]:
        """For `benchmarks.worker`."""
        if self.over == "seeds":
            return {"seeds": count, "steps": self.updates * row.task.steps_per_update(row.config)}
        return {"config": {"num_envs": count}, "steps": self.updates * count * row.config.rollout_length}


CURVES = (
    Curve("policy/ppo/CartPole-v1", (1, 4, 16, 64, 256, 1_024), 20),
    Curve("policy/ppo/CartPole-v1", (4, 32, 256, 2_048, 8_192), 20, "environments"),
    Curve("value/dqn/CartPole-v1", (1, 4, 16, 64, 256, 1_024), 2_000),
    Curve("value/pqn/CartPole-v1", (1, 4, 16, 64, 256, 1_024), 20),
    Curve("value/pqn/CartPole-v1", (32, 256, 2_048, 8_192), 20, "environments"),
    Curve("actor_critic/sac/Pendulum-v1", (1, 4, 16, 64, 256, 1_024), 500),
    Curve("generative/flow/moons", (1, 4, 16, 64, 256, 1_024), 100),
    Curve("tabular/q_learning/CliffWalking", (1, 16, 256, 4_096), 2_000),
)


def run(only: str, counts: tuple[int, ...] = ()) -> None:
    """Measures curves; those of an accelerator are kept beside those of the CPU.

    Args:
        only: pattern of experiment names.
        counts: how many seeds or environments; those of each curve if left out.

    Raises:
        UsageError: if none matches, or a count is none.
    """
    from rlgen.experiments import catalogue  # which imports every algorithm

    for count in counts:
        measure.check_counts(counts=count)
    names = measure.chosen(only, (curve.experiment for curve in CURVES))
    cores = str(measure.machine()["cores"])
    for curve in (curve for curve in CURVES if curve.experiment in names):
        row, points, shared = catalogue.find(curve.experiment), [], {}
        for count in counts or curve.counts:
            options = json.dumps(curve.options(count, row))
            command = [sys.executable, "-m", "benchmarks.worker", curve.experiment, options]
            said = measure.call(command, {"JAX_NUM_CPU_DEVICES": cores})
            said.pop("final_returns")
            shared = {name: said.pop(name) for name in ("device", "versions")}
            points.append({"count": count, **said, "bytes_per_lane": said["state_bytes"] / count / 2**10})
            print(f"{curve.name} {count}: {said['steps_per_second']:,.0f} steps/s", flush=True)
        content = {"experiment": curve.experiment, "over": curve.over, **shared, "points": points}
        kind = shared["device"].partition(" × ")[2].replace(" ", "_")
        name = curve.name if kind == CPU else f"{curve.name}_{kind}"
        print(measure.save("scale", name, {**content, "machine": measure.machine()}))


def _label(result: dict[str, Any]) -> str:
    """What grows where, and on which device if that is no CPU."""
    device = result.get("device", CPU)
    return f"{result['experiment']}, {result['over']}{'' if device.endswith(CPU) else f' ({device})'}"


def draw() -> list[Path]:
    """Draws what is kept, a panel for each quantity."""
    kept = [json.loads(path.read_text()) for path in sorted((measure.RESULTS / "scale").glob("*.json"))]
    if not kept:
        return []
    figure = canvas.figure(13.0, 4.4)
    for axes, (quantity, label, scale) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for index, result in enumerate(kept):
            counts, values = (np.array([point[key] for point in result["points"]]) for key in ("count", quantity))
            style = {"color": canvas.COLOURS[index % len(canvas.COLOURS)], "marker": "o", "markersize": 4}
            axes.plot(counts, values, label=_label(result), **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale(scale)
        axes.set_xlabel("seeds or environments", color=canvas.INK)
        axes.set_title(label, color=canvas.INK, fontsize=11)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(TITLE, color=canvas.INK)
    path = figures.FIGURES / f"{FIGURE}.png"
    figure.savefig(path, dpi=canvas.DPI)
    return [path]
