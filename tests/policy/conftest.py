"""Three learners on a probe, and whether they found what is known of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.envs import adapter
from rlgen.parts import actor_critic
from rlgen.sources import rollout

DISCOUNT = 0.5  # of every probe here


@pytest.fixture(scope="session")
def trained():
    """Trains three learners: `trained(algorithm, probe, config, hypers, num_updates, read)`.

    `read` says of parameters what they would do and what they expect, `(action, *values)`; left out, the mode of an
    `ActorCritic` and its value.  Gives that, `[3, O, ...]`, and the metrics of all updates, `[3, num_updates]`.
    """

    def train_three(algorithm, probe, config, hypers, num_updates, read=None):
        env = adapter.make(probe)
        source = rollout.build(env, num_envs=config.num_envs, length=config.rollout_length)
        run = train.make(algorithm.build(env.spec, config), source)
        network, hypers = actor_critic.make(env.spec, config), hypers._replace(discount=DISCOUNT)

        def mode_and_value(params):
            actor, value = network.apply(params, probe.observations)
            return actor.mode(), value

        @jax.jit
        @jax.vmap
        def learned(key):
            def body(state, step):
                state, report = run.update(key, step, state, hypers)
                return state, report.metrics

            state, metrics = jax.lax.scan(body, run.init(key, hypers), jnp.arange(num_updates, dtype=jnp.int32))
            return (read or mode_and_value)(state.algorithm.learner.params), metrics

        return learned(jax.random.split(jax.random.key(0), 3))

    return train_three


@pytest.fixture(scope="session")
def solved():
    """Checks the best actions, and the values if any are given: `solved(probe, action, *values, atol=0.1)`."""

    def check(probe, action, *values, atol=0.1):
        for value in values:
            np.testing.assert_allclose(value, np.broadcast_to(probe.values(DISCOUNT), value.shape), atol=atol)
        if np.issubdtype(action.dtype, np.floating):
            np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=atol)
            return
        right = np.asarray(action) == probe.best_actions
        if probe.best_actions.ndim == 1:  # an action matters only where another one earns less
            worse = probe.action_values(DISCOUNT, 1 - probe.best_actions) < probe.values(DISCOUNT)
            assert worse.any()
            right = right[:, worse]
        assert right.all()

    return check
