"""A3C: what it reduces to without age, its turns and snapshots by hand, its policies, and the probes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, probes
from rlgen.parts import actor_critic, asynchrony
from rlgen.policy import a2c, a3c
from rlgen.sources import rollout

SPEC = Spec(Box((3,)), Discrete(4))
SHAPE = {"num_envs": 4, "rollout_length": 5, "hidden_sizes": (8,)}
HYPERS = a3c.Hypers(learning_rate=1e-2, gae_lambda=0.9, horizon=10.0)
SYNCHRONOUS = HYPERS._replace(mean_age=0.0)


class Start(NamedTuple):
    network: actor_critic.ActorCritic
    state: a3c.State
    batch: Transition
    update: Any  # `(key, step, state, batch, hypers)`, compiled


@functools.cache
def begun(**config):
    """A learner whose workers have snapshots of their own, and a rollout that they drew."""
    network, generator = actor_critic.make(SPEC, a3c.Config(**{**SHAPE, **config})), np.random.default_rng(1)
    init = functools.partial(a3c.init, jax.random.key(0), HYPERS, network=network)
    # Parameters from NumPy, where none has to be compiled.
    snapshots = jax.tree.map(
        lambda leaf: 0.5 * generator.standard_normal(leaf.shape, np.float32), jax.eval_shape(init).workers.params
    )
    params = jax.tree.map(lambda leaf: leaf.mean(0), snapshots)

    @jax.jit
    def make():
        state = init()
        state = state._replace(
            learner=state.learner._replace(params=params), workers=state.workers._replace(params=snapshots)
        )
        keys = jax.random.split(jax.random.key(2), 4)
        obs = jax.random.normal(keys[0], (6, 4, 3))
        act = functools.partial(a3c.act, state=state, network=network)
        action, extras, _ = jax.vmap(act, in_axes=(0, 0, None))(jax.random.split(keys[1], 5), obs[:-1], ())
        flags = jax.random.bernoulli(keys[2], 0.2, (2, 5, 4))
        reward = 1 + jax.random.normal(keys[3], (5, 4))
        return state, Transition(obs[:-1], action, reward, obs[1:], flags[0], flags[1] & ~flags[0], extras)

    # Arrays of NumPy, of which a part is taken without compiling.
    return Start(network, *jax.device_get(make()), jax.jit(functools.partial(a3c.update, network=network)))


def close(left, right, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-4, "atol": 1e-6, **tolerance}), left, right
    )


def equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def as_a2c(hypers):
    return a2c.Hypers(*hypers[: len(a2c.Hypers._fields)])


def learned(algorithm, hypers, num_envs, num_updates, probe, bits):
    """The algorithm's part of three runs on a probe; compiled as users do where bits matter, as it is slower."""
    env = adapter.make(probe)
    run = train.make(algorithm(env.spec), rollout.build(env, num_envs=num_envs, length=8))

    @jax.vmap
    def states(key):
        return train.scan(run, num_updates)(key, jnp.int32(0), run.init(key, hypers), hypers)[0].algorithm

    # Bits depend on how loops are fused.
    return jax.jit(states, compiler_options={"xla_cpu_use_fusion_emitters": bits})(
        jax.random.split(jax.random.key(0), 3)
    )


@pytest.mark.parametrize("core", ["none", "lstm"])
def test_one_worker_without_age_is_a2c(core):
    """Whole runs, actions, gradients and steps: bit for bit, where no loop over steps is compiled in another way."""
    sizes = {"num_envs": 4, "rollout_length": 8, "hidden_sizes": (8,), "core": core}
    runs = functools.partial(learned, num_envs=4, num_updates=20, probe=probes.truncated(4), bits=core == "none")
    asynchronous = runs(lambda spec: a3c.build(spec, a3c.Config(**sizes, num_workers=1)), SYNCHRONOUS)
    synchronous = runs(lambda spec: a2c.build(spec, a2c.Config(**sizes)), as_a2c(SYNCHRONOUS))
    (equal if core == "none" else close)(asynchronous.learner, synchronous.learner)


def test_workers_without_age_take_the_mean_gradient():
    """The synchronous rule: every worker's gradient at the same parameters, their mean, one step."""
    network, state, batch, update = begun(num_workers=2)
    copies = jax.tree.map(lambda leaf: np.stack([leaf] * 2), state.learner.params)
    state = state._replace(workers=state.workers._replace(params=copies))
    after, _ = update(jax.random.key(3), jnp.int32(0), state, batch, SYNCHRONOUS)

    @jax.jit
    def synchronous(learner, rollouts):
        def gradient(part):
            examples = actor_critic.estimate(learner.params, part, SYNCHRONOUS, network=network)
            return jax.grad(a2c.loss, has_aux=True)(learner.params, examples, SYNCHRONOUS, network=network)[0]

        grads = jax.tree.map(lambda leaf: leaf.mean(0), jax.vmap(gradient)(rollouts))
        updates, opt_state = a2c.optimiser(SYNCHRONOUS, config=network.config).update(grads, learner.opt_state)
        return a2c.Learner(optax.apply_updates(learner.params, updates), opt_state)

    expected = synchronous(state.learner, asynchrony.apart(batch, 2, 1))
    close(after.learner, expected, rtol=1e-5)
    equal(after.workers.params, jax.tree.map(lambda leaf: np.stack([leaf] * 2), after.learner.params))
    assert not after.workers.age.any() and not any(leaf.any() for leaf in jax.tree.leaves(after.workers.gradient))
    # All examples at once are the same but for rounding.
    flat = actor_critic.make(SPEC, a2c.Config(**SHAPE))
    begin = a2c.State(state.learner, (), ())
    once = jax.jit(functools.partial(a2c.update, network=flat))
    whole, _ = once(jax.random.key(3), jnp.int32(0), begin, batch, as_a2c(SYNCHRONOUS))
    close(after.learner.params, whole.learner.params)


@pytest.mark.parametrize("shared", [True, False])
def test_turns_and_snapshots_by_hand(shared):
    """Two updates, in which one worker of two arrives, then nobody."""
    network, state, batch, _ = begun(num_workers=2, shared_statistics=shared)
    config, optimiser = network.config, a2c.optimiser(HYPERS, config=network.config)
    gradients, _ = jax.jit(jax.vmap(functools.partial(a3c.gradient, hypers=HYPERS, network=network)))(
        state.workers.params, asynchrony.apart(batch, 2, 1)
    )
    rule = jax.jit(functools.partial(a3c.learn, config=config))
    gradients, (learner, workers) = jax.device_get(
        (gradients, rule(jnp.array([False, True]), state.learner, state.workers, gradients, HYPERS))
    )
    second = jax.tree.map(lambda leaf: leaf[1], gradients)
    step = jax.jit(optimiser.update)
    if shared:
        half = jax.tree.map(lambda leaf: leaf / 2, second)
        updates, opt_state = step(half, state.learner.opt_state)
        close(learner.opt_state, opt_state)
    else:
        updates, opt_state = step(second, jax.tree.map(lambda leaf: leaf[1], state.learner.opt_state))
        close(jax.tree.map(lambda leaf: leaf[1], learner.opt_state), opt_state)
        equal(*(jax.tree.map(lambda leaf: leaf[0], each.opt_state) for each in (learner, state.learner)))
    close(learner.params, optax.apply_updates(state.learner.params, updates))
    assert workers.age.tolist() == [1, 0]
    equal(jax.tree.map(lambda leaf: leaf[0], workers.params), jax.tree.map(lambda leaf: leaf[0], state.workers.params))
    equal(jax.tree.map(lambda leaf: leaf[1], workers.params), learner.params)

    after, waiting = jax.device_get(rule(jnp.array([False, False]), learner, workers, gradients, HYPERS))
    equal(after, learner)
    first = jax.tree.map(lambda leaf: 2 * leaf[0], gradients)
    close(jax.tree.map(lambda leaf: leaf[0], waiting.gradient), first)
    close(jax.tree.map(lambda leaf: leaf[1], waiting.gradient), second)
    assert waiting.age.tolist() == [2, 1]


def test_snapshots_are_as_old_as_said():
    start = begun(num_workers=4)

    @jax.jit
    def ages(key, mean_age):
        hypers = HYPERS._replace(learning_rate=0.0, mean_age=mean_age)

        def body(state, inputs):
            state, metrics = a3c.update(*inputs, state, start.batch, hypers, network=start.network)
            return state, metrics.age

        return jax.lax.scan(body, start.state, (jax.random.split(key, 1_000), jnp.arange(1_000)))[1]

    # The standard error over 4 000 ages that keep for 4 updates is about 0.1.
    for mean_age in (0.0, 3.0):
        np.testing.assert_allclose(ages(jax.random.key(0), mean_age).mean(), mean_age, atol=0.4)


def test_every_worker_acts_by_its_own_snapshot():
    network, state, batch, _ = begun(num_workers=2)

    @jax.jit
    def log_prob(params, obs, action):
        return network.apply(params, obs, method="actor").log_prob(action)

    @functools.partial(jax.jit, static_argnums=0)
    def act(explore, obs):
        policy = a3c.policy(jnp.int32(0), state, HYPERS, explore=explore, network=network)
        return policy.apply(jax.random.key(0), obs, ())[:2]

    for worker in range(2):
        params = jax.tree.map(lambda leaf, worker=worker: leaf[worker], state.workers.params)
        own = slice(2 * worker, 2 * worker + 2)
        expected = log_prob(params, batch.obs[:, own], batch.action[:, own])
        close(expected, batch.extras["log_prob"][:, own], atol=1e-5)
    # What is evaluated is what they share; so are batches of another size.
    for explore, obs in ((False, batch.obs[0]), (True, batch.obs)):
        action, extras = act(explore, obs)
        close(extras["log_prob"], log_prob(state.learner.params, obs, action))


def test_environments_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="leaves nothing of the advantage of a single example"):
        a3c.Config(num_envs=8, rollout_length=1, normalise_advantages=True)
    with pytest.raises(ValueError, match=r"config\.num_workers=3 does not divide 8 environments"):
        a3c.Config(num_workers=3)


@pytest.mark.learning
@pytest.mark.parametrize("shared", [True, False])
def test_the_probes_are_learned(probe, trained, solved, shared):
    config = a3c.Config(num_envs=32, rollout_length=8, hidden_sizes=(16,), num_workers=4, shared_statistics=shared)
    hypers = a3c.Hypers(learning_rate=4e-2, entropy_coefficient=0.0, horizon=800.0, mean_age=1.0)
    found, _ = trained(a3c, probe, config, hypers, 800)
    solved(probe, *found, atol=0.15)
