"""Grid worlds drawn as text, among them cliff walking and the 4x3 world.

Sources: cliff walking is example 6.6 and the maze example 8.1 of Sutton and Barto, "Reinforcement Learning: An
Introduction" (2018); the 4x3 world is from Russell and Norvig, "Artificial Intelligence: A Modern Approach" (2010),
chapter 17.

A state is a cell, numbered along the rows from the top left, `row * columns + column`, walls included, so that an
array over states reshapes to the picture.  Actions are 0 up, 1 right, 2 down, 3 left; a move into a wall or over the
edge stays where it is.  With probability `p` the move is the intended one, with `(1 - p) / 2` each of the two
perpendicular to it.

Reward convention: a step earns `living_reward`, *plus* the `reward` of the cell in which its move ends, be it a new
cell, the old one after a bump, a terminal cell, or one that sends back to a start (its reward counts, the start's does
not).  Thus `R(s, a) = living_reward + Σ_c P(c | s, a) reward(c)` over the cells `c` in which the move may end.  The
last step of an episode pays the living reward too, and a terminal cell has value zero, for its reward was earned on
the way in.  A table that shows a terminal cell's value as that cell's own reward instead (`cell_reward`) agrees with
this one in every other cell at discount one.

Departure: there is no time limit but `params.max_steps_in_episode`, which truncates and never terminates.

Shape legend: `S` states, `A` = 4 actions, which are also the directions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlgen.core import Array, Key
from rlgen.envs.mdp import MDP, SparseMDP, build

UP, RIGHT, DOWN, LEFT = range(4)
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # row and column, by direction
MAX_STEPS = 1000


class Cell(NamedTuple):
    """What a character of a layout stands for."""

    reward: float = 0.0  # earned by a move that ends here, beside the living reward
    terminal: bool = False  # ends the episode
    start: bool = False  # episodes start in one of these, drawn uniformly
    wall: bool = False  # cannot be entered
    restart: bool = False  # sends back to a start, without ending the episode


LEGEND: Mapping[str, Cell] = {
    ".": Cell(),
    "#": Cell(wall=True),
    "S": Cell(start=True),
    "+": Cell(reward=1.0, terminal=True),
    "-": Cell(reward=-1.0, terminal=True),
    "G": Cell(terminal=True),
}


@struct.dataclass
class GridState(environment.EnvState):
    """Where the agent is, and since when."""

    time: Any  # int32 steps since the start of the episode
    index: Any  # int32 cell


class GridWorld(environment.Environment[GridState, environment.EnvParams]):
    """A grid world whose observation is the index of its state.

    Attributes:
        layout: the rows of the picture.
        shape: number of rows and of columns.
        num_states: number of cells, walls included.
        cell_reward: `[S]` reward of each cell by itself.
        cell_terminal: `[S]` bool.
        cell_wall: `[S]` bool.
    """

    def __init__(
        self,
        layout: str,
        legend: Mapping[str, Cell] | None = None,
        *,
        move_probability: float = 1.0,
        living_reward: float = 0.0,
        name: str = "GridWorld",
    ):
        """Reads the layout and computes the tables.

        Args:
            layout: one line a row, all equally long; spaces and blank lines around it are dropped.
            legend: characters beside, or instead of, those of `LEGEND`.
            move_probability: probability that the move is the intended one.
            living_reward: reward of every step.
            name: name of the environment.

        Raises:
            ValueError: if rows differ in length, a character is not in the legend, there is no start, a start is a
                wall, terminal or sends back, or the probability is outside [0, 1].
        """
        super().__init__()
        if not 0 <= move_probability <= 1:
            raise ValueError(f"move_probability is {move_probability}, not in [0, 1]")
        self.layout, cells = _parse(layout, {**LEGEND, **(legend or {})})
        self.shape = len(self.layout), len(self.layout[0])
        self.num_states = len(cells)
        self.cell_reward = np.array([cell.reward for cell in cells])
        self.cell_terminal = np.array([cell.terminal for cell in cells])
        self.cell_wall = np.array([cell.wall for cell in cells])
        self._restart = np.array([cell.restart for cell in cells])
        self._starts = np.flatnonzero([cell.start for cell in cells]).astype(np.int32)
        slip = (1 - move_probability) / 2
        self._turns = ((0, move_probability), (1, slip), (3, slip))  # quarter turns clockwise, and their probabilities
        absorbing = self.cell_terminal | self.cell_wall
        self._entered = _entered(self.shape, self.cell_wall, absorbing)
        self._reward = np.where(absorbing[:, None], 0, living_reward + self.cell_reward[self._entered])
        self._name = name

    def mdp(self) -> MDP:
        """The process as arrays.

        A wall is never entered; its state is given as terminal, so that planners need not tell it apart.

        Returns:
            The process over all `S` cells.
        """
        entered = np.zeros((self.num_states, self.num_actions, self.num_states))
        reward = np.zeros((self.num_states, self.num_actions))
        start = np.zeros(self.num_states)
        start[self._starts] = 1 / len(self._starts)
        for turn, probability in self._turns:
            direction = (np.arange(self.num_actions) + turn) % self.num_actions
            entered += probability * np.eye(self.num_states)[self._entered[:, direction]]
            reward += probability * self._reward[:, direction]
        onward = np.where(self._restart[:, None], start, np.eye(self.num_states))
        return build(entered @ onward, reward, start, self.cell_terminal | self.cell_wall)

    def sparse(self) -> SparseMDP:
        """The process without its mostly empty `[S, A, S]`; otherwise as `mdp`.

        Returns:
            The process, `K` = 3 where moves slip and 1 where they do not.

        Raises:
            ValueError: if cells send back to one of several starts, which would be too many successors to list.
        """
        if self._restart.any() and len(self._starts) > 1:
            raise ValueError("a cell that sends back to one of several starts has no sparse form")
        turns = [(turn, probability) for turn, probability in self._turns if probability > 0]
        probability = np.array([probability for _, probability in turns])
        direction = (np.arange(self.num_actions)[:, None] + [turn for turn, _ in turns]) % self.num_actions  # [A, K]
        onward = np.where(self._restart, self._starts[0], np.arange(self.num_states, dtype=np.int32))
        start = np.zeros(self.num_states)
        start[self._starts] = 1 / len(self._starts)
        return SparseMDP(
            successor=jnp.asarray(onward[self._entered][:, direction], jnp.int32),
            probability=jnp.asarray(np.broadcast_to(probability, (1, self.num_actions, len(turns))), float),
            reward=jnp.asarray((self._reward[:, direction] * probability).sum(-1), float),
            start=jnp.asarray(start, float),
            terminal=jnp.asarray(self.cell_terminal | self.cell_wall),
        )

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, GridState]:
        """Puts the agent on a start; the key is consumed."""
        state = GridState(time=jnp.int32(0), index=self._start(key))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: GridState, action: Any, params: environment.EnvParams
    ) -> tuple[Array, GridState, Array, Array, dict[Any, Any]]:
        """Moves the agent; the key is consumed."""
        key_turn, key_start = jax.random.split(key)
        direction = self._direction(key_turn, jnp.asarray(action, jnp.int32))
        index = jnp.asarray(self._entered)[state.index, direction]
        reward = jnp.asarray(self._reward, jnp.float32)[state.index, direction]
        if self._restart.any():
            index = jnp.where(jnp.asarray(self._restart)[index], self._start(key_start), index)
        state = GridState(time=state.time + 1, index=index)
        terminated = self.is_terminated(state, params)
        return self.observe(key, state, action, params), state, reward, terminated, {}

    def observe(self, key: Key, state: GridState, action: Any, params: environment.EnvParams) -> Array:
        """The index of the state, an int32 scalar."""
        del key, action, params
        return state.index

    def is_terminated(self, state: GridState, params: environment.EnvParams) -> Array:
        """Whether the agent is in a terminal cell."""
        del params
        return jnp.asarray(self.cell_terminal)[state.index]

    def _direction(self, key: Key, action: Array) -> Array:
        """The direction of the move that an action turns out to be."""
        (_, straight), (right, slip), (left, _) = self._turns
        if straight == 1:
            return action
        uniform = jax.random.uniform(key)
        turn = jnp.where(uniform < straight, 0, jnp.where(uniform < straight + slip, right, left))
        return (action + turn) % self.num_actions

    def _start(self, key: Key) -> Array:
        if len(self._starts) == 1:
            return jnp.int32(self._starts[0])
        return jax.random.choice(key, jnp.asarray(self._starts))

    @property
    def default_params(self) -> environment.EnvParams:
        """A time limit long enough for a random walk through a small world."""
        return environment.EnvParams(max_steps_in_episode=MAX_STEPS)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    @property
    def num_actions(self) -> int:
        """Number of actions: up, right, down, left."""
        return len(MOVES)

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Discrete:
        """The four directions."""
        del params
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: environment.EnvParams) -> spaces.Discrete:
        """Indices of states."""
        del params
        return spaces.Discrete(self.num_states)

    def state_space(self, params: environment.EnvParams) -> spaces.Dict:
        """Cell and time."""
        time = spaces.Discrete(params.max_steps_in_episode + 1)
        return spaces.Dict({"time": time, "index": spaces.Discrete(self.num_states)})


class CliffWalking(GridWorld):
    """Four rows of twelve cells: -1 a step, -100 for a step into the cliff, which sends back to the start.

    The shortest way earns -13.  Gymnasium's `CliffWalking-v1` is this world, and with `move_probability=1/3` its
    slippery variant.
    """

    def __init__(self, move_probability: float = 1.0):
        """Draws the cliff.

        Args:
            move_probability: probability that the move is the intended one.
        """
        layout = "\n".join(["." * 12] * 3 + ["S" + "C" * 10 + "G"])
        # The living reward of -1 is part of the -100.
        legend = {"C": Cell(reward=-99.0, restart=True)}
        super().__init__(layout, legend, move_probability=move_probability, living_reward=-1.0, name="CliffWalking")


def four_by_three(move_probability: float = 0.8, living_reward: float = -0.03) -> GridWorld:
    """The 4x3 world: a wall at (1, 1), an end worth +1 at (0, 3) and one worth -1 at (1, 3), start at (2, 0).

    At discount one and the defaults its optimal values are, with the ends shown as their own reward,
    `.85 .89 .93 1.00`, `.81 wall .68 -1.00`, `.77 .73 .70 .47`.

    Args:
        move_probability: probability that the move is the intended one; 1 is the deterministic variant.
        living_reward: reward of every step.

    Returns:
        The environment.
    """
    layout = """
        ...+
        .#.-
        S...
    """
    return GridWorld(layout, move_probability=move_probability, living_reward=living_reward, name="FourByThree")


def dyna_maze() -> GridWorld:
    """The maze of example 8.1 of Sutton and Barto: six rows of nine cells, +1 on the way into the goal.

    Returns:
        The environment; the shortest way takes 14 steps.
    """
    layout = """
        .......#+
        ..#....#.
        S.#....#.
        ..#......
        .....#...
        .........
    """
    return GridWorld(layout, name="DynaMaze")


def _parse(layout: str, legend: Mapping[str, Cell]) -> tuple[tuple[str, ...], list[Cell]]:
    """Rows of a layout and its cells along them."""
    rows = tuple(line.strip() for line in layout.strip().splitlines())
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"rows of the layout differ in length: {rows}")
    if unknown := set("".join(rows)) - set(legend):
        raise ValueError(f"characters {sorted(unknown)} of the layout are not in the legend")
    cells = [legend[character] for row in rows for character in row]
    starts = [cell for cell in cells if cell.start]
    if not starts or any(cell.terminal or cell.wall or cell.restart for cell in starts):
        raise ValueError("a layout needs a start, and a start is no wall, not terminal and does not send back")
    return rows, cells


def _entered(shape: tuple[int, int], wall: np.ndarray, absorbing: np.ndarray) -> np.ndarray:
    """The cell in which a move ends, `[S, A]` int32 by state and direction."""
    index = np.arange(shape[0] * shape[1])
    row, column = np.divmod(index, shape[1])
    entered = np.empty((len(index), len(MOVES)), np.int32)
    for direction, (down, right) in enumerate(MOVES):
        to_row, to_column = np.clip(row + down, 0, shape[0] - 1), np.clip(column + right, 0, shape[1] - 1)
        target = to_row * shape[1] + to_column
        entered[:, direction] = np.where(absorbing | wall[target], index, target)
    return entered
