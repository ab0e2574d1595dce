"""Experiments on policy gradients."""

from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows.common import CARTPOLE_LIMIT, ZOO, gymnax_task
from rlgen.policy import a2c, ppo, reinforce, trpo

PUREJAXRL = "purejaxrl's PPO, github.com/luchris429/purejaxrl, one seed on two cores, gymnax 0.0.8"

_TINY_PPO = {"num_envs": 4, "rollout_length": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (8,)}

_TINY_A2C = {"num_envs": 4, "rollout_length": 8, "hidden_sizes": (8,)}
_TINY_REINFORCE = {"num_envs": 4, "rollout_length": 16, "hidden_sizes": (8,)}
_TINY_TRPO = {
    "num_envs": 2,
    "rollout_length": 4,
    "num_epochs": 2,
    "num_minibatches": 2,
    "hidden_sizes": (8,),
    "num_cg_iterations": 2,
    "num_backtracks": 4,
}

_BREAKOUT = ppo.Config(num_envs=64, num_minibatches=8, activation="relu")  # one setting, two budgets

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
        task=gymnax_task("Breakout-MinAtar", explore=True),
        config=_BREAKOUT,
        hypers=ppo.Hypers(learning_rate=5e-3),
        steps=10_000_000,
        seeds=2,
        target=Target(60.0, PUREJAXRL + ": 88 at 10 million steps"),
        tiny=_TINY_PPO,
    ),
    Experiment(
        name="policy/trpo/CartPole-v1",
        algorithm=trpo,
        task=gymnax_task("CartPole-v1"),
        config=trpo.Config(num_epochs=20),
        hypers=trpo.Hypers(gae_lambda=0.98, damping=0.01),
        steps=100_000,
        target=Target(500.0, f"{CARTPOLE_LIMIT}; {ZOO}: 500"),
        tiny=_TINY_TRPO,
    ),
    Experiment(
        name="policy/trpo/Acrobot-v1",
        algorithm=trpo,
        task=gymnax_task("Acrobot-v1"),
        config=trpo.Config(
            rollout_length=1_024, num_minibatches=16, normalise_observations=True, normalise_rewards=True
        ),
        hypers=trpo.Hypers(damping=0.01),
        steps=100_000,
        target=Target(-85.0, f"{ZOO}: −83.1"),
        tiny=_TINY_TRPO,
    ),
    Experiment(
        name="policy/trpo/Pendulum-v1",
        algorithm=trpo,
        task=gymnax_task("Pendulum-v1"),
        config=trpo.Config(rollout_length=1_024, num_epochs=15, num_minibatches=16),
        hypers=trpo.Hypers(discount=0.9),
        steps=100_000,
        target=Target(-175.0, f"{ZOO}: −174.6"),
        tiny=_TINY_TRPO,
    ),
    Experiment(
        name="policy/reinforce/CartPole-v1",
        algorithm=reinforce,
        task=gymnax_task("CartPole-v1"),
        config=reinforce.Config(rollout_length=64),
        hypers=reinforce.Hypers(learning_rate=3e-3),
        steps=500_000,
        target=Target(475.0, "reward threshold of the task; " + CARTPOLE_LIMIT),
        tiny=_TINY_REINFORCE,
    ),
    Experiment(
        name="policy/a2c/CartPole-v1",
        algorithm=a2c,
        task=gymnax_task("CartPole-v1"),
        config=a2c.Config(),
        hypers=a2c.Hypers(learning_rate=3e-3),
        steps=500_000,
        target=Target(500.0, f"{CARTPOLE_LIMIT}; {ZOO}: 500"),
        tiny=_TINY_A2C,
    ),
    Experiment(
        name="policy/a2c/Acrobot-v1",
        algorithm=a2c,
        task=gymnax_task("Acrobot-v1"),
        config=a2c.Config(num_envs=16),
        hypers=a2c.Hypers(learning_rate=3e-3),
        steps=500_000,
        target=Target(-85.0, f"{ZOO}: −86.6"),
        tiny=_TINY_A2C,
    ),
    Experiment(
        name="policy/a2c/Pendulum-v1",
        algorithm=a2c,
        task=gymnax_task("Pendulum-v1"),
        config=a2c.Config(
            rollout_length=8,
            optimiser="adam",
            distribution="tanh_normal",
            normalise_observations=True,
            normalise_rewards=True,
        ),
        hypers=a2c.Hypers(learning_rate=2e-3, discount=0.9, gae_lambda=0.9, entropy_coefficient=1e-3),
        steps=1_000_000,
        target=Target(-165.0, f"{ZOO}: −163.0"),
        tiny=_TINY_A2C,
    ),
)
