"""Maps of values: where states lie, what is shown of them, and of which states of algorithms there are any."""

import functools
import types
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs import adapter, grid, mdp, tables
from rlgen.experiments import catalogue
from rlgen.experiments.experiment import Experiment
from rlgen.experiments.tabular_tasks import PlanningTask, PredictionTask
from rlgen.experiments.tasks import EnvTask
from rlgen.lab import heatmaps, maps


class Action(NamedTuple):
    q_values: Any


class Valued(NamedTuple):
    values: Any


class Weights(NamedTuple):
    weights: Any


def task_of(native, kind: Any = EnvTask):
    return kind(functools.partial(adapter.make, native))


def row(task, **members) -> Experiment:
    module = types.ModuleType("algorithm")
    vars(module).update(members)
    hypers = types.SimpleNamespace(discount=1.0)
    return Experiment(name="a/b/c", algorithm=module, task=task, config=None, hypers=hypers, steps=1)


def solved(process, discount=1.0) -> np.ndarray:
    values = jnp.zeros(process.terminal.shape)
    for _ in range(100):
        values = (process.reward + discount * mdp.expected(process, values)).max(-1)
    return np.asarray(values)


@pytest.fixture
def seen(monkeypatch):
    """What is handed to the drawing."""
    found = {}
    monkeypatch.setattr(
        heatmaps, "value_map", lambda path, values, actions, **rest: found.update(rest, values=values, actions=actions)
    )
    return found


def test_the_plane_of_a_grid_world():
    plane = maps.plane(task_of(grid.four_by_three()))
    assert plane is not None
    assert plane.shape == (3, 4) and plane.directions == heatmaps.UP_RIGHT_DOWN_LEFT
    assert np.flatnonzero(plane.walls).tolist() == [5]
    assert np.flatnonzero(plane.terminals).tolist() == [3, 7]
    assert plane.rewards[[3, 7]].tolist() == [1.0, -1.0] and np.isnan(np.delete(plane.rewards, [3, 7])).all()
    assert np.flatnonzero(~plane.visited).tolist() == [5]


def test_nobody_stands_on_a_cliff_and_a_goal_without_reward_shows_none():
    plane = maps.plane(task_of(grid.CliffWalking()))
    assert plane is not None
    assert np.flatnonzero(~plane.visited).tolist() == list(range(37, 47))
    assert np.isnan(plane.rewards).all()


def test_a_world_without_a_sparse_form_has_a_plane():
    world = grid.GridWorld("S.x\nS.G", {"x": grid.Cell(restart=True)})
    with pytest.raises(ValueError, match="sparse"):
        world.sparse()
    plane = maps.plane(task_of(world))
    assert plane is not None
    assert plane.visited.tolist() == [True, True, False, True, True, True]


def test_the_plane_of_frozen_lake():
    plane = maps.plane(task_of("FrozenLake-misc"))
    assert plane is not None
    assert plane.shape == (4, 4) and plane.directions == ((0, -1), (1, 0), (0, 1), (-1, 0))
    assert np.flatnonzero(plane.terminals).tolist() == [5, 7, 11, 12, 15]
    assert plane.rewards[15] == 1.0 and np.isnan(plane.rewards[:15]).all()
    # Each action moves as its arrow says.
    process = tables.process(adapter.make("FrozenLake-misc").native)
    for action, (down, right) in enumerate(plane.directions):
        assert process.transition[9, action, 9 + 4 * down + right] > 0.3


def test_the_plane_of_a_table():
    plane = maps.plane(task_of(tables.line()))
    assert plane is not None
    assert plane.shape == (1, 10) and plane.directions == ((0, 1), (0, 2))
    assert plane.rewards[[3, 6, 9]].tolist() == [-10.0, -10.0, 10.0]
    assert plane.visited.all() and plane.visited.shape == (10,)  # the state beyond lies nowhere
    windy = maps.plane(task_of(tables.windy_grid()))
    assert windy is not None
    assert windy.terminals[37] and np.isnan(windy.rewards).all()  # -1, as every step


@pytest.mark.parametrize("name", ["ppo/CartPole", "vae/digits"])
def test_tasks_without_a_plane(name):
    assert maps.plane(catalogue.find(name).task) is None
    assert maps.plane(task_of(tables.baird())) is None


def test_action_values_give_arrows(seen, tmp_path):
    q_values = np.zeros((48, 4)) - 2
    q_values[np.arange(24, 35), grid.RIGHT] = q_values[36, grid.UP] = -1
    experiment = row(task_of(grid.CliffWalking()))
    what = maps.learned(experiment, Action(jnp.asarray(q_values)), experiment.hypers)
    where = maps.plane(experiment.task)
    assert what is not None and where is not None
    maps.draw(tmp_path / "map.png", where, what, title="Title")
    values, actions = seen["values"], seen["actions"]
    assert np.isnan(values[3, 1:]).all()  # the cliff and the goal
    assert np.isfinite(values[:3]).all() and values[0, 0] == -2
    assert values[3, 0] == values[2, 5] == -1
    assert (actions[3, 0], actions[2, 5], actions[3, 4]) == (grid.UP, grid.RIGHT, -1)
    assert seen["title"] == "Title" and seen["terminals"][3, 11] and not seen["walls"].any()


def test_predicted_values_have_no_arrows(seen, tmp_path):
    truth = jnp.append(jnp.linspace(-0.9, 0.9, 19), jnp.zeros(2))
    for experiment, state in (
        (row(task_of(tables.random_walk(), PredictionTask)), Valued(truth)),
        (
            row(task_of(tables.random_walk(), PredictionTask), values=lambda state: state.weights * 2),
            Weights(truth / 2),
        ),
    ):
        what, where = maps.learned(experiment, state, experiment.hypers), maps.plane(experiment.task)
        assert what is not None and where is not None
        maps.draw(tmp_path / "map.png", where, what, title="")
        assert seen["actions"] is None
        np.testing.assert_allclose(seen["values"], np.linspace(-0.9, 0.9, 19)[None], atol=1e-6)


@pytest.mark.parametrize("native", [grid.four_by_three(), "FrozenLake-misc"])
def test_a_plan_looks_one_step_ahead(native):
    experiment = row(task_of(native, PlanningTask))
    process = tables.process(experiment.task.env.native)
    values = solved(process, 0.99)
    what = maps.learned(experiment, Valued(jnp.asarray(values)), types.SimpleNamespace(discount=0.99))
    assert what is not None and what.actions is not None
    ahead = np.asarray(process.reward + 0.99 * mdp.expected(process, jnp.asarray(values)))
    np.testing.assert_allclose(ahead[np.arange(len(ahead)), what.actions], ahead.max(-1), atol=1e-6)
    np.testing.assert_array_equal(what.values, values.astype(np.float64))


def test_values_and_the_look_ahead_beside_them_are_both_shown():
    class Both(NamedTuple):
        values: Any
        q_values: Any

    experiment = row(task_of(grid.CliffWalking(), PlanningTask))
    state = Both(np.arange(48.0), np.eye(48)[:, :4])
    what = maps.learned(experiment, state, experiment.hypers)
    assert what is not None and what.actions is not None
    assert what.values.tolist() == list(range(48)) and what.actions[:5].tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("state", [Weights(np.zeros(48)), Action(np.zeros((2, 48, 4))), Valued(np.zeros(47)), {}])
def test_states_without_a_value_for_each_state(state):
    experiment = row(task_of(grid.CliffWalking()))
    assert maps.learned(experiment, state, experiment.hypers) is None
