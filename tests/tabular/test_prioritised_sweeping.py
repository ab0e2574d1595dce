"""Prioritised sweeping: backups by hand, its invariants, and how few backups it needs.

That it finds what the other planners find stands in `test_dynamic_programming.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Discrete, Spec
from rlgen.envs import grid, mdp
from rlgen.parts import backups, planning
from rlgen.tabular import prioritised_sweeping

HYPERS = prioritised_sweeping.Hypers(discount=0.5, initial_value=2.0)


@pytest.fixture(scope="module")
def chain():
    """Two states and an end: the first one stays or goes on, the second one goes back or ends."""
    transition = np.zeros((3, 2, 3))
    transition[[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 2]] = 1
    reward = np.array([[0.0, 1.0], [0.0, 4.0], [0.0, 0.0]])
    return mdp.build(transition, reward, np.array([1.0, 0.0, 0.0]), np.array([False, False, True]))


def test_backups_by_hand(chain):
    state = prioritised_sweeping.begin(chain, 2.0, 0.5)
    assert state.values.tolist() == [2, 2, 0]
    np.testing.assert_allclose(state.q_values, [[1, 1 + 1], [1, 4], [0, 0]])
    np.testing.assert_allclose(prioritised_sweeping.priorities(state), [0, 2, 0])
    back_up = jax.jit(prioritised_sweeping.back_up)
    for values, q_values, change in (
        ([2, 4, 0], [[1, 3], [1, 4], [0, 0]], 2),  # the second state, whose predecessor learns of it
        ([3, 4, 0], [[1.5, 3], [1.5, 4], [0, 0]], 1),  # now the first one, of which both states are predecessors
        ([3, 4, 0], [[1.5, 3], [1.5, 4], [0, 0]], 0),
    ):
        state, got = back_up(state, chain, 0.5)
        np.testing.assert_allclose(state.values, values)
        np.testing.assert_allclose(state.q_values, q_values)
        assert got == change


def test_updates_of_the_algorithm(chain):
    config = prioritised_sweeping.Config(num_backups=1)
    algorithm = prioritised_sweeping.build(Spec(Discrete(3), Discrete(2)), config)
    state, update = algorithm.init(jax.random.key(0), HYPERS), jax.jit(algorithm.update)
    assert (state.values.tolist(), state.q_values.tolist()) == ([2] * 3, [[2, 2]] * 3)
    for step, values, metrics in ((0, [2, 4, 0], (2, 1)), (1, [3, 4, 0], (1, 0)), (2, [3, 4, 0], (0, 0))):
        state, got = update(jax.random.key(0), jnp.int32(step), state, chain, HYPERS)
        np.testing.assert_allclose(state.values, values)
        np.testing.assert_allclose(got, metrics)
    policy = algorithm.policy(jnp.int32(3), state, HYPERS, explore=True)
    assert policy.apply(jax.random.key(0), jnp.array([0, 1]), policy.memory((2,)))[0].tolist() == [1, 1]


def test_several_backups_are_one_after_another():
    process = grid.four_by_three().mdp()
    hypers = prioritised_sweeping.Hypers(discount=0.9)
    start = prioritised_sweeping.begin(process, 0.3, 0.9)
    learn = jax.jit(prioritised_sweeping.learn, static_argnames="num_backups")
    state, changes = start, []
    for _ in range(4):
        state, metrics = learn(state, process, hypers, num_backups=1)
        changes.append(metrics.residual)
    together, metrics = learn(start, process, hypers, num_backups=4)
    np.testing.assert_allclose(together.values, state.values)
    np.testing.assert_allclose(together.q_values, state.q_values)
    assert metrics.residual == max(changes)
    assert metrics.priority == prioritised_sweeping.priorities(state).max()


def test_priorities_are_bellman_errors_and_the_largest_is_backed_up():
    process = grid.four_by_three().mdp()
    back_up, ahead = jax.jit(prioritised_sweeping.back_up), jax.jit(backups.action_values)
    state = prioritised_sweeping.begin(process, jnp.linspace(-1, 1, 12), 0.9)
    for _ in range(30):
        priorities = np.asarray(prioritised_sweeping.priorities(state))
        after, change = back_up(state, process, 0.9)
        changed = np.flatnonzero(after.values != state.values)
        assert changed.tolist() == [priorities.argmax()]
        np.testing.assert_allclose(abs(change), priorities.max(), atol=1e-6)
        np.testing.assert_allclose(after.q_values, ahead(process, after.values, 0.9), atol=1e-6)
        state = after


def test_without_chance_every_state_is_backed_up_once():
    world = grid.dyna_maze()
    found = jax.jit(prioritised_sweeping.plan)(world.mdp(), 0.95)
    reached = ~world.cell_wall & ~world.cell_terminal
    assert found.iterations == reached.sum() == 54 - 7 - 1
    np.testing.assert_allclose(found.values[18], 0.95**13, rtol=1e-5)
    # Value iteration backs up all of them as often as the longest way has steps, and once more.
    sweeps = jax.jit(planning.value_iteration)(world.mdp(), 0.95)
    np.testing.assert_allclose(found.values, sweeps.values, atol=1e-5)
    assert sweeps.iterations > 14


def test_discounts_are_swept_in_one_call_and_a_limit_stops():
    process = grid.four_by_three().mdp()
    plan = jax.jit(jax.vmap(functools.partial(prioritised_sweeping.plan, process)))
    found = plan(jnp.array([0.1, 0.5, 0.9, 0.96]))
    assert (np.diff(found.iterations) > 0).all()
    assert (found.residual <= 1e-6).all()
    capped = jax.jit(functools.partial(prioritised_sweeping.plan, max_backups=5))(process, 0.9)
    assert capped.iterations == 5
    assert capped.residual > 1e-6
