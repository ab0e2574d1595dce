"""PPO: the gradient where the policy is still the old one, the estimates, what an update does, and the probes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import probes
from rlgen.parts import actor_critic, chunks, distributions, returns
from rlgen.policy import ppo

SPECS = {"discrete": Spec(Box((3,)), Discrete(4)), "continuous": Spec(Box((3,)), Box((2,), -1.0, 1.0))}
PLAIN = {
    "num_envs": 2,
    "rollout_length": 8,
    "hidden_sizes": (8,),
    "num_epochs": 1,
    "num_minibatches": 1,
    "normalise_advantages": False,
    "clip_values": False,
}
HYPERS = ppo.Hypers(horizon=10.0)


@pytest.fixture(params=SPECS.values(), ids=list(SPECS))
def spec(request):
    return request.param


def collected(key, state, network):
    """A made-up rollout `[8, 2]` whose actions the policy itself drew."""
    obs_key, act_key, flag_key, reward_key = jax.random.split(key, 4)
    obs = jax.random.normal(obs_key, (8, 2, 3))
    action, extras, _ = actor_critic.act(act_key, obs, (), state=state, network=network, explore=True)
    flags = jax.random.bernoulli(flag_key, 0.2, (2, 8, 2))
    reward = jax.random.normal(reward_key, (8, 2))
    return Transition(obs, action, reward, obs + 0.5, flags[0], flags[1] & ~flags[0], extras)


class Start(NamedTuple):
    network: ppo.ActorCritic
    state: ppo.State
    batch: Transition
    examples: ppo.Minibatch  # of the batch
    loss: Any  # `(params, minibatch, hypers)`, compiled
    update: Any  # `(key, step, state, batch, hypers)`, compiled


@functools.cache
def begun(spec, **config):
    """A learner and a rollout that it drew itself."""
    network, generator = ppo.ActorCritic(spec, ppo.Config(**{**PLAIN, **config})), np.random.default_rng(1)

    @jax.jit
    def make():
        state = ppo.init(jax.random.key(0), HYPERS, network=network)
        # The first actor is almost uniform; a livelier one has gradients to speak of, and need not be compiled.
        draw = functools.partial(generator.standard_normal, dtype=np.float32)
        params = jax.tree.map(lambda leaf: 0.4 * draw(leaf.shape), state.learner.params)
        state = state._replace(learner=ppo.Learner(params, state.learner.opt_state))
        return state, collected(jax.random.key(2), state, network)

    # By itself: in one program with what is drawn, numbers drawn once for each use may differ in the last bit.
    @jax.jit
    def estimate(state, batch):
        return ppo.estimate(state.learner.params, batch, HYPERS, network=network)

    loss, update = (jax.jit(functools.partial(function, network=network)) for function in (ppo.loss, ppo.update))
    state, batch = make()
    return Start(network, state, batch, estimate(state, batch), loss, update)


def close(left, right, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-4, "atol": 1e-5, **tolerance}), left, right
    )


def test_gradient_at_ratio_1_is_the_policy_gradient(spec):
    start = begun(spec)
    alone = HYPERS._replace(value_coefficient=0.0, entropy_coefficient=0.0)

    def policy_gradient(params):
        distribution = start.network.apply(params, start.examples.obs, method="actor")
        return -(distribution.log_prob(start.examples.action) * start.examples.advantage).mean()

    @jax.jit
    def both(params):
        return jax.grad(start.loss, has_aux=True)(params, start.examples, alone), jax.grad(policy_gradient)(params)

    (grads, metrics), expected = both(start.state.learner.params)
    close(grads, expected)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-2
    close(metrics.kl, 0.0)
    assert float(metrics.clip_fraction) == 0


def test_loss_by_hand(spec):
    start = begun(spec)
    ratio = np.where(np.arange(16) % 2 == 0, 1.5, 0.9)
    examples = start.examples._replace(log_prob=start.examples.log_prob - np.log(ratio).astype(np.float32))
    total, metrics = start.loss(start.state.learner.params, examples, HYPERS)
    advantage = np.asarray(examples.advantage)
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()
    close(metrics.policy_loss, -surrogate)
    close(metrics.value_loss, 0.5 * np.square(advantage).mean())  # the target is the old value plus the advantage
    close(metrics.kl, (ratio - 1 - np.log(ratio)).mean())
    assert float(metrics.clip_fraction) == 0.5
    close(total, metrics.policy_loss + 0.5 * metrics.value_loss - 0.01 * metrics.entropy)


def test_normalised_advantages_have_no_scale():
    start = begun(SPECS["discrete"], normalise_advantages=True)
    # Ratios other than 1: at 1 the normalised surrogate is zero on the average.
    examples = start.examples._replace(log_prob=start.examples.log_prob + 0.1 * np.sin(np.arange(16, dtype=np.float32)))
    first, second = (
        start.loss(start.state.learner.params, examples._replace(advantage=scale * examples.advantage + shift), HYPERS)[
            1
        ]
        for scale, shift in ((1.0, 0.0), (7.0, 3.0))
    )
    close(first.policy_loss, second.policy_loss)
    assert abs(float(first.policy_loss)) > 1e-3


def test_a_step_by_chunks_is_a_step(monkeypatch):
    start = begun(SPECS["discrete"], normalise_advantages=True)
    examples = start.examples._replace(log_prob=start.examples.log_prob + 0.1 * np.sin(np.arange(16, dtype=np.float32)))

    def learned():
        return jax.jit(functools.partial(ppo.learn, network=start.network))(start.state.learner, examples, HYPERS)

    whole = learned()
    monkeypatch.setattr(chunks, "NUM_ROWS", 4)
    close(learned(), whole)


def test_clipped_values_are_held_near_the_old_ones():
    start = begun(SPECS["discrete"], clip_values=True)
    # The old value was half a unit lower, and the target lies far above: only the part within the clip counts.
    value = start.examples.value
    examples = start.examples._replace(value=value - 0.5, advantage=jnp.full(16, 3.0))
    _, metrics = start.loss(start.state.learner.params, examples, HYPERS)
    close(metrics.value_loss, 0.5 * (3.0 - 0.2) ** 2)


def test_estimate_is_gae_over_the_critics_values():
    network, state, batch, examples, *_ = begun(SPECS["discrete"])
    critic = jax.jit(functools.partial(network.apply, method="critic"))
    value, next_value = (critic(state.learner.params, obs) for obs in (batch.obs, batch.next_obs))
    expected = returns.gae(batch.reward, value, next_value, batch.terminated, batch.truncated, 0.99, 0.95)
    close(examples.advantage, expected.ravel())
    close(examples.value, value.ravel())
    np.testing.assert_array_equal(examples.obs, batch.obs.reshape(16, 3))
    np.testing.assert_array_equal(examples.action, batch.action.ravel())


def test_an_epoch_sees_every_example_once():
    start = begun(SPECS["discrete"], num_minibatches=4)
    still = HYPERS._replace(learning_rate=0.0)  # so that minibatches may be compared with the whole
    epoch = jax.jit(functools.partial(ppo.epoch, network=start.network))
    _, metrics = epoch(jax.random.key(3), start.state.learner, start.examples, still)
    whole = start.loss(start.state.learner.params, start.examples, still)[1]
    close(jax.tree.map(jnp.mean, metrics), whole)
    assert len(set(metrics.policy_loss.tolist())) == 4


@pytest.mark.parametrize(("name", "num_epochs"), [("continuous", 1), ("discrete", 3)])
def test_first_pass_has_no_divergence_and_later_ones_have(name, num_epochs):
    _, state, batch, *_, update = begun(SPECS[name], num_epochs=num_epochs)
    hypers = HYPERS._replace(learning_rate=1e-2)
    _, metrics = update(jax.random.key(3), jnp.int32(0), state, batch, hypers)
    assert (abs(float(metrics.kl)) < 1e-6) is (num_epochs == 1)


def test_learning_rate_is_annealed():
    _, state, batch, *_, update = begun(SPECS["continuous"], num_epochs=1)
    hypers, moves = HYPERS._replace(learning_rate=1e-2, learning_rate_end=0.0, horizon=4.0), []
    for step in (0, 2, 4, 9):
        after, _ = update(jax.random.key(3), jnp.int32(step), state, batch, hypers)
        pairs = zip(*(jax.tree.leaves(each.learner.params) for each in (after, state)), strict=True)
        moves.append(max(np.abs(np.subtract(*pair)).max() for pair in pairs))
    # Adam's first step has the size of the learning rate.
    np.testing.assert_allclose(moves, [1e-2, 5e-3, 0, 0], rtol=0.05)


def test_observations_are_normalised_by_the_moments_that_acted():
    network, state, batch, *_, update = begun(SPECS["discrete"], normalise_observations=True)
    first, _ = update(jax.random.key(3), jnp.int32(0), state, batch, HYPERS)
    close(first.observations.mean, batch.obs.reshape(-1, 3).mean(0), rtol=1e-3, atol=1e-3)
    again = jax.jit(functools.partial(collected, network=network))(jax.random.key(4), first)
    second, metrics = update(jax.random.key(5), jnp.int32(1), first, again, HYPERS)
    assert abs(float(metrics.kl)) < 1e-6
    close(second.observations.weight, 32.0, rtol=1e-3)


def test_scaled_rewards_do_not_depend_on_their_unit():
    _, state, batch, *_, update = begun(SPECS["discrete"], normalise_rewards=True)
    losses = [
        float(
            update(jax.random.key(3), jnp.int32(0), state, batch._replace(reward=unit * batch.reward), HYPERS)[
                1
            ].value_loss
        )
        for unit in (1.0, 100.0)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_policy_gives_the_mode_or_a_sample_with_its_log_probability(spec):
    network, state, batch, *_ = begun(spec)
    algorithm = ppo.build(spec, network.config)

    @functools.partial(jax.jit, static_argnums=0)
    def both(explore):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore)
        action, extras, _ = policy.apply(jax.random.key(5), batch.obs, policy.memory((8, 2)))
        distribution = network.apply(state.learner.params, batch.obs, method="actor")
        return action, extras["log_prob"], distribution.mode(), distribution.log_prob(action)

    for explore in (False, True):
        action, log_prob, mode, expected = both(explore)
        close(log_prob, expected)
        assert np.array_equal(action, mode) is not explore


def test_the_estimate_of_the_divergence_is_right_on_the_average():
    """Over each action once, as a uniform policy takes them, at five new policies."""
    logits = 2 * jax.random.normal(jax.random.key(1), (5, 4))
    new, uniform = (distributions.categorical(each[:, None]) for each in (logits, jnp.zeros((5, 4))))
    action = jnp.broadcast_to(jnp.arange(4), (5, 4))
    minibatch = ppo.Minibatch((), action, uniform.log_prob(action), jnp.zeros((5, 4)), jnp.ones((5, 4)))
    _, kl, _ = ppo.surrogate(new, minibatch, HYPERS, config=ppo.Config(**PLAIN))
    close(kl, uniform.kl_divergence(new).mean())
    assert kl > 0.1


def test_the_penalty_is_the_divergence_times_its_coefficient():
    start = begun(SPECS["discrete"])
    examples = start.examples._replace(log_prob=start.examples.log_prob + 0.3 * np.sin(np.arange(16, dtype=np.float32)))
    without, metrics = start.loss(start.state.learner.params, examples, HYPERS)
    penalised, _ = start.loss(start.state.learner.params, examples, HYPERS._replace(penalty=3.0))
    close(penalised - without, 3 * metrics.kl)
    # Without a clip the surrogate is the ratio's alone.
    unclipped = start.loss(start.state.learner.params, examples, HYPERS._replace(clip=jnp.inf))[1]
    ratio = np.exp(-0.3 * np.sin(np.arange(16)))
    close(unclipped.policy_loss, -(ratio * examples.advantage).mean())


def test_the_penalty_is_adapted_to_its_target():
    hypers = HYPERS._replace(target_kl=0.03)
    found = [float(ppo.adapt(jnp.float32(2.0), jnp.float32(kl), hypers)) for kl in (0.019, 0.021, 0.044, 0.046)]
    assert found == [1.0, 2.0, 2.0, 4.0]
    for kl in (0.0, 1.0):
        penalty = jax.lax.fori_loop(0, 300, lambda _, penalty, kl=kl: ppo.adapt(penalty, kl, hypers), jnp.float32(2.0))
        assert 0 < penalty < jnp.inf
        back = jax.lax.fori_loop(0, 40, lambda _, penalty, kl=1 - kl: ppo.adapt(penalty, kl, hypers), penalty)
        assert (back > 1) == (kl == 0)
    _, state, batch, *_, update = begun(SPECS["discrete"], num_epochs=3)
    hypers = HYPERS._replace(learning_rate=0.1, penalty=2.0, target_kl=1e-4)
    started = state._replace(penalty=jnp.float32(2.0))
    for before, expected in ((started, 4.0), (state, 0.0)):  # without a penalty at the start there is never one
        after, metrics = update(jax.random.key(3), jnp.int32(0), before, batch, hypers)
        assert float(metrics.kl) > 1e-3 and float(after.penalty) == expected


def test_the_penalty_holds_the_policy_back():
    _, state, batch, *_, update = begun(SPECS["discrete"], num_epochs=3)
    hypers = HYPERS._replace(learning_rate=0.05, clip=jnp.inf)
    free, held = (
        float(update(jax.random.key(3), jnp.int32(0), state._replace(penalty=jnp.float32(beta)), batch, hypers)[1].kl)
        for beta in (0.0, 50.0)
    )
    assert held < 0.7 * free


def test_minibatches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="leaves nothing of the advantage of a single example"):
        ppo.Config(core="gru", num_envs=4, rollout_length=1)
    assert set(ppo.Config(num_epochs=1, num_minibatches=1).idle) == {"clip", "penalty", "target_kl"}
    assert not ppo.Config(num_epochs=2, num_minibatches=1).idle
    with pytest.raises(ValueError, match=r"config\.num_minibatches=3 does not divide"):
        ppo.Config(num_envs=2, rollout_length=8, num_minibatches=3)


SMALL = ppo.Config(num_envs=16, rollout_length=8, num_epochs=4, num_minibatches=4, hidden_sizes=(16,))
QUICK = ppo.Hypers(learning_rate=2e-2, entropy_coefficient=0.0)


def test_values_and_discrete_actions_are_learned(probe, trained, solved):
    found, _ = trained(ppo, probe, SMALL, QUICK._replace(horizon=80.0), 80)
    solved(probe, *found)


@pytest.mark.parametrize("probe", [probes.several_choices(), probes.continuous_action()], ids=lambda probe: probe.name)
def test_several_choices_and_numbers_are_learned(probe, trained, solved):
    found, _ = trained(ppo, probe, SMALL, QUICK._replace(horizon=60.0), 60)
    solved(probe, *found)
