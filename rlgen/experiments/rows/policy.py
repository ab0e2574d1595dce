"""Experiments on policy gradients: proximal policy optimisation first."""

from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows import proximal
from rlgen.experiments.rows.common import CARTPOLE_LIMIT, MEMORY_CHAIN, REMEMBERED, ZOO, gymnax_task
from rlgen.experiments.tasks import EnvTask
from rlgen.policy import a2c, a3c, impala, ppg, reinforce, trpo

_TINY_A2C = {"num_envs": 4, "rollout_length": 8, "hidden_sizes": (8,)}
_TINY_REINFORCE = {"num_envs": 4, "rollout_length": 16, "hidden_sizes": (8,)}
_TINY_PPG = {
    "num_envs": 4,
    "rollout_length": 8,
    "num_policy_updates": 2,
    "num_auxiliary_epochs": 2,
    "num_minibatches": 2,
    "num_auxiliary_minibatches": 2,
    "hidden_sizes": (8,),
}
_TINY_TRPO = {
    "num_envs": 2,
    "rollout_length": 4,
    "num_epochs": 2,
    "num_minibatches": 2,
    "hidden_sizes": (8,),
    "num_cg_iterations": 2,
    "num_backtracks": 4,
}

ROWS = (
    *proximal.ROWS,
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
        # Chosen by `rlgen sweep policy/trpo/Pendulum-v1 --seeds 4 --seed 100 --grid hypers.max_kl=0.01,0.02,0.04
        # --grid hypers.discount=0.9,0.95 --grid hypers.gae_lambda=0.9,0.95`.
        hypers=trpo.Hypers(max_kl=0.02, discount=0.95, gae_lambda=0.9),
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
    *(
        Experiment(
            name=f"policy/a3c/CartPole-v1{suffix}",
            algorithm=a3c,
            task=gymnax_task("CartPole-v1"),
            config=a3c.Config(shared_statistics=shared),
            hypers=a3c.Hypers(learning_rate=3e-3, mean_age=mean_age),
            steps=500_000,
            target=target,
            tiny={**_TINY_A2C, "num_workers": 2},
        )
        for suffix, shared, mean_age, target in (
            ("", True, 7.0, Target(475.0, "reward threshold of the task; " + CARTPOLE_LIMIT)),
            ("-age-1", True, 1.0, None),
            ("-age-3", True, 3.0, None),
            ("-own-statistics", False, 7.0, None),
        )
    ),
    Experiment(
        name="policy/a3c/MemoryChain-bsuite-lstm",
        algorithm=a3c,
        task=EnvTask(MEMORY_CHAIN),
        config=a3c.Config(rollout_length=11, core="lstm", optimiser="adam"),
        # Chosen by `rlgen sweep policy/a3c/MemoryChain-bsuite-lstm --seeds 2 --seed 100`; with 32 environments, RMSProp
        # and an age of 7 nothing was learned.
        hypers=a3c.Hypers(learning_rate=2e-3, mean_age=3.0),
        steps=500_000,
        target=REMEMBERED,
        tiny={**_TINY_A2C, "num_workers": 2},
    ),
    *(
        Experiment(
            name=f"policy/impala/CartPole-v1{suffix}",
            algorithm=impala,
            task=gymnax_task("CartPole-v1"),
            config=impala.Config(policy_lag=policy_lag),
            hypers=impala.Hypers(learning_rate=3e-3),
            steps=500_000,
            target=Target(475.0, "reward threshold of the task; " + CARTPOLE_LIMIT),
            tiny={**_TINY_A2C, "policy_lag": 2},
        )
        for suffix, policy_lag in (("", 4), ("-lag-32", 32))
    ),
    Experiment(
        name="policy/ppg/CartPole-v1",
        algorithm=ppg,
        task=gymnax_task("CartPole-v1"),
        config=ppg.Config(num_envs=8, num_policy_updates=16, num_auxiliary_minibatches=8),
        hypers=ppg.Hypers(discount=0.99),
        steps=200_000,
        target=Target(490.0, CARTPOLE_LIMIT),
        tiny=_TINY_PPG,
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
        # Chosen by `rlgen sweep policy/a2c/Pendulum-v1 --seeds 8 --seed 100 --grid hypers.learning_rate=1e-3,2e-3,4e-3
        # --grid hypers.discount=0.9,0.95 --grid hypers.gae_lambda=0.8,0.9,0.95`.
        hypers=a2c.Hypers(learning_rate=1e-3, discount=0.95, gae_lambda=0.9, entropy_coefficient=1e-3),
        steps=1_000_000,
        target=Target(-165.0, f"{ZOO}: −163.0"),
        tiny=_TINY_A2C,
    ),
)
