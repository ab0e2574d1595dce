"""Bootstrapped DQN: each head against DQN, masks and priors by hand, who acts when, and a sea too deep for chance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import evaluate, train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter
from rlgen.parts.q_networks import QNetwork, ValueNetwork
from rlgen.parts.replay import Steps
from rlgen.sources import rollout
from rlgen.value import bootstrapped_dqn, dqn

SPEC = Spec(Box((1,)), Discrete(2))
SMALL = {"num_envs": 2, "num_heads": 3, "batch_size": 4, "capacity": 16, "warm_up": 0, "target_period": 3}
HYPERS = bootstrapped_dqn.Hypers(discount=0.5, mask_probability=1.0, prior_scale=0.0)
KEY = jax.random.key(0)


def linear(kernel, bias):
    """Linear values of one number."""
    return {"params": {"Dense_0": {"kernel": jnp.array([kernel]), "bias": jnp.array(bias)}}}


def network_of(**config):
    return ValueNetwork(SPEC, bootstrapped_dqn.Config(**{**SMALL, "hidden_sizes": (), **config}))


def of_dqn(params):
    """The same parameters by the names that DQN's network has for them."""
    last = {"advantage": {"Dense_0": params["params"]["Dense_0"]}}
    hidden = params["params"].get("MLP_0", {})
    return {"params": {**last, "MLP_0": hidden} if hidden else last}


def begun(num_heads=3, **config):
    """A network, its learner with targets of their own, and six examples."""
    config = {"num_heads": num_heads, "hidden_sizes": (), **config}
    network = ValueNetwork(Spec(Box((3,)), Discrete(4)), bootstrapped_dqn.Config(**config))
    init = jax.jit(lambda key: bootstrapped_dqn.init(key, HYPERS, network=network).learner)
    learner, others = map(init, jax.random.split(KEY))
    keys = jax.random.split(jax.random.key(2), 3)
    obs, next_obs = jax.random.normal(keys[0], (2, 6, 3))
    action, reward = jax.random.randint(keys[1], (6,), 0, 4), jax.random.normal(keys[2], (6,))
    discount = jnp.array([0.9, 0.81, 0.0, 0.9, 0.0, 0.729])
    return network, learner._replace(target=others.params), Steps(obs, action, reward, discount, next_obs)


def head_of(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def close(left, right):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), left, right)


def rollout_of(step):
    """Two environments, one step, different at every update."""
    obs = jax.random.normal(jax.random.key(step), (1, 2, 1))
    flags = jnp.zeros((1, 2), bool)
    return Transition(obs, jnp.array([[0, 1]]), obs[..., 0], obs + 1, flags, flags, {})


@pytest.mark.parametrize("error", ["huber", "squared"])
@pytest.mark.parametrize("double", [False, True])
def test_every_head_without_a_prior_is_dqn_weighed_by_its_mask(double, error):
    network, learner, minibatch = begun(double=double, error=error)
    mask = jnp.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]], bool)
    learn = jax.jit(functools.partial(bootstrapped_dqn.learn, network=network))
    learned, metrics = learn(learner, minibatch, mask, HYPERS)
    config = dqn.Config(hidden_sizes=(), double=double, error=error)
    hypers = dqn.Hypers(learning_rate=HYPERS.learning_rate, discount=0.5, max_grad_norm=HYPERS.max_grad_norm)
    dqn_learn = jax.jit(functools.partial(dqn.learn, network=QNetwork(network.spec, config)))
    seen = []
    for index in range(3):
        params, target = (of_dqn(head_of(tree, index)) for tree in (learner.params, learner.target))
        alone = dqn.Learner(params, target, dqn.optimiser(hypers).init(params))
        alone, said, _ = dqn_learn(KEY, alone, minibatch, mask[:, index], hypers)
        close(of_dqn(head_of(learned.params, index)), alone.params)
        close(head_of(learned.opt_state, index), alone.opt_state)
        seen.append(said)
    close(tuple(metrics)[:3], tuple(np.mean(seen, axis=0)))
    close(head_of(learned.params, 2), head_of(learner.params, 2))  # it learns from nothing
    close(learned.target, learner.target)


def test_one_head_that_sees_all_updates_as_dqn_does():
    config = {**SMALL, "num_heads": 1, "batch_size": 64, "capacity": 2, "hidden_sizes": (), "target_period": 1}
    algorithm = bootstrapped_dqn.build(SPEC, bootstrapped_dqn.Config(**config))
    state = jax.jit(algorithm.init)(KEY, HYPERS)
    after, _ = jax.jit(algorithm.update)(KEY, jnp.int32(0), state, rollout_of(0), HYPERS)
    assert after.replay.extras["mask"].all()
    _, draws = jax.random.split(KEY)
    index = jax.random.randint(jax.random.split(draws, 1)[0], (64,), 0, 2)
    flat = jax.tree.map(lambda leaf: leaf[0][index], rollout_of(0))
    minibatch = Steps(flat.obs, flat.action, flat.reward, jnp.full(64, 0.5), flat.next_obs)
    hypers = dqn.Hypers(learning_rate=HYPERS.learning_rate, discount=0.5)
    params = of_dqn(head_of(state.learner.params, 0))
    alone = dqn.Learner(params, params, dqn.optimiser(hypers).init(params))
    network = QNetwork(SPEC, dqn.Config(hidden_sizes=()))
    alone, _, _ = jax.jit(functools.partial(dqn.learn, network=network))(KEY, alone, minibatch, jnp.ones(64), hypers)
    close(of_dqn(head_of(after.learner.params, 0)), alone.params)
    close(after.learner.target, after.learner.params)


@pytest.mark.parametrize("double", [False, True])
def test_loss_with_a_prior_and_a_mask_by_hand(double):
    params, prior = linear([2.0, 1.0], [0.0, 0.5]), linear([1.0, -1.0], [0.0, 1.0])
    target = linear([1.0, 2.0], [0.0, -1.0])
    hypers = HYPERS._replace(prior_scale=2.0)
    obs, next_obs = jnp.array([[1.0], [2.0]]), jnp.array([[-1.0], [0.0]])
    minibatch = Steps(obs, jnp.array([0, 1]), jnp.array([1.0, 3.0]), jnp.array([0.5, 0.0]), next_obs)
    # Online: Q = (2x, x + ½) and β p = (2x, 2 − 2x), in sum (4x, 2½ − x); the target's sum is (3x, 1).
    # At −1 the online sum prefers the second action, worth 1, and so does the target; at 0 it terminates.
    taken, goal = np.array([4.0, 0.5]), np.array([1 + 0.5 * 1, 3.0])
    delta = goal - taken
    of_loss = functools.partial(bootstrapped_dqn.loss, network=network_of(double=double, error="squared"))
    for mask in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
        value, (by_params, by_prior, by_target) = jax.value_and_grad(
            lambda *trees, mask=mask: of_loss(*trees, minibatch, jnp.array(mask), hypers)[0], (0, 1, 2)
        )(params, prior, target)
        np.testing.assert_allclose(value, np.mean(mask * delta**2 / 2), rtol=1e-6)
        slope = -np.array(mask) * delta / 2
        close(by_params, linear([slope[0] * 1.0, slope[1] * 2.0], slope))
        assert not any(np.any(leaf) for leaf in jax.tree.leaves((by_prior, by_target)))


def test_the_double_rule_asks_the_online_sum_which_action():
    params, prior, target = (linear([0.0, 0.0], bias) for bias in ([1.0, 0.0], [0.0, 3.0], [5.0, 0.0]))
    minibatch = Steps(jnp.zeros((1, 1)), jnp.array([0]), jnp.zeros(1), jnp.ones(1), jnp.zeros((1, 1)))
    goals = {}
    for double in (False, True):
        for scale in (0.0, 1.0):
            hypers, network = HYPERS._replace(prior_scale=scale), network_of(double=double)
            (found,) = bootstrapped_dqn.goal(params, prior, target, minibatch, hypers, network=network)
            goals[double, scale] = float(found)
    # Sums of the target are (5, 0) and with the prior (5, 3); the online ones (1, 0) and (1, 3).
    assert goals == {(False, 0.0): 5, (False, 1.0): 5, (True, 0.0): 5, (True, 1.0): 3}


def test_priors_differ_and_are_never_trained():
    algorithm = bootstrapped_dqn.build(SPEC, bootstrapped_dqn.Config(**SMALL, hidden_sizes=()))
    hypers = HYPERS._replace(prior_scale=3.0)
    state = first = jax.jit(algorithm.init)(KEY, hypers)
    update = jax.jit(algorithm.update)
    for step in range(4):
        state, metrics = update(jax.random.key(step), jnp.int32(step), state, rollout_of(step), hypers)
    jax.tree.map(np.testing.assert_array_equal, state.learner.prior, first.learner.prior)
    kernels = np.stack([tree["params"]["Dense_0"]["kernel"] for tree in (first.learner.prior, first.learner.params)])
    assert len(np.unique(kernels)) == kernels.size
    assert metrics.spread > 0


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_mask_is_drawn_once_for_every_transition_and_head(probability):
    config = {**SMALL, "num_heads": 50, "num_envs": 100, "capacity": 300, "hidden_sizes": ()}
    algorithm, hypers = bootstrapped_dqn.build(SPEC, bootstrapped_dqn.Config(**config)), HYPERS
    hypers = hypers._replace(mask_probability=probability)
    state = first = jax.jit(algorithm.init)(KEY, hypers)
    update, masks = jax.jit(algorithm.update), []
    batch = jax.tree.map(lambda leaf: jnp.repeat(leaf, 50, axis=1), rollout_of(0))
    for step in range(3):
        state, metrics = update(jax.random.key(step), jnp.int32(step), state, batch, hypers)
        masks.append(np.asarray(state.replay.extras["mask"]))
    assert masks[-1].dtype == bool
    assert masks[-1].shape == (3, 100, 50)
    np.testing.assert_array_equal(masks[2][:2], masks[1][:2])  # what is stored stays
    np.testing.assert_allclose(masks[-1].mean(axis=(1, 2)), probability, atol=0.03)
    np.testing.assert_allclose(masks[-1].mean(axis=(0, 1)), probability, atol=0.12)  # of each head
    if probability == 0.3:
        assert (masks[-1].reshape(-1, 50).T @ masks[-1].reshape(-1, 50) / 300)[~np.eye(50, dtype=bool)].mean() < 0.12
    if probability == 0.0:
        assert metrics.loss == 0
        jax.tree.map(np.testing.assert_array_equal, state.learner.params, first.learner.params)


def test_learning_waits_for_the_warm_up_and_targets_for_their_period():
    config = {**SMALL, "warm_up": 5, "hidden_sizes": ()}
    algorithm, hypers = bootstrapped_dqn.build(SPEC, bootstrapped_dqn.Config(**config)), HYPERS._replace(tau=0.25)
    update = jax.jit(algorithm.update)
    state = first = jax.jit(algorithm.init)(KEY, hypers)
    learned = []
    for step in range(6):
        before = state.learner
        state, _ = update(jax.random.key(step), jnp.int32(step), state, rollout_of(step), hypers)
        kernels = [tree["params"]["Dense_0"]["kernel"] for tree in (first.learner.params, state.learner.params)]
        learned.append(not np.array_equal(*kernels))
        share = 0.25 if step in (2, 5) else 0.0
        mixed = jax.tree.map(
            lambda old, new, share=share: (1 - share) * old + share * new, before.target, state.learner.params
        )
        close(state.learner.target, mixed)
    assert learned == [False, False, True, True, True, True]  # 2, 4, 6, … transitions gathered


def acting(num_heads, biases, evaluation="vote"):
    """An algorithm over two actions whose heads like what `biases` say, wherever they are, and its state."""
    spec = adapter.make("DeepSea-bsuite", size=4).spec
    config = bootstrapped_dqn.Config(**{**SMALL, "num_heads": num_heads, "evaluation": evaluation, "hidden_sizes": ()})
    algorithm = bootstrapped_dqn.build(spec, config)
    state = jax.jit(algorithm.init)(KEY, HYPERS)
    params = jax.tree.map(jnp.zeros_like, state.learner.params)
    params["params"]["Dense_0"]["bias"] = jnp.array(biases)
    return algorithm, state._replace(learner=state.learner._replace(params=params))


def test_a_head_stays_through_its_episode_and_is_drawn_anew_after_it():
    env, num_envs = adapter.make("DeepSea-bsuite", size=4), 64
    algorithm, state = acting(2, [[1.0, 0.0], [0.0, 1.0]])  # head `k` always takes action `k`
    policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)
    source = rollout.build(env, num_envs=num_envs, length=6)  # every episode has four steps
    advance = jax.jit(lambda key, step, source_state: source.next(key, step, source_state, policy)[:2])
    source_state, actions = source.init(KEY, policy), []
    assert not source_state.memory.drawn.any()
    for step in range(4):  # batches end in mid-episode, and at an episode's end
        source_state, batch = advance(jax.random.key(step), jnp.int32(step), source_state)
        assert bool(source_state.memory.drawn.all()) == ((step + 1) * 6 % 4 != 0)
        actions.append(batch.action)
    episodes = np.concatenate(actions).reshape(6, 4, num_envs)
    np.testing.assert_array_equal(episodes, np.broadcast_to(episodes[:, :1], episodes.shape))
    np.testing.assert_allclose(episodes[:, 0].mean(axis=1), 0.5, atol=0.25)
    assert 0.4 < (episodes[1:, 0] != episodes[:-1, 0]).mean() < 0.6


def test_every_head_is_drawn_as_often():
    algorithm, state = acting(5, jnp.zeros((5, 2)))
    policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)
    obs, memory = jnp.zeros((5000, 4, 4)), policy.memory((5000,))
    _, _, memory = policy.apply(KEY, obs, memory)
    np.testing.assert_allclose(np.bincount(memory.head, minlength=5) / 5000, 0.2, atol=0.03)
    _, _, after = policy.apply(jax.random.key(1), obs, memory)
    np.testing.assert_array_equal(after.head, memory.head)


@pytest.mark.parametrize(("evaluation", "expected"), [("vote", 1), ("mean", 0)])
def test_the_evaluated_policy_asks_all_heads(evaluation, expected):
    # Two of three heads like the second action a little, and one likes the first one much.
    algorithm, state = acting(3, [[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]], evaluation)
    policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=False)
    action, _, _ = policy.apply(KEY, jnp.zeros((20, 4, 4)), policy.memory((20,)))
    np.testing.assert_array_equal(action, expected)


def test_equal_votes_are_settled_by_chance():
    algorithm, state = acting(2, [[1.0, 0.0], [0.0, 9.0]])
    policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=False)
    action, _, _ = policy.apply(KEY, jnp.zeros((1000, 4, 4)), policy.memory((1000,)))
    np.testing.assert_allclose(action.mean(), 0.5, atol=0.06)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"error": "cubic"}, "config.error='cubic'"),
        ({"evaluation": "first"}, "config.evaluation='first'"),
        ({"num_envs": 2, "capacity": 15}, "config.capacity=15"),
    ],
)
def test_an_impossible_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        bootstrapped_dqn.Config(**config)


@pytest.mark.learning
@pytest.mark.parametrize("prior_scale", [0.0, 1.0])
def test_every_head_learns_the_values_of_the_best_actions(probe, prior_scale):
    env, num = adapter.make(probe), len(probe.observations)
    config = bootstrapped_dqn.Config(
        num_envs=8, num_heads=3, batch_size=32, capacity=1600, warm_up=64, target_period=10, hidden_sizes=(16,)
    )
    hypers = HYPERS._replace(learning_rate=1e-2, mask_probability=0.5, prior_scale=prior_scale)
    run = train.make(bootstrapped_dqn.build(env.spec, config), rollout.build(env, num_envs=8, length=1))
    state = jax.jit(run.init)(KEY, hypers)
    state, _ = jax.jit(train.window(run))(KEY, jnp.int32(0), jnp.int32(800), state, hypers)
    network = ValueNetwork(env.spec, config)
    values = bootstrapped_dqn.of_heads(state.algorithm.learner, probe.observations, hypers, network=network)
    # Of what heads hold to be worse, and no longer do, less is known.
    np.testing.assert_array_equal(values.argmax(-1), np.broadcast_to(probe.best_actions, (3, num)))
    np.testing.assert_allclose(values.max(-1), np.broadcast_to(probe.values(0.5), (3, num)), atol=0.15)


@pytest.mark.learning
def test_every_seed_crosses_the_deep_sea_where_few_do_by_random_actions():
    env, num_updates = adapter.make("DeepSea-bsuite", size=8), 8 * 300

    def returns(module, config, hypers):
        run = train.make(module.build(env.spec, config), rollout.build(env, num_envs=1, length=1))

        def trained(key):
            state, _ = train.window(run)(key, jnp.int32(0), jnp.int32(num_updates), run.init(key, hypers), hypers)
            policy = module.build(env.spec, config).policy(jnp.int32(0), state.algorithm, hypers, explore=False)
            return evaluate.episodes(jax.random.key(1), policy, env, 1).total_return

        return np.asarray(jax.jit(jax.vmap(trained))(jax.random.split(KEY, 3))).ravel()

    shared = {"batch_size": 32, "warm_up": 64, "target_period": 4, "hidden_sizes": (32,), "num_envs": 1}
    np.testing.assert_allclose(
        returns(bootstrapped_dqn, bootstrapped_dqn.Config(**shared), bootstrapped_dqn.Hypers()), 0.99, rtol=1e-5
    )
    hypers = dqn.Hypers(learning_rate=1e-3, horizon=float(num_updates))
    # At random one episode in 256 crosses it, so that a lucky seed may learn from that.
    assert np.median(returns(dqn, dqn.Config(**shared), hypers)) < 0.1
