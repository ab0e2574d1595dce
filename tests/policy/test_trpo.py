"""TRPO: its step against a dense natural gradient, the trust region that no step leaves, the critic, and the probes."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import probes
from rlgen.parts import actor_critic, networks, normalise, returns
from rlgen.policy import trpo

SPECS = {"discrete": Spec(Box((3,)), Discrete(4)), "continuous": Spec(Box((3,)), Box((2,), -1.0, 1.0))}
PLAIN = {
    "num_envs": 2,
    "rollout_length": 8,
    "hidden_sizes": (4,),
    "num_epochs": 1,
    "num_minibatches": 1,
    "num_cg_iterations": 60,  # as good as an exact solution
    "normalise_advantages": False,
}
HYPERS = trpo.Hypers(damping=0.01)
FACTS = ("improvement", "kl", "accepted", "step_scale")


def collected(key, state, network):
    """A made-up rollout `[8, 2]` whose actions the policy itself drew."""
    obs_key, act_key, flag_key, reward_key = jax.random.split(key, 4)
    obs = jax.random.normal(obs_key, (8, 2, 3))
    action, extras, _ = actor_critic.act(act_key, obs, (), state=state, network=network, explore=True)
    flags = jax.random.bernoulli(flag_key, 0.2, (2, 8, 2))
    reward = jax.random.normal(reward_key, (8, 2))
    return Transition(obs, action, reward, obs + 0.5, flags[0], flags[1] & ~flags[0], extras)


class Start(NamedTuple):
    network: actor_critic.ActorCritic
    state: trpo.State
    rollout: Transition
    batch: actor_critic.Examples
    improve: Any  # `(params, batch, hypers) -> (params, facts)`, compiled
    update: Any  # `(key, step, state, rollout, hypers)`, compiled


@functools.cache
def begun(kind, curvature_subsample=1):
    """A learner and a rollout that it drew itself."""
    config = trpo.Config(**PLAIN, curvature_subsample=curvature_subsample)
    network, generator = actor_critic.make(SPECS[kind], config), np.random.default_rng(1)

    @jax.jit
    def make():
        state = trpo.init(jax.random.key(0), HYPERS, network=network)
        # The first actor is almost uniform; a livelier one has a curvature to speak of, and need not be compiled.
        draw = functools.partial(generator.standard_normal, dtype=np.float32)
        params = jax.tree.map(lambda leaf: 0.6 * draw(leaf.shape), state.learner.params)
        state = state._replace(learner=state.learner._replace(params=params))
        batch = collected(jax.random.key(2), state, network)
        return state, batch, actor_critic.estimate(params, batch, HYPERS, network=network)

    improve, update = (
        jax.jit(functools.partial(function, network=network)) for function in (trpo.improve, trpo.update)
    )
    state, transitions, batch = make()
    return Start(network, state, transitions, batch, improve, update)


@functools.cache
def dense(kind, every=1):
    """Gradient and Fisher matrix as arrays, and the mean divergence and surrogate of any parameters."""
    start = begun(kind, every)
    old, unravel = ravel_pytree(start.state.learner.params)
    batch = start.batch

    def actor(flat, obs):
        return networks.apply(start.network, unravel(flat), obs, method="actor")

    def kl(flat, every=1):
        return actor(old, batch.obs[::every]).kl_divergence(actor(flat, batch.obs[::every])).mean()

    def objective(flat):
        ratio = jnp.exp(actor(flat, batch.obs).log_prob(batch.action) - actor(old, batch.obs).log_prob(batch.action))
        return (ratio * batch.advantage).mean()

    gradient, fisher = jax.jit(lambda flat: (jax.grad(objective)(flat), jax.hessian(kl)(flat, every)))(old)
    return np.asarray(old), np.asarray(gradient), np.asarray(fisher), jax.jit(kl), jax.jit(objective)


def changed(start, **config):
    """The same networks under another config."""
    return actor_critic.make(start.network.spec, dataclasses.replace(start.network.config, **config))


def flat_of(tree):
    return np.asarray(ravel_pytree(tree)[0])


@pytest.mark.parametrize(("kind", "every"), [("discrete", 1), ("continuous", 3)])
def test_step_is_the_dense_natural_gradient_cut_back_into_the_trust_region(kind, every):
    start = begun(kind, every)
    old, gradient, fisher, kl, objective = dense(kind, every)
    damped = fisher + 0.01 * np.eye(len(fisher))
    direction = np.linalg.solve(damped, gradient)
    step = np.sqrt(2 * 0.01 / (gradient @ direction)) * direction

    hypers = HYPERS._replace(backtrack=0.7)
    scale = next(
        scale
        for scale in 0.7 ** np.arange(10)
        if kl(old + scale * step) <= 0.01 and objective(old + scale * step) > objective(old)
    )
    params, facts = start.improve(start.state.learner.params, start.batch, hypers)
    new = flat_of(params)
    np.testing.assert_allclose(new - old, scale * step, rtol=1e-2, atol=1e-4)
    facts = dict(zip(FACTS, facts, strict=True))
    np.testing.assert_allclose(facts["step_scale"], scale, rtol=1e-5)
    np.testing.assert_allclose(facts["kl"], kl(new), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(facts["improvement"], objective(new) - objective(old), rtol=1e-3, atol=1e-5)
    assert facts["accepted"] == 1


@pytest.mark.parametrize(("kind", "every"), [("discrete", 1), ("continuous", 3)])
def test_no_accepted_step_leaves_the_trust_region_or_makes_the_surrogate_worse(kind, every):
    start = begun(kind, every)
    old, _, _, kl, objective = dense(kind, every)
    accepted, scales = [], []
    for max_kl in (1e-4, 1e-2, 0.1, 1.0, 10.0):
        for damping in (1e-3, 0.03, 1.0):
            hypers = HYPERS._replace(max_kl=max_kl, damping=damping)
            params, facts = start.improve(start.state.learner.params, start.batch, hypers)
            new, facts = flat_of(params), dict(zip(FACTS, map(float, facts), strict=True))
            assert facts["kl"] <= max_kl
            assert kl(new) <= max_kl * (1 + 1e-4) + 1e-7
            if facts["accepted"]:
                assert objective(new) > objective(old)
                assert not np.array_equal(new, old)
            else:
                assert set(facts.values()) == {0.0}
                np.testing.assert_array_equal(new, old)
            accepted.append(facts["accepted"])
            scales.append(facts["step_scale"])
    assert sum(accepted) >= 5
    assert len(set(scales)) > 1


def test_without_a_gradient_or_with_a_bad_number_nothing_moves():
    start = begun("discrete")
    for advantage in (0.0, np.nan):
        batch = start.batch._replace(advantage=jnp.full(16, advantage, jnp.float32))
        params, facts = start.improve(start.state.learner.params, batch, HYPERS)
        np.testing.assert_array_equal(flat_of(params), flat_of(start.state.learner.params))
        assert set(map(float, facts)) == {0.0}


def test_actor_and_critic_learn_apart():
    start = begun("discrete")
    before = start.state.learner.params["params"]
    actor_alone, metrics = start.update(
        jax.random.key(3), jnp.int32(0), start.state, start.rollout, HYPERS._replace(learning_rate=0.0)
    )
    both, _ = start.update(jax.random.key(3), jnp.int32(0), start.state, start.rollout, HYPERS)
    assert metrics.accepted == 1
    for name, leaves in before.items():
        is_critic = name.startswith("critic")
        pairs = ((leaves, actor_alone), (actor_alone.learner.params["params"][name], both))
        same = [np.array_equal(flat_of(old), flat_of(new.learner.params["params"][name])) for old, new in pairs]
        assert same == [is_critic, not is_critic]


def test_estimate_is_gae_and_the_return_that_goes_with_it():
    start = begun("discrete")
    batch = start.rollout
    critic = jax.jit(functools.partial(start.network.apply, method="critic"))
    value, next_value = (critic(start.state.learner.params, obs) for obs in (batch.obs, batch.next_obs))
    expected = returns.gae(batch.reward, value, next_value, batch.terminated, batch.truncated, 0.99, 0.95)
    np.testing.assert_allclose(start.batch.advantage, expected.ravel(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(start.batch.target, (expected + value).ravel(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(start.batch.obs, batch.obs.reshape(16, 3))
    np.testing.assert_array_equal(start.batch.action, batch.action.ravel())


def test_an_epoch_of_the_critic_sees_every_example_once():
    start = begun("discrete")
    network = changed(start, num_minibatches=4)
    fit = jax.jit(functools.partial(trpo.fit, network=network))
    still = HYPERS._replace(learning_rate=0.0)  # so that minibatches may be compared with the whole
    _, errors = fit(jax.random.key(3), start.state.learner, start.batch, still)
    # The target is the old value plus the advantage.
    np.testing.assert_allclose(errors.mean(), 0.5 * np.square(start.batch.advantage).mean(), rtol=1e-4)
    assert len(set(errors.tolist())) == 4
    learner, _ = fit(jax.random.key(3), start.state.learner, start.batch, HYPERS)
    _, after = fit(jax.random.key(3), learner, start.batch, still)
    assert after.mean() < errors.mean()


def test_normalised_advantages_have_no_scale_and_no_offset():
    start = begun("discrete")
    network = changed(start, normalise_advantages=True)
    learn = jax.jit(functools.partial(trpo.learn, network=network))
    first, second = (
        learn(
            jax.random.key(3),
            start.state.learner,
            start.batch._replace(advantage=scale * start.batch.advantage + shift),
            HYPERS,
        )
        for scale, shift in ((1.0, 0.0), (7.0, 3.0))
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-4), first, second)
    assert first[1].accepted == 1


def test_observations_and_rewards_are_normalised():
    start = begun("discrete")
    network = changed(start, normalise_observations=True, normalise_rewards=True)
    update = jax.jit(functools.partial(trpo.update, network=network))
    # These moments have seen nothing, and give observations as they are.
    state = trpo.State(start.state.learner, normalise.moments((3,)), normalise.returns(2))
    batch = start.rollout._replace(obs=start.rollout.obs + 1.0, next_obs=start.rollout.next_obs + 1.0)
    after, metrics = update(jax.random.key(3), jnp.int32(0), state, batch, HYPERS)
    np.testing.assert_allclose(after.observations.mean, batch.obs.reshape(-1, 3).mean(0), rtol=1e-3)
    scaled, again = update(jax.random.key(3), jnp.int32(0), state, batch._replace(reward=100.0 * batch.reward), HYPERS)
    np.testing.assert_allclose(metrics.value_loss, again.value_loss, rtol=1e-3)
    np.testing.assert_allclose(scaled.returns.moments.variance, 1e4 * after.returns.moments.variance, rtol=1e-3)
    # What a rollout gives does not depend on where its observations lie, once the moments have.
    moved = state._replace(observations=normalise.Moments(jnp.ones(3), jnp.ones(3), jnp.float32(1)))
    _, shifted = update(jax.random.key(3), jnp.int32(0), moved, batch, HYPERS)
    _, plain = start.update(jax.random.key(3), jnp.int32(0), start.state, start.rollout, HYPERS)
    np.testing.assert_allclose(shifted.entropy, plain.entropy, rtol=1e-5)
    assert abs(float(metrics.entropy - plain.entropy)) > 1e-4
    act = jax.jit(functools.partial(actor_critic.act, network=network, explore=False))
    actions = act(jax.random.key(4), batch.obs, (), state=moved)[0]
    np.testing.assert_array_equal(actions, act(jax.random.key(4), start.rollout.obs, (), state=state)[0])
    assert not np.array_equal(actions, act(jax.random.key(4), batch.obs, (), state=state)[0])


def test_policy_gives_the_mode_or_a_sample():
    start = begun("discrete")
    algorithm = trpo.build(SPECS["discrete"], start.network.config)

    @functools.partial(jax.jit, static_argnums=0)
    def both(explore):
        policy = algorithm.policy(jnp.int32(0), start.state, HYPERS, explore=explore)
        action = policy.apply(jax.random.key(5), start.rollout.obs, policy.memory((8, 2)))[0]
        return action, networks.apply(
            start.network, start.state.learner.params, start.rollout.obs, method="actor"
        ).mode()

    for explore in (False, True):
        assert np.array_equal(*both(explore)) is not explore


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="leaves nothing of the advantage of a single example"):
        trpo.Config(num_envs=1, rollout_length=1, num_minibatches=1)
    with pytest.raises(ValueError, match=r"config\.num_minibatches=3 does not divide"):
        trpo.Config(num_envs=2, rollout_length=8, num_minibatches=3)
    with pytest.raises(ValueError, match=r"config\.normalise_observations has no meaning"):
        trpo.build(Spec(Discrete(5), Discrete(2)), trpo.Config(normalise_observations=True))


@pytest.mark.learning
@pytest.mark.parametrize(("kind", "num_updates"), [("discrete", 80), ("continuous", 60)])
def test_values_and_actions_are_learned_within_the_trust_region(probe, trained, solved, kind, num_updates):
    probe = probes.continuous_action() if kind == "continuous" else probe
    config = trpo.Config(num_envs=16, rollout_length=8, num_epochs=4, num_minibatches=4, hidden_sizes=(16,))
    hypers = trpo.Hypers(learning_rate=2e-2, damping=1e-2, max_kl=0.03)
    found, metrics = trained(trpo, probe, config, hypers, num_updates)
    solved(probe, *found)
    assert metrics.kl.max() <= hypers.max_kl
