"""Times purejaxql's PQN (github.com/mttga/purejaxql, at 47af6d7) at its own settings, from a checkout.

Run by a Python that has jax, flax, optax, chex and gymnax 0.0.8::

    python -m benchmarks.peers.purejaxql CHECKOUT cartpole '{"seeds": 16, "TOTAL_TIMESTEPS": 200000}'

It prints one line of JSON.  Modules that purejaxql imports but a timing does not need (hydra, omegaconf, safetensors,
wandb) are replaced by mocks, and `jax.tree_map`, which jax has removed and gymnax 0.0.8 calls, by its new name.  The
schedules span the budget, and no policy is evaluated in mid-run.
"""

import contextlib
import importlib
import json
import sys
from unittest import mock

import jax

from benchmarks.peers import timing

_COMMON = {
    "EPS_START": 1.0,
    "NORM_TYPE": "layer_norm",
    "MAX_GRAD_NORM": 10,
    "LR_LINEAR_DECAY": True,
    "GAMMA": 0.99,
    "TEST_DURING_TRAINING": False,
    "WANDB_MODE": "disabled",
}
CARTPOLE = {
    "ENV_NAME": "CartPole-v1",
    "NUM_ENVS": 32,
    "NUM_STEPS": 64,
    "EPS_FINISH": 0.2,
    "EPS_DECAY": 0.2,
    "NUM_MINIBATCHES": 16,
    "NUM_EPOCHS": 4,
    "HIDDEN_SIZE": 256,
    "NUM_LAYERS": 2,
    "LR": 1e-4,
    "REW_SCALE": 0.1,
    "LAMBDA": 0.95,
    "TOTAL_TIMESTEPS": 500_000,
    **_COMMON,
}
MINATAR = {
    "ENV_NAME": "Breakout-MinAtar",
    "NUM_ENVS": 128,
    "NUM_STEPS": 32,
    "EPS_FINISH": 0.05,
    "EPS_DECAY": 0.1,
    "NUM_MINIBATCHES": 32,
    "NUM_EPOCHS": 2,
    "LR": 5e-4,
    "LAMBDA": 0.65,
    "TOTAL_TIMESTEPS": 10_000_000,
    **_COMMON,
}
SETTINGS = {"cartpole": ("pqn_gymnax", CARTPOLE), "minatar": ("pqn_minatar", MINATAR)}


def load(checkout, module):
    """Imports a module of purejaxql and gives its `make_train`."""
    sys.path.insert(0, f"{checkout}/purejaxql")
    for unused in ("hydra", "omegaconf", "safetensors", "safetensors.flax", "wandb"):
        sys.modules[unused] = mock.MagicMock()
    with contextlib.suppress(AttributeError):
        jax.tree_map = jax.tree_util.tree_map
    return importlib.import_module(module).make_train


def main(checkout, name, options):
    """Compiles, runs, and prints what it took."""
    module, defaults = SETTINGS[name]
    seeds = options.pop("seeds", 1)
    config = {**defaults, **options}
    train = load(checkout, module)({**config, "TOTAL_TIMESTEPS_DECAY": config["TOTAL_TIMESTEPS"]})

    def final_return(key):
        curve = train(key)["metrics"]["returned_episode_returns"]
        return curve[-timing.tail(curve.shape[0]) :].mean()

    seconds, result = timing.phases(*timing.seeded(final_return, seeds))
    updates = config["TOTAL_TIMESTEPS"] // (config["NUM_STEPS"] * config["NUM_ENVS"])
    timing.say(seconds, seeds * updates * config["NUM_STEPS"] * config["NUM_ENVS"], result)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
