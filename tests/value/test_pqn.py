"""PQN: targets and steps by hand, how examples are dealt out, and the probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter
from rlgen.parts.q_networks import ValueNetwork
from rlgen.sources import rollout
from rlgen.value import pqn

SPEC = Spec(Box((1,)), Discrete(2))
SMALL = {"num_envs": 2, "rollout_length": 4, "num_epochs": 1, "num_minibatches": 1, "hidden_sizes": ()}
HYPERS = pqn.Hypers(learning_rate=0.1, discount=0.5, trace_decay=0.5, horizon=10.0, max_grad_norm=1e6)
# Linear values of one number, `(2 x, x + 0.5)`.
PARAMS = {"params": {"Dense_0": {"kernel": jnp.array([[2.0, 1.0]]), "bias": jnp.array([0.0, 0.5])}}}
# In the first environment the second step terminates, in the other the third one is cut by the time limit.  The best
# values of the observations after each step are (2, 200, 4, −1) and (0.5, 2, 4, 6).
BATCH = Transition(
    obs=jnp.array([[1.0, -2.0], [3.0, 1.0], [0.0, -1.0], [2.0, 50.0]])[..., None],
    action=jnp.array([[0, 1], [1, 1], [0, 0], [1, 1]]),
    reward=jnp.array([[1.0, 1.0], [2.0, -1.0], [3.0, 2.0], [4.0, 0.0]]),
    next_obs=jnp.array([[1.0, 0.0], [100.0, 1.0], [2.0, 2.0], [-1.5, 3.0]])[..., None],
    terminated=jnp.array([[False, False], [True, False], [False, False], [False, False]]),
    truncated=jnp.array([[False, False], [False, False], [False, True], [False, False]]),
    extras={},
)
TARGETS = {
    0.5: [
        [1 + (0.5 * 2 + 0.5 * 2) / 2, 1 + (0.5 * 0.5 + 0.5 * 0.5) / 2],
        [2, -1 + (0.5 * 2 + 0.5 * 4) / 2],
        [3 + (0.5 * 4 + 0.5 * 3.5) / 2, 2 + 4 / 2],
        [4 - 1 / 2, 6 / 2],
    ],
    0.0: [[1 + 2 / 2, 1 + 0.5 / 2], [2, -1 + 2 / 2], [3 + 4 / 2, 2 + 4 / 2], [4 - 1 / 2, 6 / 2]],
    1.0: [[1 + 2 / 2, 1 - 1 / 2 + 2 / 4 + 4 / 8], [2, -1 + 2 / 2 + 4 / 4], [3 + 4 / 2 - 1 / 4, 2 + 4 / 2], [3.5, 3]],
}


def network_over(spec, config):
    return ValueNetwork(spec, config, layer_norm=config.layer_norm)


def network_of(**config):
    return network_over(SPEC, pqn.Config(**{**SMALL, **config}))


def begun(params=PARAMS):
    return pqn.State(pqn.Learner(params, pqn.optimiser(HYPERS).init(params)))


@functools.cache
def compiled(**config):
    return jax.jit(functools.partial(pqn.update, network=network_of(**config)))


def weights(state):
    """Slopes and intercepts of linear values, `[2, A]`."""
    layer = state.learner.params["params"]["Dense_0"]
    return np.stack([layer["kernel"][0], layer["bias"]])


@pytest.mark.parametrize("trace_decay", TARGETS)
def test_targets_by_hand(trace_decay):
    """λ 0 is one-step Q-learning, λ 1 Monte Carlo; nothing is read from before a step, where an episode may be new."""
    batch = BATCH._replace(obs=jnp.full_like(BATCH.obs, jnp.nan))
    got = pqn.targets(PARAMS, batch, HYPERS._replace(trace_decay=trace_decay), network=network_of())
    np.testing.assert_allclose(got, TARGETS[trace_decay])


def test_a_terminal_observation_is_worth_nothing_and_one_at_the_time_limit_all_it_is():
    def slopes(row, column):
        def total(obs):
            batch = BATCH._replace(next_obs=obs)
            return pqn.targets(PARAMS, batch, HYPERS, network=network_of())[row, column]

        return jax.jit(jax.grad(total))(BATCH.next_obs)[..., 0]

    np.testing.assert_array_equal(slopes(1, 0), np.zeros((4, 2)))
    np.testing.assert_array_equal(slopes(2, 1), [[0, 0], [0, 0], [0, 0.5 * 2], [0, 0]])


def test_rewards_are_scaled():
    tenfold = BATCH._replace(reward=10 * BATCH.reward)
    got = pqn.targets(PARAMS, tenfold, HYPERS._replace(reward_scale=0.1), network=network_of())
    np.testing.assert_allclose(got, TARGETS[0.5], rtol=1e-6)


def test_differences_equal_rlax():
    """Which has Peng's Q(λ) along one environment; a time limit is a λ of 0."""
    spec = Spec(Box((3,)), Discrete(4))
    network = network_over(spec, pqn.Config(num_envs=5, rollout_length=16, num_minibatches=1, hidden_sizes=()))
    keys = jax.random.split(jax.random.key(0), 6)
    obs, next_obs = (jax.random.normal(key, (16, 5, 3)) for key in keys[:2])
    flags = jax.random.bernoulli(keys[2], 0.2, (2, 16, 5))
    batch = Transition(
        obs,
        jax.random.randint(keys[3], (16, 5), 0, 4),
        jax.random.normal(keys[4], (16, 5)),
        next_obs,
        flags[0],
        flags[1] & ~flags[0],
        {},
    )
    hypers = pqn.Hypers(discount=0.9, trace_decay=0.7)

    @jax.jit
    def both(key):
        params = network.init(key, obs)
        q_values, next_q_values = (network.apply(params, each) for each in (obs, next_obs))
        q_value = jnp.take_along_axis(q_values, batch.action[..., None], -1)[..., 0]
        theirs = jax.vmap(rlax.q_lambda, in_axes=1, out_axes=1)(
            q_values,
            batch.action,
            batch.reward,
            0.9 * (1.0 - batch.terminated),
            next_q_values,
            0.7 * (1.0 - batch.truncated),
        )
        return pqn.targets(params, batch, hypers, network=network) - q_value, theirs

    ours, theirs = both(keys[5])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("num_epochs", "max_grad_norm"), [(1, 1e6), (1, 0.5), (3, 0.5)])
def test_steps_by_hand(num_epochs, max_grad_norm):
    """Rectified Adam leaves the first five steps unscaled; targets stay what they were before the first one."""
    hypers = HYPERS._replace(max_grad_norm=max_grad_norm)
    state, metrics = compiled(num_epochs=num_epochs)(jax.random.key(0), jnp.int32(0), begun(), BATCH, hypers)
    obs, taken = np.ravel(BATCH.obs), np.eye(2)[np.ravel(BATCH.action)]
    expected, momentum, seen = np.array([[2.0, 1.0], [0.0, 0.5]]), 0.0, []
    for count in range(1, num_epochs + 1):
        q_value = (taken * (obs[:, None] * expected[0] + expected[1])).sum(-1)
        error = np.ravel(TARGETS[0.5]) - q_value
        seen.append([0.5 * np.square(error).mean(), q_value.mean(), np.abs(error).mean()])
        gradient = np.stack([-(error * obs) @ taken, -error @ taken]) / 8
        gradient *= min(1.0, max_grad_norm / np.linalg.norm(gradient))
        momentum = 0.9 * momentum + 0.1 * gradient
        expected = expected - 0.1 * momentum / (1 - 0.9**count)
    np.testing.assert_allclose(weights(state), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics, np.mean(seen, axis=0), rtol=1e-5)


def test_an_epoch_sees_every_example_once():
    network = network_of(num_minibatches=4)
    obs = 2.0 ** jnp.arange(8)[:, None]  # so that a sum of values says of which examples
    examples = pqn.Minibatch(obs, jnp.zeros(8, jnp.int32), jnp.zeros(8))
    still = HYPERS._replace(learning_rate=0.0)
    epoch = jax.jit(functools.partial(pqn.epoch, network=network))
    orders = []
    for seed in range(2):
        _, metrics = epoch(jax.random.key(seed), begun().learner, examples, still)
        orders.append([int(value) for value in metrics.q_value])  # the mean of two values `2 x`
        assert sum(orders[-1]) == 255 and all(number.bit_count() == 2 for number in orders[-1])
    assert orders[0] != orders[1]


def test_every_epoch_and_minibatch_takes_a_step():
    state, _ = compiled(num_epochs=3, num_minibatches=4)(jax.random.key(0), jnp.int32(0), begun(), BATCH, HYPERS)
    counts = [leaf for leaf in jax.tree.leaves(state.learner.opt_state) if leaf.dtype == jnp.int32]
    assert [int(count) for count in counts] == [12]


def test_learning_rate_is_annealed():
    hypers, moves = HYPERS._replace(learning_rate_end=0.02, horizon=4.0), []
    for step in (0, 2, 4, 9):
        state, _ = compiled(num_epochs=1)(jax.random.key(0), jnp.int32(step), begun(), BATCH, hypers)
        moves.append(np.linalg.norm(weights(state) - weights(begun())))
    np.testing.assert_allclose(np.array(moves) / moves[0], [1, 0.6, 0.2, 0.2], rtol=1e-4)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_normalised_features_do_not_depend_on_the_scale_of_weights(layer_norm):
    network = network_of(hidden_sizes=(16, 16), layer_norm=layer_norm)

    def scaled(path, leaf):
        return 10 * leaf if "MLP_0" in str(path) and "kernel" in str(path) else leaf

    @jax.jit
    def both(key):
        obs = jax.random.normal(key, (32, 1))
        params = network.init(jax.random.key(0), obs)
        return [network.apply(each, obs) for each in (params, jax.tree_util.tree_map_with_path(scaled, params))]

    assert np.allclose(*both(jax.random.key(1)), atol=0.01) is layer_norm


def test_policy_is_greedy_or_explores_by_its_schedule():
    algorithm = pqn.build(SPEC, pqn.Config(**SMALL))
    hypers = HYPERS._replace(epsilon_start=1.0, epsilon_end=0.0, exploration_fraction=0.5, horizon=10.0)
    inputs = jnp.full((4000, 1), 2.0)  # where action 0 is the better one
    shares = []
    for step, explore in ((0, False), (0, True), (3, True), (5, True), (9, True)):
        policy = algorithm.policy(jnp.int32(step), begun(), hypers, explore=explore)
        action, _, _ = policy.apply(jax.random.key(step), inputs, policy.memory((4000,)))
        shares.append(float(action.mean()))
    np.testing.assert_allclose(shares, [0, 0.5, 0.2, 0, 0], atol=0.03)


def test_minibatches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"config\.num_minibatches=3 does not divide 2 environments × 8 steps"):
        pqn.Config(num_envs=2, rollout_length=8, num_minibatches=3)


@functools.cache
def trained(probe, config, num_updates):
    """Trains three learners: `hypers -> q_values [3, O, A]` and actions of the greedy policy `[3, O]`."""
    env = adapter.make(probe)
    algorithm = pqn.build(env.spec, config)
    run = train.make(algorithm, rollout.build(env, num_envs=config.num_envs, length=config.rollout_length))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def learned(key, hypers):
        state, _ = train.scan(run, num_updates)(key, jnp.int32(0), run.init(key, hypers), hypers)
        policy = algorithm.policy(jnp.int32(num_updates), state.algorithm, hypers, explore=False)
        action, _, _ = policy.apply(key, probe.observations, ())
        network = network_over(env.spec, config)
        return network.apply(state.algorithm.learner.params, probe.observations), action

    return functools.partial(learned, jax.random.split(jax.random.key(0), 3))


CONFIG = pqn.Config(num_envs=16, rollout_length=8, num_epochs=2, num_minibatches=4, hidden_sizes=(32,))
QUICK = pqn.Hypers(learning_rate=1e-2, discount=0.5, horizon=100.0)


def test_values_of_every_action_are_learned_while_exploring(probe):
    """One step at a time, since longer returns are those of the actions taken."""
    q_values, _ = trained(probe, CONFIG, 100)(QUICK._replace(trace_decay=0.0, epsilon_end=1.0))
    num = len(probe.observations)
    expected = np.stack([probe.action_values(0.5, np.full(num, action)) for action in range(2)], -1)
    np.testing.assert_allclose(q_values, np.broadcast_to(expected, q_values.shape), atol=0.1)


def test_long_returns_find_the_best_actions_and_their_values(probe):
    hypers = QUICK._replace(trace_decay=0.9, epsilon_end=0.0, exploration_fraction=0.5)
    q_values, action = trained(probe, CONFIG, 100)(hypers)
    values = probe.values(0.5)
    np.testing.assert_allclose(q_values.max(-1), np.broadcast_to(values, (3, len(values))), atol=0.1)
    matters = probe.action_values(0.5, 1 - probe.best_actions) < values
    assert matters.any() and (np.asarray(action)[:, matters] == probe.best_actions[matters]).all()
