"""Monte Carlo control: averages of returns counted by hand, episodes that are cut, and values found by planning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Transition
from rlgen.tabular import monte_carlo_control

GAMMA, EPSILON = 0.9, 0.3
HYPERS = monte_carlo_control.Hypers(
    discount=GAMMA, initial_value=0.5, epsilon_start=EPSILON, epsilon_end=EPSILON, horizon=1.0
)
FALLING = HYPERS._replace(epsilon_start=0.8, epsilon_end=0.2, horizon=6.0)
FALLEN = np.repeat([0.8, 0.7, 0.6, 0.5, 0.4, 0.3], 4)  # at each of 24 steps, four to an update


def segments(batch, longest):
    """The pieces `(end, environment, steps)` that are learned from, in the order of their ends."""
    for t in range(len(batch.reward)):
        for env in range(batch.reward.shape[1]):
            done = np.asarray(batch.terminated | batch.truncated)[:, env]
            before = np.flatnonzero(done[:t])
            start = before[-1] + 1 if len(before) else 0
            start += (t - start) // longest * longest
            if done[t] or t - start + 1 == longest:
                yield t, env, range(start, t + 1)


def by_hand(batch, longest, every_visit, epsilon=(EPSILON,) * 24):
    """Averages of all returns listed so far, section 5.4."""
    q_values, lists = np.full((4, 3), 0.5), {}
    batch = jax.tree.map(np.asarray, batch)
    for end, env, steps in segments(batch, longest):
        row = q_values[batch.next_obs[end, env]]
        goal = 0 if batch.terminated[end, env] else (1 - epsilon[end]) * row.max() + epsilon[end] * row.mean()
        pairs = [(batch.obs[t, env], batch.action[t, env]) for t in steps]
        for t, pair in reversed(list(zip(steps, pairs, strict=True))):
            goal = batch.reward[t, env] + GAMMA * goal
            if every_visit or pair not in pairs[: t - steps[0]]:
                lists.setdefault(pair, []).append(goal)
                q_values[pair] = np.mean(lists[pair])
    return q_values, lists


@pytest.mark.parametrize(("longest", "every_visit"), [(24, False), (24, True), (3, True)])
def test_values_are_averages_of_returns_however_batches_are_cut(table_spec, experience, feed, longest, every_visit):
    config = monte_carlo_control.Config(num_envs=2, max_length=longest, every_visit=every_visit)
    whole = feed(monte_carlo_control, table_spec, config, HYPERS, experience)
    q_values, lists = by_hand(experience, longest, every_visit)
    np.testing.assert_allclose(whole.q_values, q_values, atol=1e-5)
    counts = {(obs, action): int(whole.visits[obs, action]) for obs, action in lists}
    assert counts == {pair: len(returns) for pair, returns in lists.items()}
    assert whole.visits.sum() == sum(counts.values())
    pieces = feed(monte_carlo_control, table_spec, config, HYPERS, experience, length=1)
    for name in ("q_values", "visits"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def test_the_share_of_random_actions_falls_from_update_to_update(table_spec, experience, feed):
    config = monte_carlo_control.Config(num_envs=2, max_length=24)
    state = feed(monte_carlo_control, table_spec, config, FALLING, experience, length=4)
    np.testing.assert_allclose(state.q_values, by_hand(experience, 24, False, FALLEN)[0], atol=1e-5)


def test_first_and_every_visit_differ(experience):
    first, every = (by_hand(experience, 24, every_visit)[0] for every_visit in (False, True))
    assert np.abs(first - every).max() > 0.1


def test_step_size_falls_with_visits_as_told():
    episode = monte_carlo_control.Episode(*(jnp.zeros(4, jnp.int32),) * 2, jnp.ones(4), jnp.ones(4, bool), jnp.int32(2))
    table, none = jnp.zeros((1, 1)), jnp.zeros((1, 1), jnp.int32)
    hypers = HYPERS._replace(learning_rate=0.5, step_exponent=0.5)
    q_values, visits, error = monte_carlo_control.learn(table, none, episode, jnp.float32(4), hypers)
    last, first = 1 + GAMMA * 4, 1 + GAMMA * (1 + GAMMA * 4)
    middle = 0.5 * last
    np.testing.assert_allclose(q_values, [[middle + 0.5 / np.sqrt(2) * (first - middle)]], rtol=1e-6)
    np.testing.assert_allclose(error, last + abs(first - middle), rtol=1e-6)
    assert visits == 2


def test_nothing_is_learned_within_an_episode(table_spec):
    flags = jnp.zeros((3, 1), bool)
    index = jnp.zeros((3, 1), jnp.int32)
    batch = Transition(index, index, jnp.ones((3, 1)), index, flags, flags, {})
    algorithm = monte_carlo_control.build(table_spec, monte_carlo_control.Config(max_length=4))
    state = algorithm.init(jax.random.key(0), HYPERS)
    state, metrics = algorithm.update(jax.random.key(0), jnp.int32(0), state, batch, HYPERS)
    np.testing.assert_array_equal(state.q_values, np.full((4, 3), 0.5, np.float32))
    np.testing.assert_array_equal(state.episode.length, [3])
    np.testing.assert_allclose(metrics, [0, 0.5])


def test_values_of_the_policy_are_found(known, learn_known):
    discount, epsilon, exact = known
    config = monte_carlo_control.Config(num_envs=4, rollout_length=16, max_length=64)
    # The first returns come from other policies: an exponent below one forgets them.
    hypers = monte_carlo_control.Hypers(1.0, 0.8, discount, epsilon_start=epsilon, epsilon_end=epsilon, horizon=1.0)
    got = learn_known(monte_carlo_control, config, hypers, 200)
    np.testing.assert_allclose(got.mean(0), exact, atol=0.06)
