"""Thompson sampling: posteriors against Bayes' rule on a grid, draws against SciPy, and how arms are chosen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, bandits
from rlgen.sources import rollout
from rlgen.tabular import thompson

SPEC = Spec(Discrete(2), Discrete(2))
STATE = thompson.State(jnp.array([[3.0, 1.0], [0.0, 6.0]]), jnp.array([[4, 2], [0, 9]]))
HYPERS = {
    "gaussian": thompson.Hypers(prior_mean=0.5, prior_weight=0.7, exploration=1.5),
    "bernoulli": thompson.Hypers(prior_mean=0.3, prior_weight=3.0, exploration=1.0),
}


def transitions(obs, action, reward):
    obs = jnp.asarray(obs)
    flags = jnp.zeros(obs.shape, bool)
    return Transition(obs, jnp.asarray(action), jnp.asarray(reward, jnp.float32), obs, flags, flags, {})


def posterior(state, at, hypers, rewards):
    """SciPy's distribution of what an arm is worth."""
    total, count = (float(leaf[at]) for leaf in state)
    mean, weight, spread = hypers
    if rewards == "gaussian":
        return scipy.stats.norm((weight * mean + total) / (weight + count), spread / np.sqrt(weight + count))
    good, bad = weight * mean + total, weight * (1 - mean) + count - total
    return scipy.stats.beta(good / spread**2, bad / spread**2)


def draws(state, at, hypers, rewards, num=2000):
    mean = jnp.full(num, thompson.posterior_mean(state, hypers)[at])
    weight = jnp.full(num, hypers.prior_weight + state.counts[at])
    return thompson.draw(jax.random.key(0), mean, weight, hypers.exploration, rewards)


@pytest.mark.parametrize("rewards", thompson.REWARDS)
def test_posterior_is_that_of_bayes_rule(rewards):
    seen, hypers = np.array([1.0, 0.0, 1.0, 1.0]), HYPERS[rewards]
    if rewards == "gaussian":
        value = np.linspace(-12, 12, 20001)
        prior = scipy.stats.norm(hypers.prior_mean, hypers.exploration / np.sqrt(hypers.prior_weight)).logpdf(value)
        likelihood = scipy.stats.norm(value[:, None], hypers.exploration).logpdf(seen)
    else:
        value = np.linspace(0, 1, 20003)[1:-1]
        good, bad = hypers.prior_weight * hypers.prior_mean, hypers.prior_weight * (1 - hypers.prior_mean)
        prior = scipy.stats.beta(good, bad).logpdf(value)
        likelihood = scipy.stats.bernoulli(value[:, None]).logpmf(seen)
    density = np.exp(prior + likelihood.sum(-1))
    density /= density.sum()
    mean = density @ value
    deviation = np.sqrt(density @ (value - mean) ** 2)
    algorithm = thompson.build(SPEC, thompson.Config(rewards=rewards))
    state = algorithm.init(jax.random.key(0), hypers)
    batch = transitions(np.ones((2, 2), int), np.zeros((2, 2), int), seen.reshape(2, 2))
    state, metrics = algorithm.update(jax.random.key(0), jnp.int32(0), state, batch, hypers)
    np.testing.assert_allclose(thompson.posterior_mean(state, hypers)[1, 0], mean, rtol=1e-4)
    known = posterior(state, (1, 0), hypers, rewards)
    np.testing.assert_allclose([known.mean(), known.std()], [mean, deviation], rtol=1e-4)
    assert scipy.stats.kstest(draws(state, (1, 0), hypers, rewards), known.cdf).pvalue > 0.01
    np.testing.assert_allclose(metrics, [np.abs(seen - hypers.prior_mean).mean(), hypers.prior_mean], rtol=1e-6)


@pytest.mark.parametrize("spread", [0.5, 2.0])
@pytest.mark.parametrize("rewards", thompson.REWARDS)
def test_spread_scales_the_deviation_and_leaves_the_mean(rewards, spread):
    hypers = HYPERS[rewards]._replace(exploration=spread)
    known = posterior(STATE, (0, 0), hypers, rewards)
    assert scipy.stats.kstest(draws(STATE, (0, 0), hypers, rewards), known.cdf).pvalue > 0.01
    np.testing.assert_allclose(known.mean(), thompson.posterior_mean(STATE, hypers)[0, 0], rtol=1e-6)


def test_rewards_add_up_by_observation_and_action_in_any_order():
    algorithm = thompson.build(SPEC, thompson.Config())
    generator = np.random.default_rng(0)
    obs, action, reward = generator.integers(2, size=30), generator.integers(2, size=30), generator.normal(size=30)
    batch = jax.tree.map(lambda leaf: leaf.reshape(5, 6), transitions(obs, action, reward))
    state, _ = algorithm.update(jax.random.key(0), jnp.int32(0), STATE, batch, thompson.Hypers())
    for at in np.ndindex(2, 2):
        seen = reward[(obs == at[0]) & (action == at[1])]
        np.testing.assert_allclose(state.total_rewards[at] - STATE.total_rewards[at], seen.sum(), atol=1e-5)
        assert state.counts[at] - STATE.counts[at] == len(seen)


@pytest.mark.parametrize("rewards", thompson.REWARDS)
def test_arms_are_chosen_as_often_as_they_may_be_best(rewards):
    hypers, num = HYPERS[rewards], 6000
    algorithm = thompson.build(SPEC, thompson.Config(rewards=rewards))
    policy = algorithm.policy(jnp.int32(0), STATE, hypers, explore=True)
    action, extras, memory = jax.jit(policy.apply)(jax.random.key(0), jnp.tile(jnp.arange(2), (num, 1)), ())
    assert (action.dtype, extras, memory) == (jnp.int32, {}, ())
    for which in range(2):
        low, high = (posterior(STATE, (which, arm), hypers, rewards) for arm in range(2))
        chance = low.expect(high.sf, epsabs=1e-6)
        assert scipy.stats.binomtest(int(action[:, which].sum()), num, float(chance)).pvalue > 0.01


def test_without_exploring_the_best_mean_is_taken():
    algorithm = thompson.build(SPEC, thompson.Config())
    state = STATE._replace(total_rewards=jnp.array([[3.0, 1.0], [0.0, 0.0]]), counts=jnp.array([[4, 2], [3, 3]]))
    policy = algorithm.policy(jnp.int32(0), state, thompson.Hypers(), explore=False)
    action = policy.apply(jax.random.key(0), jnp.tile(jnp.arange(2), (2000, 1)), ())[0]
    assert (action[:, 0] == 0).all()
    assert scipy.stats.binomtest(int(action[:, 1].sum()), 2000, 0.5).pvalue > 0.01


def test_a_prior_that_is_sure_draws_what_it_is_sure_of():
    hypers = thompson.Hypers(prior_mean=1.0, prior_weight=2.0)
    state = jax.tree.map(jnp.zeros_like, STATE)
    np.testing.assert_allclose(draws(state, (0, 0), hypers, "bernoulli"), 1.0, atol=1e-6)


@pytest.mark.parametrize("rewards", thompson.REWARDS)
def test_without_a_spread_it_is_greedy(rewards):
    algorithm = thompson.build(SPEC, thompson.Config(rewards=rewards))
    state = thompson.State(jnp.array([[1.0, 3.0], [2.0, 2.0]]), jnp.array([[4, 4], [3, 3]]))
    for spread in (0.0, 1e-30):
        hypers = HYPERS[rewards]._replace(exploration=spread)
        mean = thompson.posterior_mean(state, hypers)[0, 1]
        np.testing.assert_allclose(draws(state, (0, 1), hypers, rewards), mean, rtol=1e-6)
        policy = algorithm.policy(jnp.int32(0), state, hypers, explore=True)
        action = policy.apply(jax.random.key(0), jnp.tile(jnp.arange(2), (2000, 1)), ())[0]
        assert (action[:, 0] == 1).all()
        assert scipy.stats.binomtest(int(action[:, 1].sum()), 2000, 0.5).pvalue > 0.01


@functools.partial(jax.jit, static_argnums=(0, 1))
def late_shares(kind, num):
    """How often the best of four arms is pulled in the last 29 of 100 steps, `[num]`."""
    env = adapter.make(bandits.Bandit(4, kind=kind))
    algorithm = thompson.build(env.spec, thompson.Config(rewards=kind))
    run = train.make(algorithm, rollout.build(env, num_envs=1, length=1))
    hypers = thompson.Hypers() if kind == "gaussian" else thompson.Hypers(prior_mean=0.5, prior_weight=2.0)

    def share(key):
        def advanced(state, step):
            state, _ = run.update(key, step, state, hypers)
            return state, state.algorithm.counts[0]

        state = run.init(key, hypers)
        best = state.source.env.values.argmax(-1)[0]
        _, counts = jax.lax.scan(advanced, state, jnp.arange(100))
        return (counts[-1] - counts[70])[best] / 29

    return jax.vmap(share)(jax.random.split(jax.random.key(0), num))


@pytest.mark.parametrize("kind", thompson.REWARDS)
def test_the_best_arm_is_found(kind):
    assert late_shares(kind, 40).mean() > 0.6


@pytest.mark.parametrize("spec", [Spec(Box((1,)), Discrete(2)), Spec(Discrete(2), Box((1,)))])
def test_what_is_no_table_is_refused(spec):
    with pytest.raises(ValueError, match="needs a table"):
        thompson.build(spec, thompson.Config())


def test_unknown_rewards_are_refused():
    with pytest.raises(ValueError, match="not among"):
        thompson.build(SPEC, thompson.Config(rewards="poisson"))
