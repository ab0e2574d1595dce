"""n-step TD: the book's updates one by one, TD(0) and Monte Carlo at its ends, importance ratios, and the figure."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Discrete, Spec, Transition
from rlgen.envs import adapter, tables
from rlgen.parts import prediction
from rlgen.sources import rollout
from rlgen.tabular import monte_carlo, n_step_td

SPEC = Spec(Discrete(5), Discrete(2))
HYPERS = n_step_td.Hypers(learning_rate=0.3, discount=0.9, initial_value=0.5, num_steps=3.0)
POLICIES = {"on": ((), ()), "off": ((0.3, 0.7), (0.8, 0.2)), "zero": ((0.5, 0.5), (0.0, 1.0))}
REFERENCE = (0.1, -0.2, 0.3)


@functools.cache
def build(policies="on", num_envs=1, reference=(), num_episodes=0):
    behaviour, target = POLICIES[policies]
    config = n_step_td.Config(
        num_envs, behaviour=behaviour, target=target, reference=reference, num_episodes=num_episodes
    )
    algorithm = n_step_td.build(SPEC, config)
    return algorithm, jax.jit(algorithm.update)


def run(batch, hypers, **config):
    algorithm, update = build(**config)
    state = algorithm.init(jax.random.key(0), hypers)
    state, metrics = update(jax.random.key(0), jnp.int32(0), state, batch, hypers)
    return np.asarray(state.values), float(metrics.error)


def textbook(batch, hypers, ratios=(1.0, 1.0)):
    """The sequence of updates in plain loops, and the values after each of them."""
    values, seen = np.full(5, hypers.initial_value), []
    length, num_envs = batch.reward.shape
    for env in range(num_envs):
        for start in range(length):
            goal, weight, power = 0.0, 1.0, 1.0
            for time in range(start, min(start + int(hypers.num_steps), length)):
                goal += power * batch.reward[time, env]
                power *= hypers.discount
                weight *= ratios[batch.action[time, env]]
                if batch.terminated[time, env] or batch.truncated[time, env]:
                    break
            if not batch.terminated[time, env]:
                goal += power * values[batch.next_obs[time, env]]
            state = batch.obs[start, env]
            values[state] += hypers.learning_rate * weight * (goal - values[state])
            seen.append(values.copy())
    return values, np.array(seen).reshape(num_envs, length, 5)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 64, 512])
def test_updates_are_the_books(make_batch, num_steps):
    hypers = HYPERS._replace(num_steps=float(num_steps))
    batch = make_batch(num_steps, 60, 2)
    np.testing.assert_allclose(run(batch, hypers, num_envs=2)[0], textbook(batch, hypers)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("policies", "ratios"), [("off", (8 / 3, 2 / 7)), ("zero", (0.0, 2.0))])
@pytest.mark.parametrize("num_steps", [1, 3, 64])
def test_importance_ratios_multiply_over_the_window(make_batch, policies, ratios, num_steps):
    hypers = HYPERS._replace(num_steps=float(num_steps), learning_rate=0.05)
    batch = make_batch(num_steps, 60, 2)
    expected = textbook(batch, hypers, ratios)[0]
    assert np.abs(expected).max() < 100  # where products are large, rounding would hide an error
    np.testing.assert_allclose(run(batch, hypers, policies=policies, num_envs=2)[0], expected, rtol=1e-3, atol=1e-4)


def test_long_products_of_ratios_neither_overflow_nor_lose_a_zero(make_batch):
    """A power of one ratio may be infinite where the product over the window is moderate, or zero."""
    stream = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, 0], make_batch(0, 600, 1))
    never = jnp.zeros(600, bool)
    stream = stream._replace(terminated=never, truncated=never, action=jnp.arange(600) % 2)
    for target, expected in (((0.8, 0.2), 1.0), ((1.0, 0.0), 0.0)):
        policies = prediction.Policies((0.2, 0.8), target)
        ratio = n_step_td.windows(stream, jnp.int32(240), jnp.float32(1.0), policies).ratio
        np.testing.assert_allclose(ratio[:300], expected, rtol=1e-3)


def test_td0_by_hand():
    batch = Transition(
        *(jnp.array(leaf)[:, None] for leaf in ([0, 1, 0], [0, 0, 0], [1.0, 2.0, 3.0], [1, 2, 1])),
        jnp.array([[False], [True], [False]]),
        jnp.zeros((3, 1), bool),
        {},
    )
    hypers = n_step_td.Hypers(learning_rate=0.5, discount=0.5, initial_value=4.0, num_steps=1.0)
    zero = 4 + 0.5 * (1 + 0.5 * 4 - 4)
    one = 4 + 0.5 * (2 - 4)
    zero += 0.5 * (3 + 0.5 * one - zero)
    got, error = run(batch, hypers)
    np.testing.assert_allclose(got, [zero, one, 4, 4, 4])
    np.testing.assert_allclose(error, np.mean([1, 2, 3 + 0.5 * 3 - 3.5]))


def test_whole_episodes_are_constant_alpha_monte_carlo():
    # Where no state is visited twice in an episode, first and every visit are one.
    obs = np.array([0, 1, 2, 3, 4, 2, 0, 3], np.int32)[:, None]
    reward = np.random.default_rng(0).normal(size=(8, 1)).astype(np.float32)
    ends = np.isin(np.arange(8), [3, 7])[:, None]
    batch = Transition(obs, np.zeros_like(obs), reward, np.roll(obs, -1), ends, np.zeros_like(ends), {})
    algorithm = monte_carlo.build(SPEC, monte_carlo.Config())
    hypers = monte_carlo.Hypers(0.3, step_exponent=0.0, discount=0.9, initial_value=0.5)
    state = algorithm.init(jax.random.key(0), hypers)
    state, _ = algorithm.update(jax.random.key(0), jnp.int32(0), state, batch, hypers)
    got, _ = run(batch, HYPERS._replace(num_steps=512.0))
    np.testing.assert_allclose(got, state.values, rtol=1e-5)


def test_whole_episodes_are_every_visit_constant_alpha_monte_carlo(make_batch):
    batch = make_batch(0, 80, 1, truncate=0)
    batch.terminated[-1] = True
    values, goals = np.full(5, 0.5), np.zeros(81)
    for t in reversed(range(80)):
        goals[t] = batch.reward[t, 0] + 0.9 * goals[t + 1] * (not batch.terminated[t, 0])
    for state, goal in zip(batch.obs[:, 0], goals, strict=False):
        values[state] += 0.3 * (goal - values[state])
    np.testing.assert_allclose(run(batch, HYPERS._replace(num_steps=512.0))[0], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_episodes", [0, 2])
def test_error_is_that_at_the_ends_of_episodes(make_batch, num_episodes):
    batch = make_batch(1, 60, 2)
    _, error = run(batch, HYPERS, num_envs=2, reference=REFERENCE, num_episodes=num_episodes)
    ends = (batch.terminated | batch.truncated).T
    at_ends = textbook(batch, HYPERS)[1][ends][: num_episodes or None, :3]
    assert len(at_ends) > 2 or num_episodes
    np.testing.assert_allclose(error, np.sqrt(np.square(at_ends - REFERENCE).mean(-1)).mean(), rtol=1e-4)


def test_number_of_steps_is_rounded_and_bounded(make_batch):
    batch = make_batch(3, 60, 1)
    for given, same in ((0.0, 1.0), (2.6, 3.0), (float("inf"), 60.0)):
        got, same = (run(batch, HYPERS._replace(num_steps=jnp.float32(n)))[0] for n in (given, same))
        np.testing.assert_array_equal(got, same)


def test_policy_is_the_behaviour_or_the_target():
    algorithm, _ = build("off")
    state = algorithm.init(jax.random.key(0), HYPERS)
    for explore, share in ((True, 0.7), (False, 0.2)):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore)
        action, _, _ = policy.apply(jax.random.key(1), jnp.zeros(4000, jnp.int32), policy.memory((4000,)))
        np.testing.assert_allclose(action.mean(), share, atol=0.03)
    np.testing.assert_allclose(n_step_td.target_policy(n_step_td.Config(target=(0.8, 0.2)), 2), [0.8, 0.2])


def test_off_policy_values_of_the_random_walk_are_found(train_on):
    config = n_step_td.Config(num_envs=4, rollout_length=512, behaviour=(0.5, 0.5), target=(0.35, 0.65))
    hypers = n_step_td.Hypers(learning_rate=0.02, num_steps=2.0)
    state, _ = train_on(n_step_td, tables.random_walk(5), config, hypers, 40, 8)
    odds = 0.35 / 0.65  # the gambler's ruin, from +1 and −1 at the ends
    right = (1 - odds ** np.arange(1, 6)) / (1 - odds**6)
    np.testing.assert_allclose(n_step_td.values(state)[:, :5].mean(0), 2 * right - 1, atol=0.05)


def test_intermediate_steps_are_best_in_the_random_walk():
    # Data is shared by all points, as the policy does not depend on them.
    reference = tuple(np.arange(-9, 10) / 10)
    config = n_step_td.Config(rollout_length=1600, reference=reference, num_episodes=10)
    walk = adapter.make(tables.random_walk())
    algorithm = n_step_td.build(walk.spec, config)
    source = rollout.build(walk, num_envs=1, length=config.rollout_length)
    num_steps, rates = jnp.array([1.0, 4.0, 64.0]), jnp.arange(0.1, 1.01, 0.1)

    def error(key, n, alpha):
        hypers = n_step_td.Hypers(alpha, num_steps=n)
        state = algorithm.init(key, hypers)
        policy = algorithm.policy(jnp.int32(0), state, hypers, explore=True)
        batch = source.next(key, jnp.int32(0), source.init(key, policy), policy)[1]
        return algorithm.update(key, jnp.int32(0), state, batch, hypers)[1].error

    over_rates = jax.vmap(error, (None, None, 0))
    over_steps = jax.vmap(over_rates, (None, 0, None))
    keys = jax.random.split(jax.random.key(0), 40)
    errors = np.asarray(jax.jit(jax.vmap(over_steps, (0, None, None)))(keys, num_steps, rates).mean(0))
    best, at = errors.min(1), np.asarray(rates)[errors.argmin(1)]
    assert best[1] < best[0] < best[2]
    np.testing.assert_allclose(best[1], 0.25, atol=0.03)
    assert at[0] > at[1] > at[2]  # the longer the returns, the smaller the steps


def test_uniform_policies_count_nothing(make_batch):
    stream = jax.tree.map(lambda leaf: jnp.asarray(leaf[:, 0]), make_batch(0, 20, 1))
    policies = prediction.Policies((0.5, 0.5), (0.5, 0.5))
    ahead = n_step_td.windows(stream, jnp.int32(3), jnp.float32(0.9), policies)
    np.testing.assert_array_equal(ahead.ratio, np.ones(20))
