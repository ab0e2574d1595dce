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
        peer: its name.
        arguments: of the peer's script.
        work: what both sides do.
    """

    name: str
    experiment: str
    options: dict[str, Any]
    peer: str
    arguments: tuple[str, ...]
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
    return Row(
        name=f"{algorithm}_{_task(experiment)}_{_many(seeds)}",
        experiment=experiment,
        options={"seeds": seeds, "steps": steps},
        peer="purejaxrl",
        arguments=(algorithm, json.dumps({"seeds": seeds, "TOTAL_TIMESTEPS": steps, **peer})),
        work=f"{work}, {steps:,} steps a seed, {_many(seeds, ' ')}",
    )


def _rejax(experiment: str, work: str, seeds: int, steps: int, ours: dict[str, Any], theirs: dict[str, Any]) -> Row:
    """A row at settings that both sides are given.

    Args:
        experiment: of the catalogue.
        work: what both sides do.
        seeds: of both.
        steps: of each seed.
        ours: options for `benchmarks.worker`.
        theirs: fields of rejax's algorithm.
    """
    algorithm = work.split()[0].lower()
    settings = {"seeds": seeds, "total_timesteps": steps, **theirs}
    return Row(
        name=f"rejax_{algorithm}_{_task(experiment)}_{_many(seeds)}",
        experiment=experiment,
        options={"seeds": seeds, "steps": steps, **ours},
        peer="rejax",
        arguments=(algorithm, json.dumps(settings)),
        work=f"{work}, {steps:,} steps a seed, {_many(seeds, ' ')}",
    )


def _flow(task: str, loop: str, steps: int) -> Row:
    """A row at flowjax's own defaults: eight affine couplings, whose networks have one layer of 50 units.

    Each side has a learning rate of its own: flowjax its default of 5e-4, ours 3e-3 that falls to nothing.
    """
    config = {"architecture": "realnvp", "num_layers": 4, "hidden_sizes": (50,), "batch_size": 100}
    return Row(
        name=f"flowjax_{loop}_{task}",
        experiment=f"generative/flow/{task}",
        options={"steps": steps, "config": config, "hypers": {"learning_rate": 3e-3}},
        peer="flowjax",
        arguments=(json.dumps({"task": task, "loop": loop, "steps": steps}),),
        work=f"Flow on {task}, 8 affine couplings of 50 units, batches of 100, {steps:,} points, beside its {loop}",
    )


def _task(experiment: str) -> str:
    """Names the task of an experiment in short."""
    return experiment.split("/")[-1].split("-")[0].lower()


def _many(seeds: int, between: str = "_") -> str:
    """Writes a number of seeds."""
    return f"{seeds}{between}seed{'s'[: seeds > 1]}"


_MINATAR = {"ENV_NAME": "Breakout-MinAtar", "NUM_ENVS": 64, "NUM_MINIBATCHES": 8, "LR": 5e-3, "ACTIVATION": "relu"}

_SMALL = (64, 64)
_SAC = "SAC Pendulum-v1, one environment, one gradient step of batch 256 a step, ring of 100 000, 64-64 ReLU"
_SAC_OURS = {"config": {"capacity": 100_000, "warm_up": 5_000, "hidden_sizes": _SMALL}}
_SWUNG = {
    "env": "Pendulum-v1",
    "learning_rate": 1e-3,
    "num_envs": 1,
    "buffer_size": 100_000,
    "fill_buffer": 5_000,
    "batch_size": 256,
}
_SAC_THEIRS = {**_SWUNG, "agent_kwargs": {"hidden_layer_sizes": _SMALL, "activation": "relu"}}
_TD3_THEIRS = {**_SWUNG, **{f"{part}_kwargs": {"activation": "relu"} for part in ("actor", "critic")}}  # 64-64
_TD3 = "TD3 Pendulum-v1, one environment, one gradient step of batch 256 a step, ring of 100 000, 64-64 ReLU"
_REJAX_DQN = (
    "DQN CartPole-v1, one environment, one gradient step of batch 100 a step, ring of 50 000, 64-64 ReLU, learning from"
    " step 1 000 on"
)
_DQN_OURS = {
    "config": {
        "num_envs": 1,
        "batch_size": 100,
        "capacity": 50_000,
        "warm_up": 1_000,
        "target_period": 200,
        "hidden_sizes": _SMALL,
    }
}
_DQN_THEIRS = {
    "env": "CartPole-v1",
    "num_envs": 1,
    "buffer_size": 50_000,
    "fill_buffer": 1_000,
    "batch_size": 100,
    "target_update_freq": 200,
    "agent_kwargs": {"activation": "relu"},  # its layers are 64-64
}

ROWS = (
    _row("ppo", "policy/ppo/CartPole-v1", _PPO, 1, 500_000),
    _row("ppo", "policy/ppo/CartPole-v1", _PPO, 16, 200_000),
    _row("ppo", "policy/ppo/Breakout-MinAtar", _PIXELS, 4, 1_000_000, **_MINATAR),
    _row("dqn", "value/dqn/CartPole-v1", _DQN, 1, 200_000),
    _row("dqn", "value/dqn/CartPole-v1", _DQN, 16, 100_000),
    *(
        row
        for seeds, steps in ((1, 20_000), (16, 10_000))
        for row in (
            _rejax("actor_critic/sac/Pendulum-v1", _SAC, seeds, steps, _SAC_OURS, _SAC_THEIRS),
            _rejax("actor_critic/ddpg/Pendulum-v1-td3", _TD3, seeds, steps, _SAC_OURS, _TD3_THEIRS),
            _rejax("value/dqn/CartPole-v1", _REJAX_DQN, seeds, steps, _DQN_OURS, _DQN_THEIRS),
        )
    ),
    *(_flow(task, loop, 1_000_000) for task in ("moons", "circles") for loop in ("scan", "fit")),
)


def run(peers: Path, checkout: Path | None, repeats: int, only: str) -> None:
    """Times rows against their peers and saves the medians.

    Args:
        peers: folder of the environments that `scripts/peers` makes.
        checkout: of purejaxrl, without which its rows are left out.
        repeats: alternating runs of each side.
        only: pattern of row names.
    """
    cores = str(measure.machine()["cores"])
    for row in ROWS:
        if not fnmatch.fnmatch(row.name, only) or (row.peer == "purejaxrl" and checkout is None):
            continue
        source = (str(checkout),) if row.peer == "purejaxrl" else ()
        ours = [sys.executable, "-m", "benchmarks.worker", row.experiment, json.dumps(row.options)]
        theirs = [str(peers / row.peer / "bin" / "python"), "-P", "-m", f"benchmarks.peers.{row.peer}", *source]
        theirs += row.arguments
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        said = measure.alternate(
            {"rlgen": (ours, {"JAX_NUM_CPU_DEVICES": cores}), row.peer: (theirs, environment)}, repeats
        )
        sides = {name: measure.summarise(runs) for name, runs in said.items()}
        ratio = sides["rlgen"]["steps_per_second"] / sides[row.peer]["steps_per_second"]
        content = {"name": row.name, "work": row.work, "peer": row.peer, "ratio": ratio, **sides}
        path = measure.save("speed", row.name, {**content, "machine": measure.machine()})
        print(f"{path}: {ratio:.2f} times {row.peer}")
