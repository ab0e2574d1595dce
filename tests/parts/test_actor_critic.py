"""The actor and the critic: what a recurrent one remembers and forgets, shared layers, and how examples are dealt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, MultiDiscrete, Spec
from rlgen.envs import adapter, probes
from rlgen.parts import actor_critic, networks
from rlgen.policy import a2c, ppo
from rlgen.sources import rollout

SPEC = Spec(Box((3,)), Discrete(4))
CORES = tuple(networks.CORES)
HYPERS = a2c.Hypers()
shuffled = jax.jit(actor_critic.shuffled, static_argnums=2)


def drawn(network):
    """Parameters from NumPy, where none has to be compiled."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(functools.partial(actor_critic.initial_params, network=network), jax.random.key(0))
    return jax.tree.map(lambda leaf: 0.5 * generator.standard_normal(leaf.shape, np.float32), shapes)


@functools.cache
def collected(core):
    """A rollout of eight steps, after one before it, on a probe whose episodes have one, three and four steps."""
    features, starts, successors = (-1.0, -0.2, 0.2, 0.6, 1.0), (0, 1, 4), (-1, 2, 3, -1, 4)
    table = probes.Table(features, starts, successors, lambda obs, action: action, (0,))
    env = adapter.make(probes.Probe("Lengths", table, max_steps=4))
    network = actor_critic.make(env.spec, a2c.Config(num_envs=6, hidden_sizes=(8,)), core=core)
    source = rollout.build(env, num_envs=6, length=8)
    params = drawn(network)

    @jax.jit
    def run(key):
        state = a2c.State(a2c.Learner(params, ()), (), ())
        policy = actor_critic.policy(jnp.int32(0), state, HYPERS, explore=True, network=network)
        position = source.init(key, policy)
        position, before, _ = source.next(jax.random.key(1), jnp.int32(0), position, policy)
        _, batch, _ = source.next(jax.random.key(2), jnp.int32(1), position, policy)
        examples = actor_critic.estimate(params, batch, HYPERS, network=network)
        return before, batch, examples, actor_critic.values(params, batch, network=network)

    return network, params, *jax.device_get(run(jax.random.key(0)))


@pytest.mark.parametrize("core", CORES)
def test_learning_sees_the_policy_that_acted(core):
    """So the memory is carried from rollout to rollout and starts anew wherever an episode does."""
    network, params, _, batch, examples, _ = collected(core)

    @jax.jit
    def again(start):
        recalled = examples._replace(recall=examples.recall._replace(start=start))
        return actor_critic.evaluate(params, recalled, network=network)[0].log_prob(examples.action).T

    np.testing.assert_allclose(again(examples.recall.start), batch.extras["log_prob"], rtol=1e-4, atol=1e-5)
    done = np.asarray(batch.terminated | batch.truncated)
    assert done[:-1].any() and not done[:-1].all()
    # Whoever forgets everything, or nothing, sees another one.
    for start in (np.ones_like(examples.recall.start), np.zeros_like(examples.recall.start)):
        assert np.abs(again(start) - batch.extras["log_prob"]).max() > 1e-3


@pytest.mark.parametrize("core", CORES)
def test_values_follow_each_episode_to_its_true_last_observation(core):
    network, params, before, batch, _, (value, next_value) = collected(core)
    both = jax.tree.map(lambda first, second: np.concatenate([first, second]), before, batch)

    @jax.jit
    def step(memory, obs, next_obs):
        memory, features = network.apply(params, memory, obs, method="remember")
        after = network.apply(params, memory, next_obs, method="recurrent_critic")
        return memory, (network.apply(params, features, method="value"), after)

    for env in range(6):
        memory = networks.initial_memory(core, 8, ())
        for time in range(16):
            memory, found = step(memory, both.obs[time, env], both.next_obs[time, env])
            if time >= 8:
                np.testing.assert_allclose(found, (value[time - 8, env], next_value[time - 8, env]), rtol=1e-3)
            if both.terminated[time, env] | both.truncated[time, env]:
                memory = networks.initial_memory(core, 8, ())
    assert (both.truncated[8:-1]).any() and (both.terminated[8:-1]).any()


@pytest.mark.parametrize("core", CORES)
def test_gradients_flow_along_an_episode_and_not_beyond(core):
    network = actor_critic.make(SPEC, a2c.Config(hidden_sizes=(8,)), core=core)
    params = drawn(network)
    start = jnp.zeros((1, 6), bool).at[0, 3].set(True)

    def last(obs):
        return network.apply(params, obs, start, actor_critic.initial_memory(network, (1,)))[1][0, -1]

    slope = np.abs(jax.jit(jax.grad(last))(jax.random.normal(jax.random.key(1), (1, 6, 3)))).sum(-1)[0]
    assert (slope[:3] == 0).all() and (slope[3:] > 0).all()


@pytest.mark.parametrize("core", CORES)
def test_minibatches_keep_sequences_whole(core):
    _, _, _, batch, examples, _ = collected(core)
    dealt = shuffled(jax.random.key(3), examples, 3)
    assert dealt.obs.shape == (3, 2, 8, 1) and dealt.recall.start.shape == (3, 2, 8)
    rows = dealt.obs.reshape(6, 8)
    order = [int(np.flatnonzero((row == batch.obs[..., 0].T).all(-1))[0]) for row in rows]
    first = jax.tree.leaves(batch.extras["memory"])[0][0]
    np.testing.assert_array_equal(jax.tree.leaves(dealt.recall.memory)[0].reshape(6, -1), first[np.array(order)])
    with pytest.raises(ValueError, match=r"config\.num_minibatches=4 does not divide the sequences of 6 environments"):
        ppo.Config(num_envs=6, core=core)


def test_every_example_is_dealt_once():
    dealt = shuffled(jax.random.key(0), {"a": np.arange(12), "b": 2 * np.arange(12)}, 4)
    assert dealt["a"].shape == (4, 3) and sorted(dealt["a"].ravel().tolist()) == list(range(12))
    np.testing.assert_array_equal(dealt["b"], 2 * dealt["a"])


def test_shared_layers_are_one_set_of_weights():
    config = a2c.Config(hidden_sizes=(8,))
    shapes = [
        jax.eval_shape(
            functools.partial(actor_critic.initial_params, network=actor_critic.make(SPEC, config, shared=shared)),
            jax.random.key(0),
        )["params"]
        for shared in (False, True)
    ]
    assert [sorted(each) for each in shapes] == [
        ["actor_head", "actor_torso", "critic_head", "critic_torso"],
        ["actor_head", "critic_head", "critic_torso"],
    ]


def test_orthogonal_weights_are_orthogonal_and_others_are_not():
    config = a2c.Config(hidden_sizes=(8, 8))
    for name in networks.INITIALISERS:
        network = actor_critic.make(SPEC, config, initialiser=name)
        params = jax.jit(functools.partial(actor_critic.initial_params, network=network))(jax.random.key(0))
        kernel = params["params"]["actor_torso"]["Dense_1"]["kernel"]
        assert np.allclose(kernel.T @ kernel, 2 * np.eye(8), atol=1e-4) is (name == "orthogonal")


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"config\.core='rnn' is not one of none, lstm, gru"):
        a2c.build(SPEC, a2c.Config(core="rnn"))
    with pytest.raises(ValueError, match=r"config\.initialiser='ones' is not one of orthogonal, lecun"):
        ppo.build(SPEC, ppo.Config(initialiser="ones"))


def test_several_choices_are_one_action():
    env = adapter.make(probes.several_choices())
    assert env.spec.action == MultiDiscrete((3, 2)) and env.spec.action.shape == (2,)
    state, obs = env.reset(jax.random.key(0), 6)
    action = jnp.array([[0, 1], [2, 0], [0, 0], [2, 1], [1, 1], [1, 0]], jnp.int32)
    _, step = env.step(jax.random.key(1), state, action)
    best = np.where(obs < 0, (0, 1), (2, 0))
    np.testing.assert_array_equal(step.reward, np.where(action == best, 1, -1).sum(-1))
