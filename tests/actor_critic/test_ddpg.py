"""Deterministic policy gradients: targets by hand, the actor's gradient as rlax has it, noise, and probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
import scipy.special

from rlgen.actor_critic import ddpg
from rlgen.core import Box, Discrete, Spec
from rlgen.envs import probes
from rlgen.parts import ensemble
from rlgen.parts.control import DeterministicActor
from rlgen.parts.ensemble import ActorAndCritics, Critics
from rlgen.parts.replay import Steps

SPEC = Spec(Box((3,)), Box((2,), -2.0, 2.0))
SMALL = {"hidden_sizes": (4,), "batch_size": 5, "capacity": 16, "warm_up": 0, "critic_bound": 1.0, "actor_bound": 1.0}
HYPERS = ddpg.Hypers(learning_rate=1e-2, critic_learning_rate=1e-2, horizon=10.0)
KEY = jax.random.key(1)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


@functools.cache
def begun(**config):
    """A network, a learner and a minibatch."""
    config = ddpg.Config(**{**SMALL, **config})
    network = ActorAndCritics(DeterministicActor(SPEC, config), Critics(SPEC, config))
    learner = jax.jit(functools.partial(ddpg.init, network=network))(jax.random.key(0), HYPERS).learner
    targets = jax.tree.map(lambda leaf: leaf + 0.1, (learner.target_actor, learner.target_critics))
    learner = learner._replace(target_actor=targets[0], target_critics=targets[1])
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 5, 3)).astype(np.float32)
    action = rng.uniform(-2, 2, (5, 2)).astype(np.float32)
    return network, learner, Steps(obs, action, jnp.arange(5.0), jnp.array([0.9, 0.0, 0.9, 0.9, 0.0]), next_obs)


def test_target_is_the_lesser_value_of_the_target_actors_action():
    network, learner, batch = begun(num_critics=2)
    returns, probability = ddpg.goal(KEY, learner, batch, HYPERS, network=network)
    action = network.actor.apply(learner.target_actor, batch.next_obs)
    q_values = np.asarray(network.critics.apply(learner.target_critics, batch.next_obs, action))[..., 0]
    close(returns[:, 0], batch.reward + batch.discount * q_values.min(0))
    np.testing.assert_array_equal(probability, np.ones((5, 1)))


@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_smoothing_adds_noise_within_its_clip_and_the_box(clip):
    network, learner, batch = begun(smoothing=True)
    hypers = HYPERS._replace(target_noise=100.0, target_noise_clip=clip)
    returns, _ = ddpg.goal(KEY, learner, batch, hypers, network=network)
    action = network.actor.apply(learner.target_actor, batch.next_obs)
    sign = jnp.sign(jax.random.normal(jax.random.split(KEY)[0], action.shape))
    action = jnp.clip(action + clip * sign, -1.0, 1.0)
    q_values = network.critics.apply(learner.target_critics, batch.next_obs, action)[0, :, 0]
    close(returns[:, 0], batch.reward + batch.discount * q_values)


def test_losses_of_distributions_by_hand():
    weight = np.linspace(0.5, 1.5, 5, dtype=np.float32)
    for head, num in (("categorical", {"num_atoms": 5}), ("sampled", {"num_quantiles": 7})):
        network, learner, batch = begun(head=head, **num)

        @jax.jit
        def paid(learner, network=network, batch=batch):
            target = ddpg.goal(KEY, learner, batch, HYPERS, network=network)
            predicted = network.critics.predict(KEY, learner.critics, batch.obs, batch.action / 2)[0]
            loss = ensemble.loss(learner.critics, KEY, target, batch, weight, HYPERS, critics=network.critics)
            return target, predicted, loss

        target, predicted, (loss, (_, _, priority)) = jax.device_get(paid(learner))
        if head == "categorical":
            atoms = np.linspace(-10, 10, 5, dtype=np.float32)
            project = jax.jit(jax.vmap(rlax.categorical_l2_project, (0, 0, None)))
            projected = np.asarray(project(target[0], target[1], atoms))
            each = (projected * (np.log(projected + 1e-30) - scipy.special.log_softmax(predicted, -1))).sum(-1)
            close(priority, np.abs((target[0] * target[1]).sum(-1) - scipy.special.softmax(predicted, -1) @ atoms))
        else:
            assert np.all(np.diff(predicted) >= 0)
            fractions = np.broadcast_to((np.arange(7, dtype=np.float32) + 0.5) / 7, (5, 7))
            regress = jax.vmap(functools.partial(rlax.quantile_regression_loss, huber_param=1.0))
            each = jax.jit(regress)(predicted, fractions, target[0])
        np.testing.assert_allclose(loss, (weight * each).mean(), rtol=1e-3)


def test_the_actors_gradient_is_that_of_rlax():
    network, learner, batch = begun(num_critics=2)
    slope = jax.jit(jax.grad(functools.partial(ddpg.actor_loss, network=network), has_aux=True))
    found, _ = slope(learner.actor, KEY, learner.critics, batch, HYPERS)

    def value(action, obs):
        return network.critics.apply(learner.critics, obs, action)[0, 0]

    def theirs(params):
        action = network.actor.apply(params, batch.obs)
        slope = jax.vmap(jax.grad(value))(jax.lax.stop_gradient(action), batch.obs)
        return 2 * jax.vmap(rlax.dpg_loss)(action, slope).mean()  # it averages over an action's two elements

    jax.tree.map(close, found, jax.jit(jax.grad(theirs))(learner.actor))


def test_the_actor_and_all_targets_wait_for_their_turn():
    network, learner, batch = begun(actor_period=2, num_critics=2)
    rule, before = jax.jit(functools.partial(ddpg.learn, network=network)), learner
    for count in range(4):
        learner, _, priority = rule(KEY, jnp.int32(count), before, batch, jnp.ones(5), HYPERS)
        moved = jax.tree.map(lambda new, old: not np.array_equal(new, old), learner, before)
        assert all(jax.tree.leaves(moved.critics)) and priority.shape == (5,)
        others = jax.tree.leaves((moved.actor, moved.target_actor, moved.target_critics))
        assert any(others) == all(others) == (count % 2 == 1)
    new, old = (learner.actor, learner.critics), (before.target_actor, before.target_critics)
    expected = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, old, new)
    jax.tree.map(close, (learner.target_actor, learner.target_critics), expected)


def test_a_process_begins_anew_with_an_episode_and_is_not_evaluated():
    network, learner, batch = begun(noise="ou")
    algorithm = ddpg.build(SPEC, network.config)
    state = ddpg.State(learner, (), ())
    exploring, evaluated = (algorithm.policy(jnp.int32(1), state, HYPERS, explore=explore) for explore in (True, False))
    memory = exploring.memory((5,))
    np.testing.assert_array_equal(memory, np.zeros((5, 2)))
    assert evaluated.memory((5,)) == ()
    _, _, after = exploring.apply(KEY, batch.obs, memory)
    assert np.all(after != 0)
    action, _, _ = evaluated.apply(KEY, batch.obs, ())
    close(action, 2 * network.actor.apply(learner.actor, batch.obs))


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"config\.noise='pink' is not one of gaussian, ou"):
        ddpg.Config(noise="pink")
    with pytest.raises(ValueError, match=r"config\.num_critics=2: distributions of 'categorical' are not compared"):
        ddpg.Config(num_critics=2, head="categorical")
    with pytest.raises(ValueError, match="a vector of numbers"):
        ddpg.build(Spec(Box((1,)), Discrete(2)), ddpg.Config())


LEARNING = {"num_envs": 8, "batch_size": 32, "capacity": 1600, "warm_up": 64, "hidden_sizes": (32,)}
QUICK = ddpg.Hypers(
    learning_rate=3e-3, critic_learning_rate=1e-2, tau=0.05, discount=0.5, noise_start=0.3, noise_end=0.3
)


def test_finds_the_best_action(acted):
    probe = probes.continuous_action()
    action = acted(ddpg, probe, ddpg.Config(**LEARNING), QUICK, 400)
    np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=0.15)


@pytest.mark.learning
@pytest.mark.parametrize(
    "config",
    [
        {"num_critics": 2, "actor_period": 2, "smoothing": True},
        {"noise": "ou"},
        {"head": "categorical", "n_step": 3, "replay": "proportional"},
        {"head": "sampled"},
    ],
    ids=str,
)
def test_every_variant_finds_the_best_action(config, acted):
    probe, hypers = probes.continuous_action(), QUICK._replace(lowest_return=-3.0, highest_return=1.0)
    action = acted(ddpg, probe, ddpg.Config(**{**LEARNING, **config}), hypers, 600)
    np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=0.15)
