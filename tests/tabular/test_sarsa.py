"""Sarsa in all its forms: the book's procedure step by step, what it reduces to, and values found by planning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.tabular import q_learning, sarsa

ALPHA, GAMMA, EPSILON = 0.25, 0.9, 0.3
HYPERS = sarsa.Hypers(ALPHA, GAMMA, initial_value=0.5, epsilon_start=EPSILON, epsilon_end=EPSILON, horizon=1.0)
FALLING = HYPERS._replace(epsilon_start=0.8, epsilon_end=0.2, horizon=6.0)
FALLEN = np.repeat([0.8, 0.7, 0.6, 0.5, 0.4, 0.3], 4)  # at each of 24 steps, four to an update


def by_the_book(batch, num_steps, target, epsilon=(EPSILON,) * 24):
    """The procedure of section 7.2 over lists, each environment with its own episode."""
    q_values = np.full((4, 3), 0.5)
    episodes = [[] for _ in range(batch.reward.shape[1])]  # of (obs, action, reward)
    learned = [0] * len(episodes)  # how many steps of the episode

    def mean_value(obs, epsilon):
        return (1 - epsilon) * q_values[obs].max() + epsilon * q_values[obs].mean()

    def learn(env, upto, value):
        episode, tau = episodes[env], learned[env]
        goal = sum(GAMMA**i * reward for i, (_, _, reward) in enumerate(episode[tau:upto]))
        goal += GAMMA ** (upto - tau) * value
        obs, action, _ = episode[tau]
        q_values[obs, action] += ALPHA * (goal - q_values[obs, action])
        learned[env] += 1

    for t in range(len(batch.reward)):
        for env, episode in enumerate(episodes):
            obs, action, reward, next_obs, terminated, truncated = (np.asarray(leaf)[t, env] for leaf in batch[:6])
            if target == "sarsa" and len(episode) - learned[env] == num_steps:
                learn(env, len(episode), q_values[obs, action])
            episode.append((obs, action, reward))
            value = 0 if terminated else mean_value(next_obs, epsilon[t])
            if target == "expected" and len(episode) - learned[env] == num_steps:
                learn(env, len(episode), value)
            if terminated or truncated:
                while learned[env] < len(episode):
                    learn(env, len(episode), value)
                episode.clear()
                learned[env] = 0
    return q_values


@pytest.mark.parametrize("target", sarsa.TARGETS)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_learns_by_the_book_however_batches_are_cut(table_spec, experience, feed, num_steps, target):
    config = sarsa.Config(num_envs=2, num_steps=num_steps, target=target)
    whole = feed(sarsa, table_spec, config, HYPERS, experience)
    np.testing.assert_allclose(whole.q_values, by_the_book(experience, num_steps, target), atol=1e-5)
    pieces = feed(sarsa, table_spec, config, HYPERS, experience, length=1)
    jax.tree.map(np.testing.assert_array_equal, whole, pieces)


def test_the_share_of_random_actions_falls_from_update_to_update(table_spec, experience, feed):
    state = feed(sarsa, table_spec, sarsa.Config(num_envs=2, target="expected"), FALLING, experience, length=4)
    np.testing.assert_allclose(state.q_values, by_the_book(experience, 1, "expected", FALLEN), atol=1e-5)


def step(obs, action, reward, next_obs, flag=""):
    ends = jnp.bool_(flag == "terminated"), jnp.bool_(flag == "truncated")
    return Transition(jnp.int32(obs), jnp.int32(action), jnp.float32(reward), jnp.int32(next_obs), *ends, {})


@pytest.mark.parametrize(("flag", "last"), [("terminated", 2.0), ("truncated", 2 + GAMMA * (0.7 * 5 + 0.3 * 4))])
def test_one_step_sarsa_by_hand(flag, last):
    q_values = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    state = sarsa.init(jax.random.key(0), HYPERS, shape=(2, 2), num_envs=1, num_steps=1)
    pending = jax.tree.map(lambda leaf: leaf[0], state.pending)
    q_values, pending, metrics = sarsa.learn(
        q_values, pending, step(0, 1, 1.0, 1), HYPERS, epsilon=EPSILON, target="sarsa"
    )
    np.testing.assert_array_equal(q_values, [[1, 2], [3, 5]])  # the next action is not known yet
    np.testing.assert_allclose(metrics, [0, 2])
    q_values, pending, metrics = sarsa.learn(
        q_values, pending, step(1, 0, 2.0, 1, flag), HYPERS, epsilon=EPSILON, target="sarsa"
    )
    error = 1 + GAMMA * 3 - 2
    np.testing.assert_allclose(q_values, [[1, 2 + ALPHA * error], [3 + ALPHA * (last - 3), 5]], rtol=1e-6)
    np.testing.assert_allclose(metrics, [error + abs(last - 3), 3], rtol=1e-6)
    assert pending.num == 0


def test_expected_sarsa_without_exploration_is_q_learning(table_spec, experience, feed):
    hypers = HYPERS._replace(epsilon_start=0.0, epsilon_end=0.0)
    expected = feed(sarsa, table_spec, sarsa.Config(num_envs=2, target="expected"), hypers, experience)
    single = feed(q_learning, table_spec, q_learning.Config(num_envs=2), q_learning.Hypers(*hypers), experience)
    np.testing.assert_allclose(expected.q_values, single.q_values, atol=1e-6)


@pytest.mark.parametrize(("target", "num_steps", "learning_rate"), [("expected", 1, 0.5), ("sarsa", 2, 0.02)])
def test_values_of_the_policy_are_found(known, learn_known, target, num_steps, learning_rate):
    discount, epsilon, exact = known
    config = sarsa.Config(num_envs=4, rollout_length=16, num_steps=num_steps, target=target)
    hypers = sarsa.Hypers(learning_rate, discount, epsilon_start=epsilon, epsilon_end=epsilon, horizon=1.0)
    got = learn_known(sarsa, config, hypers, 300)
    # Nothing is random in expected Sarsa's goals here.
    np.testing.assert_allclose(got.mean(0), exact, atol=1e-3 if target == "expected" else 0.06)


def test_what_is_no_target_or_no_table_is_refused():
    with pytest.raises(ValueError, match="not one of sarsa, expected"):
        sarsa.Config(target="max")
    with pytest.raises(ValueError, match="needs a table"):
        sarsa.build(Spec(Box((1,)), Discrete(2)), sarsa.Config())
