"""Generations: fitness and moments against a plain loop, episodes that end early, and who plays where."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Policy
from rlgen.envs import adapter, probes
from rlgen.evolution import ars
from rlgen.experiments import population_tasks
from rlgen.parts import controllers
from rlgen.sources import population, rollout

CANDIDATES, EPISODES, LENGTH = 4, 3, 30
CARTPOLE = adapter.make("CartPole-v1", max_steps_in_episode=40)


def made(spec, **config):
    fields = {"hidden_sizes": (), "activation": "tanh", "normalise_observations": False}
    return controllers.make_controller(spec, types.SimpleNamespace(**(fields | config)))


CONTROLLER = made(CARTPOLE.spec)
# The last one balances for longer than a generation lasts, the others fall.
VECTORS = jnp.concatenate(
    [jax.random.normal(jax.random.key(2), (CANDIDATES - 1, 8)), jnp.array([[0, 0, 0, 0.1, 0, 1, 0, 1.0]])]
)


def played(env, policy, seed=0, **plan):
    source = population.build(env, **plan)
    next_batch = jax.jit(lambda key: source.next(key, jnp.int32(0), source.init(key, policy), policy))
    state, batch, stats = next_batch(jax.random.key(seed))
    assert state == ()
    return batch, stats


@pytest.fixture(scope="module")
def generation():
    """A generation on CartPole, and the same by a loop: `(batch, stats, returns [N, P], observations)`."""
    policy = controllers.together(VECTORS, (), controller=CONTROLLER)
    plan = {"num_candidates": CANDIDATES, "num_episodes": EPISODES, "max_steps": LENGTH, "observe": True}
    batch, stats = played(CARTPOLE, policy, seed=7, **plan)
    # CartPole draws nothing but its start.
    start, first = CARTPOLE.reset(jax.random.split(jax.random.key(7))[0], CANDIDATES * EPISODES)
    native_step = jax.jit(CARTPOLE.native.step_env)
    returns, seen = np.zeros((EPISODES, CANDIDATES)), []
    for place in range(CANDIDATES * EPISODES):
        state, obs = jax.tree.map(lambda leaf, place=place: leaf[place], (start, first))
        kernel = np.asarray(VECTORS[place % CANDIDATES]).reshape(4, 2)
        for _ in range(LENGTH):
            seen.append(np.asarray(obs))
            action = jnp.int32(np.argmax(seen[-1] @ kernel))
            obs, state, reward, terminated, _ = native_step(jax.random.key(0), state, action, CARTPOLE.params)
            returns[divmod(place, CANDIDATES)] += reward
            if terminated:
                break
    return batch, stats, returns, np.array(seen)


def test_fitness_is_the_mean_return_of_a_candidates_episodes(generation):
    batch, stats, returns, _ = generation
    np.testing.assert_allclose(batch.fitness, returns.mean(0))
    assert (returns[:, -1] == LENGTH).all()
    assert len(set(returns[returns < LENGTH])) > 3
    expected = (CANDIDATES * EPISODES, returns.sum(), returns.sum())  # a reward of 1 a step
    np.testing.assert_allclose(stats, expected)
    assert all(leaf.dtype == jnp.float32 for leaf in (*stats, batch.fitness))


def test_moments_are_those_of_all_observations_acted_upon(generation):
    batch, stats, _, seen = generation
    assert float(batch.observations.weight) == float(stats.total_length) == len(seen)
    np.testing.assert_allclose(batch.observations.mean, seen.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(batch.observations.variance, seen.var(0), rtol=1e-4)


def nothing(env):
    controller = made(env.spec)
    return controllers.together(jnp.zeros((2, 2)), (), controller=controller)


@pytest.mark.parametrize(
    ("probe", "max_steps", "length"),
    [
        (probes.terminated(4), None, 4),
        (probes.terminated(4), 3, 3),
        (probes.truncated(4), 9, 4),
        (probes.truncated(4), 2, 2),
        (probes.constant_reward(), 5, 1),
    ],
)
def test_an_episode_counts_once_and_to_its_end(probe, max_steps, length):
    env = adapter.make(probe)
    batch, stats = played(env, nothing(env), num_candidates=2, num_episodes=3, max_steps=max_steps)
    np.testing.assert_allclose(batch.fitness, [length, length])
    np.testing.assert_allclose(stats, [6, 6 * length, 6 * length])
    assert batch.observations == ()


def test_an_observation_is_true_to_its_step():
    """The last observation of an episode is acted upon, the one after it is not."""
    env = adapter.make(probes.terminated(4))  # observes 0, 1/4, 1/2 and 3/4
    batch, _ = played(env, nothing(env), num_candidates=2, observe=True)
    np.testing.assert_allclose(np.stack(batch.observations[:2]), [[3 / 8], [5 / 64]], rtol=1e-6)
    assert float(batch.observations.weight) == 8


@pytest.mark.parametrize("constant", [0.0, 3.3, 333.3])
def test_what_never_changes_has_no_variance(constant):
    def reset(*args):
        state, obs = CARTPOLE.reset(*args)
        return state, jnp.full_like(obs, constant)

    def step(*args):
        state, time_step = CARTPOLE.step(*args)
        return state, time_step._replace(obs=jnp.full_like(time_step.obs, constant))

    still = CARTPOLE._replace(reset=reset, step=step)
    policy = controllers.together(VECTORS, (), controller=CONTROLLER)
    plan = {"num_candidates": CANDIDATES, "num_episodes": EPISODES, "max_steps": LENGTH, "observe": True}
    batch, _ = played(still, policy, **plan)
    np.testing.assert_array_equal(batch.observations.mean, np.full(4, constant, np.float32))
    np.testing.assert_array_equal(batch.observations.variance, np.zeros(4))


def test_candidates_meet_the_same_starts_where_that_is_wanted():
    pendulum = adapter.make("Pendulum-v1", max_steps_in_episode=5)
    controller = made(pendulum.spec)
    alike = controllers.together(jnp.ones((3, 3)), (), controller=controller)
    for common in (True, False):
        batch, _ = played(pendulum, alike, num_candidates=3, num_episodes=2, common_starts=common)
        assert (np.ptp(batch.fitness) < 1e-4) == common
    first, second = (
        played(pendulum, alike, seed, num_candidates=3, num_episodes=1, common_starts=True)[0].fitness
        for seed in (0, 1)
    )
    assert abs(float(first[0] - second[0])) > 1e-2


def test_keys_are_drawn_anew_every_step():
    env = adapter.make(probes.truncated(8))

    def noise(key, obs, memory):
        drawn = jax.random.bernoulli(key, 0.5, obs.shape[:1]).astype(jnp.int32)
        return drawn, {}, (jnp.roll(memory[0], 1, axis=1).at[:, 0].set(drawn),)

    policy = Policy(memory=lambda shape: (jnp.zeros((*shape, 8), jnp.int32),), apply=noise)
    plan = population.Plan(4, 1, 8, False, False)
    play = population._start(jax.random.key(0), policy, env=env, plan=plan)
    for step in range(8):
        play = population._advance(jax.random.fold_in(jax.random.key(1), step), play, policy, env=env)
    drawn = np.asarray(play.memory[0])
    assert len({tuple(row) for row in drawn}) == 4
    assert 0.2 < drawn.mean() < 0.8


def test_other_sources_run_a_population_too():
    source = rollout.build(CARTPOLE, num_envs=CANDIDATES + 1, length=60)
    policy = controllers.together(VECTORS, (), controller=CONTROLLER)
    collect = jax.jit(lambda key: source.next(key, jnp.int32(0), source.init(key, policy), policy)[1])
    batch = jax.tree.map(np.asarray, collect(jax.random.key(0)))
    kernels = np.asarray(VECTORS).reshape(CANDIDATES, 4, 2)[[0, 1, 2, 3, 0]]
    np.testing.assert_array_equal(batch.action, np.einsum("tbi,bij->tbj", batch.obs, kernels).argmax(-1))
    assert (batch.terminated | batch.truncated).any(0).all()


def test_a_task_counts_the_most_steps_that_a_generation_can_take():
    task = population_tasks.PopulationTask(lambda: CARTPOLE)
    # Without parameters every action is the first one, and every episode ends early.
    policy = controllers.together(jnp.zeros((4, 8)), (), controller=CONTROLLER)
    for max_steps, length in ((30, 30), (1_000, 40)):
        config = ars.Config(num_directions=2, num_evaluations=3, max_steps=max_steps)
        assert task.steps_per_update(config) == 2 * 2 * 3 * length
    source = task.source(config, ())
    _, batch, stats = jax.jit(lambda key: source.next(key, jnp.int32(0), (), policy))(jax.random.key(0))
    assert batch.fitness.shape == (4,)
    assert float(batch.observations.weight) == float(stats.total_length) < 12 * 40
