"""Times brax's PPO and SAC (github.com/google/brax) on gymnax's Pendulum-v1, at settings that are given.

Run by a Python that has brax and gymnax 1.0.1::

    python -m benchmarks.peers.brax sac '{"num_timesteps": 20000, "network": {"activation": "relu"}}'

`network` goes to the agent's network factory, with the name of an activation, and all else to its `train`.  It prints
one line of JSON.  The final return is the mean of brax's own evaluation after the last step, whose actions explore.

brax compiles while it trains.  Its own `training/sps` counts that in the first epoch, PPO compiles once more in the
second, and another call of `train` compiles anew.  So the programs of training, which it makes by `jax.pmap`, are
compiled ahead of time when it calls them, and each phase is timed: one program for all training, and in SAC another one
for the steps before learning begins.  Initial states and the evaluation are left out.

What settings do not make equal:

* Each environment starts every episode in the state in which it started its first.
* The last step of an episode, where it is cut, counts for nothing in PPO's losses and in that of SAC's critics.
* PPO's minibatches are whole sequences, whose values and advantages are computed in every minibatch anew.
* SAC's actor and temperature learn beside the critics, from samples of their own, and not after them.
* SAC's policy acts before learning begins, where ours draws actions uniformly, and moments of observations are kept
  though nothing is normalised by them.
* Layers and the spread of SAC's policy are made brax's way, and so are all random numbers.
"""

import functools
import importlib
import itertools
import json
import sys
import time
from unittest import mock

import gymnax
import jax
import jax.numpy as jnp
from brax.envs.base import Env, State
from brax.training.networks import ACTIVATION

from benchmarks.peers import timing

PROGRAMS = ("prefill_replay_buffer", "training_epoch")
EPISODE = 200  # steps, after which a wrapper of brax's cuts it


class Pendulum(Env):
    """gymnax's pendulum, which never ends, with actions that are ±1 where the torque is largest."""

    observation_size, action_size, backend = 3, 1, "gymnax"

    def __init__(self):
        """Makes what is wrapped."""
        self.native, self.params = gymnax.make("Pendulum-v1")

    def reset(self, rng):
        """Draws an angle and a speed."""
        obs, native = self.native.reset_env(rng, self.params)
        return State(native, obs, jnp.float32(0), jnp.float32(0))

    def step(self, state, action):
        """Moves on, which takes no key, as nothing is drawn."""
        torque = self.params.max_torque * action
        obs, native, reward, _, _ = self.native.step_env(None, state.pipeline_state, torque, self.params)
        return state.replace(pipeline_state=native, obs=obs, reward=reward)


def timed(pmap, spent):
    """Gives a `jax.pmap` that compiles those of `PROGRAMS` ahead of time.

    Args:
        pmap: jax's own.
        spent: list that every run of one adds `[lowering, compiling, running]` to, in seconds.
    """

    def replacement(function, *args, **settings):
        program = pmap(function, *args, **settings)

        def run(*inputs):
            times = [time.perf_counter()]
            lowered = program.lower(*inputs)
            times.append(time.perf_counter())
            compiled = lowered.compile()
            times.append(time.perf_counter())
            result = jax.block_until_ready(compiled(*inputs))
            times.append(time.perf_counter())
            spent.append([end - start for start, end in itertools.pairwise(times)])
            return result

        name = getattr(function, "__name__", None)  # a partial has none
        return run if name in PROGRAMS else program

    return replacement


def main(name, options):
    """Trains, and prints what it took."""
    network = options.pop("network")
    network["activation"] = ACTIVATION[network["activation"]]
    agent = f"brax.training.agents.{name}"
    factory = getattr(importlib.import_module(f"{agent}.networks"), f"make_{name}_networks")
    train = importlib.import_module(f"{agent}.train").train
    spent = []
    with mock.patch("jax.pmap", timed(jax.pmap, spent)):
        _, _, metrics = train(
            Pendulum(),
            episode_length=EPISODE,
            network_factory=functools.partial(factory, **network),
            seed=timing.seed(),
            **options,
        )
    seconds = [sum(phase) for phase in zip(*spent, strict=True)]
    timing.say(seconds, options["num_timesteps"], metrics["eval/episode_reward"])


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
