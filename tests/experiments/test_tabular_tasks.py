"""Scores of tabular tasks, on states made by hand whose errors are known."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import memoryless
from rlgen.envs import bandits, tables
from rlgen.experiments import tabular_tasks
from rlgen.experiments.rows.common import own
from rlgen.tabular import bandit, n_step_td

NAN = float("nan")


def scored(task, state, config=None, algorithm=None, discount=1.0):
    score = task.score(algorithm, config, ())
    return float(score(jax.random.key(0), jnp.int32(0), state, types.SimpleNamespace(discount=discount)))


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_predicted_values_are_compared_with_those_of_the_target_policy(discount):
    task = tabular_tasks.PredictionTask(own(tables.random_walk, 3))
    left, right = target = (0.3, 0.7)
    steps = np.diag([right] * 2, 1) + np.diag([left] * 2, -1)
    exact = np.linalg.solve(np.eye(3) - discount * steps, [-left, 0, right])
    # The error is over the states that do not end an episode; what stands at the others is never read.
    for wrong, error in ((np.zeros(3), 0.0), (np.full(3, 2.0), 2.0), (np.array([0, 3, -4]), np.sqrt(25 / 3))):
        state = n_step_td.State(jnp.array([*(exact + wrong), 50.0, -50.0]))
        got = scored(task, state, n_step_td.Config(target=target), n_step_td, discount)
        np.testing.assert_allclose(got, error, atol=1e-6, rtol=1e-6)


def test_the_largest_error_of_action_values_counts():
    task = tabular_tasks.ActionValueTask(own(tables.line), reference=((1.0, 2.0), (NAN, -4.0)))
    for row, error in (((7.0, -4.0), 0.0), ((7.0, -4.75), 0.75), ((NAN, -4.0), 0.0), ((7.0, NAN), NAN)):
        got = scored(task, types.SimpleNamespace(q_values=jnp.array([[1.0, 2.0], row])))
        np.testing.assert_array_equal(got, error)


def test_planned_values_are_compared_with_the_known_ones():
    task = tabular_tasks.PlanningTask(own(tables.random_walk, 3), reference=(1.0, 2.0, 3.0, NAN, NAN))
    for values, error in (((1, 2, 3, 9, 9), 0), ((1, 4, 2, 9, 9), 2), ((1, 2, 3, NAN, 9), 0), ((1, NAN, 4, 9, 9), NAN)):
        got = scored(task, types.SimpleNamespace(values=jnp.array(values, jnp.float32)))
        np.testing.assert_array_equal(got, error)


def test_without_known_values_one_more_backup_is_the_measure():
    task = tabular_tasks.PlanningTask(own(tables.random_walk, 3))
    # The best of -1 and 0.9 × 2, of 0.9 × 1 and 0.9 × 3, and of 0.9 × 2 and 1.
    for values, error in (((1.0, 2.0, 3.0), 1.2), ((1.8, 2.0, 1.8), 0.38), ((0.81, 0.9, 1.0), 0.0)):
        state = types.SimpleNamespace(values=jnp.array([*values, 0.0, 0.0]))
        np.testing.assert_allclose(scored(task, state, discount=0.9), error, atol=1e-6)


def test_pulls_of_the_best_arm_are_counted_by_what_arms_were_worth_before():
    num, task = 30, tabular_tasks.BanditTask(own(bandits.Bandit, 3, drift=100.0))
    source = task.source(bandit.Config(num_envs=3 * num), ())
    policy = memoryless(lambda key, obs, memory: (jnp.tile(jnp.array([2, 0, 0]), num), {}, memory))
    state = source.init(jax.random.key(0), policy)
    values = jnp.tile(jnp.array([[1.0, 2.0, 3.0], [5.0, 1.0, 0.0], [0.0, 4.0, -1.0]]), (num, 1))
    state = state._replace(env=state.env.replace(values=values))
    _, batch, stats = source.next(jax.random.key(1), jnp.int32(0), state, policy)
    np.testing.assert_allclose(stats, [3 * num, batch.reward.sum(), 2 * num])
    report = types.SimpleNamespace(stats=jax.tree.map(lambda leaf: 2 * leaf, stats))
    np.testing.assert_allclose(task.curve(report), batch.reward.mean(), rtol=1e-6)


def test_updates_of_several_pulls_are_refused():
    task, config = tabular_tasks.BanditTask(own(bandits.Bandit)), bandit.Config(rollout_length=2)
    for refuse in (task.steps_per_update, lambda config: task.source(config, ())):
        with pytest.raises(ValueError, match="rollout_length=2"):
            refuse(config)
