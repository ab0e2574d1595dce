"""Exploration: how often which action is taken, and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen.parts import exploration

epsilon_greedy = jax.jit(exploration.epsilon_greedy)


@pytest.mark.parametrize(("fraction", "expected"), [(-1, 4), (0, 4), (0.25, 3), (0.5, 2), (1, 0), (7, 0)])
def test_linear_goes_from_start_to_end_and_stays(fraction, expected):
    assert float(exploration.linear(4.0, 0.0, fraction)) == expected


def test_without_epsilon_the_best_action_is_taken():
    q_values = jax.random.normal(jax.random.key(0), (5, 7, 4))
    action = epsilon_greedy(jax.random.key(1), q_values, 0.0)
    np.testing.assert_array_equal(action, np.argmax(q_values, -1))
    assert action.dtype == jnp.int32


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_actions_have_their_frequencies(epsilon):
    num, q_values = 8000, jnp.array([0.0, 2.0, 1.0, -1.0])
    action = epsilon_greedy(jax.random.key(2), jnp.tile(q_values, (num, 1)), epsilon)
    expected = np.full(4, epsilon / 4) + (1 - epsilon) * np.eye(4)[1]
    assert scipy.stats.chisquare(np.bincount(action, minlength=4), num * expected).pvalue > 0.01


def test_every_element_has_its_own_epsilon_and_its_own_chance():
    q_values = jnp.tile(jnp.array([0.0, 1.0]), (2, 400, 1))
    action = epsilon_greedy(jax.random.key(3), q_values, jnp.array([[0.0], [1.0]]))
    assert action[0].all()
    assert 0.4 < float(action[1].mean()) < 0.6
