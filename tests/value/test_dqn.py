"""DQN: targets and losses by hand, when what moves, and the probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter
from rlgen.sources import rollout
from rlgen.value import dqn

SPEC = Spec(Box((1,)), Discrete(2))
SMALL = dqn.Config(num_envs=2, batch_size=4, capacity=16, warm_up=0, target_period=3, hidden_sizes=())
HYPERS = dqn.Hypers(discount=0.5, horizon=10.0)
# Linear values of one number: the online network prefers the first action where the target prefers the second.
ONLINE = {"params": {"Dense_0": {"kernel": jnp.array([[2.0, 1.0]]), "bias": jnp.array([0.0, 0.5])}}}
TARGET = {"params": {"Dense_0": {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.array([0.0, -1.0])}}}
MINIBATCH = Transition(
    obs=jnp.array([[0.0], [1.0], [1.0], [-2.0]]),
    action=jnp.array([0, 1, 0, 1]),
    reward=jnp.ones(4),
    next_obs=jnp.array([[2.0], [2.0], [2.0], [-1.0]]),
    terminated=jnp.array([False, True, False, False]),
    truncated=jnp.array([False, False, True, False]),
    extras={},
)
SINGLE = [1 + 3 / 2, 1, 1 + 3 / 2, 1 - 1 / 2]  # Q⁻(2) = (2, 3) and Q⁻(−1) = (−1, −3)
DOUBLE = [1 + 2 / 2, 1, 1 + 2 / 2, 1 - 3 / 2]  # Q(2) = (4, 2.5) and Q(−1) = (−2, −0.5) choose 0 and 1


def network_of(**config):
    return dqn.QNetwork(SPEC, dqn.Config(**{"hidden_sizes": (), **config}))


def rollout_of(step):
    """Two environments, one step, different at every update."""
    obs = jax.random.normal(jax.random.key(step), (1, 2, 1))
    flags = jnp.zeros((1, 2), bool)
    return Transition(obs, jnp.array([[0, 1]]), obs[..., 0], obs + 1, flags, flags, {})


@pytest.mark.parametrize(("double", "expected"), [(False, SINGLE), (True, DOUBLE)])
def test_target_by_hand(double, expected):
    got = dqn.target_value(ONLINE, TARGET, MINIBATCH, HYPERS, network=network_of(double=double))
    np.testing.assert_allclose(got, expected)


def test_double_with_equal_networks_is_single():
    params = dqn.QNetwork(SPEC, dqn.Config(hidden_sizes=(8,))).init(jax.random.key(0), jnp.zeros((1, 1)))
    both = [
        dqn.target_value(params, params, MINIBATCH, HYPERS, network=network_of(hidden_sizes=(8,), double=double))
        for double in (False, True)
    ]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("error", ["huber", "squared"])
def test_loss_and_its_gradient_by_hand(error):
    value = np.array([0.0, 1.5, 2.0, -1.5])  # of the actions taken, by the online network
    delta = np.array(SINGLE) - value
    size = np.abs(delta)
    each = 0.5 * delta**2 if error == "squared" else np.where(size < 1, 0.5 * delta**2, size - 0.5)
    slope = -delta if error == "squared" else -np.clip(delta, -1, 1)
    loss = functools.partial(dqn.loss, network=network_of(error=error))
    grads, metrics = jax.grad(loss, has_aux=True)(ONLINE, TARGET, MINIBATCH, HYPERS)
    np.testing.assert_allclose(metrics, [each.mean(), value.mean(), size.mean()], rtol=1e-6)
    by_action = [[slope[0], 0], [0, slope[1]], [slope[2], 0], [0, slope[3]]]
    np.testing.assert_allclose(grads["params"]["Dense_0"]["bias"], np.sum(by_action, 0) / 4, rtol=1e-6)
    by_weight = np.array(by_action) * MINIBATCH.obs
    np.testing.assert_allclose(grads["params"]["Dense_0"]["kernel"][0], by_weight.sum(0) / 4, rtol=1e-6)


def test_target_has_no_gradient():
    network = network_of(double=True)
    grads = jax.grad(lambda target: dqn.loss(ONLINE, target, MINIBATCH, HYPERS, network=network)[0])(TARGET)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads))  # it does depend on the target network
    # … and on the online network only through the values of the actions taken.
    grads = jax.grad(lambda params: dqn.target_value(params, TARGET, MINIBATCH, HYPERS, network=network).sum())(ONLINE)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_target_moves_once_a_period_by_its_share(tau):
    algorithm, hypers = dqn.build(SPEC, SMALL), HYPERS._replace(tau=tau)
    update = jax.jit(algorithm.update)
    state = algorithm.init(jax.random.key(0), hypers)
    for step in range(7):
        before = state.learner
        state, _ = update(jax.random.key(step), jnp.int32(step), state, rollout_of(step), hypers)
        weight = tau if step in (2, 5) else 0.0
        expected = jax.tree.map(
            lambda old, new, weight=weight: weight * new + (1 - weight) * old, before.target, state.learner.params
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), state.learner.target, expected)
        assert not np.array_equal(*(jax.tree.leaves(learner.params)[1] for learner in (before, state.learner)))


def test_learning_waits_for_the_warm_up():
    algorithm = dqn.build(SPEC, dqn.Config(**{**SMALL.__dict__, "warm_up": 5}))
    update = jax.jit(algorithm.update)
    state = first = algorithm.init(jax.random.key(0), HYPERS)
    learned = []
    for step in range(4):
        state, metrics = update(jax.random.key(step), jnp.int32(step), state, rollout_of(step), HYPERS)
        learned.append(
            not np.array_equal(
                *(learner.params["params"]["Dense_0"]["kernel"] for learner in (first.learner, state.learner))
            )
        )
        assert bool(metrics.error > 0) == learned[-1]
    assert learned == [False, False, True, True]  # 2, 4, 6 and 8 transitions gathered


def test_policy_is_greedy_or_explores_by_its_schedule():
    algorithm = dqn.build(SPEC, SMALL)
    hypers = HYPERS._replace(epsilon_start=1.0, epsilon_end=0.0, exploration_fraction=0.5, horizon=10.0)
    state = algorithm.init(jax.random.key(0), hypers)
    state = state._replace(learner=state.learner._replace(params=ONLINE))
    inputs = jnp.full((4000, 1), 2.0)  # where the online network prefers action 0
    shares = []
    for step, explore in ((0, False), (0, True), (3, True), (5, True), (9, True)):
        policy = algorithm.policy(jnp.int32(step), state, hypers, explore=explore)
        action, _, _ = policy.apply(jax.random.key(step), inputs, policy.memory((4000,)))
        shares.append(float(action.mean()))
    np.testing.assert_allclose(shares, [0, 0.5, 0.2, 0, 0], atol=0.03)


@pytest.mark.parametrize(
    ("config", "message"), [({"error": "cubic"}, "config.error='cubic'"), ({"capacity": 15}, "config.capacity=15")]
)
def test_an_impossible_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        dqn.Config(**config)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="discrete actions"):
        dqn.build(Spec(Box((1,)), Box((1,))), SMALL)


@pytest.mark.parametrize("double", [False, True])
def test_values_of_every_action_are_learned(probe, double):
    env, num = adapter.make(probe), len(probe.observations)
    config = dqn.Config(
        num_envs=8, batch_size=32, capacity=1600, warm_up=64, target_period=10, hidden_sizes=(16,), double=double
    )
    hypers = dqn.Hypers(learning_rate=1e-2, discount=0.5, epsilon_end=1.0, horizon=600.0)
    run = train.make(dqn.build(env.spec, config), rollout.build(env, num_envs=8, length=1))

    @jax.jit
    @jax.vmap
    def trained(key):
        state, _ = train.window(run)(key, jnp.int32(0), jnp.int32(600), run.init(key, hypers), hypers)
        return dqn.QNetwork(env.spec, config).apply(state.algorithm.learner.params, probe.observations)

    expected = np.stack([probe.action_values(0.5, np.full(num, action)) for action in range(2)], -1)
    q_values = trained(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(q_values, np.broadcast_to(expected, q_values.shape), atol=0.1)
