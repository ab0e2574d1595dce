"""IMPALA: A2C where nothing lags, V-trace against rlax, when the actors are renewed, and the probes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, probes
from rlgen.parts import actor_critic, networks, optim, returns
from rlgen.policy import a2c, impala
from rlgen.sources import rollout

SPECS = {"discrete": Spec(Box((3,)), Discrete(4)), "continuous": Spec(Box((3,)), Box((2,), -1.0, 1.0))}
SHAPE = {"policy_lag": 3, "num_envs": 2, "rollout_length": 8, "hidden_sizes": (8,)}
HYPERS = impala.Hypers(learning_rate=1e-2, gae_lambda=0.8, rho_bar=1.2, horizon=10.0)
gae, vtrace = jax.jit(returns.gae), jax.jit(returns.vtrace)
NORMALISED = {"normalise_advantages": True, "normalise_observations": True, "normalise_rewards": True}


class Start(NamedTuple):
    network: actor_critic.ActorCritic
    state: impala.State
    batch: Transition  # [8, 2], in which every episode is cut after 4 steps at the latest
    ratio: np.ndarray  # [8, 2], the learner's probabilities over the actors'
    value: np.ndarray  # [8, 2]
    next_value: np.ndarray  # [8, 2]
    estimate: Any  # `(params, batch, hypers) -> (examples, rho)`, compiled
    update: Any  # `(key, step, state, batch, hypers)`, compiled


def lively(seed, params, scale=0.4):
    """The first actor is almost uniform; a livelier one has gradients to speak of, and need not be compiled."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: scale * generator.standard_normal(leaf.shape, np.float32), params)


@functools.cache
def begun(name="discrete", lagging=True, **config):
    """A learner, and a rollout that its actors drew."""
    network = actor_critic.make(SPECS[name], impala.Config(**{**SHAPE, **config}))

    @jax.jit
    def make():
        state = impala.init(jax.random.key(0), HYPERS, network=network)
        params = lively(1, state.learner.params)
        actors = jax.tree.map(np.add, params, lively(2, params)) if lagging else params
        state = state._replace(learner=state.learner._replace(params=params), actors=actors)
        obs_key, act_key, flag_key, reward_key = jax.random.split(jax.random.key(8), 4)
        obs = jax.random.normal(obs_key, (9, 2, 3))
        policy = impala.policy(jnp.int32(0), state, HYPERS, explore=True, network=network)
        action, extras, _ = policy.apply(act_key, obs[:-1], ())
        terminated = jax.random.bernoulli(flag_key, 0.2, (8, 2)).at[3::4].set(False)
        truncated = jnp.zeros((8, 2), bool).at[3].set(True)
        reward = 1 + jax.random.normal(reward_key, (8, 2))
        # What a cut episode shows last is not what the next one shows first.
        batch = Transition(obs[:-1], action, reward, obs[1:].at[3].add(1.0), terminated, truncated, extras)
        mine, theirs = (
            networks.apply(network, each, batch.obs, method="actor").log_prob(action) for each in (params, actors)
        )
        values = (networks.apply(network, params, each, method="critic") for each in (batch.obs, batch.next_obs))
        return state, batch, jnp.exp(mine - theirs), *values

    state, batch, *numbers = make()
    functions = (jax.jit(functools.partial(each, network=network)) for each in (impala.estimate, impala.update))
    return Start(network, state, batch, *map(np.asarray, numbers), *functions)


def close(left, right, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-4, "atol": 1e-5, **tolerance}), left, right
    )


def same(left, right):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right)))


def a2c_update(network):
    """A2C's update of IMPALA's state, compiled."""

    @jax.jit
    def update(key, step, state, batch, hypers):
        start = a2c.State(state.learner, state.observations, state.returns)
        return a2c.update(key, step, start, batch, hypers, network=network)

    return update


@pytest.mark.parametrize(
    ("name", "correction", "config"),
    [
        ("discrete", "vtrace", {}),
        ("continuous", "none", {"optimiser": "adam"}),
        ("discrete", "one_step_is", NORMALISED),
    ],
)
def test_without_a_lag_it_is_a2c(name, correction, config):
    start = begun(name, lagging=False, correction=correction, policy_lag=1, **config)
    arguments = jax.random.key(4), jnp.int32(3), start.state, start.batch, HYPERS
    (ours, metrics), (theirs, expected) = start.update(*arguments), a2c_update(start.network)(*arguments)
    close((ours.learner, ours.observations, ours.returns), tuple(theirs), rtol=1e-5, atol=1e-6)
    close(metrics[:-1], tuple(expected), rtol=1e-5, atol=1e-6)
    close(metrics.rho, 1.0, rtol=1e-6)
    assert same(ours.actors, ours.learner.params)
    assert not same(ours.learner.params, start.state.learner.params)


@pytest.mark.filterwarnings("ignore:.*:PendingDeprecationWarning:rlax")
@pytest.mark.parametrize("name", SPECS)
def test_targets_and_advantages_agree_with_rlax(name):
    start = begun(name)
    _, state, batch, ratio, value, next_value, *_ = start
    examples, rho = start.estimate(state.learner.params, batch, HYPERS)
    assert (ratio < 0.9).any()
    assert (ratio > 1.3).any()
    close(rho, np.minimum(1.2, ratio))

    # rlax knows no cut: the two halves of the rollout are two sequences to it, each with a bootstrap of its own.
    def halves(leaf):
        return np.asarray(leaf).reshape(2, 4, 2).swapaxes(1, 2).reshape(4, 4)

    both = functools.partial(
        rlax.vtrace_td_error_and_advantage, lambda_=0.8, clip_rho_threshold=1.2, clip_pg_rho_threshold=1.2
    )
    discount = 0.99 * ~np.asarray(batch.terminated)
    given = map(halves, (value, next_value, batch.reward, discount.astype(np.float32), ratio))
    theirs = jax.jit(jax.vmap(both))(*given)
    close(halves(examples.advantage), theirs.pg_advantage)
    close(halves(examples.target), halves(value) + theirs.errors)
    np.testing.assert_array_equal(examples.obs, batch.obs.reshape(16, 3))
    np.testing.assert_array_equal(examples.action, batch.action.reshape(16, *batch.action.shape[2:]))


def test_each_bar_bounds_its_own_weight():
    _, state, batch, ratio, value, next_value, estimate, _ = begun()
    hypers = HYPERS._replace(rho_bar=1.4, c_bar=0.7)
    examples, rho = estimate(state.learner.params, batch, hypers)
    ends = batch.terminated, batch.truncated
    weights = np.minimum(1.4, ratio), np.minimum(0.7, ratio)
    target, advantage = vtrace(batch.reward, value, next_value, *ends, 0.99, 0.8, *weights)
    close((examples.target, examples.advantage, rho), (target.ravel(), advantage.ravel(), weights[0]))


@pytest.mark.parametrize("correction", ["one_step_is", "none"])
def test_other_corrections_weigh_the_advantage_alone_or_nothing(correction):
    _, state, batch, ratio, value, next_value, *_ = begun()
    network = actor_critic.make(SPECS["discrete"], impala.Config(**SHAPE, correction=correction))
    examples, _ = jax.jit(functools.partial(impala.estimate, network=network))(state.learner.params, batch, HYPERS)
    ends = batch.terminated, batch.truncated
    advantage = np.asarray(gae(batch.reward, value, next_value, *ends, 0.99, 0.8))
    weight = np.minimum(1.2, ratio) if correction == "one_step_is" else np.ones((8, 2))
    close(examples.advantage, (weight * advantage).ravel())
    close(examples.target, (value + advantage).ravel())


def test_an_update_descends_the_papers_loss():
    start = begun()
    learner, network = start.state.learner, start.network
    examples, rho = start.estimate(learner.params, start.batch, HYPERS)

    def loss(params):
        actor, value = network.apply(params, examples.obs)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(actor.logits), examples.action[:, None], axis=1)[:, 0]
        entropy = -(jax.nn.softmax(actor.logits) * jax.nn.log_softmax(actor.logits)).sum(-1)
        error = examples.target - value
        return (-examples.advantage * chosen + 0.5 * error**2 / 2 - 0.01 * entropy).mean(), ()

    optimiser = a2c.optimiser(HYPERS, config=network.config)
    expected, *_ = jax.jit(functools.partial(optim.descend, loss, optimiser))(*learner)
    after, metrics = start.update(jax.random.key(4), jnp.int32(0), start.state, start.batch, HYPERS)
    close(after.learner.params, expected)
    close(metrics.loss, jax.jit(loss)(learner.params)[0])
    close(metrics.rho, rho.mean())


def test_actors_are_renewed_where_the_number_of_updates_is_a_multiple_of_the_lag():
    start = begun()
    state, was = start.state, []
    for step in range(7):
        after, _ = start.update(jax.random.key(4), jnp.int32(step), state, start.batch, HYPERS)
        assert not same(after.learner.params, state.learner.params)
        renewed = (step + 1) % 3 == 0
        assert same(after.actors, after.learner.params if renewed else state.actors)
        assert same(after.actors, after.learner.params) is renewed
        was.append(renewed)
        state = after
    assert sum(was) == 2


def test_actors_explore_and_the_learner_is_evaluated():
    network, state, batch, *_ = begun()
    algorithm = impala.build(SPECS["discrete"], network.config)

    @functools.partial(jax.jit, static_argnums=0)
    def both(explore):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore)
        action, extras, _ = policy.apply(jax.random.key(5), batch.obs, policy.memory((8, 2)))
        mine, theirs = (
            networks.apply(network, each, batch.obs, method="actor") for each in (state.learner.params, state.actors)
        )
        return action, mine.mode(), extras["log_prob"], mine.log_prob(action), theirs.log_prob(action)

    action, mode, log_prob, mine, theirs = both(True)
    assert not np.array_equal(action, mode)
    close(log_prob, theirs)
    assert np.abs(log_prob - mine).max() > 0.1
    action, mode, log_prob, mine, _ = both(False)
    close((action, log_prob), (mode, mine))


def test_a_core_remembers_what_its_actor_did(probe):
    env = adapter.make(probe)
    config = impala.Config(**{**SHAPE, "policy_lag": 1}, core="gru")
    network = actor_critic.make(env.spec, config, core="gru")
    algorithm, source = impala.build(env.spec, config), rollout.build(env, num_envs=2, length=8)
    look, update = (
        jax.jit(functools.partial(each, network=network)) for each in (actor_critic.hindsight, impala.update)
    )

    @jax.jit
    def collect(key, state, source_state):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)
        return source.next(key, jnp.int32(0), source_state, policy)[:2]

    @jax.jit
    def begin(key):
        state = algorithm.init(key, HYPERS)
        params = lively(0, state.learner.params)
        state = state._replace(learner=state.learner._replace(params=params), actors=params)
        return state, source.init(key, algorithm.policy(jnp.int32(0), state, HYPERS, explore=True))

    state, source_state = begin(jax.random.key(0))
    for step in range(3):
        source_state, batch = collect(jax.random.key(step), state, source_state)
        assert (batch.terminated | batch.truncated)[:-1].any()
        close(look(state.learner.params, batch)[0], batch.extras["log_prob"])
        # Had no episode ended, or another memory come before, it would have been another policy.
        endless = batch._replace(terminated=batch.terminated & False, truncated=batch.truncated & False)
        assert np.abs(look(state.learner.params, endless)[0] - batch.extras["log_prob"]).max() > 1e-2
        state, metrics = update(jax.random.key(0), jnp.int32(step), state, batch, HYPERS)
        close(metrics.rho, 1.0)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"config\.correction='retrace' is not one of vtrace, one_step_is, none"):
        impala.Config(correction="retrace")
    assert not impala.Config().idle
    assert set(impala.Config(correction="one_step_is").idle) == {"c_bar"}
    assert set(impala.Config(correction="none").idle) == {"rho_bar", "c_bar"}
    with pytest.raises(ValueError, match=r"config\.optimiser='sgd' is not one of rmsprop, adam"):
        impala.Config(optimiser="sgd")
    with pytest.raises(ValueError, match="no meaning for observations"):
        impala.build(Spec(Discrete(2), Discrete(2)), impala.Config(normalise_observations=True))


LAGGING = {"num_envs": 32, "rollout_length": 8, "hidden_sizes": (16,), "policy_lag": 4}


@pytest.mark.learning
def test_values_and_discrete_actions_are_learned(probe, trained, solved):
    hypers = impala.Hypers(learning_rate=3e-2, entropy_coefficient=0.0, horizon=600.0)
    found, _ = trained(impala, probe, impala.Config(**LAGGING), hypers, 600)
    solved(probe, *found)


@pytest.mark.learning
def test_values_and_continuous_actions_are_learned(trained, solved):
    probe = probes.continuous_action()
    hypers = impala.Hypers(learning_rate=1e-2, entropy_coefficient=0.0, horizon=500.0)
    found, _ = trained(impala, probe, impala.Config(**LAGGING, optimiser="adam"), hypers, 500)
    solved(probe, *found)
