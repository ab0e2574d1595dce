"""Exploration: how often which action is taken, and schedules."""

from types import SimpleNamespace as Schedule

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


def frequencies_are(action, expected):
    """Whether actions `[num]` have the expected frequencies, by a χ² test; what is impossible must not happen."""
    expected = np.asarray(expected, float)
    observed, possible = np.bincount(action, minlength=len(expected)), expected > 0
    assert observed[~possible].sum() == 0
    if possible.sum() == 1:
        return True
    return scipy.stats.chisquare(observed[possible], len(action) * (expected / expected.sum())[possible]).pvalue > 0.01


def test_greedy_takes_equally_good_actions_equally_often():
    q_values = jnp.tile(jnp.array([3.0, -1.0, 3.0, 3.0, 2.9]), (6000, 1))
    action = exploration.greedy(jax.random.key(4), q_values)
    assert action.dtype == jnp.int32
    assert frequencies_are(action, [1 / 3, 0, 1 / 3, 1 / 3, 0])


def test_greedy_sees_infinite_and_negative_values():
    q_values = jnp.tile(jnp.array([[jnp.inf, 1.0, jnp.inf], [-5.0, -4.0, -6.0]]), (3000, 1, 1))
    action = exploration.greedy(jax.random.key(5), q_values)
    assert frequencies_are(action[:, 0], [0.5, 0, 0.5])
    assert (action[:, 1] == 1).all()


def test_broken_ties_leave_one_best_action_and_the_others_alone():
    q_values = jnp.tile(jnp.array([2.0, 1.0, 2.0, 1.0]), (4000, 1))
    broken = np.asarray(exploration.break_ties(jax.random.key(6), q_values))
    assert frequencies_are(broken.argmax(-1), [0.5, 0, 0.5, 0])
    assert ((broken == 2).sum(-1) == 1).all()
    assert np.isneginf(broken[broken != 2].reshape(-1, 3)).sum() == 4000
    np.testing.assert_array_equal(broken[:, [1, 3]], np.ones((4000, 2)))
    action = epsilon_greedy(jax.random.key(7), jnp.asarray(broken), 0.4)
    assert frequencies_are(action, [0.4, 0.1, 0.4, 0.1])


def test_boltzmann_draws_from_the_softmax_at_its_temperature():
    q_values, temperature = np.array([[1.0, 0.0, -2.0], [4.0, 4.0, 3.0]]), np.array([0.5, 2.0])
    action = exploration.boltzmann(jax.random.key(8), jnp.tile(jnp.asarray(q_values), (6000, 1, 1)), temperature)
    assert action.dtype == jnp.int32
    for column, (values, heat) in enumerate(zip(q_values, temperature, strict=True)):
        weight = np.exp(values / heat)
        assert frequencies_are(action[:, column], weight / weight.sum())
    cold = exploration.boltzmann(jax.random.key(9), jnp.tile(jnp.array([100.0, 99.0, 100.0]), (4000, 1)), 1e-6)
    assert frequencies_are(cold, [0.5, 0, 0.5])


def test_upper_bounds_by_hand():
    q_values, counts = jnp.array([[1.0, 2.0, -1.0], [0.5, 0.0, 0.0]]), jnp.array([[4, 1, 2], [1, 0, 0]])
    expected = [
        [1 + 3 * np.sqrt(np.log(7) / 4), 2 + 3 * np.sqrt(np.log(7)), -1 + 3 * np.sqrt(np.log(7) / 2)],
        [0.5, np.inf, np.inf],
    ]
    np.testing.assert_allclose(exploration.upper_bounds(q_values, counts, 3.0), expected, rtol=1e-6)
    nothing = exploration.upper_bounds(q_values, jnp.zeros_like(counts), 3.0)
    assert np.isposinf(nothing).all()
    each = exploration.upper_bounds(q_values, counts, jnp.array([[0.0], [3.0]]))
    np.testing.assert_allclose(each, [q_values[0], expected[1]], rtol=1e-6)


def test_actions_that_a_state_does_not_have_are_never_taken():
    num_actions = jnp.array([1, 3, 4])
    q_values = jnp.tile(jnp.array([-3.0, -1.0, -2.0, 5.0]), (6000, 3, 1))
    values = exploration.existing(q_values, num_actions)
    np.testing.assert_array_equal(values.argmax(-1)[0], [0, 1, 3])
    held = jnp.arange(4) < num_actions[:, None]
    np.testing.assert_array_equal(values[0][held], q_values[0][held])
    assert (values[0][~held] < -1e20).all()
    assert np.isfinite(values).all()
    assert exploration.existing(q_values, None) is q_values
    action = epsilon_greedy(jax.random.key(10), q_values, 0.6, num_actions)
    for column, expected in enumerate([[1, 0, 0, 0], [0.2, 0.6, 0.2, 0], [0.15, 0.15, 0.15, 0.55]]):
        assert frequencies_are(action[:, column], expected)


@pytest.mark.parametrize("kind", exploration.NOISES)
def test_noise_has_the_deviation_of_its_schedule(kind):
    hypers = Schedule(noise_start=1.0, noise_end=0.5, exploration_fraction=1.0, horizon=10.0, noise_return=0.15)

    @jax.jit
    def drawn(step):
        def one(memory, key):
            noise, memory = exploration.additive(key, step, memory, (1000, 2), hypers, kind=kind)
            return memory, noise

        start = jnp.zeros((1000, 2)) if kind == "ou" else ()
        return jax.lax.scan(one, start, jax.random.split(jax.random.key(9), 40))[1]

    for step, deviation in ((0, 1.0), (5, 0.75), (20, 0.5)):
        noise = np.asarray(drawn(step))[-10:]
        np.testing.assert_allclose(noise.std(), deviation, rtol=0.05)
        kept = np.mean(noise[1:] * noise[:-1]) / deviation**2
        np.testing.assert_allclose(kept, 0.85 if kind == "ou" else 0.0, atol=0.05)
