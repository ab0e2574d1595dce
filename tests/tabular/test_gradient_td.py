"""Gradient TD: updates by hand, what they reduce to, fixed points, and Baird's star."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Discrete, Spec, Transition
from rlgen.envs import adapter, tables
from rlgen.parts import prediction
from rlgen.tabular import gradient_td, n_step_td

SPEC = Spec(Discrete(5), Discrete(2))
FEATURES = np.array([[1.0, 0.0], [0.5, 2.0], [0.0, -1.0], [1.0, 1.0], [-1.0, 0.5]], np.float32)
HYPERS = gradient_td.Hypers(learning_rate=0.1, correction_rate=0.3, correction=1.0, discount=0.9)
OFF = prediction.Policies((0.25, 0.75), (0.5, 0.5))
BAIRD = gradient_td.Config(
    rollout_length=10,
    features=gradient_td.BAIRD_FEATURES,
    initial_weights=gradient_td.BAIRD_WEIGHTS,
    behaviour=(6 / 7, 1 / 7),
    target=(0.0, 1.0),
    reference=(0.0,) * 7,
)
SEMI = gradient_td.Hypers(learning_rate=0.01, correction=0.0)
TDC = gradient_td.Hypers(learning_rate=0.005, correction_rate=0.05)


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize(("method", "correction"), [("tdc", 0.0), ("tdc", 1.0), ("tdc", 0.3), ("gtd2", 1.0)])
def test_one_update_by_hand(method, correction, terminated):
    weights, expected_errors = np.array([2.0, -1.0]), np.array([0.5, 0.25])
    step = Transition(
        jnp.int32(1), jnp.int32(0), jnp.float32(3), jnp.int32(3), jnp.bool_(terminated), jnp.bool_(False), {}
    )
    learner, error = gradient_td.learn(
        gradient_td.Learner(jnp.asarray(weights), jnp.asarray(expected_errors)),
        step,
        HYPERS._replace(correction=correction),
        features=jnp.asarray(FEATURES),
        method=method,
        policies=OFF,
    )
    x, after, ratio = FEATURES[1], FEATURES[3] * (not terminated), 2.0
    delta = 3 + 0.9 * after @ weights - x @ weights
    hint = x @ expected_errors
    pulls = {"gtd2": (x - 0.9 * after) * hint, "tdc": delta * x - correction * 0.9 * after * hint}
    np.testing.assert_allclose(error, delta, rtol=1e-6)
    np.testing.assert_allclose(learner.weights, weights + 0.1 * ratio * pulls[method], rtol=1e-5)
    np.testing.assert_allclose(learner.expected_errors, expected_errors + 0.3 * ratio * (delta - hint) * x, rtol=1e-5)


def test_a_feature_a_state_without_correction_is_td0(make_batch):
    batch = make_batch(0, 60, 2)
    policies = {"behaviour": (0.4, 0.6), "target": (0.6, 0.4), "num_envs": 2}
    table = n_step_td.build(SPEC, n_step_td.Config(**policies))
    state = table.init(jax.random.key(0), n_step_td.Hypers(0.1, 0.9, 0.5, 1.0))
    expected, error = table.update(jax.random.key(0), jnp.int32(0), state, batch, n_step_td.Hypers(0.1, 0.9, 0.5, 1.0))
    linear = gradient_td.build(SPEC, gradient_td.Config(**policies, initial_weights=(0.5,) * 5))
    hypers = HYPERS._replace(correction=0.0)
    state = linear.init(jax.random.key(0), hypers)
    np.testing.assert_array_equal(gradient_td.values(state), np.full(5, 0.5))
    state, metrics = linear.update(jax.random.key(0), jnp.int32(0), state, batch, hypers)
    np.testing.assert_allclose(gradient_td.values(state), expected.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics.error, error.error, rtol=1e-4)
    np.testing.assert_allclose(metrics.weight, np.abs(state.learner.weights).max())


def test_samples_of_all_states_average_to_a_sweep():
    rng = np.random.default_rng(0)
    behaviour, target = np.array(OFF.behaviour), np.array(OFF.target)
    process = rng.dirichlet(np.ones(5), (5, 2))
    reward = rng.normal(size=(5, 2))
    learner = gradient_td.Learner(jnp.array([2.0, -1.0]), jnp.array([0.5, 0.25]))
    mean = [np.zeros(2), np.zeros(2)]
    for obs, action, next_obs in np.ndindex(5, 2, 5):
        step = Transition(obs, action, reward[obs, action], next_obs, False, False, {})
        new, _ = gradient_td.learn(learner, step, HYPERS, features=jnp.asarray(FEATURES), method="tdc", policies=OFF)
        share = behaviour[action] * process[obs, action, next_obs] / 5
        mean = [total + share * np.asarray(leaf) for total, leaf in zip(mean, new, strict=True)]
    transition = np.einsum("a,sat->st", target, process)
    swept = gradient_td.sweep(learner, jnp.asarray(FEATURES), transition, reward @ target, HYPERS, method="tdc")
    np.testing.assert_allclose(mean, swept, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["tdc", "gtd2"])
def test_sweeps_find_the_fixed_point(method):
    rng = np.random.default_rng(1)
    transition, reward = rng.dirichlet(np.ones(5), 5), rng.normal(size=5)
    a = FEATURES.T @ (FEATURES - 0.9 * transition @ FEATURES)
    fixed = np.linalg.solve(a, FEATURES.T @ reward)
    rule = functools.partial(
        gradient_td.sweep, features=jnp.asarray(FEATURES), transition=transition, reward=reward, method=method
    )
    learner = jax.lax.fori_loop(
        0, 3000, lambda _, learner: rule(learner, hypers=HYPERS), gradient_td.Learner(jnp.ones(2), jnp.zeros(2))
    )
    np.testing.assert_allclose(learner.weights, fixed, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(learner.expected_errors, 0, atol=1e-4)


def swept(hypers, method, num):
    """Baird's star by expected updates: weights `[num, 8]`."""
    process = tables.baird().mdp()
    features = jnp.asarray(gradient_td.BAIRD_FEATURES)
    weights = jnp.asarray(gradient_td.BAIRD_WEIGHTS)

    def body(learner, _):
        target = process.transition[:, tables.SOLID]
        learner = gradient_td.sweep(learner, features, target, jnp.zeros(7), hypers, method=method)
        return learner, learner.weights

    return np.asarray(jax.lax.scan(body, gradient_td.Learner(weights, jnp.zeros(8)), None, num)[1])


def test_bairds_star_by_sweeps():
    features = np.array(gradient_td.BAIRD_FEATURES)
    np.testing.assert_array_equal(features @ np.ones(8), np.full(7, 3))
    assert np.linalg.matrix_rank(features) == 7  # every value can be represented: the fault is the rule's
    semi, tdc = swept(SEMI, "tdc", 1000), swept(TDC, "tdc", 1000)
    growth = np.abs(semi[[499, 999]]).max(1)
    assert growth[0] > 50
    assert growth[1] > 2.5 * growth[0]
    # The expected update is linear, and its matrix grows.
    matrix = features.T @ (0.99 * features[[6] * 7] - features) / 7
    assert np.linalg.eigvals(matrix).real.max() > 0
    np.testing.assert_allclose(semi[0], np.array(gradient_td.BAIRD_WEIGHTS) @ (np.eye(8) + 0.01 * matrix).T, rtol=1e-5)
    assert np.abs(tdc).max() < 11
    errors = 0.99 * tdc @ features[6][:, None] - tdc @ features.T
    projection = features @ np.linalg.pinv(features)
    projected = np.sqrt(np.square(errors @ projection).mean(1))
    assert projected[-1] < 0.15 * projected[0]
    values = np.sqrt(np.square(tdc @ features.T).mean(1))
    assert 1 < values[-1] < 4  # its values stay wrong by about two for long


@pytest.mark.parametrize(("hypers", "diverges"), [(SEMI, True), (TDC, False)])
def test_bairds_star_by_samples(train_on, hypers, diverges):
    state, metrics = train_on(gradient_td, tables.baird(), BAIRD, hypers, 100, 8)
    size = np.abs(state.learner.weights).max(1)
    assert np.isfinite(metrics.error).all()
    assert (size > 50).all() if diverges else (size < 25).all()
    reported = np.asarray(state.values)
    np.testing.assert_allclose(reported, state.learner.weights @ np.array(BAIRD.features, np.float32).T, rtol=1e-3)


@pytest.mark.parametrize("method", ["tdc", "gtd2"])
def test_values_of_the_random_walk_are_found(train_on, method):
    # A line and a constant represent the values; the ends have no features.
    features = tuple((1.0, position / 3) for position in range(-2, 3)) + ((0.0, 0.0),) * 2
    config = gradient_td.Config(4, 64, method, features, behaviour=(0.55, 0.45), target=(0.5, 0.5))
    # Successive steps are alike, which biases the limit in proportion to both step sizes.
    hypers = gradient_td.Hypers(0.005, 0.02, discount=1.0)
    state, _ = train_on(gradient_td, tables.random_walk(5), config, hypers, 300, 8)
    np.testing.assert_allclose(state.values[:, :5].mean(0), np.arange(-2, 3) / 3, atol=0.06)


def test_what_does_not_fit_is_refused():
    spec = adapter.make(tables.baird()).spec
    for wrong, message in (
        ({"method": "gtd"}, "neither tdc"),
        ({"features": ((1.0,),) * 6}, "do not fit"),
        ({"initial_weights": (1.0,) * 8}, "do not fit"),
        ({"features": ((1.0,),) * 6 + ((1.0, 2.0),)}, "equally many"),
    ):
        with pytest.raises(ValueError, match=message):
            gradient_td.build(spec, gradient_td.Config(**wrong))


def test_policy_is_the_behaviour_or_the_target():
    algorithm = gradient_td.build(adapter.make(tables.baird()).spec, BAIRD)
    state = algorithm.init(jax.random.key(0), TDC)
    for explore, share in ((True, 1 / 7), (False, 1)):
        policy = algorithm.policy(jnp.int32(0), state, TDC, explore=explore)
        action, _, _ = policy.apply(jax.random.key(1), jnp.zeros(4000, jnp.int32), policy.memory((4000,)))
        np.testing.assert_allclose(action.mean(), share, atol=0.03)
