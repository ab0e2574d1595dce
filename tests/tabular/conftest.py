"""Experience drawn at random, ways of feeding it, and a task whose values are known, for the tests of this family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import Discrete, Spec, Transition
from rlgen.envs import adapter
from rlgen.sources import rollout


@pytest.fixture(scope="session")
def table_spec():
    """Four states and three actions."""
    return Spec(Discrete(4), Discrete(3))


@pytest.fixture(scope="session")
def experience():
    """24 steps of two environments, `[24, 2]`, in which every step goes on from the last one or from a new start."""
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 4, (25, 2))
    terminated = rng.random((24, 2)) < 0.15
    truncated = (rng.random((24, 2)) < 0.1) & ~terminated
    next_obs = np.where(terminated | truncated, rng.integers(0, 4, (24, 2)), obs[1:])
    action, reward = rng.integers(0, 3, (24, 2)), rng.normal(size=(24, 2)).astype(np.float32)
    leaves = obs[:-1].astype(np.int32), action.astype(np.int32), reward, next_obs.astype(np.int32)
    return Transition(*map(jnp.asarray, (*leaves, terminated, truncated)), {})


@pytest.fixture(scope="session")
def feed():
    """Gives `(module, spec, config, hypers, batch, length=None) -> state`, which learns from `length` steps at a time.

    Without a length all steps are one batch.
    """

    def state_after(module, spec, config, hypers, batch, length=None):
        algorithm = module.build(spec, config)
        state = algorithm.init(jax.random.key(0), hypers)
        update, total = jax.jit(algorithm.update), len(batch.reward)
        length = length or total
        for index in range(total // length):
            piece = jax.tree.map(lambda leaf: leaf[index * length : (index + 1) * length], batch)  # noqa: B023
            state, _ = update(jax.random.key(index), jnp.int32(index), state, piece, hypers)
        return state

    return state_after


@pytest.fixture(scope="session")
def known(probe):
    """`(γ, ε, values [O, A])` of the ε-greedy policy on all probes, solved by iterating the backup."""
    discount, epsilon = 0.5, 0.4
    table = probe._table
    successor = np.asarray(table.successor)
    reward = np.stack([table.reward(jnp.arange(len(successor)), jnp.int32(action)) for action in range(2)], -1)
    q_values = np.zeros(reward.shape)
    for _ in range(100):
        mean = (1 - epsilon) * q_values.max(-1) + epsilon * q_values.mean(-1)
        q_values = reward + discount * np.where(successor < 0, 0, mean[successor])[:, None]
    return discount, epsilon, q_values


@pytest.fixture(scope="session")
def learn_known(probe, train_on):
    """Gives `(module, config, hypers, num_updates) -> values [seeds, O, A]` learned on all probes."""

    def learned(module, config, hypers, num_updates):
        return np.asarray(train_on(module, probe, config, hypers, num_updates, 8)[0].q_values)

    return learned


@pytest.fixture(scope="session")
def make_batch():
    """Gives `(seed, length, num_envs, truncate=0.1) -> Transition` of NumPy `[T, B]` with five states, two actions.

    States and rewards are drawn at random, so that no symmetry hides an error; an episode terminates in a tenth of its
    steps and is truncated in another share of them.
    """

    def make(seed, length, num_envs, truncate=0.1):
        rng = np.random.default_rng(seed)
        path = rng.integers(0, 5, (2, length + 1, num_envs)).astype(np.int32)
        terminated = rng.random((length, num_envs)) < 0.1
        truncated = (rng.random((length, num_envs)) < truncate) & ~terminated
        next_obs = np.where(terminated | truncated, path[1, 1:], path[0, 1:])  # after an end a new episode starts
        action = rng.integers(0, 2, (length, num_envs)).astype(np.int32)
        reward = rng.normal(size=(length, num_envs)).astype(np.float32)
        return Transition(path[0, :-1], action, reward, next_obs, terminated, truncated, {})

    return make


@pytest.fixture(scope="session")
def train_on():
    """Gives `(module, native, config, hypers, num_updates, num_seeds) -> (state, metrics)`, leaves `[seeds, ...]`.

    The state is the algorithm's; metrics are averaged over the updates.
    """

    def trained(module, native, config, hypers, num_updates, num_seeds):
        env = adapter.make(native)
        source = rollout.build(env, num_envs=config.num_envs, length=config.rollout_length)
        run = train.make(module.build(env.spec, config), source)

        def one(key):
            start = run.init(key, hypers)
            state, report = train.window(run)(key, jnp.int32(0), jnp.int32(num_updates), start, hypers)
            return state.algorithm, report.metrics

        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num_seeds))

    return trained
