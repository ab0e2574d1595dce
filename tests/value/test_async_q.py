"""Asynchronous Q-learning: targets by hand, the synchronous rule at age 0, turns, the target's period, the probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen import train
from rlgen.core import Algorithm, Box, Discrete, Policy, Spec, Transition
from rlgen.envs import adapter
from rlgen.parts import asynchrony, exploration, losses, optim, returns
from rlgen.parts.q_networks import ValueNetwork
from rlgen.sources import rollout
from rlgen.value import async_q

SPEC = Spec(Box((1,)), Discrete(2))
SMALL = {"num_envs": 4, "rollout_length": 3, "n_step": 3, "target_period": 3, "hidden_sizes": ()}
# Epsilon falls to 0 in five updates, whatever a worker's share of its end.
HYPERS = async_q.Hypers(learning_rate=1e-2, discount=0.5, horizon=10.0, epsilon_end=0.0)
SYNCHRONOUS = HYPERS._replace(mean_age=0.0)
# Linear values of one number: the snapshot prefers the first action where the target prefers the second.
SNAPSHOT = {"params": {"Dense_0": {"kernel": jnp.array([[2.0, 1.0]]), "bias": jnp.array([0.0, 0.5])}}}
TARGET = {"params": {"Dense_0": {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.array([0.0, -1.0])}}}
# Three environments: one goes on, one terminates at the second step, one is truncated there.
ROLLOUT = Transition(
    obs=jnp.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 0.0, 0.0]])[..., None],
    action=jnp.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]]),
    reward=jnp.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]]),
    next_obs=jnp.array([[1.0, 1.0, 1.0], [2.0, 2.0, 3.0], [-2.0, 1.0, -2.0]])[..., None],
    terminated=jnp.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], bool),
    truncated=jnp.array([[0, 0, 0], [0, 0, 1], [0, 0, 0]], bool),
    extras={},
)
# Q⁻(1) = (1, 1), Q⁻(2) = (2, 3), Q⁻(3) = (3, 5) and Q⁻(−2) = (−2, −5): the best are 1, 3, 5 and −2.
ONE_STEP = [
    [1 + 1 / 2, 2 + 1 / 2, 4 + 1 / 2],
    [8 + 3 / 2, 16, 32 + 5 / 2],
    [64 - 2 / 2, 128 + 1 / 2, 256 - 2 / 2],
]
N_STEP = [
    [1 + 8 / 2 + 64 / 4 - 2 / 8, 2 + 16 / 2, 4 + 32 / 2 + 5 / 4],
    [8 + 64 / 2 - 2 / 4, 16, 32 + 5 / 2],
    [64 - 2 / 2, 128 + 1 / 2, 256 - 2 / 2],
]
# Next actions are 0, 0 | 1, 1 | 1 where they are taken; elsewhere the snapshot draws its best, which is 0 at 1, 2 and 3
# and 1 at −2, where Q = (−4, −1.5).
SARSA = [
    [1 + 1 / 2, 2 + 1 / 2, 4 + 1 / 2],
    [8 + 2 / 2, 16, 32 + 3 / 2],
    [64 - 5 / 2, 128 + 1 / 2, 256 - 5 / 2],
]


def network_of(**config):
    return ValueNetwork(SPEC, async_q.Config(**{**SMALL, "num_workers": 2, **config}))


@functools.cache
def begun(**config):
    """A network, a new state and the compiled update."""
    network = network_of(**config)
    init = jax.jit(functools.partial(async_q.init, network=network))
    return network, init(jax.random.key(0), HYPERS), jax.jit(functools.partial(async_q.update, network=network))


@functools.cache
def rollout_of(step):
    """Four environments, three steps, different at every update."""
    keys = jax.random.split(jax.random.key(step), 4)
    obs = jax.random.normal(keys[0], (4, 4, 1))
    flags = jax.random.bernoulli(keys[1], 0.2, (2, 3, 4))
    action = jax.random.randint(keys[2], (3, 4), 0, 2)
    return Transition(obs[:-1], action, obs[1:, :, 0], obs[1:], flags[0], flags[1] & ~flags[0], {})


def equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def close(left, right):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), left, right)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"n_step": 1}, ONE_STEP),
        ({"n_step": 3}, N_STEP),
        ({"n_step": 9}, N_STEP),  # no rollout is as long
        ({"n_step": 1, "rule": "sarsa"}, SARSA),
    ],
)
def test_target_by_hand(config, expected):
    network = network_of(**config)
    own = SNAPSHOT, jnp.float32(0)
    goal = async_q.target_value(jax.random.key(0), TARGET, own, ROLLOUT, HYPERS, network=network)
    np.testing.assert_allclose(goal, expected)


def test_sarsa_acts_after_the_end_as_its_worker_would():
    """Where no action was taken, half of those that a worker with an epsilon of 1 draws are its best one, 0."""
    network = network_of(n_step=1, rule="sarsa")
    ended = jax.tree.map(lambda leaf: jnp.repeat(leaf[1:2, 2:], 4_000, axis=1), ROLLOUT)
    own = SNAPSHOT, jnp.float32(1)
    goal = async_q.target_value(jax.random.key(0), TARGET, own, ended, HYPERS, network=network)
    np.testing.assert_allclose((goal == 32 + 3 / 2).mean(), 0.5, atol=0.03)
    np.testing.assert_allclose((goal == 32 + 5 / 2).mean(), 0.5, atol=0.03)


def test_gradient_by_hand():
    """Of half the mean squared error, at the snapshot; none goes through the target."""
    network = network_of()
    own = SNAPSHOT, jnp.float32(0)
    grads, metrics = async_q.gradient(jax.random.key(0), own, ROLLOUT, TARGET, HYPERS, network=network)
    obs, action = ROLLOUT.obs[..., 0], ROLLOUT.action
    value = np.where(action == 0, 2 * obs, obs + 0.5)
    error = np.array(N_STEP) - value
    bias = [-np.where(action == each, error, 0).sum() / 9 for each in range(2)]
    kernel = [-np.where(action == each, error * obs, 0).sum() / 9 for each in range(2)]
    np.testing.assert_allclose(grads["params"]["Dense_0"]["bias"], bias, rtol=1e-6)
    np.testing.assert_allclose(grads["params"]["Dense_0"]["kernel"][0], kernel, rtol=1e-6)
    expected = {"loss": (error**2).mean() / 2, "q_value": value.mean(), "error": np.abs(error).mean()}
    close(metrics, expected)


def synchronous(network):
    """n-step Q-learning of one actor, written again: the parameters that act are those that learn."""

    def error(params, goal, batch):
        value = jnp.take_along_axis(network.apply(params, batch.obs), batch.action[..., None], -1)[..., 0]
        return losses.squared(goal - value).mean(), None

    def update(key, step, learner, batch, hypers):
        next_value = network.apply(learner.target, batch.next_obs).max(-1)
        # What follows a rollout's last step is its bootstrap, so that λ-returns of λ = 1 are n-step returns.
        goal = returns.lambda_return(batch.reward, next_value, batch.terminated, batch.truncated, hypers.discount, 1.0)
        optimiser = async_q.optimiser(
            hypers._replace(learning_rate=exploration.linear(hypers.learning_rate, 0.0, step / hypers.horizon))
        )
        params, opt_state, _ = optim.descend(error, optimiser, learner.params, learner.opt_state, goal, batch)
        copied = (step + 1) % network.config.target_period == 0
        target = jax.tree.map(lambda *both: jnp.where(copied, *both), params, learner.target)
        return async_q.Learner(params, target, opt_state), ()

    def policy(step, learner, hypers, *, explore):
        epsilon = exploration.linear(1.0, 0.0, step / (0.5 * hypers.horizon))

        def apply(key, obs, memory):
            return exploration.epsilon_greedy(key, network.apply(learner.params, obs), epsilon), {}, memory

        return Policy(lambda batch_shape: (), apply)

    def init(key, hypers):
        return async_q.init(key, hypers, network=network).learner

    return Algorithm(init, update, policy)


def test_one_worker_without_age_is_the_synchronous_rule(probe):
    """Whole runs, actions, gradients, steps and targets: bit for bit."""
    env, key = adapter.make(probe), jax.random.key(0)
    config = async_q.Config(**{**SMALL, "hidden_sizes": (8,), "num_workers": 1})
    source = rollout.build(env, num_envs=4, length=3)
    run = train.make(async_q.build(env.spec, config), source)
    plain = train.make(synchronous(ValueNetwork(env.spec, config)), source)
    start = jax.jit(run.init)(key, SYNCHRONOUS)
    # Copied, because a scan takes its state's buffers for its own.
    begin = jax.tree.map(jnp.copy, train.RunState(start.algorithm.learner, start.source))
    end, _ = train.scan(run, 8)(key, jnp.int32(0), start, SYNCHRONOUS)
    expected, _ = train.scan(plain, 8)(key, jnp.int32(0), begin, SYNCHRONOUS)
    equal(end.algorithm.learner, expected.algorithm)
    equal(end.source, expected.source)


def test_workers_without_age_are_the_synchronous_rule():
    """Every worker's gradient at the shared parameters, their mean, one step: bit for bit over several updates.

    Nothing is compiled as a whole: XLA may round a fused program otherwise than its parts.
    """
    network, state, _ = begun(target_period=2)
    plain = state.learner

    def synchronous_update(step, learner, batch):
        def gradient(params, part):
            key, own = jax.random.key(0), (params, jnp.float32(0))
            return async_q.gradient(key, own, part, learner.target, SYNCHRONOUS, network=network)[0]

        rate = exploration.linear(SYNCHRONOUS.learning_rate, 0.0, step / SYNCHRONOUS.horizon)
        optimiser = async_q.optimiser(SYNCHRONOUS._replace(learning_rate=rate))
        grads = jax.vmap(gradient)(asynchrony.copies(learner.params, 2), asynchrony.apart(batch, 2, 1))
        updates, opt_state = optimiser.update(jax.tree.map(lambda leaf: leaf.mean(0), grads), learner.opt_state)
        params = optax.apply_updates(learner.params, updates)
        return async_q.Learner(params, params if step % 2 else learner.target, opt_state)

    for step in range(4):
        batch = rollout_of(step)
        state, metrics = async_q.update(
            jax.random.key(step), jnp.int32(step), state, batch, SYNCHRONOUS, network=network
        )
        plain = synchronous_update(step, plain, batch)
        equal(state.learner, plain)
        equal(state.workers.params, asynchrony.copies(plain.params, 2))
        assert metrics.age == 0


@pytest.mark.parametrize("shared", [True, False])
def test_updates_follow_the_turns(shared):
    """Ages grow between turns, gradients add up at the snapshots, and what arrives moves the shared parameters."""
    (network, state, update), hypers = begun(shared_statistics=shared), HYPERS._replace(mean_age=1.0, horizon=1e9)
    keys = jax.random.split(jax.random.key(0), 64)
    turns = jax.vmap(lambda key: asynchrony.turns(jax.random.split(key)[0], 1.0, 2))(keys)
    patterns, first = np.unique(turns, axis=0, return_index=True)
    assert len(patterns) == 4  # nobody, each alone, both

    @jax.jit
    def expected(arrived, state, batch):
        of_one = functools.partial(async_q.gradient, target=state.learner.target, hypers=hypers, network=network)
        own = state.workers.params, jnp.ones(2)
        grads, _ = jax.vmap(of_one)(jax.random.split(keys[0]), own, asynchrony.apart(batch, 2, 1))
        total = jax.tree.map(jnp.add, state.workers.gradient, grads)
        optimiser, (params, _, opt_state) = async_q.optimiser(hypers), state.learner
        if shared:
            mean = jax.tree.map(lambda leaf: jnp.tensordot(arrived, leaf, 1) / 2, total)
            step, opt_state = optimiser.update(mean, opt_state)
        else:
            steps, opt_state = jax.vmap(optimiser.update)(total, opt_state)
            step = jax.tree.map(lambda leaf: jnp.tensordot(arrived, leaf, 1) / jnp.maximum(arrived.sum(), 1), steps)
        return total, optax.apply_updates(params, step), opt_state

    for step, index in enumerate(first.tolist() * 2):
        batch, arrived = rollout_of(step), turns[index]
        after, metrics = update(keys[index], jnp.int32(step), state, batch, hypers)
        total, params, opt_state = expected(arrived.astype(jnp.float32), state, batch)
        assert metrics.age == state.workers.age.mean()
        np.testing.assert_array_equal(after.workers.age, jnp.where(arrived, 0, state.workers.age + 1))
        for worker in range(2):
            snapshot, gradient, old_snapshot, added = (
                jax.tree.map(lambda leaf, worker=worker: leaf[worker], tree)
                for tree in (after.workers.params, after.workers.gradient, state.workers.params, total)
            )
            equal(snapshot, after.learner.params if arrived[worker] else old_snapshot)
            close(gradient, jax.tree.map(jnp.zeros_like, added) if arrived[worker] else added)
            if not shared:
                before = (opt_state if arrived[worker] else state.learner.opt_state), after.learner.opt_state
                close(*(jax.tree.map(lambda leaf, worker=worker: leaf[worker], tree) for tree in before))
        close(after.learner.params, params if arrived.any() else state.learner.params)
        if shared:
            close(after.learner.opt_state, opt_state if arrived.any() else state.learner.opt_state)
        state = after


def test_the_target_is_copied_once_a_period():
    _, state, update = begun(shared_statistics=True)
    for step in range(7):
        before = state.learner
        state, _ = update(jax.random.key(step), jnp.int32(step), state, rollout_of(step), SYNCHRONOUS)
        equal(state.learner.target, state.learner.params if step in (2, 5) else before.target)
        assert not np.array_equal(*(jax.tree.leaves(learner.params)[1] for learner in (before, state.learner)))


def test_final_epsilons_are_drawn_with_the_papers_chances():
    network = ValueNetwork(SPEC, async_q.Config(num_envs=10_000, num_workers=10_000, hidden_sizes=()))
    share = jax.jit(functools.partial(async_q.init, network=network))(jax.random.key(0), HYPERS).share
    hypers = HYPERS._replace(epsilon_start=0.9, epsilon_end=0.1, exploration_fraction=0.5)
    end = async_q.epsilons(jnp.int32(9), share, hypers)
    for final, chance in ((0.1, 0.4), (0.01, 0.3), (0.5, 0.3)):
        np.testing.assert_allclose(np.isclose(end, final).mean(), chance, atol=0.02)
    equal(async_q.epsilons(jnp.int32(0), share, hypers), np.full(10_000, 0.9, np.float32))
    np.testing.assert_allclose(async_q.epsilons(jnp.int32(2), share, hypers), 0.9 + 0.4 * (end - 0.9), rtol=1e-5)
    # Five times a large share is still a chance.
    assert async_q.epsilons(jnp.int32(9), share, hypers._replace(epsilon_end=0.9)).max() == 1


def test_every_worker_acts_by_its_own_snapshot_and_epsilon():
    """At 2 the snapshots prefer 0 and 1; the shared parameters prefer 1."""
    network = network_of(num_envs=8_000)
    hypers = HYPERS._replace(epsilon_end=0.1)
    snapshots = jax.tree.map(lambda *both: jnp.stack(both), SNAPSHOT, TARGET)
    workers = asynchrony.Workers(snapshots, (), jnp.zeros(2, jnp.int32))
    state = async_q.State(async_q.Learner(TARGET, TARGET, ()), workers, jnp.array([1.0, 5.0]))

    def chosen(explore, num):
        policy = async_q.policy(jnp.int32(9), state, hypers, explore=explore, network=network)
        return jax.jit(policy.apply)(jax.random.key(0), jnp.full((num, 1), 2.0), policy.memory((num,)))[0]

    explored = chosen(True, 8_000).reshape(2, -1)
    np.testing.assert_allclose(explored.mean(1), [0.05, 0.75], atol=0.03)
    assert chosen(False, 8_000).all()
    # Batches of another size act by the shared parameters, with the mean of both epsilons.
    np.testing.assert_allclose(chosen(True, 6_000).mean(), 1 - 0.15, atol=0.03)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_workers": 3}, "config.num_workers=3 does not divide 8 environments"),
        ({"rule": "expected"}, "config.rule='expected' is not one of q, sarsa"),
    ],
)
def test_an_impossible_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        async_q.Config(**config)


@pytest.mark.learning
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("rule", "n_step"), [("q", 1), ("q", 8), ("sarsa", 1)])
def test_the_probes_are_learned(probe, rule, n_step, shared):
    """Best actions, and what they are worth, in all situations; Sarsa's last epsilon leaves nothing to chance."""
    env = adapter.make(probe)
    sizes = {"num_envs": 32, "rollout_length": 8, "num_workers": 4, "target_period": 10, "hidden_sizes": (16,)}
    config = async_q.Config(**sizes, n_step=n_step, rule=rule, shared_statistics=shared)
    hypers = async_q.Hypers(learning_rate=2e-2, discount=0.5, epsilon_end=0.0, horizon=800.0, mean_age=1.0)
    run = train.make(async_q.build(env.spec, config), rollout.build(env, num_envs=32, length=8))

    @jax.jit
    @jax.vmap
    def trained(key):
        state, _ = train.window(run)(key, jnp.int32(0), jnp.int32(800), run.init(key, hypers), hypers)
        return ValueNetwork(env.spec, config).apply(state.algorithm.learner.params, probe.observations)

    q_values = trained(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(q_values.max(-1), np.broadcast_to(probe.values(0.5), q_values.shape[:2]), atol=0.15)
    worse = probe.action_values(0.5, 1 - probe.best_actions) < probe.values(0.5)
    assert (q_values.argmax(-1) == probe.best_actions)[:, worse].all()
