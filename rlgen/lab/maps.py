"""Maps of learned values: of which tasks there are any, what they show, and how it lies in a plane.

A grid world, a table with a picture and Frozen Lake have a map, where the algorithm keeps a value for every state.
Arrows are the greedy actions of `q_values` or, where a known process was planned with, those that look one step ahead.

Shape legend: `S` states, `A` actions, `N` states that lie in the plane.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rlgen.envs import mdp, tables
from rlgen.envs.grid import GridWorld
from rlgen.experiments.experiment import Experiment
from rlgen.experiments.tabular_tasks import PlanningTask, PredictionTask
from rlgen.lab import heatmaps

LEFT_DOWN_RIGHT_UP = ((0, -1), (1, 0), (0, 1), (-1, 0))  # Frozen Lake's actions


class Plane(NamedTuple):
    """Where states lie.

    Attributes:
        shape: rows and columns, `N` cells; state `row * columns + column` lies there.
        directions: by how many rows and columns each action moves.
        walls: `[N]` bool.
        terminals: `[N]` bool.
        visited: `[N]` bool: whether an episode can ever be there.
        rewards: `[N]` reward of a terminal cell by itself; nan for none.
    """

    shape: tuple[int, int]
    directions: tuple[tuple[int, int], ...]
    walls: NDArray[np.bool_]
    terminals: NDArray[np.bool_]
    visited: NDArray[np.bool_]
    rewards: NDArray[np.float64]


class Values(NamedTuple):
    """What was learned.

    Attributes:
        values: `[S]`.
        actions: `[S]` greedy ones, or None where nothing says which they are.
    """

    values: NDArray[np.float64]
    actions: NDArray[np.intp] | None


def plane(task: Any) -> Plane | None:
    """Finds where the states of a task lie.

    Args:
        task: any task.

    Returns:
        The plane, or None where the states lie in none.
    """
    native = getattr(getattr(task, "env", None), "native", None)
    walls = np.False_
    if isinstance(native, GridWorld):
        shape, directions, walls = native.shape, heatmaps.UP_RIGHT_DOWN_LEFT, native.cell_wall
        terminals, rewards = native.cell_terminal, native.cell_reward
    elif isinstance(native, tables.FrozenLake):
        goal, hole = np.asarray(native.reward_schedule)[:2]
        shape, directions = native.desc.shape, LEFT_DOWN_RIGHT_UP
        terminals = np.asarray(tables.process(native).terminal)
        rewards = np.where(np.ravel(native.desc) == native.desc.max(), goal, hole)
    elif isinstance(native, tables.Table) and native.picture is not None:
        shape, directions = native.picture
        terminals = native.outcomes.terminal[: shape[0] * shape[1]]
        rewards = _entering(native.outcomes)[: terminals.size]
    else:
        return None
    return Plane(
        shape=(int(shape[0]), int(shape[1])),
        directions=directions,
        walls=np.broadcast_to(walls, terminals.shape),
        terminals=terminals,
        visited=_visited(native)[: terminals.size],
        rewards=np.where(terminals & (rewards != 0), rewards, np.nan),
    )


def learned(experiment: Experiment, state: Any, hypers: Any) -> Values | None:
    """Finds the values of a trained lane.

    Args:
        experiment: the row.
        state: of the algorithm, no lane axis.
        hypers: numbers of the lane.

    Returns:
        The values, or None where the state has no value for every state of the task.
    """
    num_states, num_actions = experiment.task.spec.observation.num, experiment.task.spec.action.num
    values, q_values = _array(state, "values", (num_states,)), _array(state, "q_values", (num_states, num_actions))
    if q_values is not None:
        return Values(q_values.max(-1) if values is None else values, q_values.argmax(-1))
    if values is None and isinstance(experiment.task, PredictionTask):
        values = np.asarray(experiment.algorithm.values(state), np.float64)
    if values is None or not isinstance(experiment.task, PlanningTask):
        return values if values is None else Values(values, None)
    process = _process(experiment.task.env.native)
    ahead = process.reward + hypers.discount * mdp.expected(process, jnp.asarray(values, jnp.float32))
    return Values(values, np.asarray(ahead.argmax(-1)))


def _array(state: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Gives an entry of a state, if it is an array of that shape."""
    entry = getattr(state, name, None)
    fits = isinstance(entry, np.ndarray | jax.Array) and entry.shape == shape
    return np.asarray(entry, np.float64) if fits else None


def draw(path: Path, where: Plane, what: Values, *, title: str) -> None:
    """Draws a map; cells where nobody can stand are left white, terminal ones show their own reward.

    Args:
        path: of the picture.
        where: the states lie.
        what: was learned.
        title: above the map.
    """
    count, shape = where.visited.size, where.shape
    actions = None if what.actions is None else np.where(where.visited, what.actions[:count], -1).reshape(shape)
    heatmaps.value_map(
        path,
        np.where(where.visited & ~where.terminals, what.values[:count], np.nan).reshape(shape),
        actions,
        title=title,
        walls=where.walls.reshape(shape),
        terminals=where.terminals.reshape(shape),
        rewards=where.rewards.reshape(shape),
        directions=where.directions,
    )


def _entering(outcomes: tables.Outcomes) -> NDArray[np.float64]:
    """Gives the reward of entering each state, `[S]`; zero where it varies, or is that of most steps anyway."""
    going_on = ~outcomes.terminal
    successor, reward = outcomes.successor[going_on], outcomes.reward[going_on]
    kinds, counts = np.unique(reward, return_counts=True)
    entering = np.zeros(outcomes.terminal.shape)
    for state in np.flatnonzero(outcomes.terminal):
        found = np.unique(reward[successor == state])
        if found.size == 1 and found[0] != kinds[counts.argmax()]:
            entering[state] = found[0]
    return entering


def _process(native: Any) -> mdp.MDP | mdp.SparseMDP:
    """Gives the process of a tabular environment, in its small form where it has one."""
    if isinstance(native, GridWorld):
        try:
            return native.sparse()
        except ValueError:  # a cell sends back to one of several starts
            pass
    return tables.process(native)


def _visited(native: Any) -> NDArray[np.bool_]:
    """Tells which states can be entered from another one or started in, `[S]`."""
    process = _process(native)
    visited = np.asarray(process.start) > 0
    states = np.arange(len(visited))
    if isinstance(process, mdp.SparseMDP):
        entered = np.asarray(process.successor)
        likely = np.broadcast_to(np.asarray(process.probability) > 0, entered.shape)
        visited[entered[likely & (entered != states[:, None, None])]] = True
        return visited
    reached = np.asarray(process.transition).sum(axis=1)  # [S, S]
    reached[states, states] = 0
    return visited | (reached.sum(axis=0) > 0)
