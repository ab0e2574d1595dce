"""Soft actor-critic: targets and losses by NumPy, what its switches reduce to, and probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.actor_critic import sac
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import probes
from rlgen.parts import ensemble, soft
from rlgen.parts.ensemble import ActorAndCritics, Critics
from rlgen.parts.replay import Steps
from rlgen.parts.soft import StochasticActor

BOX = Box((2,), -2.0, 2.0)
SMALL = {"hidden_sizes": (4,), "batch_size": 5, "capacity": 16, "warm_up": 0, "critic_bound": 1.0}
HYPERS = sac.Hypers(learning_rate=1e-2, critic_learning_rate=1e-2, temperature_learning_rate=1e-2, temperature=0.3)
KEY = jax.random.key(1)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


@functools.cache
def begun(action=BOX, **config):
    """A network, a learner and a minibatch."""
    spec, config = Spec(Box((3,)), action), sac.Config(**{**SMALL, **config})
    network = ActorAndCritics(StochasticActor(spec, config), Critics(spec, config))
    learner = jax.jit(functools.partial(sac.init, network=network))(jax.random.key(0), HYPERS).learner
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 5, 3)).astype(np.float32)
    taken = rng.integers(0, 4, 5) if isinstance(action, Discrete) else rng.uniform(-2, 2, (5, 2)).astype(np.float32)
    discount = jnp.array([0.9, 0.0, 0.9, 0.9, 0.0])
    target = jax.tree.map(lambda leaf: leaf + 0.1, learner.critics)
    return network, learner._replace(target=target), Steps(obs, taken, jnp.arange(5.0), discount, next_obs)


def seen(key, network, learner, params, obs):
    """What the actor chooses with the first of `key`'s parts, and what critics with `params` say of it."""
    action_key, critics_key = jax.random.split(key, 3)[:2]
    chosen = soft.choices(action_key, learner.actor, obs, actor=network.actor)
    return chosen, np.asarray(network.critics.predict(critics_key, params, obs, chosen.action))


@pytest.mark.parametrize("temperature", sac.TEMPERATURES)
def test_target_by_hand(temperature):
    network, learner, batch = begun(temperature=temperature)
    chosen, q_values = seen(KEY, network, learner, learner.target, batch.next_obs)
    expected = batch.reward + batch.discount * (q_values[..., 0].min(0) - 0.3 * chosen.log_prob[:, 0])
    close(sac.goal(KEY, learner, batch, HYPERS, network=network)[0][:, 0], expected)


def test_target_of_discrete_actions_is_an_expectation():
    network, learner, batch = begun(Discrete(4))
    chosen, q_values = seen(KEY, network, learner, learner.target, batch.next_obs)
    close(chosen.probability.sum(-1), np.ones(5))
    onward = (chosen.probability * (q_values.min(0) - 0.3 * chosen.log_prob)).sum(-1)
    close(sac.goal(KEY, learner, batch, HYPERS, network=network)[0][:, 0], batch.reward + batch.discount * onward)


POOLED = {
    "head": "quantile",
    "num_quantiles": 5,
    "num_dropped": 2,
    "num_critics": 3,
    "num_targets": 3,
    "actor_value": "mean",
}


def test_target_of_quantiles_drops_the_largest_of_all_critics():
    network, learner, batch = begun(**POOLED)
    chosen, quantiles = seen(KEY, network, learner, learner.target, batch.next_obs)
    pool = np.sort(np.concatenate(list(quantiles), axis=-1))[:, :9]
    expected = batch.reward[:, None] + batch.discount[:, None] * (pool - 0.3 * chosen.log_prob)
    close(sac.goal(KEY, learner, batch, HYPERS, network=network), (expected, np.full((5, 9), 1 / 9)))


def test_target_of_a_drawn_subset_is_the_least_of_some_pair():
    network, learner, batch = begun(num_critics=4, num_targets=2)
    chosen, q_values = seen(KEY, network, learner, learner.target, batch.next_obs)
    found = sac.goal(KEY, learner, batch, HYPERS, network=network)[0][:, 0]
    pairs = [np.minimum(q_values[i], q_values[j])[:, 0] for i in range(4) for j in range(i)]
    errors = [
        np.abs(batch.reward + batch.discount * (pair - 0.3 * chosen.log_prob[:, 0]) - found).max() for pair in pairs
    ]
    assert min(errors) < 1e-5


@pytest.mark.parametrize("action", [BOX, Discrete(4)])
def test_losses_by_hand(action):
    network, learner, batch = begun(action)
    returns, weight = jnp.linspace(-1.0, 1.0, 5)[:, None], jnp.linspace(0.5, 1.5, 5)
    target = returns, jnp.ones((5, 1))
    loss, (_, q_value, error) = ensemble.loss(
        learner.critics, KEY, target, batch, weight, HYPERS, critics=network.critics
    )
    inner = None if isinstance(action, Discrete) else batch.action / 2
    predicted = np.asarray(network.critics.predict(KEY, learner.critics, batch.obs, inner))
    taken = predicted[:, np.arange(5), batch.action] if inner is None else predicted[..., 0]
    close(loss, (weight * 0.5 * (returns[:, 0] - taken) ** 2).mean(1).sum())
    close(q_value, taken.mean())
    close(error, np.abs(returns[:, 0] - taken).mean(0))


@pytest.mark.parametrize(("actor_value", "reduce"), [("least", np.min), ("mean", np.mean)])
def test_the_actor_climbs_values_and_entropy(actor_value, reduce):
    network, learner, batch = begun(actor_value=actor_value)
    loss, nats = sac.actor_loss(learner.actor, KEY, learner, batch, HYPERS, network=network)
    action_key, critics_key = jax.random.split(KEY)
    chosen = soft.choices(action_key, learner.actor, batch.obs, actor=network.actor)
    q_values = network.critics.predict(critics_key, learner.critics, batch.obs, chosen.action)[..., 0]
    close((loss, nats), ((0.3 * chosen.log_prob[:, 0] - reduce(q_values, axis=0)).mean(), -chosen.log_prob.mean()))


def test_the_actor_climbs_the_mean_of_all_quantiles_of_all_critics():
    network, learner, batch = begun(**POOLED)
    loss, _ = sac.actor_loss(learner.actor, KEY, learner, batch, HYPERS, network=network)
    action_key, critics_key = jax.random.split(KEY)
    chosen = soft.choices(action_key, learner.actor, batch.obs, actor=network.actor)
    quantiles = network.critics.predict(critics_key, learner.critics, batch.obs, chosen.action)
    assert quantiles.shape == (3, 5, 5)
    close(loss, (0.3 * chosen.log_prob[:, 0] - quantiles.mean((0, 2))).mean())


def test_temperature_falls_when_entropy_is_above_its_target_and_stays_when_it_is_fixed():
    for temperature, share in (("learned", 1.0), ("learned", -5.0), ("fixed", 1.0)):
        network, learner, batch = begun(temperature=temperature)
        hypers = HYPERS._replace(entropy_share=share)
        moved, nats = jax.jit(functools.partial(sac.improve, network=network))(KEY, learner, batch, hypers)
        change = float(moved.log_temperature - learner.log_temperature)
        above = float(nats) > -2.0 * share
        assert above == (share > 0)
        close(change, 0.0 if temperature == "fixed" else -0.01 if above else 0.01)
        assert soft.temperature(learner.log_temperature, hypers, kind=temperature) == pytest.approx(0.3)


def test_actor_waits_for_its_turn_and_targets_follow_every_step():
    network, learner, batch = begun(actor_period=3)
    rule, before = jax.jit(functools.partial(sac.learn, network=network)), learner
    for count in range(6):
        learner, metrics, priority = rule(KEY, jnp.int32(count), before, batch, jnp.ones(5), HYPERS)
        moved = jax.tree.map(lambda new, old: not np.array_equal(new, old), learner, before)
        assert all(jax.tree.leaves(moved.critics)) and all(jax.tree.leaves(moved.target))
        assert any(jax.tree.leaves((moved.actor, moved.log_temperature))) == (count % 3 == 2) == bool(metrics.entropy)
        expected = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, before.target, learner.critics)
        jax.tree.map(close, learner.target, expected)
        assert priority.shape == (5,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "implicit"}, "config.head='implicit' is not one of expected, quantile"),
        ({"num_targets": 3}, "config.num_targets=3 is not between 1 and 2 critics"),
        ({"head": "quantile"}, "takes config.num_targets=2 and config.actor_value='mean', not 2 and 'least'"),
        ({**POOLED, "num_targets": 2}, "takes config.num_targets=3 and config.actor_value='mean', not 2 and 'mean'"),
        ({"num_dropped": 25}, "config.num_dropped=25 leaves none of 25 quantiles"),
        ({"dropout": 1.0}, "config.dropout=1.0 is no share below 1"),
    ],
)
def test_an_impossible_config_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        sac.Config(**fields)


def test_quantiles_of_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="has no meaning for Discrete"):
        sac.build(Spec(Box((1,)), Discrete(2)), sac.Config(head="quantile", actor_value="mean"))


LEARNING = {"num_envs": 8, "batch_size": 32, "capacity": 1600, "warm_up": 64, "hidden_sizes": (32,)}
QUICK = sac.Hypers(
    learning_rate=1e-2, critic_learning_rate=1e-2, temperature_learning_rate=1e-2, tau=0.05, discount=0.5
)


def test_finds_the_best_continuous_action(acted):
    probe = probes.continuous_action()
    action = acted(sac, probe, sac.Config(**LEARNING), QUICK._replace(entropy_share=3.0), 400)
    np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=0.15)


@pytest.mark.learning
@pytest.mark.parametrize(
    "config",
    [
        {"head": "quantile", "actor_value": "mean"},
        {"temperature": "fixed"},
        {"num_critics": 4, "num_targets": 2, "num_steps": 4, "actor_period": 4, "actor_value": "mean"},
        {"dropout": 0.01, "layer_norm": True},
    ],
    ids=str,
)
def test_every_variant_finds_the_best_continuous_action(config, acted):
    probe, hypers = probes.continuous_action(), QUICK._replace(entropy_share=3.0, temperature=0.02)
    action = acted(sac, probe, sac.Config(**{**LEARNING, **config}), hypers, 400)
    np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=0.15)


@pytest.mark.learning
def test_finds_the_best_discrete_actions(acted):
    probe = probes.reward_by_observation_and_action()
    action = acted(sac, probe, sac.Config(**LEARNING), QUICK._replace(entropy_share=0.3), 400)
    np.testing.assert_array_equal(action, np.broadcast_to(probe.best_actions, action.shape))


def test_noise_is_added_while_exploring_and_remembers_within_an_episode():
    network, learner, batch = begun(noise="ou")
    state, hypers = sac.State(learner, (), ()), HYPERS._replace(noise_start=0.2, noise_end=0.2)
    algorithm, without = sac.build(network.spec, network.config), HYPERS._replace(noise_start=0.0, noise_end=0.0)
    exploring, quiet = (algorithm.policy(jnp.int32(1), state, each, explore=True) for each in (hypers, without))
    memory = exploring.memory((5,))
    np.testing.assert_array_equal(memory, np.zeros((5, 2)))
    noisy, _, after = exploring.apply(KEY, batch.obs, memory)
    action, _, _ = quiet.apply(KEY, batch.obs, memory)
    # The box is twice as wide as a policy's actions, and the process has just begun.
    added = 0.2 * np.sqrt(0.15 * 1.85) * np.asarray(after)
    close(noisy, 2 * np.clip(np.asarray(action) / 2 + added, -1, 1))
    assert np.all(after != 0)
    assert algorithm.policy(jnp.int32(1), state, hypers, explore=False).memory((5,)) == ()
    with pytest.raises(ValueError, match=r"config\.noise='gaussian' has no meaning for Discrete"):
        sac.build(Spec(Box((3,)), Discrete(2)), sac.Config(noise="gaussian"))


def test_many_gradient_steps_are_one_loop_of_one_step():
    def size(num_steps, num_critics):
        config = sac.Config(**SMALL, num_steps=num_steps, num_critics=num_critics, actor_period=num_steps)
        algorithm = sac.build(Spec(Box((3,)), BOX), config)
        obs, zero, no = jnp.zeros((1, 1, 3)), jnp.zeros((1, 1)), jnp.zeros((1, 1), bool)
        batch = Transition(obs, jnp.zeros((1, 1, 2)), zero, obs, no, no, {})
        state = jax.eval_shape(algorithm.init, KEY, HYPERS)
        return str(jax.make_jaxpr(algorithm.update)(KEY, jnp.int32(0), state, batch, HYPERS)).count(" = ")

    assert size(2, 2) == size(20, 2)
    assert size(2, 5) == size(20, 10)  # of which two are drawn for each target
