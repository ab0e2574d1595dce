"""Augmented random search: its four versions by hand, its statistics, evosax's own rule, and what it finds."""

import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen import train
from rlgen.core import Box, Discrete, Spec
from rlgen.envs import adapter, probes
from rlgen.evolution import ars
from rlgen.parts import normalise
from rlgen.sources import population, rollout

HYPERS = ars.Hypers(learning_rate=0.5, sigma=0.1)
SPEC = Spec(Box((2,)), Box((1,), -1.0, 1.0))
PARAMS = np.array([1.0, -1.0])
DIRECTIONS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
RETURNS = np.array([[3.0, 0.0, 5.0], [1.0, 4.0, 5.0]])  # differences 2, −4 and 0; better ends 3, 4 and 5
SEEN = normalise.Moments(jnp.array([1.0, 2.0]), jnp.array([4.0, 0.25]), jnp.float32(10))
MORE = normalise.Moments(jnp.array([2.0, 2.0]), jnp.array([1.0, 0.25]), jnp.float32(30))
# Steps before the learning rate: of all directions, and of the last two, which are the best.
STEPS = {
    None: np.array([2.0, -4.0]) / (3 * np.std([3, 1, 0, 4, 5, 5])),
    2: np.array([0.0, -4.0]) / (2 * np.std([0, 4, 5, 5])),
}


@pytest.mark.parametrize("num_top", STEPS)
@pytest.mark.parametrize("normalised", [False, True])
def test_one_update_by_hand(num_top, normalised):
    """V1, V1-t, V2 and V2-t."""
    config = ars.Config(num_directions=3, num_top=num_top, normalise_observations=normalised)
    algorithm = ars.build(SPEC, config)
    state = ars.State(jnp.asarray(PARAMS), jnp.asarray(DIRECTIONS), SEEN if normalised else ())
    batch = population.Evaluation(jnp.asarray(RETURNS.ravel()), MORE if normalised else ())
    after, metrics = algorithm.update(jax.random.key(0), jnp.int32(0), state, batch, HYPERS)
    np.testing.assert_allclose(after.params, PARAMS + 0.5 * STEPS[num_top], rtol=1e-6)
    kept = RETURNS if num_top is None else RETURNS[:, 1:]
    np.testing.assert_allclose(metrics, [3, 5, kept.std()], rtol=1e-6)
    assert np.abs(after.directions - DIRECTIONS).min() > 0  # drawn anew
    if normalised:
        # 10 values around 1 with variance 4 and 30 around 2 with variance 1; the other element is as it was.
        np.testing.assert_allclose(after.observations.mean, [1.75, 2])
        np.testing.assert_allclose(after.observations.variance, [1.75 + 0.25 * 0.75, 0.25])
        assert float(after.observations.weight) == 40
    else:
        assert after.observations == ()


@pytest.mark.parametrize("normalised", [False, True])
def test_both_ends_of_every_direction_are_tried(normalised):
    config = ars.Config(num_directions=3, normalise_observations=normalised)
    algorithm = ars.build(SPEC, config)
    state = ars.State(jnp.asarray(PARAMS), jnp.asarray(DIRECTIONS), SEEN if normalised else ())
    obs = np.random.default_rng(0).normal([1.0, 2.0], 0.3, (6, 2))
    seen = (obs - [1, 2]) / [2, 0.5] if normalised else obs
    exploring, frozen = (algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore) for explore in (True, False))
    tried = np.concatenate([PARAMS + 0.1 * DIRECTIONS, PARAMS - 0.1 * DIRECTIONS])
    action, _, _ = exploring.apply(jax.random.key(0), jnp.asarray(obs), exploring.memory((6,)))
    np.testing.assert_allclose(action[:, 0], np.clip((tried * seen).sum(1), -1, 1), rtol=1e-5)
    action, _, memory = frozen.apply(jax.random.key(0), jnp.asarray(obs), frozen.memory((6,)))
    expected = np.clip(seen @ PARAMS, -1, 1)
    np.testing.assert_allclose(action[:, 0], expected, rtol=1e-5)
    assert memory == ()
    assert (np.abs(expected) < 1).any()


def test_v1_t_with_all_directions_is_v1():
    returns = jax.random.normal(jax.random.key(0), (2, 6))
    directions = jax.random.normal(jax.random.key(1), (6, 3))
    learned = [
        ars.learn(jnp.zeros(3), ars.Minibatch(directions, returns), HYPERS, num_top=num)[0] for num in (None, 6, 3)
    ]
    np.testing.assert_array_equal(learned[0], learned[1])
    assert np.abs(learned[0] - learned[2]).max() > 1e-2


def test_the_step_does_not_depend_on_the_scale_of_rewards():
    minibatch = ars.Minibatch(jnp.asarray(DIRECTIONS), jnp.asarray(RETURNS))
    scaled = minibatch._replace(returns=1e3 * minibatch.returns - 7)
    first, second = (ars.learn(jnp.asarray(PARAMS), each, HYPERS)[0] for each in (minibatch, scaled))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_equal_returns_are_no_reason_to_move():
    minibatch = ars.Minibatch(jnp.asarray(DIRECTIONS), jnp.full((2, 3), 500.0))
    after, metrics = ars.learn(jnp.asarray(PARAMS), minibatch, HYPERS)
    np.testing.assert_allclose(after, PARAMS)
    np.testing.assert_allclose(metrics, [500, 500, 0])


@pytest.mark.parametrize("num_top", [4, 2])
def test_step_agrees_with_evosax(num_top):
    """Its sign is that of costs."""
    theirs = evosax.algorithms.ARS(
        population_size=8,
        solution=np.zeros(3, np.float32),
        optimizer=optax.sgd(0.5),
        std_schedule=optax.constant_schedule(0.1),
    )
    theirs.elite_ratio = num_top / 4
    mean = jnp.array([0.3, -0.2, 1.0])
    state = theirs.init(jax.random.key(0), mean, theirs.default_params)
    candidates, state = theirs.ask(jax.random.key(1), state, theirs.default_params)
    fitness = jax.random.normal(jax.random.key(2), (8,))
    after, _ = theirs.tell(jax.random.key(3), candidates, -fitness, state, theirs.default_params)
    ours = ars.State(mean, (candidates[:4] - mean) / 0.1, ())
    np.testing.assert_allclose(ars.candidates(ours, HYPERS), candidates, rtol=1e-5, atol=1e-6)
    minibatch = ars.Minibatch(ours.directions, fitness.reshape(2, 4))
    np.testing.assert_allclose(ars.learn(mean, minibatch, HYPERS, num_top=num_top)[0], after.mean, rtol=1e-4)


def test_statistics_are_those_of_all_states_met_since_the_start():
    """Over generations; the policy of each uses those of the generations before."""
    env = adapter.make("CartPole-v1", max_steps_in_episode=12)
    algorithm = ars.build(env.spec, ars.Config(num_directions=3))
    source = population.build(env, num_candidates=6, observe=True)

    @jax.jit
    def generation(key, state):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)
        _, batch, _ = source.next(key, jnp.int32(0), (), policy)
        after, _ = algorithm.update(key, jnp.int32(0), state, batch, HYPERS)
        # The same episodes again, as rollouts, whose observations can be looked at.
        again = rollout.build(env, num_envs=6, length=12)
        env_state, obs = env.reset(jax.random.split(key)[0], 6)
        start = rollout.RolloutState(env_state, obs, policy.memory((6,)), jnp.zeros(6), jnp.zeros(6, jnp.int32))
        return after, again.next(key, jnp.int32(0), start, policy)[1]

    state, met = algorithm.init(jax.random.key(0), HYPERS), []
    for seed in range(3):
        state, played = generation(jax.random.key(seed), state)
        ended = np.cumsum(played.terminated | played.truncated, axis=0)
        first = np.concatenate([np.zeros((1, 6)), ended[:-1]]) == 0
        met.extend(np.asarray(played.obs)[first])
        np.testing.assert_allclose(state.observations.mean, np.mean(met, 0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.sqrt(state.observations.variance), np.std(met, 0), rtol=1e-4)
        assert float(state.observations.weight) == len(met)
    assert len(met) < 3 * 6 * 12


def test_a_linear_policy_starts_at_zero_and_directions_differ_by_seed():
    algorithm = ars.build(SPEC, ars.Config(num_directions=500))
    first, second = (algorithm.init(jax.random.key(seed), HYPERS) for seed in (0, 1))
    np.testing.assert_array_equal(first.params, np.zeros(2))
    assert first.directions.shape == (500, 2)
    assert abs(first.directions.mean()) < 0.1
    assert abs(first.directions.std() - 1) < 0.1
    assert (first.directions != second.directions).all()
    np.testing.assert_array_equal(first.observations.variance, np.ones(2))


@pytest.mark.parametrize("num_top", [None, 3])
def test_a_quadratic_is_climbed(num_top):
    target = jnp.array([1.0, -2.0, 0.5])

    def body(params, key):
        directions = jax.random.normal(key, (8, 3))
        tried = jnp.stack([params + 0.05 * directions, params - 0.05 * directions])
        returns = -jnp.square(tried - target).sum(-1)
        return ars.learn(params, ars.Minibatch(directions, returns), ars.Hypers(0.02), num_top=num_top)[0], None

    climb = jax.jit(lambda key: jax.lax.scan(body, jnp.zeros(3), jax.random.split(key, 400))[0])
    np.testing.assert_allclose(climb(jax.random.key(0)), target, atol=0.05)


def test_more_top_directions_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"config\.num_top=9 is more than the 8 directions"):
        ars.Config(num_top=9)
    with pytest.raises(ValueError, match="has no meaning for observations in Discrete"):
        ars.build(Spec(Discrete(3), Discrete(2)), ars.Config())


def trained(probe, config, hypers, num_updates):
    """What three learners do at every observation of a probe."""
    env = adapter.make(probe)
    source = population.build(
        env,
        num_candidates=config.num_candidates,
        num_episodes=config.num_evaluations,
        common_starts=config.common_starts,
        observe=config.normalise_observations,
    )
    algorithm = ars.build(env.spec, config)
    run = train.make(algorithm, source)

    def learned(key):
        def body(state, step):
            return run.update(key, step, state, hypers)[0], None

        state, _ = jax.lax.scan(body, run.init(key, hypers), jnp.arange(num_updates, dtype=jnp.int32))
        policy = algorithm.policy(jnp.int32(num_updates), state.algorithm, hypers, explore=False)
        return policy.apply(key, probe.observations, ())[0]

    return jax.jit(jax.vmap(learned))(jax.random.split(jax.random.key(0), 3))


@pytest.mark.learning
@pytest.mark.parametrize("num_top", [None, 4])
@pytest.mark.parametrize("normalised", [False, True])
def test_actions_are_learned(num_top, normalised):
    config = ars.Config(num_top=num_top, normalise_observations=normalised, num_evaluations=16)
    probe = probes.continuous_action()
    action = trained(probe, config, ars.Hypers(0.02, 0.05), 200)
    np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=0.1)
    probe = probes.reward_by_observation_and_action()
    action = trained(probe, config, ars.Hypers(0.1, 0.1), 50)
    np.testing.assert_array_equal(action, np.broadcast_to(probe.best_actions, action.shape))


@pytest.mark.learning
def test_all_discrete_situations_are_learned(probe):
    config = ars.Config(normalise_observations=False, num_evaluations=64, num_directions=16)
    action = np.asarray(trained(probe, config, ars.Hypers(0.1, 0.1), 100))
    worse = probe.action_values(0.5, 1 - probe.best_actions) < probe.values(0.5)
    assert worse.any()
    assert (action == probe.best_actions)[:, worse].all()
