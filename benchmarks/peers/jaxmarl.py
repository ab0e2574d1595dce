"""Times jaxmarl's IPPO (github.com/FLAIROx/JaxMARL, at c793d09) on a particle task at its own settings.

Run by a Python that has jax, flax, optax, distrax and jaxmarl 0.2.0, with a checkout for the baseline, which is no part
of the package::

    python -m benchmarks.peers.jaxmarl CHECKOUT MPE_simple_spread_v3 '{"seeds": 16, "TOTAL_TIMESTEPS": 1000000}'

It prints one line of JSON.  Modules that the baseline imports but a timing does not need (hydra, omegaconf, wandb) are
replaced by mocks, and its call back to the host after every update, which would log, by nothing.  Episodes
have 25 steps, for which its limit is 24.  Its returns are those of the last tenth of the run, as it logs them: an
agent's times the number of agents, which is what all agents have together.

What settings do not make equal: it takes the time limit for an end, beyond which nothing is worth anything, and learns
from the values that it had when it acted; ours go through the critic once more, before and after every step.  Its
schedule spans the budget that it is given, as ours does.
"""

import importlib
import json
import sys
from unittest import mock

import jax

from benchmarks.peers import timing
from benchmarks.peers.purejaxrl import PPO

# Its baseline is purejaxrl's PPO, and so are its numbers; episodes have 25 steps.
SETTINGS = {**PPO, "NUM_ENVS": 16, "ENV_KWARGS": {"max_steps": 24}}


def load(checkout):
    """Imports the baseline and gives its `make_train`."""
    sys.path.insert(0, f"{checkout}/baselines/IPPO")
    for unused in ("hydra", "omegaconf", "wandb"):
        sys.modules[unused] = mock.MagicMock()
    jax.experimental.io_callback = lambda *arguments: None
    return importlib.import_module("ippo_ff_mpe").make_train


def main(checkout, task, options):
    """Compiles, runs, and prints what it took."""
    seeds = options.pop("seeds", 1)
    config = {**SETTINGS, "ENV_NAME": task, **options}
    train = load(checkout)(config)

    def final_return(key):
        curve = train(key)["metrics"]["returned_episode_returns"]
        return curve[-timing.tail(curve.shape[0]) :].mean()

    seconds, result = timing.phases(*timing.seeded(final_return, seeds))
    timing.say(seconds, seeds * config["TOTAL_TIMESTEPS"], result)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
