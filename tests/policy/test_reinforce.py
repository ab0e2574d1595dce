"""REINFORCE: the exact gradient by enumeration, no dependence on where episodes are cut, the baseline, the probes."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, probes, tables
from rlgen.parts import actor_critic
from rlgen.policy import reinforce
from rlgen.sources import rollout

PLAIN = {"num_envs": 2, "rollout_length": 12, "hidden_sizes": (8,)}
SPECS = {"discrete": Spec(Box((3,)), Discrete(4)), "continuous": Spec(Box((3,)), Box((2,), -1.0, 1.0))}
HYPERS = reinforce.Hypers(discount=0.9, horizon=10.0)

# A process of three steps: from state 0 to 1 or 2, then to 3 or 4, and from there to the end.
FOLLOWS = np.zeros((5, 2, 5))
FOLLOWS[0, :, 1:3] = [[0.7, 0.3], [0.2, 0.8]]
FOLLOWS[1, :, 3:5] = FOLLOWS[2, ::-1, 3:5] = [[0.4, 0.6], [0.9, 0.1]]
REWARD = np.array([[1.0, 2.0], [0.5, 3.0], [4.0, 1.0], [2.0, 0.0], [1.0, 5.0]], np.float32)
PROCESS = Spec(Discrete(5), Discrete(2))
# All its episodes, and the chance that the process, not the policy, goes that way.
_MOVES = np.array(list(itertools.product([1, 2], [3, 4], [0, 1], [0, 1], [0, 1])), np.int32)
STATES, ACTIONS = np.insert(_MOVES[:, :2], 0, 0, axis=1), _MOVES[:, 2:]  # [episodes, 3]
CHANCE = np.prod([FOLLOWS[STATES[:, t], ACTIONS[:, t], STATES[:, t + 1]] for t in (0, 1)], axis=0)


class Start(NamedTuple):
    network: actor_critic.ActorCritic
    state: reinforce.State
    estimate: Any  # `(params, pending, rollout, hypers) -> (Minibatch, Metrics)`, compiled
    gradient: Any  # of the same, `-> (T * B times the ascent direction, pending)`


@functools.cache
def begun(spec, **config):
    """A learner whose actor and critic are lively."""
    network, generator = actor_critic.make(spec, reinforce.Config(**{**PLAIN, **config})), np.random.default_rng(1)

    @jax.jit
    def make():
        state = reinforce.init(jax.random.key(0), HYPERS, network=network)
        # From NumPy, where none has to be compiled.
        draw = functools.partial(generator.standard_normal, dtype=np.float32)
        params = jax.tree.map(lambda leaf: 0.6 * draw(leaf.shape), state.learner.params)
        return state._replace(learner=state.learner._replace(params=params))

    loss = functools.partial(reinforce.loss, network=network)

    @jax.jit
    def estimate(params, pending, rollout, hypers):
        minibatch, _ = reinforce.estimate(params, pending, rollout, hypers, network=network)
        return minibatch, loss(params, minibatch)[1]

    @jax.jit
    def gradient(params, pending, rollout, hypers):
        minibatch, pending = reinforce.estimate(params, pending, rollout, hypers, network=network)
        grads = jax.grad(loss, has_aux=True)(params, minibatch)[0]
        return jax.tree.map(lambda leaf: -leaf * rollout.reward.size, grads), pending

    return Start(network, make(), estimate, gradient)


def close(left, right, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-4, "atol": 1e-4, **tolerance}), left, right
    )


def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


def of_actor(params):
    return {name: leaf for name, leaf in params["params"].items() if not name.startswith("critic")}


class Truth(NamedTuple):
    value: Any  # of the policy at the start
    exact: Any  # the actor's gradient of it, through a linear solve
    chance: Any  # [episodes]
    gradients: Any  # what the algorithm makes of each episode, the actor's leaves [episodes, ...]

    def mean(self):
        return jax.tree.map(lambda leaf: np.tensordot(self.chance, leaf, axes=1), self.gradients)


@functools.cache
def enumerate_with(**config):
    """Compiles `(params, hypers) -> Truth` for an algorithm on the process."""
    start = begun(PROCESS, **config)

    def value_of(params, discount):
        chance = jax.nn.softmax(start.network.apply(params, jnp.arange(5), method="actor").logits)
        follows = jnp.einsum("sa,sat->st", chance, FOLLOWS)
        return jnp.linalg.solve(jnp.eye(5) - discount * follows, (chance * REWARD).sum(-1))[0]

    @jax.jit
    def everything(params, hypers):
        pending = jax.tree.map(lambda leaf: leaf[:1], start.state.pending)
        states, actions = STATES[..., None], ACTIONS[..., None]
        flags = np.broadcast_to(np.arange(3)[:, None] == 2, states.shape)
        episodes = Transition(states, actions, REWARD[states, actions], states, flags, flags & False, {})
        gradients = jax.vmap(start.gradient, (None, None, 0, None))(params, pending, episodes, hypers)[0]
        log_prob = start.network.apply(params, STATES, method="actor").log_prob(ACTIONS).sum(1)
        value, exact = jax.value_and_grad(value_of)(params, hypers.discount)
        return Truth(value, of_actor(exact), CHANCE * jnp.exp(log_prob), of_actor(gradients))

    return everything


@pytest.mark.parametrize(
    ("baseline", "discount_states", "discount"), [("none", True, 0.8), ("value", True, 0.8), ("none", False, 1.0)]
)
def test_expected_gradient_is_the_policy_gradient(baseline, discount_states, discount):
    config = {"baseline": baseline, "discount_states": discount_states}
    truth = enumerate_with(**config)(begun(PROCESS, **config).state.learner.params, HYPERS._replace(discount=discount))
    np.testing.assert_allclose(truth.chance.sum(), 1, rtol=1e-5)
    close(truth.mean(), truth.exact)
    assert largest(truth.exact) > 0.1


def test_without_the_weights_of_states_it_is_another_direction():
    config = {"baseline": "none", "discount_states": False}
    truth = enumerate_with(**config)(begun(PROCESS, **config).state.learner.params, HYPERS._replace(discount=0.8))
    assert largest(jax.tree.map(np.subtract, truth.mean(), truth.exact)) > 1e-2


def test_a_baseline_keeps_the_mean_and_lowers_the_variance():
    variance, mean, value = {}, {}, None
    for baseline in reinforce.BASELINES:
        config = {"baseline": baseline, "discount_states": True}
        params = {"params": dict(begun(PROCESS, **config).state.learner.params["params"])}
        params["params"] |= of_actor(begun(PROCESS, baseline="none", discount_states=True).state.learner.params)
        if baseline == "value":
            # The same for every state: the return that is expected at the start.
            head = params["params"]["critic_head"]
            params["params"]["critic_head"] = {"kernel": 0 * head["kernel"], "bias": 0 * head["bias"] + value}
        truth = enumerate_with(**config)(params, HYPERS)
        value, mean[baseline] = truth.value, truth.mean()
        spread = jax.tree.map(
            lambda leaf, at, chance=truth.chance: (chance @ np.square(leaf - at).reshape(len(chance), -1)).sum(),
            truth.gradients,
            mean[baseline],
        )
        variance[baseline] = sum(jax.tree.leaves(spread))
    close(mean["value"], mean["none"])
    assert 0 < variance["value"] < 0.6 * variance["none"]


@functools.cache
def collected(spec, length=12):
    """A made-up rollout `[length, 2]` with ends of both kinds, one of them at a cut."""
    generator = np.random.default_rng(2)
    obs = generator.standard_normal((length + 1, 2, 3), np.float32)
    if spec is SPECS["discrete"]:
        action = generator.integers(0, 4, (length, 2), np.int32)
    else:
        action = generator.standard_normal((length, 2, 2), np.float32)
    terminated, truncated = np.zeros((2, length, 2), bool)
    terminated[[1, 3], [0, 1]] = truncated[[5], [0]] = True
    reward = 1 + generator.standard_normal((length, 2), np.float32)
    return Transition(obs[:-1], action, reward, obs[1:], terminated, truncated, {})


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("discrete", {"baseline": "value", "discount_states": True}),
        ("continuous", {"baseline": "none", "discount_states": False}),
    ],
)
def test_the_sum_of_gradients_does_not_depend_on_where_episodes_are_cut(name, config):
    start = begun(SPECS[name], **config)
    params, batch = start.state.learner.params, collected(SPECS[name])
    whole, end = start.gradient(params, start.state.pending, batch, HYPERS)
    pieces, pending = [], start.state.pending
    for cut in range(0, 12, 4):
        piece, pending = start.gradient(
            params, pending, jax.tree.map(lambda leaf, cut=cut: leaf[cut : cut + 4], batch), HYPERS
        )
        pieces.append(piece)
    close(jax.tree.map(lambda *leaves: sum(leaves), *pieces), whole, atol=1e-3)
    close(pending, end, atol=1e-3)
    assert largest(of_actor(end.trace)) > 0.1
    # What earlier steps have earned is no small part of it.
    fresh, _ = start.gradient(params, start.state.pending, jax.tree.map(lambda leaf: leaf[8:], batch), HYPERS)
    assert largest(jax.tree.map(np.subtract, pieces[-1], fresh)) > 0.1


@pytest.mark.parametrize("baseline", reinforce.BASELINES)
def test_sampled_gradients_agree_with_the_exact_one(baseline):
    """A random walk, whose episodes have any length from two steps on, in rollouts of three under a fixed policy."""
    env = adapter.make(tables.random_walk(3))
    start = begun(env.spec, num_envs=16, rollout_length=3, baseline=baseline, discount_states=True)
    params, network, seeds, updates = start.state.learner.params, start.network, 8, 200
    source = rollout.build(env, num_envs=16, length=3)
    acting = actor_critic.policy(jnp.int32(0), start.state, (), network=network, explore=True)

    @jax.jit
    @jax.vmap
    def sampled(key):
        def body(carry, key):
            state, pending, total, episodes = carry
            state, batch, stats = source.next(key, jnp.int32(0), state, acting)
            gradient, pending = start.gradient(params, pending, batch, HYPERS)
            return (state, pending, jax.tree.map(jnp.add, total, of_actor(gradient)), episodes + stats.episodes), None

        zeros = jax.tree.map(jnp.zeros_like, of_actor(params))
        carry = (source.init(key, acting), start.state.pending, zeros, 0.0)
        _, _, total, episodes = jax.lax.scan(body, carry, jax.random.split(key, updates))[0]
        return jax.tree.map(lambda leaf: leaf / episodes, total)

    process = tables.process(env.native)

    def objective(params):
        states = jnp.arange(len(process.start))
        chance = jax.nn.softmax(network.apply(params, states, method="actor").logits)
        follows = jnp.einsum("sa,sat->st", chance, process.transition)
        return process.start @ jnp.linalg.solve(jnp.eye(len(states)) - 0.9 * follows, (chance * process.reward).sum(-1))

    found = sampled(jax.random.split(jax.random.key(0), seeds))
    expected = of_actor(jax.jit(jax.grad(objective))(params))

    def score(samples, truth):
        samples = np.asarray(samples, np.float64)
        error = samples.std(0, ddof=1) / np.sqrt(seeds)
        return np.abs(samples.mean(0) - truth) / (error + 1e-5), np.abs(truth) / (error + 1e-5)

    scores = jax.tree.map(score, found, expected)
    misses, sizes = (
        np.concatenate([pair[i].ravel() for pair in jax.tree.leaves(scores, is_leaf=lambda leaf: type(leaf) is tuple)])
        for i in (0, 1)
    )
    assert np.quantile(sizes, 0.9) > 10  # far from nothing
    assert np.mean(misses**2) < 4  # of Student's t with 7 degrees of freedom, 1.4


@pytest.mark.filterwarnings("ignore:.*:PendingDeprecationWarning:rlax")
def test_loss_agrees_with_rlax():
    start = begun(SPECS["discrete"], baseline="none", discount_states=True)
    params, batch = start.state.learner.params, collected(SPECS["discrete"])
    minibatch, metrics = start.estimate(params, start.state.pending, batch, HYPERS)

    @jax.jit
    def theirs(params):
        logits = start.network.apply(params, batch.obs, method="actor").logits
        arguments = (logits, batch.action, minibatch.episode_return, minibatch.weight)
        expected = rlax.policy_gradient_loss(*(leaf.reshape(24, *leaf.shape[2:]) for leaf in arguments))
        return expected, -rlax.entropy_loss(logits.reshape(24, -1), jnp.ones(24))

    close((metrics.policy_loss, metrics.entropy), theirs(params))
    assert float(metrics.value_loss) == 0


def test_weights_are_powers_of_the_discount_within_an_episode():
    network = begun(SPECS["discrete"], discount_states=True).network
    done = np.array([[False, True], [True, False], [False, False], [False, False]])
    step_weights = jax.jit(functools.partial(reinforce.step_weights, network=network))
    after, weights = map(np.asarray, step_weights(np.float32([0.5, 1.0]), done, HYPERS))
    np.testing.assert_allclose(weights[:, 0], [0.5, 0.45, 1, 0.9], rtol=1e-6)
    np.testing.assert_allclose(weights[:, 1], [1, 1, 0.9, 0.81], rtol=1e-6)
    np.testing.assert_allclose(after, [0.81, 0.729], rtol=1e-6)


@pytest.mark.parametrize("baseline", reinforce.BASELINES)
def test_the_return_of_a_truncated_episode(baseline):
    start = begun(SPECS["discrete"], baseline=baseline, discount_states=True)
    params, batch = start.state.learner.params, collected(SPECS["discrete"])
    minibatch, _ = start.estimate(params, start.state.pending, batch, HYPERS)
    # Environment 0: the step at 5 is the last of a truncated episode, that at 1 of a terminated one.
    critic = jax.jit(functools.partial(start.network.apply, method="critic"))
    value = critic(params, batch.next_obs[5, 0]) if baseline == "value" else 0.0
    close(minibatch.episode_return[5, 0], batch.reward[5, 0] + 0.9 * value)
    close(minibatch.episode_return[1, 0], batch.reward[1, 0])
    close(minibatch.episode_return[4, 0], batch.reward[4, 0] + 0.9 * minibatch.episode_return[5, 0])


def test_learning_rate_is_annealed():
    start = begun(SPECS["discrete"], baseline="none", discount_states=True)
    batch = collected(SPECS["discrete"])
    update = jax.jit(functools.partial(reinforce.update, network=start.network))
    hypers, moves = HYPERS._replace(learning_rate=1e-2, horizon=4.0), []
    for step in (0, 2, 4, 9):
        after, _ = update(jax.random.key(3), jnp.int32(step), start.state, batch, hypers)
        moves.append(largest(jax.tree.map(np.subtract, after.learner.params, start.state.learner.params)))
    # Adam's first step has the size of the learning rate.
    np.testing.assert_allclose(moves, [1e-2, 5e-3, 0, 0], rtol=0.05)


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match=r"config\.baseline='mean' is not one of none, value"):
        reinforce.Config(baseline="mean")


# Rollouts are shorter than some episodes.
SMALL = {"num_envs": 64, "rollout_length": 3, "hidden_sizes": (16,)}


@pytest.mark.learning
@pytest.mark.parametrize("baseline", reinforce.BASELINES)
def test_values_and_discrete_actions_are_learned(probe, trained, solved, baseline):
    config = reinforce.Config(**SMALL, baseline=baseline)
    network = actor_critic.make(adapter.make(probe).spec, config)

    def read(params):
        action = network.apply(params, probe.observations, method="actor").mode()
        if baseline != "value":
            return (action,)
        return action, network.apply(params, probe.observations, method="critic")

    found, _ = trained(reinforce, probe, config, reinforce.Hypers(learning_rate=1e-2, horizon=300.0), 300, read)
    solved(probe, *found, atol=0.15)


@pytest.mark.learning
@pytest.mark.parametrize(("kind", "tolerance"), [("tanh_normal", 0.1), ("beta", 0.25)])
def test_bounded_actions_are_learned(trained, solved, kind, tolerance):
    """A Beta first leans against a bound, where one of its parameters barely moves, and narrows slowly."""
    probe = probes.continuous_action()
    config = reinforce.Config(**SMALL, distribution=kind)
    network = actor_critic.make(adapter.make(probe).spec, config)

    def read(params):
        actor = network.apply(params, probe.observations, method="actor")
        # The mode of a Beta that leans to one side lies beyond its mean.
        return (actor.mean() if kind == "beta" else actor.mode(),)

    found, _ = trained(reinforce, probe, config, reinforce.Hypers(learning_rate=5e-2, horizon=200.0), 200, read)
    solved(probe, *found, atol=tolerance)
