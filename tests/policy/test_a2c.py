"""A2C: its loss against rlax, what it reduces to, the optimisers by hand, and the probes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import probes
from rlgen.parts import actor_critic, chunks, returns
from rlgen.policy import a2c, ppo, reinforce

SPECS = {"discrete": Spec(Box((3,)), Discrete(4)), "continuous": Spec(Box((3,)), Box((2,), -1.0, 1.0))}
SHAPE = {"num_envs": 2, "rollout_length": 8, "hidden_sizes": (8,)}
HYPERS = a2c.Hypers(learning_rate=1e-2, gae_lambda=0.9, horizon=10.0)


class Start(NamedTuple):
    network: actor_critic.ActorCritic
    state: a2c.State
    batch: Transition
    examples: actor_critic.Examples  # of the batch
    loss: Any  # `(params, minibatch, hypers) -> (loss, metrics)`, compiled
    update: Any  # `(key, step, state, batch, hypers)`, compiled


@functools.cache
def begun(name="discrete", **config):
    """A learner and a rollout that it drew itself."""
    network, generator = actor_critic.make(SPECS[name], a2c.Config(**SHAPE, **config)), np.random.default_rng(1)

    @jax.jit
    def make():
        state = a2c.init(jax.random.key(0), HYPERS, network=network)
        # The first actor is almost uniform; a livelier one has gradients to speak of, and need not be compiled.
        draw = functools.partial(generator.standard_normal, dtype=np.float32)
        params = jax.tree.map(lambda leaf: 0.4 * draw(leaf.shape), state.learner.params)
        state = state._replace(learner=state.learner._replace(params=params))
        obs_key, act_key, flag_key, reward_key = jax.random.split(jax.random.key(2), 4)
        obs = jax.random.normal(obs_key, (9, 2, 3))
        action, extras, _ = actor_critic.act(act_key, obs[:-1], (), state=state, network=network, explore=True)
        flags = jax.random.bernoulli(flag_key, 0.2, (2, 8, 2)).at[:, -1].set(True)
        reward = 1 + jax.random.normal(reward_key, (8, 2))
        return state, Transition(obs[:-1], action, reward, obs[1:], flags[0], flags[1] & ~flags[0], extras)

    # By itself: in one program with what is drawn, numbers drawn once for each use may differ in the last bit.
    @jax.jit
    def estimate(state, batch):
        return actor_critic.estimate(state.learner.params, batch, HYPERS, network=network)

    loss, update = (jax.jit(functools.partial(function, network=network)) for function in (a2c.loss, a2c.update))
    state, batch = make()
    return Start(network, *jax.device_get((state, batch, estimate(state, batch))), loss, update)


def close(left, right, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-4, "atol": 1e-5, **tolerance}), left, right
    )


def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


@pytest.mark.filterwarnings("ignore:.*:PendingDeprecationWarning:rlax")
def test_loss_agrees_with_rlax():
    start = begun()
    examples = start.examples._replace(target=start.examples.target + 0.5)
    total, metrics = start.loss(start.state.learner.params, examples, HYPERS)

    @jax.jit
    def theirs(params):
        actor, value = start.network.apply(params, examples.obs)
        ones = jnp.ones(16)
        policy_loss = rlax.policy_gradient_loss(actor.logits, examples.action, examples.advantage, ones)
        return policy_loss, -rlax.entropy_loss(actor.logits, ones), value

    policy_loss, entropy, value = theirs(start.state.learner.params)
    close((metrics.policy_loss, metrics.entropy), (policy_loss, entropy))
    close(metrics.value_loss, 0.5 * np.square(np.subtract(examples.target, value)).mean())
    close(total, metrics.policy_loss + 0.5 * metrics.value_loss - 0.01 * metrics.entropy)


@pytest.mark.parametrize("name", SPECS)
def test_gradient_is_that_of_ppo_where_the_policy_is_still_the_old_one(name):
    start = begun(name)
    other = ppo.ActorCritic(SPECS[name], ppo.Config(**SHAPE, normalise_advantages=False, clip_values=False))
    hypers = ppo.Hypers(**{key: value for key, value in HYPERS._asdict().items() if key in ppo.Hypers._fields})

    @jax.jit
    def both(params):
        minibatch = ppo.estimate(params, start.batch, hypers, network=other)
        theirs = jax.grad(ppo.loss, has_aux=True)(params, minibatch, hypers, network=other)[0]
        return jax.grad(a2c.loss, has_aux=True)(params, start.examples, HYPERS, network=start.network)[0], theirs

    ours, theirs = both(start.state.learner.params)
    close(ours, theirs)
    assert largest(ours) > 1e-2


def test_on_whole_episodes_monte_carlo_advantages_make_it_reinforce():
    start = begun()
    network = actor_critic.make(SPECS["discrete"], reinforce.Config(**SHAPE))
    hypers = HYPERS._replace(gae_lambda=1.0, value_coefficient=1.0, entropy_coefficient=0.0)
    theirs = reinforce.Hypers(**{key: getattr(hypers, key) for key in reinforce.Hypers._fields})

    @jax.jit
    def both(params):
        pending = reinforce.init(jax.random.key(0), theirs, network=network).pending
        # The second rollout in a row: nothing is left of the first.
        _, pending = reinforce.estimate(params, pending, start.batch, theirs, network=network)
        minibatch, _ = reinforce.estimate(params, pending, start.batch, theirs, network=network)
        examples = actor_critic.estimate(params, start.batch, hypers, network=start.network)
        return (
            jax.grad(a2c.loss, has_aux=True)(params, examples, hypers, network=start.network)[0],
            jax.grad(reinforce.loss, has_aux=True)(params, minibatch, network=network)[0],
        )

    ours, other = both(start.state.learner.params)
    close(ours, other)
    assert largest(ours) > 1e-2


def test_estimate_is_gae_over_the_critics_values():
    network, state, batch, examples, *_ = begun()
    critic = jax.jit(functools.partial(network.apply, method="critic"))
    value, next_value = (critic(state.learner.params, obs) for obs in (batch.obs, batch.next_obs))
    expected = returns.gae(batch.reward, value, next_value, batch.terminated, batch.truncated, 0.99, 0.9)
    close(examples.advantage, expected.ravel())
    close(examples.target, (expected + value).ravel())
    np.testing.assert_array_equal(examples.obs, batch.obs.reshape(16, 3))


def test_normalised_advantages_have_no_scale():
    start = begun(normalise_advantages=True)
    scaled = start.examples._replace(advantage=7 * start.examples.advantage + 3)
    found = [start.loss(start.state.learner.params, each, HYPERS)[1] for each in (start.examples, scaled)]
    close(found[0].policy_loss, found[1].policy_loss)
    assert abs(float(found[0].policy_loss)) > 1e-3


def test_a_step_by_chunks_is_a_step(monkeypatch):
    start = begun(normalise_advantages=True)

    def learned():
        learn = jax.jit(functools.partial(a2c.learn, network=start.network))
        return learn(start.state.learner, start.examples, HYPERS)

    whole = learned()
    monkeypatch.setattr(chunks, "NUM_ROWS", 4)
    close(learned(), whole)


@pytest.mark.parametrize("name", a2c.OPTIMISERS)
def test_first_steps_of_the_optimisers_by_hand(name):
    hypers = HYPERS._replace(max_grad_norm=1.0)
    optimiser = a2c.optimiser(hypers, config=a2c.Config(optimiser=name))
    state, grads = optimiser.init(jnp.zeros(2)), np.array([3.0, 4.0])
    clipped, squares = grads / 5, np.ones(2)
    for _ in range(2):
        updates, state = jax.jit(optimiser.update)(jnp.asarray(grads, jnp.float32), state)
        squares = 0.99 * squares + 0.01 * clipped**2
        # Adam, without its bias, takes steps of the learning rate along a constant gradient.
        expected = clipped / (clipped + 1e-5) if name == "adam" else clipped / np.sqrt(squares + 1e-5)
        np.testing.assert_allclose(updates, -1e-2 * expected, rtol=1e-4)


def test_learning_rate_is_annealed():
    start = begun(optimiser="adam")
    hypers, moves = HYPERS._replace(horizon=4.0), []
    for step in (0, 2, 4, 9):
        after, _ = start.update(jax.random.key(3), jnp.int32(step), start.state, start.batch, hypers)
        moves.append(largest(jax.tree.map(np.subtract, after.learner.params, start.state.learner.params)))
    np.testing.assert_allclose(moves, [1e-2, 5e-3, 0, 0], rtol=0.05)


def test_observations_and_rewards_are_normalised():
    start = begun(normalise_observations=True, normalise_rewards=True)
    arguments = jax.random.key(3), jnp.int32(0), start.state
    state, metrics = start.update(*arguments, start.batch, HYPERS)
    close(state.observations.mean, start.batch.obs.reshape(-1, 3).mean(0), rtol=1e-3, atol=1e-3)
    _, again = start.update(*arguments, start.batch._replace(reward=100 * start.batch.reward), HYPERS)
    np.testing.assert_allclose(metrics.value_loss, again.value_loss, rtol=1e-3)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="leaves nothing of the advantage of a single example"):
        a2c.Config(num_envs=1, rollout_length=1, normalise_advantages=True)
    with pytest.raises(ValueError, match=r"config\.optimiser='sgd' is not one of rmsprop, adam"):
        a2c.Config(optimiser="sgd")
    with pytest.raises(ValueError, match="no meaning for observations"):
        a2c.build(Spec(Discrete(2), Discrete(2)), a2c.Config(normalise_observations=True))
    with pytest.raises(ValueError, match="'beta' needs finite bounds"):
        a2c.build(Spec(Box((2,)), Box((2,))), a2c.Config(distribution="beta"))


SMALL = {"num_envs": 32, "rollout_length": 8, "hidden_sizes": (16,)}


@pytest.mark.learning
def test_values_and_discrete_actions_are_learned(probe, trained, solved):
    hypers = a2c.Hypers(learning_rate=3e-2, entropy_coefficient=0.0, horizon=600.0)
    found, _ = trained(a2c, probe, a2c.Config(**SMALL), hypers, 600)
    solved(probe, *found)


@pytest.mark.learning
def test_values_and_continuous_actions_are_learned(trained, solved):
    probe = probes.continuous_action()
    hypers = a2c.Hypers(learning_rate=1e-2, entropy_coefficient=0.0, horizon=500.0)
    found, _ = trained(a2c, probe, a2c.Config(**SMALL, optimiser="adam"), hypers, 500)
    solved(probe, *found)
