"""Times rejax (github.com/keraJLi/rejax) at settings that are given.

Run by a Python that has rejax and gymnax 0.0.9::

    python -m benchmarks.peers.rejax sac '{"seeds": 16, "env": "Pendulum-v1", "total_timesteps": 20000}'

It prints one line of JSON.  Its evaluation is left out of training and done once after it, so that training alone is
timed; the final return is that of this evaluation.
"""

import json
import sys

import jax
from rejax import get_algo

from benchmarks.peers import timing


def main(name, options):
    """Compiles, runs, and prints what it took."""
    seeds = options.pop("seeds", 1)
    steps = options["total_timesteps"]
    algorithm = get_algo(name).create(**{"eval_freq": steps, "skip_initial_evaluation": True, **options})
    unseen = algorithm.replace(eval_callback=lambda algorithm, state, key: ())

    def train(key):
        return unseen.train(key)[0]

    def score(state):
        _, returns = algorithm.eval_callback(algorithm, state, state.rng)
        return returns.mean()

    seconds, states = timing.phases(*timing.seeded(train, seeds))
    timing.say(seconds, seeds * steps, jax.jit(jax.vmap(score) if seeds > 1 else score)(states))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
