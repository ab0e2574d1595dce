"""What rlgen is timed beside its peers in: same environment, network, batch, epochs and budget on both sides."""

import dataclasses
import json
from typing import Any


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
        script: the peer's, and folder of its environment; the peer's name if left out.
    """

    name: str
    experiment: str
    options: dict[str, Any]
    peer: str
    arguments: tuple[str, ...]
    work: str
    script: str = ""


_PPO = "PPO CartPole-v1, 4 environments × 128 steps, 4 epochs × 4 minibatches, 64-64 tanh"
# What the peers' DQN begins with, and that they clip no gradient; with ours fewer seeds hold what they have learned.
_PLAIN: dict[str, Any] = {"config": {"initialiser": "lecun"}, "hypers": {"max_grad_norm": 1e9}}
_DQN = (
    "DQN CartPole-v1, 10 environments, one gradient step of batch 128 every 10 steps, ring of 10 000, 120-84 ReLU,"
    " learning from step 10 000 on"
)


_PIXELS = "PPO Breakout-MinAtar, 64 environments × 128 steps, 4 epochs × 8 minibatches, 64-64 ReLU"


def _row(
    algorithm: str,
    experiment: str,
    work: str,
    seeds: int,
    steps: int,
    ours: dict[str, Any] | None = None,
    name: str = "",
    **peer: Any,
) -> Row:
    """A row at purejaxrl's own defaults but for the budget, which is cut so that many repeats fit into an hour.

    Args:
        algorithm: of purejaxrl.
        experiment: of the catalogue.
        work: what both sides do.
        seeds: of both.
        steps: of each seed.
        ours: further options for `benchmarks.worker`.
        name: last part of the row's; "" for the number of seeds.
        **peer: further settings of purejaxrl.
    """
    return Row(
        name=f"{algorithm}_{_task(experiment)}_{name or _many(seeds)}",
        experiment=experiment,
        options={"seeds": seeds, "steps": steps, **(ours or {})},
        peer="purejaxrl",
        arguments=(algorithm, json.dumps({"seeds": seeds, "TOTAL_TIMESTEPS": steps, **peer})),
        work=f"{work}, {steps:,} steps a seed, {_many(seeds, ' ')}",
    )


def _rejax(
    experiment: str, work: str, seeds: int, steps: int, ours: dict[str, Any], theirs: dict[str, Any], name: str = ""
) -> Row:
    """A row at settings that both sides are given.

    Args:
        experiment: of the catalogue.
        work: what both sides do.
        seeds: of both.
        steps: of each seed.
        ours: options for `benchmarks.worker`.
        theirs: fields of rejax's algorithm.
        name: last part of the row's; "" for the number of seeds.
    """
    algorithm = work.split()[0].lower()
    settings = {"seeds": seeds, "total_timesteps": steps, **theirs}
    return Row(
        name=f"rejax_{algorithm}_{_task(experiment)}_{name or _many(seeds)}",
        experiment=experiment,
        options={"seeds": seeds, "steps": steps, "scored": True, **ours},
        peer="rejax",
        arguments=(algorithm, json.dumps(settings)),
        work=f"{work}, {steps:,} steps a seed, {_many(seeds, ' ')}",
    )


def _flow(task: str, loop: str, steps: int) -> Row:
    """A row at flowjax's own defaults: eight affine couplings, whose networks have one layer of 50 units.

    Ours has an ActNorm before every two of them besides.  Each side has a learning rate of its own: flowjax its default
    of 5e-4, ours 3e-3 that falls to nothing.
    """
    config = {"architecture": "realnvp", "num_layers": 4, "hidden_sizes": (50,), "batch_size": 100}
    return Row(
        name=f"flowjax_{loop}_{task}",
        experiment=f"generative/flow/{task}",
        options={"steps": steps, "config": config, "hypers": {"learning_rate": 3e-3}, "scored": True},
        peer="flowjax",
        arguments=(json.dumps({"task": task, "loop": loop, "steps": steps}),),
        work=f"Flow on {task}, 8 affine couplings of 50 units, batches of 100, {steps:,} points, beside its {loop}"
        " without ActNorms",
    )


def _baselines() -> tuple[Row, ...]:
    """Rows beside stable-baselines3 and its twin in jax, at settings that both sides are given."""

    def row(peer: str, experiment: str, work: str, steps: int, ours: dict[str, Any], theirs: dict[str, Any]) -> Row:
        library = {"sbx": "sbx", "sb3": "stable_baselines3"}[peer]
        algorithm = work.split()[0].lower()
        return Row(
            name=f"{peer}_{algorithm}_{_task(experiment)}",
            experiment=experiment,
            options={"steps": steps, **ours},
            peer=peer,
            arguments=(algorithm, json.dumps({"library": library, "total_timesteps": steps, **theirs})),
            work=f"{work}, {steps:,} steps, 1 seed",
            script="sbx",
        )

    wide = (256, 256)
    swung = {
        "env": "Pendulum-v1",
        "learning_rate": 1e-3,
        "buffer_size": 50_000,
        "learning_starts": 100,
        "batch_size": 256,
        "policy_kwargs": {"net_arch": wide},
    }
    balanced = {
        "env": "CartPole-v1",
        "learning_rate": 2.5e-4,
        "buffer_size": 50_000,
        "learning_starts": 1_000,
        "batch_size": 100,
        "train_freq": 1,
        "target_update_interval": 1_000,
        "exploration_fraction": 0.5,
        "policy_kwargs": {"net_arch": _SMALL},
    }
    sac, td3 = (
        f"{name} Pendulum-v1, one environment, one gradient step of batch 256 a step, ring of 50 000, 256-256 ReLU,"
        " learning from step 100 on"
        for name in ("SAC", "TD3")
    )
    ours = {"config": {"hidden_sizes": wide}}
    # sbx's targets move by 0.005 after every gradient step, and the paper's, as ours, after every second one.
    hasty = {**ours, "hypers": {"tau": 0.01}}
    # sbx has the Huber loss alone, with which values diverge where the target follows sooner.
    slow = {**_DQN_OURS, "config": {**_DQN_OURS["config"], "error": "huber", "target_period": 1_000}}
    return (
        row("sbx", "actor_critic/sac/Pendulum-v1", sac, 5_000, ours, swung),
        row("sb3", "actor_critic/sac/Pendulum-v1", sac, 5_000, ours, swung),
        row("sbx", "actor_critic/ddpg/Pendulum-v1-td3", td3, 5_000, hasty, {**swung, "action_noise": 0.1}),
        row("sbx", "value/dqn/CartPole-v1", _REJAX_DQN, 50_000, slow, balanced),
    )


def _nflows(task: str, steps: int) -> Row:
    """A row with the layers of ours, an ActNorm before every two couplings, and Adam's own learning rate of 1e-3."""
    work = f"Flow on {task}, 8 affine couplings of 50 units and 4 ActNorms, batches of 100, {steps:,} points"
    arguments = (json.dumps({"task": task, "steps": steps}),)
    return dataclasses.replace(
        _flow(task, "scan", steps), name=f"nflows_{task}", peer="nflows", arguments=arguments, work=work
    )


def _vae(library: str, steps: int) -> Row:
    """A row beside a VAE that is written in a library alone."""
    return Row(
        name=f"{library}_vae_mnist",
        experiment="generative/vae/mnist",
        options={"steps": steps, "config": {"hidden_sizes": (500,)}},
        peer=library,
        arguments=(json.dumps({"library": library, "steps": steps}),),
        work=f"VAE on MNIST, 784-500-20 ReLU, binarised anew, batches of 128, {steps:,} images, beside plain {library}",
        script="vae",
    )


def _checked_out() -> tuple[Row, ...]:
    """Rows beside purejaxql, Stoix, CleanRL and jaxmarl, whose budgets are whole numbers of updates."""

    def pqn(preset: str, experiment: str, work: str, seeds: int, steps: int, suffix: str = "") -> Row:
        return Row(
            name=f"purejaxql_pqn_{_task(experiment)}_{_many(seeds)}{suffix}",
            experiment=experiment,
            options={"seeds": seeds, "steps": steps},
            peer="purejaxql",
            arguments=(preset, json.dumps({"seeds": seeds, "TOTAL_TIMESTEPS": steps})),
            work=f"{work}, {steps:,} steps a seed, {_many(seeds, ' ')}",
        )

    def ppo(envs: int, steps: int) -> Row:
        return Row(
            name=f"stoix_ppo_cartpole_{envs}_envs",
            experiment="policy/ppo/CartPole-v1",
            options={"steps": steps, "config": {"num_envs": envs}},
            peer="stoix",
            arguments=(json.dumps({"arch.total_num_envs": envs, "arch.total_timesteps": steps}),),
            work=_PPO.replace("4 environments", f"{envs} environments") + f", {steps:,} steps, 1 seed",
        )

    def dqn(steps: int) -> Row:
        return Row(
            name="cleanrl_dqn_cartpole_1_seed",
            experiment="value/dqn/CartPole-v1",
            options={**_PLAIN, "steps": steps, "config": {**_PLAIN["config"], "num_envs": 1, "rollout_length": 10}},
            peer="cleanrl",
            arguments=(json.dumps({"total_timesteps": steps}),),
            work=_DQN.replace("10 environments", "one environment") + f", {steps:,} steps, 1 seed",
        )

    def ippo(seeds: int, steps: int) -> Row:
        return Row(
            name=f"jaxmarl_ippo_simplespread_{_many(seeds)}",
            experiment="multiagent/ippo/SimpleSpread",
            options={"seeds": seeds, "steps": steps},
            peer="jaxmarl",
            arguments=("MPE_simple_spread_v3", json.dumps({"seeds": seeds, "TOTAL_TIMESTEPS": steps})),
            work="IPPO simple spread, 3 agents that share one network, 16 environments × 128 steps, 4 epochs × 4"
            f" minibatches, 64-64 tanh, {steps:,} steps a seed, {_many(seeds, ' ')}",
        )

    cartpole = (
        "PQN CartPole-v1, 32 environments × 64 steps, 4 epochs × 16 minibatches, 256-256 ReLU, layer norm, λ 0.95"
    )
    pixels = (
        "PQN Breakout-MinAtar, 128 environments × 32 steps, 2 epochs × 32 minibatches, 16 filters and 128 units, ReLU,"
        " layer norm, λ 0.65"
    )
    return (
        pqn("cartpole", "value/pqn/CartPole-v1", cartpole, 1, 204_800),
        pqn("cartpole", "value/pqn/CartPole-v1", cartpole, 16, 102_400),
        pqn("minatar", "value/pqn/Breakout-MinAtar", pixels, 1, 409_600),
        pqn("minatar", "value/pqn/Breakout-MinAtar", pixels, 4, 102_400),
        pqn("minatar", "value/pqn/Breakout-MinAtar", pixels, 4, 1_003_520, "_long"),  # for what both learn
        ppo(4, 512_000),
        ppo(64, 1_024_000),
        dqn(200_000),
        ippo(1, 1_024_000),
        ippo(16, 204_800),
    )


def _brax() -> tuple[Row, ...]:
    """Rows beside brax, at settings that both sides are given."""

    def row(experiment: str, envs: int, steps: int, work: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Row:
        algorithm = experiment.split("/")[1]
        many = f"{envs} environment{'s'[: envs > 1]}"
        settings = {"num_timesteps": steps, "num_envs": envs, **theirs}
        return Row(
            name=f"brax_{algorithm}_pendulum_{envs}_env{'s'[: envs > 1]}",
            experiment=experiment,
            options={"steps": steps, "scored": True, **ours, "config": {"num_envs": envs, **ours["config"]}},
            peer="brax",
            arguments=(algorithm, json.dumps(settings)),
            work=f"{algorithm.upper()} Pendulum-v1, {many}{work}, {steps:,} steps, 1 seed",
        )

    def ppo(envs: int, length: int, minibatches: int, steps: int) -> Row:
        config = {"rollout_length": length, "num_epochs": 4, "num_minibatches": minibatches, "normalise_rewards": False}
        rates = {"learning_rate": 1e-3, "learning_rate_end": 1e-3, "adam_epsilon": 1e-8}
        network = {
            "policy_hidden_layer_sizes": _SMALL,
            "value_hidden_layer_sizes": _SMALL,
            "activation": "tanh",
            "distribution_type": "normal",
            "noise_std_type": "log",
            "init_noise_std": 0.5,  # of actions up to 1; ours is 1 of actions up to 2
        }
        theirs = {
            "unroll_length": length,
            "batch_size": envs // minibatches,
            "num_minibatches": minibatches,
            "num_updates_per_batch": 4,
            "learning_rate": 1e-3,
            "discounting": 0.95,
            "entropy_cost": 0.0,
            "clipping_epsilon": 0.2,
            "max_grad_norm": 0.5,
            "normalize_observations": True,
            "network": network,
        }
        work = f" × {length} steps, 4 epochs × {minibatches} minibatches, 64-64 tanh, observations normalised"
        return row("policy/ppo/Pendulum-v1", envs, steps, work, {"config": config, "hypers": rates}, theirs)

    def sac(envs: int, gradients: int, warm_up: int, steps: int) -> Row:
        config = {"num_steps": gradients, "capacity": 100_000, "warm_up": warm_up, "hidden_sizes": _SMALL}
        hypers = {"temperature_learning_rate": 3e-4, "entropy_share": 0.5}  # which brax does not let one choose
        theirs = {
            "grad_updates_per_step": gradients,
            "batch_size": 256,
            "min_replay_size": warm_up,
            "max_replay_size": 100_000,
            "learning_rate": 1e-3,
            "discounting": 0.99,
            "network": {"hidden_layer_sizes": _SMALL, "activation": "relu"},
        }
        often = f"{gradients} gradient steps of batch 256 every {envs} steps"
        if gradients == envs == 1:
            often = "one gradient step of batch 256 a step"
        work = f", {often}, ring of 100,000, 64-64 ReLU, learning from step {warm_up:,} on"
        return row("actor_critic/sac/Pendulum-v1", envs, steps, work, {"config": config, "hypers": hypers}, theirs)

    return (
        ppo(64, 32, 8, 501_760),
        ppo(1_024, 16, 16, 1_638_400),
        sac(1, 1, 5_000, 20_000),
        sac(16, 8, 4_800, 38_400),
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
    "polyak": 0.995,
}
_SAC_THEIRS = {**_SWUNG, "agent_kwargs": {"hidden_layer_sizes": _SMALL, "activation": "relu"}}
_TD3_THEIRS = {
    **_SWUNG,
    "exploration_noise": 0.1,
    **{f"{part}_kwargs": {"activation": "relu"} for part in ("actor", "critic")},
}  # 64-64
_TD3 = "TD3 Pendulum-v1, one environment, one gradient step of batch 256 a step, ring of 100 000, 64-64 ReLU"
_REJAX_DQN = (
    "DQN CartPole-v1, one environment, one gradient step of batch 100 a step, ring of 50 000, 64-64 ReLU, learning from"
    " step 1 000 on"
)
_DQN_OURS = {
    **_PLAIN,
    "config": {
        **_PLAIN["config"],
        "num_envs": 1,
        "batch_size": 100,
        "capacity": 50_000,
        "warm_up": 1_000,
        "target_period": 200,
        "hidden_sizes": _SMALL,
    },
}
_DQN_THEIRS = {
    "env": "CartPole-v1",
    "num_envs": 1,
    "buffer_size": 50_000,
    "fill_buffer": 1_000,
    "batch_size": 100,
    "learning_rate": 2.5e-4,
    "target_update_freq": 200,
    "polyak": 0.0,  # the target is a copy
    "ddqn": False,
    "exploration_fraction": 0.5,
    "agent_kwargs": {"activation": "relu"},  # its layers are 64-64
}

_MANY_ENVS = 2_048
_CROWD = _PPO.replace("4 environments", "2 048 environments")
_CROWD_OURS = {"config": {"num_envs": _MANY_ENVS}}


def _on_policy() -> tuple[Row, ...]:
    """Rows of PPO and PQN beside rejax, whose PQN has layers of 64-64 alone."""

    def theirs(envs: int, length: int, minibatches: int, **fields: Any) -> dict[str, Any]:
        shape = {"num_envs": envs, "num_steps": length, "num_minibatches": minibatches, "num_epochs": 4}
        return {"env": "CartPole-v1", **shape, **fields}

    tanh = {"learning_rate": 2.5e-4, "max_grad_norm": 0.5, "agent_kwargs": {"activation": "tanh"}}
    relu = {
        "env": "Breakout-MinAtar",
        "learning_rate": 5e-3,
        "ent_coef": 0.1,
        "max_grad_norm": 0.5,
        "agent_kwargs": {"activation": "relu"},
    }
    pqn = "PQN CartPole-v1, 32 environments × 64 steps, 4 epochs × 16 minibatches, 64-64 ReLU, layer norm, λ 0.9"
    pqn_ours = {"config": {"hidden_sizes": _SMALL}, "hypers": {"trace_decay": 0.9}}
    pqn_theirs = theirs(32, 64, 16, learning_rate=1e-4, td_lambda=0.9, eps_end=0.2, exploration_fraction=0.2)
    return (
        *(
            _rejax("policy/ppo/CartPole-v1", _PPO, seeds, steps, {}, theirs(4, 128, 4, **tanh))
            for seeds, steps in ((1, 500_224), (16, 200_192), (64, 100_352))
        ),
        _rejax(
            "policy/ppo/CartPole-v1",
            _CROWD,
            1,
            2_097_152,
            # rejax anneals no rate, and clips each number of a gradient instead of its norm.
            {**_CROWD_OURS, "hypers": {"learning_rate_end": 2.5e-4, "max_grad_norm": 1e9, "adam_epsilon": 1e-8}},
            theirs(_MANY_ENVS, 128, 4, **tanh),
            f"{_MANY_ENVS}_envs",
        ),
        _rejax("policy/ppo/Breakout-MinAtar", _PIXELS, 1, 507_904, {}, theirs(64, 128, 8, **relu)),
        _rejax("value/pqn/CartPole-v1", pqn, 1, 501_760, pqn_ours, pqn_theirs),
    )


def _references() -> tuple[Row, ...]:
    """Rows of tasks for which nobody has published a return: rejax's on them stands beside ours."""

    def row(algorithm: str, experiment: str, task: str, theirs: dict[str, Any]) -> Row:
        settings = {
            "env": f"{task}-misc",
            "learning_rate": 1e-3,
            "polyak": 0.995,
            "num_envs": 1,
            "buffer_size": 50_000,
            "fill_buffer": 1_000,
            "batch_size": 256,
        }
        work = f"{algorithm} {task}-misc, one environment, one gradient step of batch 256 a step, 64-64 ReLU"
        return _rejax(experiment, work, 4, 200_000, {}, {**settings, **theirs})

    td3 = {"exploration_noise": 0.1, **{f"{part}_kwargs": {"activation": "relu"} for part in ("actor", "critic")}}
    sac = {"agent_kwargs": {"hidden_layer_sizes": _SMALL, "activation": "relu"}}
    return tuple(
        pair
        for task in ("Reacher", "Swimmer")
        for pair in (
            row("TD3", f"actor_critic/ddpg/{task}-misc-td3", task, td3),
            row("SAC", f"actor_critic/sac/{task}-misc", task, sac),
        )
    )


ROWS = (
    _row("ppo", "policy/ppo/CartPole-v1", _PPO, 1, 500_000),
    _row("ppo", "policy/ppo/CartPole-v1", _PPO, 16, 200_000),
    _row("ppo", "policy/ppo/CartPole-v1", _PPO, 64, 100_000),
    _row(
        "ppo",
        "policy/ppo/CartPole-v1",
        _CROWD,
        1,
        2_097_152,
        _CROWD_OURS,
        f"{_MANY_ENVS}_envs",
        NUM_ENVS=_MANY_ENVS,
    ),
    _row("ppo", "policy/ppo/Breakout-MinAtar", _PIXELS, 4, 1_000_000, **_MINATAR),
    *(
        # Of both, exploration falls over the first half of what the budget is cut to.
        _row("dqn", "value/dqn/CartPole-v1", _DQN, seeds, steps, _PLAIN, EPSILON_ANNEAL_TIME=steps // 2)
        for seeds, steps in ((1, 200_000), (16, 100_000))
    ),
    *(
        row
        for seeds, steps in ((1, 20_000), (16, 10_000))
        for row in (
            _rejax("actor_critic/sac/Pendulum-v1", _SAC, seeds, steps, _SAC_OURS, _SAC_THEIRS),
            _rejax("actor_critic/ddpg/Pendulum-v1-td3", _TD3, seeds, steps, _SAC_OURS, _TD3_THEIRS),
            _rejax("value/dqn/CartPole-v1", _REJAX_DQN, seeds, steps, _DQN_OURS, _DQN_THEIRS),
        )
    ),
    _rejax(
        "value/dqn/CartPole-v1",
        "DQN CartPole-v1, each side at its own defaults: here those of purejaxrl, there one environment and a gradient"
        " step of batch 256 for each of its steps",
        1,
        50_000,
        {},
        {"env": "CartPole-v1"},
        "defaults",
    ),
    *_references(),
    *_on_policy(),
    *(_flow(task, loop, 1_000_000) for task in ("moons", "circles") for loop in ("scan", "fit")),
    *_checked_out(),
    *_baselines(),
    *_brax(),
    *(_nflows(task, 1_000_000) for task in ("moons", "circles")),
    *(_vae(library, 300_000) for library in ("torch", "flax")),
)
