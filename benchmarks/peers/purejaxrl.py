"""Times purejaxrl (github.com/luchris429/purejaxrl) at its own defaults, from a checkout.

Run by a Python that has jax, flax, optax, distrax, flashbax and gymnax 0.0.8::

    python -m benchmarks.peers.purejaxrl CHECKOUT ppo '{"seeds": 16}'

It prints one line of JSON.  Modules that purejaxrl imports but a timing does not need (brax, navix, wandb) are
replaced by mocks, and `jax.tree_map`, which jax has removed, by its new name.
"""

import contextlib
import json
import sys
from unittest import mock

import jax

from benchmarks.peers import timing

PPO = {
    "LR": 2.5e-4,
    "NUM_ENVS": 4,
    "NUM_STEPS": 128,
    "TOTAL_TIMESTEPS": 5e5,
    "UPDATE_EPOCHS": 4,
    "NUM_MINIBATCHES": 4,
    "GAMMA": 0.99,
    "GAE_LAMBDA": 0.95,
    "CLIP_EPS": 0.2,
    "ENT_COEF": 0.01,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 0.5,
    "ACTIVATION": "tanh",
    "ENV_NAME": "CartPole-v1",
    "ANNEAL_LR": True,
    "DEBUG": False,
}
DQN = {
    "NUM_ENVS": 10,
    "BUFFER_SIZE": 10000,
    "BUFFER_BATCH_SIZE": 128,
    "TOTAL_TIMESTEPS": 5e5,
    "EPSILON_START": 1.0,
    "EPSILON_FINISH": 0.05,
    "EPSILON_ANNEAL_TIME": 25e4,
    "TARGET_UPDATE_INTERVAL": 500,
    "LR": 2.5e-4,
    "LEARNING_STARTS": 10000,
    "TRAINING_INTERVAL": 10,
    "LR_LINEAR_DECAY": False,
    "GAMMA": 0.99,
    "TAU": 1.0,
    "ENV_NAME": "CartPole-v1",
    "WANDB_MODE": "disabled",
}


def load(checkout, name):
    """Imports `make_train` and its defaults, with `returns(metrics)` of the last tenth of the run."""
    sys.path.insert(0, f"{checkout}/purejaxrl")
    for unused in ("wandb", "navix", "brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training"):
        sys.modules[unused] = mock.MagicMock()
    with contextlib.suppress(AttributeError):
        jax.tree_map = jax.tree_util.tree_map
    if name == "ppo":
        from ppo import make_train

        return make_train, PPO, "returned_episode_returns"
    from dqn import make_train

    return make_train, DQN, "returns"


def main(checkout, name, options):
    """Compiles, runs, and prints what it took."""
    make_train, config, returns = load(checkout, name)
    seeds = options.pop("seeds", 1)
    config = {**config, **options}
    train = make_train(config)

    def final_return(key):
        curve = train(key)["metrics"][returns]
        return curve[-timing.tail(curve.shape[0]) :].mean()

    seconds, result = timing.phases(*timing.seeded(final_return, seeds))
    timing.say(seconds, seeds * config["TOTAL_TIMESTEPS"], result)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
