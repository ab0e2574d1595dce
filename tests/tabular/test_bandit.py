"""Action values of bandits: updates by hand, what each rule chooses, and the test bed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, bandits, probes
from rlgen.sources import rollout
from rlgen.tabular import bandit

RUNS = 200
SPEC = Spec(Discrete(2), Discrete(3))
STATE = bandit.State(jnp.array([[1.0, 2.0, 0.0], [4.0, 4.0, -4.0]]), jnp.array([[2, 1, 1], [3, 5, 0]]))


def transitions(obs, action, reward):
    obs = jnp.asarray(obs)
    flags = jnp.zeros(obs.shape, bool)
    return Transition(obs, jnp.asarray(action), jnp.asarray(reward, jnp.float32), obs, flags, flags, {})


def chosen(config, state, hypers, *, explore=True, num=6000):
    """Actions at the two observations, `[num, 2]`."""
    policy = bandit.build(SPEC, config).policy(jnp.int32(0), state, hypers, explore=explore)
    obs = jnp.tile(jnp.arange(2), (num, 1))
    action, extras, memory = jax.jit(policy.apply)(jax.random.key(0), obs, policy.memory(obs.shape))
    assert (action.dtype, extras, memory) == (jnp.int32, {}, ())
    return np.asarray(action)


def frequencies_are(action, expected):
    expected = np.asarray(expected, float)
    observed, possible = np.bincount(action, minlength=3), expected > 0
    assert observed[~possible].sum() == 0
    if possible.sum() == 1:
        return True
    return scipy.stats.chisquare(observed[possible], len(action) * (expected / expected.sum())[possible]).pvalue > 0.01


@functools.partial(jax.jit, static_argnums=0)
def counts_after(rule, num, hypers):
    """How often each of ten Gaussian arms was pulled in `num` steps, `[RUNS, A]`, and which is the best, `[RUNS]`."""
    env = adapter.make(bandits.Bandit(10))
    algorithm = bandit.build(env.spec, bandit.Config(exploration=rule))
    run = train.make(algorithm, rollout.build(env, num_envs=1, length=1))

    def one(key):
        start = run.init(key, hypers)
        end, _ = train.window(run)(key, jnp.int32(0), jnp.int32(num), start, hypers)
        return end.algorithm.counts[0], start.source.env.values[0].argmax()

    return jax.vmap(one)(jax.random.split(jax.random.key(0), RUNS))


@pytest.mark.parametrize(("step_size", "used"), [(0.0, 1 / 3), (0.25, 0.25), (1.0, 1.0)])
def test_one_update_by_hand(step_size, used):
    state, metrics = bandit.learn(STATE, transitions(0, 0, 7.0), bandit.Hypers(step_size=step_size))
    np.testing.assert_allclose(state.q_values, [[1 + used * 6, 2, 0], [4, 4, -4]])
    np.testing.assert_array_equal(state.counts, [[3, 1, 1], [3, 5, 0]])
    np.testing.assert_allclose(metrics, [6, 1])


@pytest.mark.parametrize("shape", [(12, 1), (3, 4)])
def test_values_are_averages_or_fade_with_age_whatever_the_batch(shape):
    generator = np.random.default_rng(0)
    obs, action, reward = generator.integers(2, size=12), generator.integers(3, size=12), generator.normal(size=12)
    batch = jax.tree.map(lambda leaf: leaf.reshape(shape), transitions(obs, action, reward))
    algorithm = bandit.build(SPEC, bandit.Config())
    for step_size in (0.0, 0.3):
        hypers = bandit.Hypers(step_size=step_size, initial_value=5.0)
        start = algorithm.init(jax.random.key(0), hypers)
        state, _ = algorithm.update(jax.random.key(0), jnp.int32(0), start, batch, hypers)
        for at in np.ndindex(2, 3):
            seen = reward[(obs == at[0]) & (action == at[1])]
            faded = 0.7 ** len(seen) * 5 + (0.3 * 0.7 ** np.arange(len(seen))[::-1] * seen).sum()
            expected = faded if step_size or not len(seen) else seen.mean()
            np.testing.assert_allclose(state.q_values[at], expected, rtol=1e-5)
            assert state.counts[at] == len(seen)


def test_epsilon_greedy_takes_all_the_best_alike():
    action = chosen(bandit.Config(), STATE, bandit.Hypers(exploration=0.3))
    assert frequencies_are(action[:, 0], [0.1, 0.8, 0.1])
    assert frequencies_are(action[:, 1], [0.45, 0.45, 0.1])


@pytest.mark.parametrize("rule", bandit.EXPLORATIONS)
def test_without_exploring_it_is_greedy(rule):
    asked = chosen(bandit.Config(exploration=rule), STATE, bandit.Hypers(exploration=3.0), explore=False)
    assert frequencies_are(asked[:, 0], [0, 1, 0])
    assert frequencies_are(asked[:, 1], [0.5, 0.5, 0])
    if rule != "ucb":
        still = chosen(bandit.Config(exploration=rule), STATE, bandit.Hypers(exploration=0.0))
        assert frequencies_are(still[:, 0], [0, 1, 0])
        assert frequencies_are(still[:, 1], [0.5, 0.5, 0])


def test_boltzmann_draws_from_a_softmax():
    action = chosen(bandit.Config(exploration="boltzmann"), STATE, bandit.Hypers(exploration=2.0))
    weight = np.exp(np.asarray(STATE.q_values[0]) / 2)
    assert frequencies_are(action[:, 0], weight / weight.sum())


@pytest.mark.parametrize(("confidence", "best"), [(0.0, 1), (1.0, 1), (10.0, 2)])
def test_ucb_takes_the_largest_bound_and_the_untried_first(confidence, best):
    # At observation 0, `ln 4 = 1.39`: bounds 1 + .83 c, 2 + 1.18 c and 0 + 1.18 c, less one where tried once more.
    state = STATE._replace(counts=jnp.array([[2, 3, 1], [3, 5, 0]]))
    action = chosen(bandit.Config(exploration="ucb"), state, bandit.Hypers(exploration=confidence), num=10)
    assert (action == [best, 2]).all()


def test_an_optimistic_start_tries_every_arm_before_it_comes_back():
    hypers = bandit.Hypers(step_size=0.1, initial_value=50.0, exploration=0.0)
    first, once, twice = (np.asarray(counts_after("epsilon_greedy", num, hypers)[0]) for num in (1, 10, 20))
    assert len(set(first.argmax(-1))) > 5
    assert (once == 1).all()
    assert (twice == 2).all()


def test_contexts_are_told_apart():
    env = adapter.make(probes.reward_by_observation_and_action(tabular=True))
    algorithm = bandit.build(env.spec, bandit.Config())
    run = train.make(algorithm, rollout.build(env, num_envs=4, length=2))
    hypers = bandit.Hypers(exploration=1.0)

    @jax.jit
    def trained(key):
        return train.window(run)(key, jnp.int32(0), jnp.int32(20), run.init(key, hypers), hypers)[0]

    state = trained(jax.random.key(0))
    np.testing.assert_array_equal(state.algorithm.q_values, [[1, -1], [-1, 1]])
    assert state.algorithm.counts.sum() == 160


def test_exploring_finds_the_best_arm_of_the_test_bed_more_often():
    shares = []
    for rule, exploration in (("epsilon_greedy", 0.0), ("epsilon_greedy", 0.1), ("ucb", 2.0)):
        hypers = bandit.Hypers(exploration=exploration)
        counts, best = (np.asarray(leaf) for leaf in counts_after(rule, 300, hypers))
        shares.append(counts[np.arange(RUNS), best].mean() / 300)
    greedy, tenth, bound = shares
    # Of all 300 steps; four standard errors are about .1.
    assert 0.25 < greedy < 0.48 < tenth < 0.72
    assert 0.48 < bound < 0.72


@pytest.mark.parametrize("spec", [Spec(Box((1,)), Discrete(2)), Spec(Discrete(2), Box((1,)))])
def test_what_is_no_table_is_refused(spec):
    with pytest.raises(ValueError, match="needs a table"):
        bandit.build(spec, bandit.Config())


def test_an_unknown_exploration_is_refused():
    with pytest.raises(ValueError, match="not among"):
        bandit.build(SPEC, bandit.Config(exploration="softmax"))
