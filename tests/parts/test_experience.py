"""Experience that is kept: weights by hand, what waits for the warm-up, and when a target moves."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.parts import experience, priorities
from rlgen.value import dqn

CONFIG = dqn.Config(num_envs=2, rollout_length=2, batch_size=8, capacity=16, warm_up=9, replay="proportional")
HYPERS = dqn.Hypers(importance_start=0.6, horizon=10.0)


class Seen(NamedTuple):
    draw: jax.Array
    place: jax.Array
    count: jax.Array


def test_importance_weights_by_hand():
    tree = priorities.SumTree((np.float32([*range(1, 7), 0, 0]),), np.float32(1))
    drawn = jax.jit(functools.partial(experience.drawn, config=CONFIG))
    index, weight = jax.device_get(drawn(jax.random.key(0), 5, tree, 6, HYPERS))
    np.testing.assert_allclose(weight, ((index.min() + 1) / (index + 1)) ** (0.6 + 0.4 * 5 / 10), rtol=1e-5)


def test_all_that_is_filled_is_drawn_alike_without_priorities():
    config = dqn.Config(batch_size=4000)
    assert experience.ranks(16, config=config) == ()
    drawn = jax.jit(functools.partial(experience.drawn, config=config))
    index, weight = drawn(jax.random.key(0), 5, (), 5, HYPERS)
    np.testing.assert_allclose(np.bincount(index) / 4000, np.full(5, 0.2), atol=0.03)
    np.testing.assert_array_equal(weight, np.ones(4000))
    assert experience.renew((), index, weight, HYPERS, config=config) == ()


def test_steps_wait_until_enough_is_gathered_and_metrics_are_means():
    def one_step(carry, key, count):
        return carry + 1, Seen(jax.random.uniform(key), carry, jnp.float32(count))

    first = experience.warm(CONFIG)
    assert first == 3  # 4, 8 and 12 transitions gathered

    @jax.jit
    def practise(step):
        return experience.practise(jax.random.key(0), step, 5.0, one_step, num_steps=3, first=first, metrics=Seen)

    for step in (0, 1):
        assert practise(step) == (5.0, Seen(0.0, 0.0, 0.0))
    carry, seen = practise(2)
    draws = jax.vmap(jax.random.uniform)(jax.random.split(jax.random.key(0), 3))
    assert (carry, seen.place, seen.count) == (8, 6, 7)
    np.testing.assert_allclose(seen.draw, draws.mean(), rtol=1e-6)


def test_a_stack_that_is_not_all_there_counts_for_nothing_and_is_not_drawn_for_it_again():
    config = dataclasses.replace(CONFIG, num_envs=1, rollout_length=1, warm_up=1, capacity=12, num_frames=3)
    spec = Spec(Box((2, 2, 3), 0, 1), Discrete(2))
    rank = experience.ranks(12, config=config)
    rank = experience.admit(rank, jnp.int32(0), num_slots=12, num=12, config=config)
    # After update 16 the newest row is the fifth, and the oldest two have too little behind them.
    rank = experience.renew(rank, jnp.arange(12), jnp.ones(12).at[jnp.array([5, 6])].set(99.0), HYPERS, config=config)
    batch = Transition(*(jnp.zeros((1, 1, *shape)) for shape in ((2, 2, 3), (), (), (2, 2, 3), (), ())), {})
    batch = batch._replace(terminated=batch.reward > 0, truncated=batch.reward > 0, action=jnp.zeros((1, 1), jnp.int32))

    class State(NamedTuple):
        learner: jax.Array
        replay: Transition
        priorities: Any

    def learn(key, count, learner, minibatch, weight, hypers):
        return weight, Seen(*(jnp.float32(0),) * 3), jnp.ones(8)

    @jax.jit
    def update(rank):
        state = State(jnp.zeros(8), experience.ring(spec, config, num_frames=3), rank)
        return experience.update(
            jax.random.key(0),
            jnp.int32(16),
            state,
            batch,
            HYPERS,
            config=config,
            learn=learn,
            metrics=Seen,
            num_frames=3,
        )[0]

    state = update(rank)
    leaves = np.asarray(state.priorities.levels[0])
    assert (np.asarray(state.learner) == 0).sum() >= 4
    assert max(leaves[5], leaves[6]) < 0.01


@pytest.mark.parametrize(("tau", "moved"), [(None, 3.0), (1.0, 3.0), (0.25, 1.5)])
def test_a_target_moves_once_a_period_by_its_share(tau, moved):
    follow = jax.jit(lambda step: experience.follow(step, jnp.float32(1), jnp.float32(3), period=3, tau=tau))
    assert [float(follow(step)) for step in range(6)] == [1, 1, moved, 1, 1, moved]


def test_a_capacity_that_rollouts_do_not_fill_is_refused():
    with pytest.raises(ValueError, match=r"config\.capacity=18 is no multiple of 2 environments × 2 steps"):
        dqn.Config(num_envs=2, rollout_length=2, capacity=18)
