"""Workers and turns: who has which environments, what is handed over, and how old snapshots become."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen.parts import asynchrony

PARAMS = {"weight": jnp.array([1.0, -2.0])}
SNAPSHOTS = asynchrony.Workers(
    params={"weight": jnp.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])},
    gradient={"weight": jnp.array([[0.5, 0.0], [0.0, 0.5], [0.0, 0.0]])},
    age=jnp.array([4, 1, 0]),
)
GRADIENTS = {"weight": jnp.array([[1.0, 0.0], [0.0, 2.0], [-4.0, 4.0]])}
TOTAL = np.array([[1.5, 0.0], [0.0, 2.5], [-4.0, 4.0]])
MOMENTUM = optax.sgd(0.1, momentum=0.5)


def hand_over(arrived, opt_state, shared):
    return asynchrony.hand_over(
        jnp.array(arrived), PARAMS, opt_state, SNAPSHOTS, GRADIENTS, optimiser=MOMENTUM, shared_statistics=shared
    )


def test_apart_gives_each_worker_its_environments():
    tree = {"rollout": jnp.arange(24).reshape(2, 6, 2)}
    parts = asynchrony.apart(tree, 3, 1)["rollout"]
    assert parts.shape == (3, 2, 2, 2)
    for worker in range(3):
        np.testing.assert_array_equal(parts[worker], tree["rollout"][:, 2 * worker : 2 * worker + 2])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_act_in_their_order_each_with_its_own(num_workers):
    def function(key, own, obs, memory):
        return own * obs, {"draw": jax.random.uniform(key, obs.shape)}, memory + 1

    obs, own = jnp.arange(1.0, 7.0), 10.0 ** jnp.arange(num_workers)
    action, extras, memory = asynchrony.act(
        jax.random.key(0), obs, obs, own, function=function, num_workers=num_workers
    )
    np.testing.assert_array_equal(action, obs * np.repeat(own, 6 // num_workers))
    np.testing.assert_array_equal(memory, obs + 1)
    assert len(np.unique(extras["draw"])) == 6  # no two workers share a stream


def test_the_first_snapshots_are_the_parameters():
    workers = asynchrony.start(PARAMS, 2)
    np.testing.assert_array_equal(workers.params["weight"], [PARAMS["weight"]] * 2)
    assert not workers.gradient["weight"].any() and not workers.age.any()


def test_shared_statistics_take_one_step_of_what_arrived():
    """The first step has no momentum yet; each weight moves by a tenth of what arrived, divided by three workers."""
    params, opt_state, workers = hand_over([True, False, True], MOMENTUM.init(PARAMS), True)
    mean = (TOTAL[0] + TOTAL[2]) / 3
    expected = PARAMS["weight"] - 0.1 * mean
    np.testing.assert_allclose(params["weight"], expected, rtol=1e-6)
    np.testing.assert_allclose(opt_state[0].trace["weight"], mean, rtol=1e-6)
    np.testing.assert_allclose(workers.params["weight"], [expected, [2, 2], expected], rtol=1e-6)
    np.testing.assert_array_equal(workers.gradient["weight"], [[0, 0], TOTAL[1], [0, 0]])
    assert workers.age.tolist() == [0, 2, 0]


def test_own_statistics_take_the_mean_of_own_steps():
    trace = asynchrony.copies(MOMENTUM.init(PARAMS), 3)
    trace = jax.tree.map(lambda leaf: leaf + jnp.arange(1.0, 4.0)[:, None], trace)
    params, opt_state, workers = hand_over([True, False, True], trace, False)
    moments = np.array([[0.5], [1.0], [1.5]]) + TOTAL
    expected = PARAMS["weight"] - 0.1 * (moments[0] + moments[2]) / 2
    np.testing.assert_allclose(params["weight"], expected, rtol=1e-6)
    # What did not arrive has not entered its worker's statistics.
    np.testing.assert_allclose(opt_state[0].trace["weight"], [moments[0], [2, 2], moments[2]], rtol=1e-6)
    np.testing.assert_allclose(workers.params["weight"], [expected, [2, 2], expected], rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_where_nobody_arrives_all_wait(shared):
    opt_state = jax.tree.map(jnp.ones_like, MOMENTUM.init(PARAMS))
    opt_state = opt_state if shared else asynchrony.copies(opt_state, 3)
    params, after, workers = hand_over([False] * 3, opt_state, shared)
    jax.tree.map(np.testing.assert_array_equal, (params, after, workers.params), (PARAMS, opt_state, SNAPSHOTS.params))
    np.testing.assert_array_equal(workers.gradient["weight"], TOTAL)
    assert workers.age.tolist() == [5, 2, 1]


@pytest.mark.parametrize("mean_age", [0.0, 1.0, 7.0])
def test_turns_come_as_often_as_said(mean_age):
    arrived = asynchrony.turns(jax.random.key(0), mean_age, 10_000)
    np.testing.assert_allclose(arrived.mean(), 1 / (1 + mean_age), atol=0.02)
    assert arrived.all() == (mean_age == 0)
