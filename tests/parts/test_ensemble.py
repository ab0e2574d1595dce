"""Ensembles of critics: critics apart, noise that makes returns, and the least of some."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Spec
from rlgen.parts import ensemble

BOX = Box((2,), (-2.0, 0.0), (2.0, 1.0))
CONFIG = {
    "hidden_sizes": (4,),
    "activation": "relu",
    "initialiser": "lecun",
    "critic_bound": 0.5,
    "layer_norm": False,
    "dropout": 0.0,
    "head": "expected",
    "num_atoms": 5,
    "num_quantiles": 7,
    "num_critics": 3,
}


def critics(action=BOX, **config):
    made = ensemble.Critics(Spec(Box((3,)), action), types.SimpleNamespace(**{**CONFIG, **config}))
    return made, jax.jit(made.begin)(jax.random.key(0)), jax.jit(made.predict)


def test_critics_share_nothing():
    _, params, predict = critics()
    kernel = params["params"]["critic"]["Dense_0"]["kernel"]
    assert kernel.shape == (3, 5, 4) and not np.allclose(kernel[0], kernel[1])
    obs, action = np.ones((6, 3), np.float32), np.ones((6, 2), np.float32)
    predicted = predict(jax.random.key(0), params, obs, action)
    assert predicted.shape == (3, 6, 1)
    changed = jax.tree.map(np.array, params)
    for leaf in jax.tree.leaves(changed):
        leaf[1] += 1.0
    again = predict(jax.random.key(0), changed, obs, action)
    np.testing.assert_array_equal(np.any(np.asarray(again) != predicted, axis=(1, 2)), [False, True, False])


@pytest.mark.parametrize(
    ("config", "action", "size"),
    [
        ({"head": "categorical"}, BOX, 5),
        ({"head": "quantile"}, BOX, 7),
        ({"head": "sampled"}, BOX, 7),
        ({}, Discrete(4), 4),
    ],
)
def test_heads_have_their_sizes(config, action, size):
    _, params, predict = critics(action, **config)
    inner = None if isinstance(action, Discrete) else np.ones((6, 2), np.float32)
    obs = np.ones((6, 3), np.float32)
    first, second = (predict(jax.random.key(seed), params, obs, inner) for seed in (0, 1))
    assert first.shape == (3, 6, size)
    sampled = config.get("head") == "sampled"
    assert np.array_equal(first, second) != sampled
    if sampled:
        assert np.all(np.diff(first) >= 0)


def test_units_are_left_out_anew_in_every_critic():
    _, params, predict = critics(dropout=0.5, layer_norm=True, hidden_sizes=(64,))
    same = jax.tree.map(lambda leaf: np.broadcast_to(leaf[:1], leaf.shape), jax.device_get(params))
    inputs = np.ones((1, 3), np.float32), np.ones((1, 2), np.float32)
    first, second = (predict(jax.random.key(seed), same, *inputs) for seed in (0, 1))
    assert len({*np.ravel(first), *np.ravel(second)}) == 6


def test_the_least_value_is_of_all_critics_or_of_a_few_drawn_alike():
    predicted = jnp.arange(4.0)[:, None]  # four critics of one example
    assert ensemble.least(jax.random.key(0), predicted, num=4) == 0
    draw = jax.jit(jax.vmap(lambda key: ensemble.least(key, predicted, num=2)[0]))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 6_000)))
    shares = [(found == value).mean() for value in range(4)]
    np.testing.assert_allclose(shares, [1 / 2, 1 / 3, 1 / 6, 0], atol=0.025)  # of six pairs
