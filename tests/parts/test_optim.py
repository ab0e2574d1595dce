"""The gradient step and the game of players, against steps by hand and against optax."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen.core import Policy
from rlgen.parts import optim


class Hypers(NamedTuple):
    learning_rate: float = 0.1


class Scheduled(NamedTuple):
    learning_rate: float
    learning_rate_end: float
    annealed_share: float
    horizon: float


class Metrics(NamedTuple):
    first: jax.Array
    second: jax.Array


def quadratic(params, target):
    """Half the squared distance, so that the gradient is the distance."""
    error = params["x"] - target
    return 0.5 * jnp.sum(error**2), {"error": error}


def test_descend_takes_the_step_of_the_optimiser():
    optimiser = optax.sgd(0.25)
    params, target = {"x": jnp.array([4.0, -2.0])}, jnp.array([0.0, 2.0])
    new, _, aux = optim.descend(quadratic, optimiser, params, optimiser.init(params), target)
    np.testing.assert_allclose(new["x"], [3.0, -1.0])
    np.testing.assert_allclose(aux["error"], [4.0, -4.0])


def test_descend_finds_the_minimum():
    optimiser = optim.adam(0.3)
    params, target = {"x": jnp.array([4.0, -2.0])}, jnp.array([1.0, 2.0])

    @jax.jit
    def many(params):
        def body(_, carry):
            return optim.descend(quadratic, optimiser, *carry, target)[:2]

        return jax.lax.fori_loop(0, 200, body, (params, optimiser.init(params)))[0]

    np.testing.assert_allclose(many(params)["x"], target, atol=1e-2)


@pytest.mark.parametrize(("width", "num_leaves"), [(2, 1), (optim.SMALL, 2)])
def test_few_numbers_are_joined_and_many_are_not_and_both_take_the_same_steps(width, num_leaves):
    rows = jnp.linspace(-1.0, 2.0, 3 * width).reshape(3, width)
    params = {"kernel": rows, "bias": rows[0]}
    plain = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1))
    own = optim.flattened(plain)

    @jax.jit
    def steps(params):
        return [functools.reduce(lambda carry, _: step(rule, *carry), range(3), (params, rule.init(params)))
                for rule in (plain, own)]  # fmt: skip

    def step(rule, params, state):
        changes, state = rule.update(jax.tree.map(jnp.sin, params), state, params)
        return optax.apply_updates(params, changes), state

    (wanted, _), (found, state) = steps(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), wanted, found)
    moments = optax.tree.get(state, "mu")
    assert len(jax.tree.leaves(moments)) == num_leaves


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_adam_equals_optax(max_grad_norm):
    ours, theirs = optim.adam(0.01, max_grad_norm=max_grad_norm, eps=1e-5), optax.adam(0.01, eps=1e-5)
    params = {"x": jnp.array([4.0, -2.0])}
    states = ours.init(params), theirs.init(params)
    for grads in ({"x": jnp.array([3.0, 4.0])}, {"x": jnp.array([0.03, -0.04])}):
        # The norms are 5 and 0.05: only the first is shortened, and as a whole.
        scale = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / float(jnp.linalg.norm(grads["x"])))
        updates, first = ours.update(grads, states[0], params)
        expected, second = theirs.update({"x": grads["x"] * scale}, states[1], params)
        states = first, second
        np.testing.assert_allclose(updates["x"], expected["x"], rtol=1e-5)


def pull(own, params, key, batch, hypers, *, other, sign):
    """Pulls a number towards the other player's and the batch."""
    del hypers
    goal = sign * params[other] + batch.mean()
    return 0.5 * (own - goal) ** 2, {"own": own, "noise": jax.random.uniform(key)}


def build(steps, schedule=optim.steady):
    optimiser = lambda hypers: optax.sgd(hypers.learning_rate)  # noqa: E731
    players = {
        "first": optim.Player(functools.partial(pull, other="second", sign=1.0), optimiser, steps),
        "second": optim.Player(functools.partial(pull, other="first", sign=-1.0), optimiser),
    }
    return optim.play(
        players,
        init=lambda key, hypers: {"first": jnp.float32(4.0), "second": jnp.float32(2.0)},
        policy=lambda step, state, hypers, *, explore: Policy(lambda shape: (), lambda key, x, memory: (x, {}, memory)),
        report=lambda said: Metrics(said["first"]["own"], said["second"]["own"]),
        schedule=schedule,
    )


def test_players_take_turns():
    algorithm, hypers = build(steps=2), Hypers(0.5)
    state = algorithm.init(jax.random.key(0), hypers)
    batch = jnp.array([[1.0, 1.0], [3.0, 5.0]])
    new, metrics = algorithm.update(jax.random.key(1), jnp.int32(0), state, batch, hypers)
    # The first: 4 → (4 + 2 + 1) / 2 = 3.5 → (3.5 + 2 + 4) / 2 = 4.75.  The second sees that: 2 → (2 − 4.75 + 1) / 2.
    assert float(new.params["first"]) == 4.75
    assert float(new.params["second"]) == -0.875
    assert metrics == Metrics(3.75, 2.0)


def test_an_update_has_the_hypers_of_its_schedule():
    algorithm = build(1, lambda step, hypers: hypers._replace(learning_rate=hypers.learning_rate / step))
    state = algorithm.init(jax.random.key(0), Hypers(1.0))
    new, _ = algorithm.update(jax.random.key(1), jnp.int32(4), state, jnp.ones((1, 1)), Hypers(1.0))
    assert float(new.params["first"]) == 4 + (3 - 4) / 4


@pytest.mark.parametrize(("step", "rate"), [(0, 4.0), (5, 2.5), (10, 1.0), (30, 1.0)])
def test_learning_rates_change_in_a_line(step, rate):
    hypers = Scheduled(4.0, 1.0, 0.25, 10.0)
    assert optim.annealed(jnp.int32(step), hypers) == hypers._replace(learning_rate=rate)
    assert optim.slowed(jnp.int32(step), hypers, names=("learning_rate",)) == hypers._replace(learning_rate=rate)


def test_a_game_reaches_its_equilibrium():
    algorithm, hypers = build(steps=1), Hypers(0.3)
    state = algorithm.init(jax.random.key(0), hypers)
    update = jax.jit(algorithm.update)
    for step in range(60):
        state, _ = update(jax.random.key(step), jnp.int32(step), state, jnp.ones((1, 3)), hypers)
    # first = second + 1 and second = −first + 1.
    np.testing.assert_allclose([state.params["first"], state.params["second"]], [1.0, 0.0], atol=1e-3)


def test_every_step_has_its_own_key():
    def told(own, params, key, batch, hypers):
        draw = jax.random.uniform(key)
        return own, jnp.stack([draw, draw**2])

    player = optim.Player(told, lambda hypers: optax.sgd(0.1), 3)
    heard = []
    algorithm = optim.play(
        {"one": player, "two": player},
        init=lambda key, hypers: {"one": jnp.float32(0), "two": jnp.float32(0)},
        policy=lambda step, state, hypers, *, explore: Policy(lambda shape: (), lambda key, x, memory: (x, {}, memory)),
        report=lambda said: heard.append(said) or said,
    )
    state = algorithm.init(jax.random.key(0), ())
    _, said = algorithm.update(jax.random.key(1), jnp.int32(0), state, jnp.zeros((3, 1)), ())
    one, two = np.asarray(said["one"]), np.asarray(said["two"])
    assert len({float(jax.random.uniform(jax.random.key(1))), float(one[0]), float(two[0])}) == 3
    for mean, square in (one, two):  # over the three steps of a player
        assert square - mean**2 > 1e-4
