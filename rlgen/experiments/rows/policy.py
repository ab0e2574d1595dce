"""Experiments on policy gradients."""

import dataclasses

from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows.common import CARTPOLE_LIMIT, gymnax_task
from rlgen.policy import ppo

PUREJAXRL = "purejaxrl's PPO, github.com/luchris429/purejaxrl, one seed on two cores, gymnax 0.0.8"

_TINY_PPO = {"num_envs": 4, "rollout_length": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (8,)}

_BREAKOUT = ppo.Config(num_envs=64, num_minibatches=8, activation="relu")

ROWS = (
    Experiment(
        name="policy/ppo/CartPole-v1",
        algorithm=ppo,
        task=gymnax_task("CartPole-v1"),
        config=ppo.Config(),
        hypers=ppo.Hypers(),
        steps=500_000,
        target=Target(490.0, CARTPOLE_LIMIT),
        tiny=_TINY_PPO,
    ),
    Experiment(
        name="policy/ppo/Pendulum-v1",
        algorithm=ppo,
        task=gymnax_task("Pendulum-v1"),
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
        task=gymnax_task("Breakout-MinAtar", explore=True),
        config=dataclasses.replace(_BREAKOUT, num_epochs=8),
        # Chosen by `rlgen sweep policy/ppo/Breakout-MinAtar-1M --seeds 4 --seed 100
        # --grid hypers.learning_rate=2.5e-3,5e-3`, with 8 epochs and with 4.
        hypers=ppo.Hypers(learning_rate=2.5e-3),
        steps=1_000_000,
        seeds=8,
        target=Target(32.0, PUREJAXRL + ": 34 at one million steps"),
        tiny=_TINY_PPO,
    ),
    Experiment(
        name="policy/ppo/Breakout-MinAtar",
        algorithm=ppo,
        task=gymnax_task("Breakout-MinAtar", explore=True),
        config=_BREAKOUT,
        hypers=ppo.Hypers(learning_rate=5e-3),
        steps=10_000_000,
        seeds=2,
        target=Target(60.0, PUREJAXRL + ": 88 at 10 million steps"),
        tiny=_TINY_PPO,
    ),
)
