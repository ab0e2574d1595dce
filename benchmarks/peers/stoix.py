"""Times Stoix's PPO (github.com/EdanToledo/Stoix, at 8fff19c) at purejaxrl's settings, from a checkout.

Run by a Python that has jax, flax, optax, distrax, rlax, flashbax, gymnax 0.0.9, stoa-env, hydra-core and colorama::

    python -m benchmarks.peers.stoix CHECKOUT '{"arch.total_num_envs": 64}'

It prints one line of JSON.  Options are overrides of Stoix's configuration.  Its logger and checkpoints are replaced by
mocks, and training alone is run, in one call and without an evaluation.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from benchmarks.peers import timing

NETWORKS = {
    f"network.{part}_network.pre_torso.{field}": value
    for part in ("actor", "critic")
    for field, value in (("layer_sizes", [64, 64]), ("activation", "tanh"))
}
PPO = {
    "arch.total_num_envs": 4,
    "arch.total_timesteps": 500_000,
    "arch.num_evaluation": 1,
    "system.rollout_length": 128,
    "system.epochs": 4,
    "system.num_minibatches": 4,
    "system.actor_lr": 2.5e-4,
    "system.critic_lr": 2.5e-4,
    **NETWORKS,
}


def composed(checkout, options):
    """Composes the configuration of a run from Stoix's defaults, those above and options."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    folder = f"{checkout}/stoix/configs"
    values = {"hydra.searchpath": [f"file://{folder}"], **PPO, **options}
    with initialize_config_dir(f"{folder}/default/anakin", version_base="1.2"):
        config = compose("default_ff_ppo", [f"{name}={json.dumps(value)}" for name, value in values.items()])
    OmegaConf.set_struct(config, False)
    config.num_devices = jax.device_count()
    return config


def prepare(checkout, options):
    """Gives a function that trains, the state that it starts from, and the steps that it takes."""
    sys.path.insert(0, str(checkout))
    for unused in ("logger", "checkpointing"):
        sys.modules[f"stoix.utils.{unused}"] = mock.MagicMock()
    from stoix.systems.ppo.anakin import ff_ppo
    from stoix.utils import make_env
    from stoix.utils.total_timestep_checker import check_total_timesteps

    config = check_total_timesteps(composed(checkout, options))
    environment, _ = make_env.make(config)
    train, _, state = ff_ppo.learner_setup(environment, jax.random.split(jax.random.PRNGKey(timing.seed()), 3), config)
    return train, state, config.arch.num_updates * config.system.rollout_length * config.arch.total_num_envs


def final_return(metrics):
    """Mean return of the episodes that ended in the last tenth of the updates."""
    done, returns = (np.asarray(metrics[name])[0] for name in ("is_terminal_step", "episode_return"))
    last = slice(-timing.tail(len(done)), None)
    return returns[last][done[last].astype(bool)].mean()


def main(checkout, options):
    """Compiles, runs, and prints what it took."""
    train, state, steps = prepare(Path(checkout).resolve(), options)
    seconds, result = timing.phases(train, state)
    timing.say(seconds, steps, final_return(result.episode_metrics))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
