"""PPG: its losses by hand, which network each of them moves, when phases come and what they see, and the probes."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen.core import Box, Discrete, MultiDiscrete, Spec, Transition
from rlgen.envs import adapter, probes
from rlgen.parts import actor_critic, distributions, normalise, returns
from rlgen.policy import ppg, ppo

BOX = Box((2,), -1.0, 1.0)
ACTIONS = {"discrete": (Discrete(4), "normal"), "several": (MultiDiscrete((3, 2)), "normal")} | {
    kind: (BOX, kind) for kind in distributions.KINDS
}
PLAIN = {
    "num_envs": 2,
    "rollout_length": 8,
    "hidden_sizes": (8,),
    "num_policy_updates": 3,
    "num_auxiliary_epochs": 1,
    "num_minibatches": 1,
    "num_auxiliary_minibatches": 1,
    "normalise_advantages": False,
    "normalise_rewards": False,
}
HYPERS = ppg.Hypers(learning_rate=1e-2, discount=0.9)
AUXILIARY = ("auxiliary_loss", "clone_kl", "distilled_value_loss")
VALUE = {"critic_torso", "critic_head"}


class Start(NamedTuple):
    network: ppg.PhasicNetwork
    state: ppg.State
    batch: Transition
    examples: ppg.Minibatch  # of the batch
    update: Any  # `(key, step, state, batch, hypers)`, compiled

    @property
    def params(self) -> Any:
        return self.state.learner.params

    @property
    def targets(self) -> ppg.Targets:
        return ppg.Targets(self.examples.obs, self.examples.target)


@functools.cache
def begun(name="discrete", **config):
    """A learner and a rollout that it drew itself."""
    action, kind = ACTIONS[name]
    network = actor_critic.make(
        Spec(Box((3,)), action), ppg.Config(**{**PLAIN, "distribution": kind, **config}), ppg.PhasicNetwork
    )

    @jax.jit
    def make():
        state = ppg.init(jax.random.key(0), HYPERS, network=network)
        # The first actor is almost uniform; a livelier one has gradients to speak of, and need not be compiled.
        params = drawn(state.learner.params, 0.4)
        state = state._replace(learner=state.learner._replace(params=params))
        obs_key, act_key, flag_key, reward_key = jax.random.split(jax.random.key(2), 4)
        obs = jax.random.normal(obs_key, (8, 2, 3))
        action, extras, _ = actor_critic.act(act_key, obs, (), state=state, network=network, explore=True)
        flags = jax.random.bernoulli(flag_key, 0.2, (2, 8, 2))
        reward = jax.random.normal(reward_key, (8, 2))
        batch = Transition(obs, action, reward, obs + 0.5, flags[0], flags[1] & ~flags[0], extras)
        found = actor_critic.estimate(params, batch, HYPERS, network=network)
        log_prob = extras["log_prob"].ravel()
        return state, batch, ppg.Minibatch(found.obs, found.action, log_prob, found.advantage, found.target)

    return Start(network, *jax.device_get(make()), jax.jit(functools.partial(ppg.update, network=network)))


def drawn(params, scale):
    """As many numbers from NumPy."""
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: scale * generator.standard_normal(leaf.shape, np.float32), params)


def noisy(params):
    return jax.tree.map(np.add, params, drawn(params, 0.3))


def close(left, right, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-4, "atol": 1e-5, **tolerance}), left, right
    )


def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


def touched(before, after):
    """Names of the modules that differ."""
    before, after = before["params"], after["params"]
    return {name for name in before if largest(jax.tree.map(np.subtract, before[name], after[name])) > 0}


def gradient(start, loss, *args, **kwargs):
    """The gradient of a loss, and the names of the modules that it moves."""
    one = functools.partial(loss, network=start.network, **kwargs)
    grads, facts = jax.jit(jax.grad(one, has_aux=True))(start.params, *args)
    return grads, facts, {name for name, leaves in grads["params"].items() if largest(leaves) > 0}


def advanced(start, num_updates, hypers=HYPERS, batches=None):
    """Metrics and states after each of some updates."""
    state, seen = start.state, []
    for step in range(num_updates):
        batch = start.batch if batches is None else batches[step]
        state, metrics = start.update(jax.random.key(step), jnp.int32(step), state, batch, hypers)
        seen.append((state, metrics))
    return seen


def shifted(batch, count):
    """Batches with observations of their own."""
    return [batch._replace(obs=batch.obs + shift, next_obs=batch.next_obs + shift) for shift in range(count)]


@pytest.mark.parametrize("name", ["discrete", "normal"])
def test_policy_loss_is_that_of_ppo(name):
    start = begun(name)
    config = {field: getattr(start.network.config, field) for field in ("hidden_sizes", "distribution")}
    other = actor_critic.make(start.network.spec, ppo.Config(**config, normalise_advantages=False, clip_values=False))
    batch = start.examples._replace(log_prob=start.examples.log_prob - jnp.log(jnp.where(jnp.arange(16) % 2, 1.5, 0.9)))
    hypers = ppo.Hypers(entropy_coefficient=HYPERS.entropy_coefficient, value_coefficient=0.0)

    @jax.jit
    def theirs(params):
        minibatch = ppo.Minibatch(batch.obs, batch.action, batch.log_prob, jnp.zeros(16), batch.advantage)
        return jax.grad(ppo.loss, has_aux=True)(params, minibatch, hypers, network=other)

    ours, facts, moved = gradient(start, ppg.policy_loss, batch, hypers=HYPERS)
    expected, metrics = theirs(start.params)
    close(ours, expected)
    close(facts, (metrics.policy_loss, metrics.entropy, metrics.kl, metrics.clip_fraction))
    assert facts[-1] == 0.5
    assert moved == touchable(name)


def touchable(name):
    """What the surrogate may move."""
    return {"actor_torso", "actor_head"} | ({"log_std"} if "normal" in name else set())


def test_joint_loss_by_hand_and_what_it_moves():
    start = begun()
    old = start.params
    new = noisy(old)
    obs, target = np.asarray(start.examples.obs), np.asarray(start.examples.target)

    def by_hand(params):
        torso, actor, auxiliary = (params["params"][name] for name in ("actor_torso", "actor_head", "auxiliary_head"))
        hidden = np.tanh(obs @ torso["Dense_0"]["kernel"] + torso["Dense_0"]["bias"])
        exponential = np.exp(hidden @ actor["kernel"] + actor["bias"])
        value = (hidden @ auxiliary["kernel"] + auxiliary["bias"])[:, 0]
        return exponential / exponential.sum(-1, keepdims=True), value

    (old_policy, _), (policy, value) = by_hand(old), by_hand(new)
    error = 0.5 * np.square(value - target).mean()
    divergence = (old_policy * np.log(old_policy / policy)).sum(-1).mean()
    assert divergence > 1e-2
    hypers = HYPERS._replace(clone_coefficient=3.0)
    loss = jax.jit(functools.partial(ppg.joint_loss, network=start.network))
    close(loss(new, start.targets, old_params=old, hypers=hypers), (error + 3.0 * divergence, (error, divergence)))

    elsewhere = start._replace(state=start.state._replace(learner=ppg.Learner(new, {})))
    _, _, moved = gradient(elsewhere, ppg.joint_loss, start.targets, old_params=old, hypers=hypers)
    assert moved == {"actor_torso", "actor_head", "auxiliary_head"}


@pytest.mark.parametrize("name", ACTIONS)
def test_divergence_of_every_kind_vanishes_where_the_policy_is_still_the_old_one(name):
    action, kind = ACTIONS[name]
    network = actor_critic.make(Spec(Box((3,)), action), ppg.Config(**PLAIN, distribution=kind), ppg.PhasicNetwork)

    init = functools.partial(actor_critic.initial_params, network=network, method="everything")
    params = drawn(jax.eval_shape(init, jax.random.key(0)), 0.5)
    other = jax.tree.map(lambda leaf: 1.5 * leaf, params)

    @jax.jit
    def both():
        targets = ppg.Targets(jax.random.normal(jax.random.key(2), (16, 3)), jnp.zeros(16))

        def divergence(params, old_params):
            return ppg.joint_loss(params, targets, old_params=old_params, hypers=HYPERS, network=network)[1][1]

        found = jax.vmap(jax.value_and_grad(divergence), (0, None))
        return found(jax.tree.map(lambda *leaves: jnp.stack(leaves), params, other), params)

    values, grads = both()
    sizes = np.max([np.abs(leaf).reshape(2, -1).max(1) for leaf in jax.tree.leaves(grads)], axis=0)
    close(values[0], 0.0)
    assert values[1] > 1e-2
    assert sizes[0] < 1e-5 < 1e-2 < sizes[1]


def test_value_loss_by_hand_and_what_it_moves():
    start = begun()
    targets = start.targets._replace(target=start.examples.target + 1.0)
    _, error, moved = gradient(start, ppg.value_loss, targets)
    # The target is the value plus the advantage.
    close(error, 0.5 * np.square(start.examples.advantage + 1.0).mean())
    assert moved == VALUE


def by_hand(start, hypers, adam):
    """An update in plain optax, with a tree and an optimiser for each network and phase: its first state, and itself.

    An auxiliary phase, if there is one, goes through one rollout.
    """
    network, config, batch = start.network, start.network.config, start.batch
    policy = set(start.params["params"]) - VALUE
    names = {"policy": policy - {"auxiliary_head"}, "value": VALUE, "auxiliary": policy}

    def share(key, params):
        return {name: params[name] for name in names[key]}

    def method(params, name, obs=batch.obs):
        return network.apply({"params": params}, obs, method=name)

    def steps(count, key, loss, carry):
        def step(_, carry):
            params, opt_state = carry
            grads = jax.grad(lambda own: loss({**params, **own}))(share(key, params))
            updates, inner = adam.update(grads, opt_state[key])
            return {**params, **optax.apply_updates(share(key, params), updates)}, {**opt_state, key: inner}

        return jax.lax.fori_loop(0, count, step, carry)

    @jax.jit
    def update(old, opt_state):
        value, next_value = method(old, "critic"), method(old, "critic", batch.next_obs)
        discounts = hypers.discount, hypers.gae_lambda
        advantage = returns.gae(batch.reward, value, next_value, batch.terminated, batch.truncated, *discounts)
        target = value + advantage

        def surrogate(params):
            actor = method(params, "actor")
            ratio = jnp.exp(actor.log_prob(batch.action) - batch.extras["log_prob"])
            clipped = jnp.clip(ratio, 1 - hypers.clip, 1 + hypers.clip)
            gain = jnp.minimum(ratio * advantage, clipped * advantage)
            return -(gain + hypers.entropy_coefficient * actor.entropy()).mean()

        def error(params):
            return 0.5 * jnp.square(method(params, "critic") - target).mean()

        carry = steps(config.num_policy_epochs, "policy", surrogate, (old, opt_state))
        carry = steps(config.num_value_epochs, "value", error, carry)
        if config.num_policy_updates > 1:
            return carry
        held = method(carry[0], "actor")

        def joint(params):
            actor, value = method(params, "auxiliary")
            divergence = hypers.clone_coefficient * held.kl_divergence(actor)
            return (0.5 * jnp.square(value - target) + divergence).mean()

        carry = steps(config.num_auxiliary_epochs, "auxiliary", joint, carry)
        return steps(config.num_auxiliary_epochs, "value", error, carry)

    params = start.params["params"]
    return params, {key: adam.init(share(key, params)) for key in names}, update


SEVERAL = {"num_policy_updates": 1, "num_policy_epochs": 2, "num_value_epochs": 3, "num_auxiliary_epochs": 2}


@pytest.mark.parametrize("config", [{}, SEVERAL], ids=["before any phase", "with phases"])
def test_updates_equal_steps_written_by_hand(config):
    start = begun(**config)
    hypers = HYPERS._replace(clone_coefficient=2.0)
    clip = optax.clip_by_global_norm(hypers.max_grad_norm)
    params, opt_state, update = by_hand(start, hypers, optax.chain(clip, optax.adam(hypers.learning_rate, eps=1e-5)))
    for state, metrics in advanced(start, 2, hypers):
        params, opt_state = update(params, opt_state)
        close(state.learner.params["params"], params, rtol=1e-3, atol=1e-4)
        assert (float(metrics.clone_kl) > 1e-6) is (config == SEVERAL)
    assert largest(jax.tree.map(np.subtract, params, start.params["params"])) > 1e-2


def test_phase_comes_after_every_third_update_and_moves_the_second_head_alone_then():
    start = begun()
    before = start.params
    for step, (state, metrics) in enumerate(advanced(start, 7)):
        due = step in (2, 5)
        assert [float(getattr(metrics, name)) > 0 for name in AUXILIARY] == [due] * 3
        assert touched(before, state.learner.params) == touchable("discrete") | VALUE | (
            {"auxiliary_head"} if due else set()
        )
        before = state.learner.params


NORMALISED = {"normalise_observations": True, "normalise_rewards": True, "num_auxiliary_minibatches": 4}


def test_ring_holds_the_last_rollouts_as_the_environment_gave_them():
    start = begun(**NORMALISED)
    batches = shifted(start.batch, 5)
    seen = [state for state, _ in advanced(start, 5, batches=batches)]
    assert not seen[0].replay.obs[8:].any()
    # The fourth and fifth are written over the first two.
    stored = np.split(np.asarray(seen[-1].replay.obs), 3)
    for rows, batch in zip(stored, (batches[3], batches[4], batches[2]), strict=True):
        np.testing.assert_array_equal(rows, batch.obs)
    np.testing.assert_array_equal(seen[-1].replay.target[16:], seen[2].replay.target[16:])


def test_value_targets_are_stored_as_learned_from():
    start = begun()
    ((state, metrics),) = advanced(start, 1)
    close(state.replay.target[:8], start.examples.target.reshape(8, 2))
    close(metrics.value_loss, 0.5 * np.square(start.examples.advantage).mean())


def test_a_pass_of_the_phase_sees_all_that_is_stored_on_the_scale_of_the_policy_that_acts_next():
    start = begun(**NORMALISED)
    still = HYPERS._replace(learning_rate=0.0)
    state, metrics = advanced(start, 3, still, shifted(start.batch, 3))[-1]
    close(state.observations.mean, start.batch.obs.mean((0, 1)) + 1.0, rtol=1e-3, atol=1e-3)
    obs = normalise.standardise(state.replay.obs, state.observations)
    targets = ppg.Targets(obs.reshape(48, 3), state.replay.target.ravel())
    _, (error, _), _ = gradient(start, ppg.joint_loss, targets, old_params=start.params, hypers=still)
    _, value_error, _ = gradient(start, ppg.value_loss, targets)
    close((metrics.auxiliary_loss, metrics.clone_kl, metrics.distilled_value_loss), (error, 0.0, value_error))


def test_scaled_rewards_do_not_depend_on_their_unit():
    start = begun(**NORMALISED)
    found = [
        start.update(jax.random.key(3), jnp.int32(0), start.state, batch, HYPERS)[1].value_loss
        for batch in (start.batch, start.batch._replace(reward=100.0 * start.batch.reward))
    ]
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_a_dear_divergence_holds_the_policy_while_its_values_are_learned():
    start = begun()
    config = dataclasses.replace(start.network.config, num_policy_updates=1, num_auxiliary_epochs=200)
    network = actor_critic.make(start.network.spec, config, ppg.PhasicNetwork)
    stored = ppg.Targets(start.batch.obs, start.targets.target.reshape(8, 2))
    distil = jax.jit(functools.partial(ppg.distil, network=network))
    loss = jax.jit(functools.partial(ppg.joint_loss, network=network))

    def facts(learner):
        return np.array(loss(learner.params, start.targets, old_params=start.params, hypers=HYPERS)[1])

    before, _ = facts(start.state.learner)
    free, held = (
        facts(distil(jax.random.key(3), start.state.learner, stored, (), HYPERS._replace(clone_coefficient=cost))[0])
        for cost in (0.0, 1e4)
    )
    assert max(free[0], held[0]) < 0.5 * before
    assert held[1] < 1e-4 < 1e-2 < free[1]


def test_normalised_advantages_have_no_scale():
    start = begun()
    network = actor_critic.make(
        start.network.spec, dataclasses.replace(start.network.config, normalise_advantages=True), ppg.PhasicNetwork
    )
    loss = jax.jit(functools.partial(ppg.policy_loss, hypers=HYPERS, network=network))
    # Ratios other than 1: at 1 the normalised surrogate is zero on the average.
    batch = start.examples._replace(log_prob=start.examples.log_prob + 0.1 * jnp.sin(jnp.arange(16)))
    first, second = (
        loss(start.params, each)[1][0] for each in (batch, batch._replace(advantage=7 * batch.advantage + 3))
    )
    close(first, second)
    assert abs(first) > 1e-3


def test_what_makes_no_sense_is_refused():
    for name in ("num_minibatches", "num_auxiliary_minibatches"):
        with pytest.raises(ValueError, match=rf"config\.{name}=3 does not divide"):
            ppg.Config(num_envs=2, rollout_length=8, **{"num_minibatches": 1, "num_auxiliary_minibatches": 1, name: 3})
    with pytest.raises(ValueError, match="leaves nothing of the advantage of a single example"):
        ppg.Config(num_envs=8, rollout_length=8, num_minibatches=64)
    with pytest.raises(ValueError, match="no meaning for observations"):
        ppg.build(Spec(Discrete(2), Discrete(2)), ppg.Config(normalise_observations=True))


@pytest.mark.learning
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_actions_and_the_values_of_both_networks_are_learned(probe, trained, solved, kind):
    probe = probes.continuous_action() if kind == "continuous" else probe
    config = ppg.Config(
        num_envs=16,
        rollout_length=8,
        hidden_sizes=(16,),
        num_policy_updates=4,
        num_policy_epochs=2,
        num_value_epochs=2,
        num_minibatches=4,
        num_auxiliary_minibatches=2,
        normalise_rewards=False,
    )
    network = actor_critic.make(adapter.make(probe).spec, config, ppg.PhasicNetwork)

    def read(params):
        actor, *values = network.apply(params, probe.observations, method="everything")
        return actor.mode(), *values

    found, _ = trained(ppg, probe, config, ppg.Hypers(learning_rate=5e-3, entropy_coefficient=0.0), 80, read)
    solved(probe, *found)
