"""Times sbx (github.com/araffin/sbx) or stable-baselines3, which share one interface, at settings that are given.

Run by a Python that has sbx-rl::

    python -m benchmarks.peers.sbx sac '{"library": "sbx", "env": "Pendulum-v1", "total_timesteps": 20000}'

`library` is `"sbx"` or `"stable_baselines3"`; `action_noise` is the deviation of normal noise, and all else goes to the
algorithm's constructor.  It prints one line of JSON.  A short run, reported as compilation, goes before the one that is
timed; the final return is the mean of the last ten training episodes, whose actions explore.
"""

import importlib
import json
import sys
import time

import numpy as np
from stable_baselines3.common.noise import NormalActionNoise

from benchmarks.peers import timing

WARM, EPISODES = 64, 10


def build(algorithm, settings):
    """Makes a model that has seen nothing."""
    settings = dict(settings)
    if "action_noise" in settings:
        deviation = np.atleast_1d(settings.pop("action_noise"))
        settings["action_noise"] = NormalActionNoise(np.zeros_like(deviation), deviation)
    return algorithm("MlpPolicy", settings.pop("env"), seed=timing.seed(), device="cpu", **settings)


def share(model, other):
    """Lets a model of sbx run the programs that another one has compiled.

    jax keeps them by the identity of network and optimiser, which a new model would make anew.  A model of
    stable-baselines3 has no such programs and stays as it is.

    Args:
        model: that has seen nothing; its train states are changed.
        other: with the same settings.
    """
    for owner, source in ((model, other), (model.policy, other.policy)):
        for name, state in list(vars(source).items()):
            if hasattr(state, "apply_fn"):
                own = getattr(owner, name)
                setattr(owner, name, own.replace(apply_fn=state.apply_fn, tx=state.tx))


def main(name, options):
    """Warms up, trains, and prints what it took."""
    library, steps = options.pop("library"), options.pop("total_timesteps")
    algorithm = getattr(importlib.import_module(library), name.upper())
    start = time.perf_counter()
    warm = build(algorithm, {**options, "learning_starts": 1})
    warm.learn(options.get("target_update_interval", 0) + WARM)
    middle = time.perf_counter()
    model = build(algorithm, options)
    share(model, warm)
    begin = time.perf_counter()
    model.learn(steps)
    end = time.perf_counter()
    episodes = list(model.ep_info_buffer)[-EPISODES:]
    returns = np.mean([episode["r"] for episode in episodes])
    timing.say((0.0, middle - start, end - begin), steps, returns)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
