"""DQN: targets and losses by hand, when what moves, and the probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rlgen import train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter
from rlgen.parts import distributional, q_networks
from rlgen.parts.q_networks import QNetwork
from rlgen.parts.replay import Steps
from rlgen.sources import rollout
from rlgen.value import dqn

SPEC = Spec(Box((1,)), Discrete(2))
SMALL = dqn.Config(num_envs=2, batch_size=4, capacity=16, warm_up=0, target_period=3, hidden_sizes=())
HYPERS = dqn.Hypers(discount=0.5, horizon=10.0)


def linear(kernel, bias):
    """Linear values of one number."""
    return {"params": {"advantage": {"Dense_0": {"kernel": jnp.array([kernel]), "bias": jnp.array(bias)}}}}


# The online network prefers the first action where the target prefers the second.
ONLINE, TARGET = linear([2.0, 1.0], [0.0, 0.5]), linear([1.0, 2.0], [0.0, -1.0])
MINIBATCH = Steps(
    obs=jnp.array([[0.0], [1.0], [1.0], [-2.0]]),
    action=jnp.array([0, 1, 0, 1]),
    reward=jnp.ones(4),
    discount=jnp.array([0.5, 0.0, 0.5, 0.5]),  # the second terminated
    next_obs=jnp.array([[2.0], [2.0], [2.0], [-1.0]]),
)
ONES, KEY = jnp.ones(4), jax.random.key(0)
SINGLE = [1 + 3 / 2, 1, 1 + 3 / 2, 1 - 1 / 2]  # Q⁻(2) = (2, 3) and Q⁻(−1) = (−1, −3)
DOUBLE = [1 + 2 / 2, 1, 1 + 2 / 2, 1 - 3 / 2]  # Q(2) = (4, 2.5) and Q(−1) = (−2, −0.5) choose 0 and 1


def network_of(**config):
    return QNetwork(SPEC, dqn.Config(**{"hidden_sizes": (), **config}))


def rollout_of(step):
    """Two environments, one step, different at every update."""
    obs = np.random.default_rng(step).standard_normal((1, 2, 1), np.float32)
    flags = np.zeros((1, 2), bool)
    return Transition(obs, np.int32([[0, 1]]), obs[..., 0], obs + 1, flags, flags, {})


@functools.cache
def updating(config):
    return jax.jit(dqn.build(SPEC, config).update)


@pytest.mark.parametrize(("double", "expected"), [(False, SINGLE), (True, DOUBLE)])
def test_target_by_hand(double, expected):
    goal = jax.jit(functools.partial(dqn.goal, network=network_of(double=double)))
    returns, probability = goal(KEY, ONLINE, TARGET, MINIBATCH, HYPERS)
    np.testing.assert_allclose(returns[:, 0], expected)
    np.testing.assert_array_equal(probability, np.ones((4, 1)))


def test_double_with_equal_networks_is_single():
    params = jax.jit(network_of(hidden_sizes=(8,)).init)(KEY, jnp.zeros((1, 1)))
    both = [
        jax.jit(functools.partial(dqn.goal, network=network_of(hidden_sizes=(8,), double=double)))(
            KEY, params, params, MINIBATCH, HYPERS
        )[0]
        for double in (False, True)
    ]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("error", ["huber", "squared"])
def test_loss_and_its_gradient_by_hand(error):
    value = np.array([0.0, 1.5, 2.0, -1.5])  # of the actions taken, by the online network
    delta, weight = np.array(SINGLE) - value, np.array([1.0, 0.5, 0.25, 2.0])
    size = np.abs(delta)
    each = 0.5 * delta**2 if error == "squared" else np.where(size < 1, 0.5 * delta**2, size - 0.5)
    slope = weight * (-delta if error == "squared" else -np.clip(delta, -1, 1))
    loss = functools.partial(dqn.loss, network=network_of(error=error))
    slopes = jax.jit(jax.grad(loss, has_aux=True))
    grads, (metrics, priority) = slopes(ONLINE, KEY, TARGET, MINIBATCH, weight, HYPERS)
    np.testing.assert_allclose(metrics, [(weight * each).mean(), value.mean(), size.mean()], rtol=1e-6)
    np.testing.assert_allclose(priority, size, rtol=1e-6)
    by_action = [[slope[0], 0], [0, slope[1]], [slope[2], 0], [0, slope[3]]]
    layer = grads["params"]["advantage"]["Dense_0"]
    np.testing.assert_allclose(layer["bias"], np.sum(by_action, 0) / 4, rtol=1e-6)
    by_weight = np.array(by_action) * MINIBATCH.obs
    np.testing.assert_allclose(layer["kernel"][0], by_weight.sum(0) / 4, rtol=1e-6)


def begun(**config):
    """A network, two sets of its parameters, and six steps."""
    config = dqn.Config(**{"hidden_sizes": (6,), "num_atoms": 5, "num_fractions": 5, **config})
    network = QNetwork(Spec(Box((3,)), Discrete(4)), config)
    fractions = jnp.zeros((1, 5)) if config.head == "implicit" else None
    shapes, generator = jax.eval_shape(network.init, KEY, jnp.zeros((1, 3)), None, fractions), np.random.default_rng(0)
    online, target = (
        jax.tree.map(lambda leaf: 0.5 * generator.standard_normal(leaf.shape, np.float32), shapes) for _ in range(2)
    )
    obs, next_obs = generator.standard_normal((2, 6, 3), np.float32)
    action, reward = generator.integers(0, 4, 6, np.int32), generator.standard_normal(6, np.float32)
    discount = np.float32([0.9, 0.81, 0.0, 0.9, 0.0, 0.729])
    return network, online, target, Steps(obs, action, reward, discount, next_obs)


@pytest.mark.filterwarnings("ignore:.*:PendingDeprecationWarning:rlax")
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("head", ["expected", "categorical", "quantile"])
def test_losses_agree_with_rlax(head, double):
    network, online, target, minibatch = begun(
        head=head, double=double, error="squared" if head == "expected" else "huber"
    )
    weight = np.linspace(0.5, 1.5, 6, dtype=np.float32)
    _, action, reward, discount, _ = minibatch
    atoms = q_networks.atoms(HYPERS, config=network.config)

    def of_rlax(now, then, chooser):
        if head == "expected":
            per_row = jax.vmap(rlax.double_q_learning)
            return 0.5 * per_row(now[..., 0], action, reward, discount, then[..., 0], chooser[..., 0]) ** 2
        if head == "categorical":
            per_row = jax.vmap(rlax.categorical_double_q_learning, in_axes=(None, 0, 0, 0, 0, None, 0, 0))
            chosen_by = jax.nn.softmax(chooser) @ atoms
            each = per_row(atoms, now, action, reward, discount, atoms, then, chosen_by)
            returns, mass = dqn.goal(KEY, online, target, minibatch, HYPERS, network=network)
            return each - jax.scipy.special.entr(distributional.project(returns, mass, atoms)).sum(-1)
        per_row = jax.vmap(rlax.quantile_q_learning, in_axes=(0, None, 0, 0, 0, 0, 0, None))
        now, chooser, then = (jnp.swapaxes(each, 1, 2) for each in (now, chooser, then))
        return per_row(now, distributional.midpoints(5), action, reward, discount, chooser, then, 1.0)

    @jax.jit
    def both(online, target):
        ours = dqn.loss(online, KEY, target, minibatch, weight, HYPERS, network=network)
        pairs = (online, minibatch.obs), (target, minibatch.next_obs), (online, minibatch.next_obs)
        now, then, chooser = (network.apply(params, obs) for params, obs in pairs)
        return ours, of_rlax(now, then, chooser if double else then)

    (value, (_, priority)), each = jax.device_get(both(online, target))
    if head == "categorical":
        np.testing.assert_allclose(priority, each, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, (weight * each).mean(), rtol=1e-4)


def test_an_implicit_distribution_agrees_with_rlax_at_the_fractions_drawn():
    network, online, target, minibatch = begun(head="implicit")

    @jax.jit
    def both(online, target):
        value, _ = dqn.loss(online, KEY, target, minibatch, jnp.ones(6), HYPERS, network=network)
        online_key, goal_key = jax.random.split(KEY)
        predicted, fractions = q_networks.predict(online_key, online, minibatch.obs, network=network)
        returns, _ = dqn.goal(goal_key, online, target, minibatch, HYPERS, network=network)
        taken = predicted[jnp.arange(6), minibatch.action]
        per_row = jax.vmap(rlax.quantile_regression_loss, in_axes=(0, 0, 0, None))
        return value, per_row(taken, fractions, returns, 1.0), fractions

    value, each, fractions = both(online, target)
    np.testing.assert_allclose(value, each.mean(), rtol=1e-5)
    assert len(np.unique(fractions)) == fractions.size


@pytest.mark.parametrize("head", distributional.KINDS)
def test_target_has_no_gradient(head):
    network, online, target, minibatch = begun(head=head, double=True)

    def value(params, chooser, target):
        returns, _ = dqn.goal(KEY, chooser, target, minibatch, HYPERS, network=network)
        return dqn.loss(params, KEY, target, minibatch, jnp.ones(6), HYPERS, network=network)[0] + returns.sum()

    by_chooser, by_target = jax.jit(jax.grad(value, (1, 2)))(online, online, target)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(by_target))  # it does depend on the target network
    # … and on the online network only through what is predicted of the actions taken.
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_chooser))


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_target_moves_once_a_period_by_its_share(tau):
    algorithm, hypers = dqn.build(SPEC, SMALL), HYPERS._replace(tau=tau)
    update = updating(SMALL)
    state = jax.jit(algorithm.init)(jax.random.key(0), hypers)
    for step in range(7):
        before = state.learner
        state, _ = update(jax.random.key(step), jnp.int32(step), state, rollout_of(step), hypers)
        weight = tau if step in (2, 5) else 0.0
        expected = jax.tree.map(
            lambda old, new, weight=weight: weight * new + (1 - weight) * old, before.target, state.learner.params
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), state.learner.target, expected)
        assert not np.array_equal(*(jax.tree.leaves(learner.params)[1] for learner in (before, state.learner)))


def test_learning_waits_for_the_warm_up():
    algorithm = dqn.build(SPEC, dqn.Config(**{**SMALL.__dict__, "warm_up": 5}))
    update = jax.jit(algorithm.update)
    state = first = jax.jit(algorithm.init)(jax.random.key(0), HYPERS)
    learned = []
    for step in range(4):
        state, metrics = update(jax.random.key(step), jnp.int32(step), state, rollout_of(step), HYPERS)
        learned.append(
            not np.array_equal(*(jax.tree.leaves(learner.params)[1] for learner in (first.learner, state.learner)))
        )
        assert bool(metrics.error > 0) == learned[-1]
    assert learned == [False, False, True, True]  # 2, 4, 6 and 8 transitions gathered


def test_policy_is_greedy_or_explores_by_its_schedule():
    algorithm = dqn.build(SPEC, SMALL)
    hypers = HYPERS._replace(epsilon_start=1.0, epsilon_end=0.0, exploration_fraction=0.5, horizon=10.0)
    state = jax.jit(algorithm.init)(jax.random.key(0), hypers)
    state = state._replace(learner=state.learner._replace(params=ONLINE))
    inputs = jnp.full((4000, 1), 2.0)  # where the online network prefers action 0

    @functools.partial(jax.jit, static_argnums=1)
    def share(step, explore):
        policy = algorithm.policy(step, state, hypers, explore=explore)
        return policy.apply(jax.random.key(step), inputs, policy.memory((4000,)))[0].mean()

    shares = [share(*case) for case in ((0, False), (0, True), (3, True), (5, True), (9, True))]
    np.testing.assert_allclose(shares, [0, 0.5, 0.2, 0, 0], atol=0.03)


def test_an_implicit_distribution_values_by_other_fractions_than_it_chooses_by():
    """The same would prefer what they overestimate: the mean would lie above the largest value."""
    spec, obs = Spec(Box((4,)), Discrete(6)), jax.random.normal(jax.random.key(1), (64, 4))
    network = QNetwork(spec, dqn.Config(head="implicit", num_fractions=2, hidden_sizes=(16,)))
    params = jax.jit(functools.partial(dqn.init, network=network))(KEY, HYPERS).learner.params
    minibatch = Steps(obs, jnp.zeros(64, jnp.int32), jnp.zeros(64), jnp.ones(64), obs)

    @jax.jit
    def estimates(keys):
        goal = functools.partial(dqn.goal, params=params, target=params, minibatch=minibatch, hypers=HYPERS)
        returns, probability = jax.vmap(lambda key: goal(key, network=network))(keys)
        fractions = jnp.broadcast_to(distributional.midpoints(500), (64, 500))
        values = distributional.mean(network.apply(params, obs, None, fractions))
        return (returns * probability).sum(-1).mean(), values.max(-1).mean()

    found, largest = estimates(jax.random.split(KEY, 500))
    assert found < largest - 1e-3


@pytest.mark.parametrize(("step", "learning_rate"), [(0, 1e-2), (5, 6e-3), (10, 2e-3)])
def test_the_learning_rate_falls_to_its_share(step, learning_rate):
    algorithm = dqn.build(SPEC, SMALL)
    start, update = jax.jit(algorithm.init)(jax.random.key(0), HYPERS), updating(SMALL)
    start = start._replace(replay=jax.tree.map(lambda leaf: np.repeat(leaf, 8, axis=0), rollout_of(0)))
    arguments = jax.random.key(1), jnp.int32(step), start, rollout_of(step)
    end, _ = update(*arguments, HYPERS._replace(learning_rate=1e-2, annealed_share=0.2))
    expected, _ = update(*arguments, HYPERS._replace(learning_rate=learning_rate))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), end, expected)
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), start.learner.params, end.learner.params)
    assert any(jax.tree.leaves(moved))


def test_frames_of_eight_bits_teach_what_whole_images_teach():
    env = adapter.make("Breakout-MinAtar")  # whose pixels are 0 or 1
    shape = {"num_envs": 2, "batch_size": 4, "capacity": 8, "warm_up": 2, "network": "cnn", "hidden_sizes": (4,)}
    learned = []
    for num_frames in (0, 1):
        algorithm = dqn.build(env.spec, dqn.Config(**shape, num_frames=num_frames))
        run = train.make(algorithm, rollout.build(env, num_envs=2, length=1))
        start = jax.jit(run.init)(KEY, HYPERS)
        assert start.algorithm.replay.obs.dtype == ("uint8" if num_frames else "float32")
        first = jax.device_get(start.algorithm.learner)  # a scan takes its state's buffers for its own
        state, _ = train.scan(run, 7)(KEY, jnp.int32(0), start, HYPERS)
        learned.append((state.algorithm.learner, first))
    jax.tree.map(np.testing.assert_array_equal, learned[0][0], learned[1][0])
    assert not np.array_equal(*(jax.tree.leaves(learner.params)[1] for learner in learned[0]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"error": "cubic"}, "config.error='cubic'"),
        ({"capacity": 15}, "config.capacity=15"),
        ({"capacity": 30, "num_frames": 2}, "too few rows of 10 environments for stacks of config.num_frames=2"),
    ],
)
def test_an_impossible_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        dqn.Config(**config)


def learned(probe, **config):
    """Values of all situations and actions, `[3, O, A]`, after three runs that act at random."""
    env = adapter.make(probe)
    shape = {"num_envs": 8, "batch_size": 32, "capacity": 1600, "warm_up": 64, "target_period": 10}
    config = dqn.Config(**{**shape, "hidden_sizes": (16,), "num_atoms": 21, "num_fractions": 8, **config})
    hypers = dqn.Hypers(learning_rate=1e-2, discount=0.5, epsilon_end=1.0, horizon=600.0)
    hypers = hypers._replace(lowest_return=-2.0, highest_return=2.0)
    run = train.make(dqn.build(env.spec, config), rollout.build(env, num_envs=8, length=1))

    @jax.jit
    @jax.vmap
    def trained(key):
        state, _ = train.scan(run, 600)(key, jnp.int32(0), run.init(key, hypers), hypers)
        params = state.algorithm.learner.params
        return q_networks.q_values(None, params, probe.observations, hypers, network=QNetwork(env.spec, config))

    return trained(jax.random.split(jax.random.key(0), 3))


def solved(probe, q_values, atol=0.1):
    num = len(probe.observations)
    expected = np.stack([probe.action_values(0.5, np.full(num, action)) for action in range(2)], -1)
    np.testing.assert_allclose(q_values, np.broadcast_to(expected, q_values.shape), atol=atol)


def test_values_of_every_action_are_learned(probe):
    solved(probe, learned(probe))


@pytest.mark.learning
@pytest.mark.parametrize(
    "config",
    [
        {"double": True},
        {"dueling": True},
        {"noisy": True, "noise_scale": 0.1},
        {"replay": "proportional"},
        {"replay": "rank"},
        {"head": "categorical"},
        {"head": "quantile"},
        {"head": "implicit"},
        {"double": True, "dueling": True, "replay": "proportional", "head": "categorical"},
    ],
    ids=lambda config: "-".join(map(str, config)) + f"-{[*config.values()][-1]}",
)
def test_values_of_every_action_are_learned_by_every_part(probe, config):
    # Fractions drawn at random make the steps of an implicit distribution the noisiest.
    solved(probe, learned(probe, **config), atol=0.3 if config.get("head") == "implicit" else 0.15)
