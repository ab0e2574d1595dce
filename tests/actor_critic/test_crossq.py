"""CrossQ: its joint batch and losses by hand, what leaves its networks alone, and a probe."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.actor_critic import crossq
from rlgen.core import Box, Discrete, Spec
from rlgen.envs import probes
from rlgen.parts.replay import Steps

SPEC = Spec(Box((3,)), Box((2,), -2.0, 2.0))
SMALL = {"hidden_sizes": (4,), "critic_sizes": (5,), "batch_size": 6, "capacity": 16, "warm_up": 0}
HYPERS = crossq.Hypers(learning_rate=1e-2, critic_learning_rate=1e-2, temperature=0.3)
KEY = jax.random.key(1)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


@functools.cache
def begun(**config):
    """Networks, a learner whose running statistics are its own, and a minibatch."""
    network = crossq.Networks(SPEC, crossq.Config(**{**SMALL, **config}))
    learner = jax.jit(functools.partial(crossq.init, network=network))(jax.random.key(0), HYPERS).learner
    learner = learner._replace(statistics=jax.tree.map(lambda leaf: leaf + 0.1, learner.statistics))
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 6, 3)).astype(np.float32)
    action = rng.uniform(-2, 2, (6, 2)).astype(np.float32)
    discount = jnp.array([0.9, 0.0, 0.9, 0.9, 0.0, 0.9])
    return network, learner, Steps(obs, action, jnp.arange(6.0), discount, next_obs)


def dense(leaf, inputs):
    return inputs @ np.asarray(leaf["kernel"]) + np.asarray(leaf["bias"])


def normal(params, inputs, statistics=None):
    """Batch normalisation, by the batch's statistics or by given ones."""
    mean = inputs.mean(0) if statistics is None else np.asarray(statistics["mean"])
    var = inputs.var(0) if statistics is None else np.asarray(statistics["var"])
    return (inputs - mean) / np.sqrt(var + 1e-3) * np.asarray(params["scale"]) + np.asarray(params["bias"])


def critic_by_hand(params, inputs, statistics=None):
    body = params["Torso_0"]
    stats = {} if statistics is None else statistics["Torso_0"]
    hidden = normal(body["BatchRenorm_0"], inputs, stats.get("BatchRenorm_0"))
    hidden = np.maximum(dense(body["Dense_0"], hidden), 0)
    hidden = normal(body["BatchRenorm_1"], hidden, stats.get("BatchRenorm_1"))
    return dense(params["Dense_0"], hidden)[:, 0]


def each_critic(tree):
    (inner,) = tree.values() if "Dense_0" not in tree and "Torso_0" not in tree else [tree]
    return [jax.tree.map(lambda leaf, c=c: leaf[c], inner) for c in range(2)]


def test_critics_are_normalised_by_one_batch_of_what_was_and_what_will_be():
    network, learner, batch = begun()

    @jax.jit
    def both(learner):
        paid = crossq.critics_loss(learner.critics, KEY, learner, batch, jnp.ones(6), HYPERS, network=network)
        actor = learner.actor, learner.statistics["actor"]
        return paid, crossq.act_upon(KEY, *actor, batch.next_obs, network=network, train=False)

    (loss, (after, (_, q_value, error))), (action, log_prob, _) = both(learner)
    inputs = np.concatenate([np.c_[batch.obs, batch.action / 2], np.c_[batch.next_obs, action]])
    predicted = np.stack([critic_by_hand(params, inputs) for params in each_critic(learner.critics["params"])])
    value, onward = predicted[:, :6], predicted[:, 6:].min(0)
    returns = batch.reward + batch.discount * (onward - 0.3 * log_prob)
    close(loss, 0.5 * ((returns - value) ** 2).mean(1).sum())
    close(q_value, value.mean())
    close(error, np.abs(returns - value).mean(0))
    before = jax.tree.leaves(learner.statistics["critics"])
    assert all((new != old).all() for new, old in zip(jax.tree.leaves(after), before, strict=True))


def test_the_actor_climbs_critics_that_only_use_their_statistics():
    network, learner, batch = begun()

    @jax.jit
    def both(learner):
        paid = crossq.actor_loss(learner.actor, KEY, learner, batch, HYPERS, network=network)
        actor = learner.actor, learner.statistics["actor"]
        return paid, crossq.act_upon(KEY, *actor, batch.obs, network=network, train=True)

    (loss, (after, nats)), (action, log_prob, expected) = both(learner)
    critics, running = each_critic(learner.critics["params"]), each_critic(learner.statistics["critics"])
    inputs = np.c_[batch.obs, action]
    value = np.stack([critic_by_hand(critics[c], inputs, running[c]) for c in range(2)]).min(0)
    close(loss, (0.3 * log_prob - value).mean())
    close(nats, -log_prob.mean())
    jax.tree.map(np.testing.assert_array_equal, after, expected)


@functools.cache
def learning():
    return jax.jit(functools.partial(crossq.learn, network=begun(actor_period=3)[0]))


def learned(count):
    _, learner, batch = begun(actor_period=3)
    return learner, *learning()(KEY, jnp.int32(count), learner, batch, jnp.ones(6), HYPERS)


def test_the_actor_waits_for_its_turn():
    before, after, metrics, _ = learned(0)
    jax.tree.map(np.testing.assert_array_equal, after.actor, before.actor)
    jax.tree.map(np.testing.assert_array_equal, after.statistics["actor"], before.statistics["actor"])
    assert metrics.entropy == 0 and after.log_temperature == before.log_temperature
    before, after, metrics, _ = learned(2)
    assert any((new != old).any() for new, old in zip(*map(jax.tree.leaves, (after.actor, before.actor)), strict=True))
    assert metrics.entropy != 0 and after.log_temperature != before.log_temperature


def test_acting_uses_running_statistics():
    network, learner, batch = begun()
    state = crossq.State(learner, (), ())
    policy = crossq.policy(jnp.int32(9), state, HYPERS, explore=False, network=network)
    act = jax.jit(policy.apply)
    together = act(KEY, batch.obs, ())[0]
    close(together, np.concatenate([act(KEY, batch.obs[i : i + 1], ())[0] for i in range(6)]))
    moved = learner._replace(statistics=jax.tree.map(lambda leaf: leaf + 1, learner.statistics))
    policy = crossq.policy(jnp.int32(9), crossq.State(moved, (), ()), HYPERS, explore=False, network=network)
    assert not np.allclose(jax.jit(policy.apply)(KEY, batch.obs, ())[0], together)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="the actor gives a vector"):
        crossq.build(Spec(Box((3,)), Discrete(2)), crossq.Config())
    with pytest.raises(ValueError, match=r"config.decay=1.0 is no share below 1"):
        crossq.Config(decay=1.0)


def test_finds_the_best_continuous_action(acted):
    sizes = {"hidden_sizes": (16,), "critic_sizes": (32,), "renorm_warm_up": 100}
    config = crossq.Config(num_envs=4, num_steps=2, batch_size=32, capacity=512, warm_up=128, **sizes)
    hypers = crossq.Hypers(learning_rate=3e-3, critic_learning_rate=3e-3, discount=0.5, entropy_share=3.0)
    probe = probes.continuous_action()
    action = acted(crossq, probe, config, hypers, 800)
    np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=0.15)
