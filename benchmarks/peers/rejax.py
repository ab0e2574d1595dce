"""Times rejax (github.com/keraJLi/rejax) at settings that are given.

Run by a Python that has rejax and gymnax 0.0.9::

    python -m benchmarks.peers.rejax sac '{"seeds": 16, "env": "Pendulum-v1", "total_timesteps": 20000}'

It prints one line of JSON.  Its evaluation in mid-run is put off to the end, so that training alone is timed; the final
return is that of one evaluation after the last step.
"""

import json
import sys

from rejax import get_algo

from benchmarks.peers import timing


def main(name, options):
    """Compiles, runs, and prints what it took."""
    seeds = options.pop("seeds", 1)
    steps = options["total_timesteps"]
    algorithm = get_algo(name).create(**{"eval_freq": steps, "skip_initial_evaluation": True, **options})

    def run(key):
        _, (_, returns) = algorithm.train(key)
        return returns[-1].mean()

    seconds, result = timing.phases(*timing.seeded(run, seeds))
    timing.say(seconds, seeds * steps, result)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
