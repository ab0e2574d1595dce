"""Soft policies: what an expectation is taken over, entropies, temperatures, and which action is taken."""

import functools
from types import SimpleNamespace as Config

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen.core import Box, Discrete, Spec
from rlgen.parts import soft

KEY = jax.random.key(2)
BOX, OBS = Box((2,), -2.0, 2.0), np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
CONFIG = Config(hidden_sizes=(4,), activation="relu", initialiser="lecun")
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def begun(action):
    actor = soft.StochasticActor(Spec(Box((3,)), action), CONFIG)
    params = jax.jit(actor.init)(jax.random.key(0), OBS)
    return actor, params, jax.jit(functools.partial(soft.choices, actor=actor))(KEY, params, OBS)


def test_all_discrete_actions_are_weighed_by_their_probabilities():
    actor, params, chosen = begun(Discrete(4))
    probability = np.asarray(jax.jit(lambda params: jax.nn.softmax(actor.apply(params, OBS).logits))(params))
    assert chosen.action is None
    close(chosen.probability, probability)
    close(soft.entropy(chosen), -(probability * np.log(probability)).sum(-1))


def test_one_continuous_action_stands_for_all():
    actor, params, chosen = begun(BOX)
    assert chosen.action.shape == (5, 2) and np.all(np.abs(chosen.action) < 1)
    np.testing.assert_array_equal(chosen.probability, np.ones((5, 1)))
    log_prob = jax.jit(lambda params, action: actor.apply(params, OBS).log_prob(action))(params, chosen.action)
    close(soft.entropy(chosen), -log_prob, rtol=1e-3)


def test_a_squashed_policy_has_the_density_of_a_change_of_variables():
    mean, log_std = jnp.array([[0.3, -1.0]]), jnp.array([[-0.5, -1.0]])
    action = np.array([[0.6, -0.2]])
    before = np.arctanh(action)
    normal = distrax.Normal(mean, jnp.exp(log_std)).log_prob(before)
    expected = (normal - np.log(1 - action**2)).sum(-1)
    close(soft.squashed(mean, log_std).log_prob(jnp.asarray(action)), expected, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_the_decay_is_that_of_the_networks_and_not_of_the_temperature(decay):
    rates = {"learning_rate": 0.1, "critic_learning_rate": 0.2, "temperature_learning_rate": 0.3}
    found = soft.optimisers(Config(**rates), first_moment_decay=decay)
    for (name, rule), rate in zip(found.items(), rates.values(), strict=True):
        expected = optax.adam(rate, b1=0.9 if name == "log_temperature" else decay)
        steps = []
        for each in (rule, expected):
            state = each.init(jnp.float32(0))
            _, state = each.update(jnp.float32(1), state)
            steps.append(each.update(jnp.float32(0), state)[0])
        close(*steps)


@pytest.mark.parametrize(("log_std", "bound"), [(9.0, 2.0), (-50.0, -20.0)])
def test_deviations_are_bounded(log_std, bound):
    mean, action = jnp.zeros((1, 2)), jnp.array([[0.5, 0.1]])
    log_prob = jax.jit(lambda log_std: soft.squashed(mean, log_std).log_prob(action))
    far, at = (log_prob(np.full((1, 2), value, np.float32)) for value in (log_std, bound))
    np.testing.assert_array_equal(far, at)


@pytest.mark.parametrize(("nats", "step"), [(3.0, -0.1), (1.0, 0.1)])
def test_a_temperature_falls_while_there_is_more_entropy_than_its_target(nats, step):
    rule = optax.sgd(0.1)
    start = jnp.float32(0.5)
    moved, _ = soft.regulate(start, rule.init(start), rule, jnp.float32(nats), jnp.float32(2.0))
    close(moved - start, step)


def test_temperatures_are_learned_or_fixed_and_targets_are_shares():
    hypers = Config(temperature=0.3)
    close(soft.temperature(jnp.log(0.7), hypers, kind="learned"), 0.7)
    close(soft.temperature(jnp.log(0.7), hypers, kind="fixed"), 0.3)
    close(soft.target_entropy(0.5, Discrete(4)), 0.5 * 0.98 * np.log(4))
    close(soft.target_entropy(0.5, BOX), -1.0)


def test_actions_are_at_random_then_drawn_and_when_evaluated_the_likeliest():
    mean, log_std = np.tile(np.float32([0.5, -0.5]), (4000, 1)), np.full((4000, 2), -3, np.float32)

    @functools.partial(jax.jit, static_argnums=1)
    def act(step, explore):
        return soft.act(KEY, step, policy=soft.squashed(mean, log_std), space=BOX, first=3, explore=explore)

    random, drawn = (np.asarray(act(step, True)) for step in (2, 3))
    close(random.std(0), 4 / np.sqrt(12), rtol=0.05)
    close(drawn.mean(0), 2 * np.tanh([0.5, -0.5]), atol=0.02)
    assert 0.02 < drawn.std(0).min() < drawn.std(0).max() < 0.2
    close(act(0, False)[0], 2 * np.tanh([0.5, -0.5]))
