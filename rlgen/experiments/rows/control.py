"""Experiments on continuous control with actor-critics."""

import functools
from typing import Any

from rlgen.actor_critic import crossq, ddpg, dpg, sac
from rlgen.envs import adapter, lander, lqr, mujoco
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.rows.common import CARTPOLE_LIMIT, SOLVED_LANDING, ZOO, gymnax_task, own
from rlgen.experiments.tasks import EnvTask

_TINY = {
    "num_envs": 2,
    "rollout_length": 2,
    "num_steps": 4,
    "batch_size": 4,
    "capacity": 16,
    "warm_up": 3,
    "hidden_sizes": (8,),
}
_TINY_HEADS = {"num_atoms": 5, "num_quantiles": 3}
_PENDULUM = gymnax_task("Pendulum-v1")
# The goal is not seen: how far it was a step ago is, and so are the place and the push of that step.
_POINT_ROBOT = EnvTask(functools.partial(adapter.make, "PointRobot-misc", dense_reward=True))
# Two layers of 64 units do for Pendulum and take a tenth of the time of the papers' two of 256.
_SIZES = {"hidden_sizes": (64, 64), "warm_up": 100}
_SWUNG = Target(-155.0, f"{ZOO}: −151.9 by TD3, −157.0 by SAC and −151.3 by TQC, at 20 000 steps")
_UP = Target(93.0, f"{ZOO}: 94.7 by SAC at 50 000 steps, 93.5 by TD3 at 300 000")
# Nobody has published returns of gymnax's Reacher and Swimmer; the benchmarks run rejax on them at the same settings.
_REACHED = Target(55.0, "rejax 0.1.3 (github.com/keraJLi/rejax): 55.0 by TD3 at the same settings, four seeds")
_TD3 = {"num_critics": 2, "actor_period": 2, "smoothing": True}
_TQC = {"head": "quantile", "actor_value": "mean"}  # two critics, as in SAC; the paper has five
# Four exploring actors, each for as many gradient steps as one would have.
_D4PG = {"head": "categorical", "n_step": 3, "replay": "proportional"}
_ACTORS = {**_D4PG, "num_envs": 4, "num_steps": 4}
_RETURNS = {"lowest_return": -1_600.0, "highest_return": 0.0}
# Chosen by `rlgen sweep actor_critic/ddpg/Pendulum-v1-d4pg --seeds 8 --seed 100` with and without each: with 51 atoms,
# 32 apart, and three steps three of the eight seeds did not learn within the budget.
_FINE = {"num_atoms": 101, "n_step": 2}
# The preset for small tasks: layers ten and five times as wide as the observation.
_PRESET: dict[str, Any] = {
    "hidden_sizes": (30, 15),
    "initialiser": "xavier",
    "actor_bound": 0.3,
    "critic_bound": 0.003,
    "batch_size": 64,
    "warm_up": 64,
}
_PRESET_HYPERS = {
    "learning_rate": 1e-4, "critic_learning_rate": 2e-4, "tau": 1e-3, "noise_start": 1.0, "noise_end": 0.3,
}  # fmt: skip
# The papers' sizes, arXiv:1802.09477 and arXiv:1812.05905.  The latter does not say for how long actions are drawn at
# random; the Zoo does so for 10 000 steps, as the former on HalfCheetah.
_ROBOTS_TD3 = {**_TD3, "hidden_sizes": (400, 300), "batch_size": 100, "capacity": 1_000_000}
_ROBOTS_SAC = {"hidden_sizes": (256, 256), "batch_size": 256, "capacity": 1_000_000, "warm_up": 10_000}
# What the best policy of the discounted problem earns on average, less 5 %, by which a mean of 64 episodes may err.
_LINEAR = lqr.LinearQuadratic()
_BALANCED = Target(
    round(1.05 * _LINEAR.expected_return(_LINEAR.gain(dpg.Hypers().discount)), 2),
    "5 % below the best linear policy, in closed form by the Riccati equation",
)
_RATES: dict[str, float] = dict.fromkeys(("learning_rate", "critic_learning_rate", "temperature_learning_rate"), 3e-4)


def _one_run(name: str, score: float) -> Target:
    """What one agent of the Zoo's earned on an earlier version of the task."""
    return Target(score, f"{ZOO}: {score:g} by one agent after 1M steps of gym's {name}-v3")


def _ddpg(
    name: str, task: EnvTask, config: dict[str, Any], hypers: dict[str, float], steps: int, **fields: Any
) -> Experiment:
    """A row from what differs from the defaults."""
    return Experiment(
        name=f"actor_critic/ddpg/{name}",
        algorithm=ddpg,
        task=task,
        config=ddpg.Config(**{**_SIZES, **config}),
        hypers=ddpg.Hypers(**hypers),
        steps=steps,
        tiny={**_TINY, **_TINY_HEADS, "actor_period": min(config.get("actor_period", 1), 2)},
        **fields,
    )


def _sac(
    name: str, task: EnvTask, config: dict[str, Any], hypers: dict[str, float], steps: int, **fields: Any
) -> Experiment:
    """A row from what differs from the defaults."""
    rates = dict.fromkeys(("learning_rate", "critic_learning_rate", "temperature_learning_rate"), 1e-3)
    tiny = {"num_critics": min(config.get("num_critics", 2), 3), "actor_period": min(config.get("actor_period", 1), 2)}
    return Experiment(
        name=f"actor_critic/sac/{name}",
        algorithm=sac,
        task=task,
        config=sac.Config(**{**_SIZES, **config}),
        hypers=sac.Hypers(**{**rates, **hypers}),
        steps=steps,
        tiny={**_TINY, "num_quantiles": 3, "num_dropped": 1, **tiny},
        **fields,
    )


DETERMINISTIC = (
    *(
        _ddpg(f"Pendulum-v1{suffix}", _PENDULUM, config, hypers, 20_000, target=target)
        for suffix, config, hypers, target in (
            ("", {}, {}, _SWUNG),
            ("-ou", {"noise": "ou"}, {}, None),
            ("-preset", _PRESET, _PRESET_HYPERS, None),
            ("-td3", _TD3, {}, _SWUNG),
            ("-d4pg", {**_D4PG, **_FINE}, _RETURNS, _SWUNG),
            ("-d4pg-actors", {**_ACTORS, **_FINE}, _RETURNS, _SWUNG),
            ("-sdpg", {"head": "sampled", "n_step": 3, "replay": "proportional"}, {}, _SWUNG),
        )
    ),
    *(
        _ddpg(
            f"MountainCarContinuous-v0{suffix}",
            gymnax_task("MountainCarContinuous-v0"),
            {"noise": "ou", **config},
            {"noise_start": 0.5, "noise_end": 0.5, **hypers},
            300_000,
            target=_UP,
        )
        for suffix, config, hypers in (
            ("", {}, {}),
            ("-td3", _TD3, {}),
            ("-d4pg", _ACTORS, {"lowest_return": -100.0, "highest_return": 100.0}),
        )
    ),
    *(
        _ddpg(
            f"{task}-misc{suffix}",
            gymnax_task(f"{task}-misc"),
            {"warm_up": 1_000, **config},
            hypers,
            200_000,
            target=target,
        )
        for task, suffix, config, hypers, target in (
            ("Reacher", "", {}, {}, None),
            ("Reacher", "-td3", _TD3, {}, _REACHED),
            ("Reacher", "-d4pg", _ACTORS, {"lowest_return": 0.0, "highest_return": 100.0}, None),
            ("Swimmer", "", {}, {}, None),
            ("Swimmer", "-td3", _TD3, {}, None),
        )
    ),
    _ddpg("PointRobot-misc-td3", _POINT_ROBOT, {"warm_up": 1_000, **_TD3}, {}, 50_000),
    *(
        _ddpg(
            f"{name}-mjx-td3",
            EnvTask(own(mujoco.Mujoco, name)),
            {**_ROBOTS_TD3, "warm_up": warm_up},
            {},
            1_000_000,
            target=_one_run(name, score),
        )
        for name, warm_up, score in (("HalfCheetah", 10_000, 9655.7), ("Hopper", 1_000, 3606.4))
    ),
)

SOFT = (
    *(
        _sac(f"Pendulum-v1{suffix}", _PENDULUM, config, hypers, 20_000, target=target)
        for suffix, config, hypers, target in (
            ("", {}, {}, _SWUNG),
            ("-fixed", {"temperature": "fixed"}, {"temperature": 0.2}, None),
            ("-tqc", _TQC, {}, _SWUNG),
            (
                "-redq",
                {"num_critics": 10, "num_steps": 20, "actor_period": 20, "actor_value": "mean"},
                {},
                None,
            ),
            (
                "-droq",
                {"dropout": 0.01, "layer_norm": True, "num_steps": 20, "actor_period": 20, "actor_value": "mean"},
                {},
                None,
            ),
        )
    ),
    *(
        _sac(
            f"MountainCarContinuous-v0{suffix}",
            gymnax_task("MountainCarContinuous-v0"),
            # No draw of the policy, nor a push at random, reaches the goal: only pushes that last do.
            {"noise": "ou", "temperature": "fixed", "batch_size": 512, **config},
            {
                "temperature": 0.1,
                "noise_start": 1.5,
                "noise_end": 0.3,
                "noise_return": 0.05,
                "discount": 0.9999,
                "tau": 0.01,
            },
            50_000,
            target=_UP,
        )
        for suffix, config in (("", {}), ("-tqc", _TQC))
    ),
    *(
        _sac(f"{task}-misc{suffix}", gymnax_task(f"{task}-misc"), {"warm_up": 1_000, **config}, {}, 200_000)
        for task in ("Reacher", "Swimmer")
        for suffix, config in (("", {}), ("-tqc", _TQC))
    ),
    _sac("PointRobot-misc", _POINT_ROBOT, {"warm_up": 1_000}, {}, 50_000),
    _sac(
        "LunarLanderContinuous",
        EnvTask(own(lander.LunarLander, continuous=True)),
        {"num_envs": 4, "num_steps": 2, "capacity": 200_000, "warm_up": 4_000},
        {},
        400_000,
        target=SOLVED_LANDING,
    ),
    _sac(
        "CartPole-v1",
        gymnax_task("CartPole-v1"),
        {"num_envs": 8, "batch_size": 128, "warm_up": 1_000},
        {"entropy_share": 0.3},
        400_000,
        target=Target(475.0, "reward threshold of the task; " + CARTPOLE_LIMIT),
    ),
    *(
        _sac(
            f"{name}-mjx",
            EnvTask(own(mujoco.Mujoco, name)),
            _ROBOTS_SAC,
            _RATES,
            1_000_000,
            target=_one_run(name, score),
        )
        for name, score in (("HalfCheetah", 9535.5), ("Hopper", 2325.5))
    ),
)

CROSSED = (
    Experiment(
        name="actor_critic/crossq/Pendulum-v1",
        algorithm=crossq,
        task=_PENDULUM,
        config=crossq.Config(**_SIZES, critic_sizes=(256, 256), renorm_warm_up=5_000),
        hypers=crossq.Hypers(),
        steps=20_000,
        target=_SWUNG,
        tiny={**_TINY, "critic_sizes": (8,), "actor_period": 2, "renorm_warm_up": 2, "batch_size": 16},
    ),
)

LINEAR = tuple(
    Experiment(
        name=f"actor_critic/dpg/LinearQuadratic{suffix}",
        algorithm=dpg,
        task=EnvTask(own(lqr.LinearQuadratic)),
        config=config,
        hypers=dpg.Hypers(),
        steps=2_000_000,
        target=_BALANCED,
        tiny={"num_envs": 4},
    )
    for suffix, config in (
        ("", dpg.Config()),
        ("-sarsa", dpg.Config(critic="sarsa")),
        ("-natural", dpg.Config(natural=True)),
    )
)

ROWS = (
    *DETERMINISTIC,
    *SOFT,
    *CROSSED,
    *LINEAR,
)
