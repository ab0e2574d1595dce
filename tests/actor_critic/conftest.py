"""Three learners on a probe of continuous or of two actions."""

import jax
import jax.numpy as jnp
import pytest

from rlgen import train
from rlgen.envs import adapter
from rlgen.sources import rollout


@pytest.fixture(scope="session")
def acted():
    """Trains and asks: `acted(algorithm, probe, config, hypers, num_updates)` gives actions `[3, O, ...]`."""

    def train_three(algorithm, probe, config, hypers, num_updates):
        env = adapter.make(probe)
        built = algorithm.build(env.spec, config)
        run = train.make(built, rollout.build(env, num_envs=config.num_envs, length=config.rollout_length))

        @jax.jit
        @jax.vmap
        def learned(key):
            state, _ = train.scan(run, num_updates)(key, jnp.int32(0), run.init(key, hypers), hypers)
            policy = built.policy(jnp.int32(num_updates), state.algorithm, hypers, explore=False)
            return policy.apply(key, probe.observations, policy.memory((len(probe.observations),)))[0]

        return learned(jax.random.split(jax.random.key(0), 3))

    return train_three
