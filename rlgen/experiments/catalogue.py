"""The catalogue: every experiment as one row.

The command line, the tests and the benchmarks all read this table.  A target is what the interquartile mean over seeds
must reach within the budget; its source says where the figure comes from.
"""

import difflib
import functools
from typing import Any

from rlgen.envs import adapter, grid
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.tasks import EnvTask, ImageTask
from rlgen.generative import vae
from rlgen.policy import ppo
from rlgen.tabular import q_learning
from rlgen.value import dqn


def _gymnax(name: str, **task: Any) -> EnvTask:
    return EnvTask(functools.partial(adapter.make, name), **task)


def _cliff() -> adapter.Environment:
    return adapter.make(grid.CliffWalking())


CARTPOLE_LIMIT = "the time limit of 500 steps bounds the return (gymnasium documentation, CartPole-v1)"
PUREJAXRL = "purejaxrl's PPO, github.com/luchris429/purejaxrl, one seed on two cores, gymnax 0.0.8"

_TINY_PPO = {"num_envs": 4, "rollout_length": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (8,)}
_TINY_DQN = {
    "num_envs": 2,
    "rollout_length": 2,
    "batch_size": 4,
    "capacity": 16,
    "warm_up": 3,
    "target_period": 2,
    "hidden_sizes": (8,),
}

_BREAKOUT = ppo.Config(num_envs=64, num_minibatches=8, activation="relu")  # one setting, two budgets

_ROWS = (
    Experiment(
        name="tabular/q_learning/CliffWalking",
        algorithm=q_learning,
        task=EnvTask(_cliff),
        config=q_learning.Config(),
        hypers=q_learning.Hypers(learning_rate=0.5, discount=1.0, epsilon_start=0.1, epsilon_end=0.1),
        steps=50_000,
        target=Target(-13.0, "length of the optimal path; Sutton and Barto 2018, example 6.6"),
    ),
    Experiment(
        name="value/dqn/CartPole-v1",
        algorithm=dqn,
        task=_gymnax("CartPole-v1"),
        # With the Huber loss, whose pull at a terminal state is bounded, values diverge at so short a period.
        config=dqn.Config(warm_up=10_000, target_period=50, error="squared"),
        hypers=dqn.Hypers(),
        steps=500_000,
        target=Target(475.0, "reward threshold of the task; " + CARTPOLE_LIMIT),
        tiny=_TINY_DQN,
    ),
    Experiment(
        name="policy/ppo/CartPole-v1",
        algorithm=ppo,
        task=_gymnax("CartPole-v1"),
        config=ppo.Config(),
        hypers=ppo.Hypers(),
        steps=500_000,
        target=Target(490.0, CARTPOLE_LIMIT),
        tiny=_TINY_PPO,
    ),
    Experiment(
        name="policy/ppo/Pendulum-v1",
        algorithm=ppo,
        task=_gymnax("Pendulum-v1"),
        config=ppo.Config(
            num_envs=16,
            rollout_length=128,
            num_epochs=10,
            num_minibatches=32,
            normalise_observations=True,
            normalise_rewards=True,
            clip_values=False,
        ),
        # Chosen by `rlgen sweep policy/ppo/Pendulum-v1 --seeds 4 --seed 100 --steps 500000
        # --grid hypers.learning_rate=3e-4,6e-4 --grid hypers.discount=0.9,0.95`.
        hypers=ppo.Hypers(learning_rate=3e-4, discount=0.95, gae_lambda=0.95, entropy_coefficient=0.0),
        steps=1_000_000,
        target=Target(-175.0, "RL Baselines3 Zoo, benchmark.md: −172.2 ± 104.2 (github.com/DLR-RM/rl-baselines3-zoo)"),
        tiny=_TINY_PPO,
    ),
    Experiment(
        name="policy/ppo/Breakout-MinAtar-1M",
        algorithm=ppo,
        task=_gymnax("Breakout-MinAtar", explore=True),
        config=_BREAKOUT,
        hypers=ppo.Hypers(learning_rate=5e-3),
        steps=1_000_000,
        seeds=8,
        target=Target(32.0, PUREJAXRL + ": 34 at one million steps"),
        tiny=_TINY_PPO,
    ),
    Experiment(
        name="policy/ppo/Breakout-MinAtar",
        algorithm=ppo,
        task=_gymnax("Breakout-MinAtar", explore=True),
        config=_BREAKOUT,
        hypers=ppo.Hypers(learning_rate=5e-3),
        steps=10_000_000,
        seeds=2,
        target=Target(60.0, PUREJAXRL + ": 88 at 10 million steps"),
        tiny=_TINY_PPO,
    ),
    Experiment(
        name="generative/vae/mnist",
        algorithm=vae,
        task=ImageTask("mnist", (28, 28, 1)),
        config=vae.Config(hidden_sizes=(500, 500)),
        hypers=vae.Hypers(),
        steps=600_000,
        target=Target(104.0, "set by this project for ten epochs; the bound is that of arXiv:1312.6114", "min"),
        tiny={"batch_size": 4, "latent_size": 2, "hidden_sizes": (8,)},
    ),
    Experiment(
        name="generative/vae/digits",
        algorithm=vae,
        task=ImageTask("digits", (8, 8, 1)),
        config=vae.Config(batch_size=64, latent_size=10, network="convolutional", hidden_sizes=(16, 32)),
        hypers=vae.Hypers(),
        steps=60_000,
        tiny={"batch_size": 4, "latent_size": 2, "hidden_sizes": (4, 4)},
    ),
)

EXPERIMENTS: dict[str, Experiment] = {row.name: row for row in _ROWS}


def find(name: str) -> Experiment:
    """Finds an experiment by its name, which may be shortened to any part of it that no other row has.

    Args:
        name: such as `policy/ppo/CartPole-v1`, `ppo/CartPole` or `q_learning`.

    Returns:
        The row.

    Raises:
        LookupError: if no row, or more than one, has that name; the message says which are near.
    """
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    matches = [full for full in EXPERIMENTS if name.lower() in full.lower()]
    if len(matches) == 1:
        return EXPERIMENTS[matches[0]]
    if matches:
        raise LookupError(f"{name!r} could be any of: {', '.join(matches)}")
    # A wrong name may be meant for a whole one or for a part, such as `ppoo` for `ppo`.
    spellings = {}
    for full in EXPERIMENTS:
        for spelling in (full, *full.split("/")):
            spellings.setdefault(spelling.lower(), []).append(full)
    close = difflib.get_close_matches(name.lower(), spellings, n=3, cutoff=0.5)
    near = list(dict.fromkeys(full for spelling in close for full in spellings[spelling]))[:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise LookupError(f"no experiment is called {name!r}{hint} All names: {', '.join(EXPERIMENTS)}")
