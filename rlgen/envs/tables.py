"""Small processes given by their outcomes, simulated from the same numbers that planners read.

Sources: the random walk is examples 6.2 and 7.1, the windy grid example 6.5, the process of the maximisation bias
example 6.7 and Baird's star section 11.2 of Sutton and Barto, "Reinforcement Learning: An Introduction" (2018); the
line of ten cells is this project's own.  The blind cliff is that of arXiv:1511.05952.  Frozen Lake is gymnax's, of
which this file gives the arrays.

An observation is the index of the state.  States in which an episode has ended come last, so that the first ones are
those that a picture or an error over states is about.

Departure: there is no time limit but `params.max_steps_in_episode`, which truncates and never terminates.

Shape legend: `S` states, `A` actions, `K` outcomes that an action may have.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.environments.misc.frozen_lake import FrozenLake

from rlgen.core import Array, Key
from rlgen.envs import mdp
from rlgen.envs.grid import Cell, GridWorld
from rlgen.envs.mdp import MDP

MAX_STEPS = 10_000
LEFT, RIGHT = range(2)  # actions of the random walk and, from the first state, of the maximisation bias
DASHED, SOLID = range(2)  # actions of Baird's star
KINGS_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))  # rows and columns
_FROZEN_LAKE_ACTIONS = (3, 2, 1, 0)  # left, down, right, up, as directions of a `GridWorld`


class Outcomes(NamedTuple):
    """What each action may lead to."""

    successor: np.ndarray  # [S, A, K] int, the next state
    probability: np.ndarray  # [S, A, K], sums to one over the last axis
    reward: np.ndarray  # [S, A, K], expected reward of that outcome
    deviation: np.ndarray  # [S, A] standard deviation of the Gaussian reward
    start: np.ndarray  # [S] probability of starting there
    terminal: np.ndarray  # [S] bool


class Picture(NamedTuple):
    """How the first states lie in a plane.

    Attributes:
        shape: rows and columns; state `row * columns + column` lies there.
        directions: by how many rows and columns each action moves, for its arrow.
    """

    shape: tuple[int, int]
    directions: tuple[tuple[int, int], ...]


@struct.dataclass
class TableState(environment.EnvState):
    """Which state, and since when the episode runs."""

    time: Any  # int32 steps since the start of the episode
    index: Any  # int32


class Table(environment.Environment[TableState, environment.EnvParams]):
    """A process simulated from its outcomes.

    Attributes:
        outcomes: what it does.
        picture: how its states lie in a plane, or None where they do not.
    """

    def __init__(self, name: str, outcomes: Outcomes, *, picture: Picture | None = None, max_steps: int = MAX_STEPS):
        """Binds the outcomes.

        Args:
            name: name of the environment.
            outcomes: what it does.
            picture: how its states lie in a plane.
            max_steps: time limit by default.

        Raises:
            ValueError: if shapes disagree or probabilities are negative or do not sum to one.
        """
        super().__init__()
        self._name = name
        self._max_steps = max_steps
        self.outcomes = outcomes
        self.picture = picture
        with jax.ensure_compile_time_eval():  # what is kept must not belong to a trace that happens to be under way
            self._process = _process(outcomes)

    def mdp(self) -> MDP:
        """The process as arrays."""
        return self._process

    def step_env(
        self, key: Key, state: TableState, action: int | float | Array, params: environment.EnvParams
    ) -> tuple[Array, TableState, Array, Array, dict[str, Any]]:
        """Draws an outcome; the key is consumed."""
        outcome_key, noise_key = jax.random.split(key)
        at = state.index, jnp.asarray(action, jnp.int32)
        outcome = self._outcome(outcome_key, at)
        reward = jnp.asarray(self.outcomes.reward, jnp.float32)[*at, outcome]
        if self.outcomes.deviation.any():
            reward += jnp.asarray(self.outcomes.deviation, jnp.float32)[at] * jax.random.normal(noise_key)
        index = jnp.asarray(self.outcomes.successor, jnp.int32)[*at, outcome]
        state = TableState(time=state.time + 1, index=index)
        return index, state, reward, self.is_terminated(state, params), {}

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, TableState]:
        """Draws a state to start in; the key is consumed."""
        del params
        starts = np.flatnonzero(self.outcomes.start)
        index = jnp.int32(starts[0])
        if len(starts) > 1:
            shares = jnp.asarray(self.outcomes.start[starts], jnp.float32)
            index = jax.random.choice(key, jnp.asarray(starts, jnp.int32), p=shares)
        return index, TableState(time=jnp.int32(0), index=index)

    def observe(self, key: Key, state: TableState, action: Any, params: environment.EnvParams) -> Array:
        """The index of the state, an int32 scalar."""
        del key, action, params
        return state.index

    def is_terminated(self, state: TableState, params: environment.EnvParams) -> Array:
        """Whether the state is terminal."""
        del params
        return jnp.asarray(self.outcomes.terminal)[state.index]

    def _outcome(self, key: Key, at: tuple[Array, Array]) -> Array:
        """Draws which of the `K` outcomes comes, an int32 scalar."""
        if self.outcomes.successor.shape[-1] == 1:
            return jnp.int32(0)
        bounds = jnp.asarray(np.cumsum(self.outcomes.probability, axis=-1)[..., :-1], jnp.float32)
        return (jax.random.uniform(key) >= bounds[at]).sum(dtype=jnp.int32)

    @property
    def default_params(self) -> environment.EnvParams:
        """The time limit."""
        return environment.EnvParams(max_steps_in_episode=self._max_steps)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    @property
    def num_actions(self) -> int:
        """`A`."""
        return self.outcomes.successor.shape[1]

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Discrete:
        """Indices of actions."""
        del params
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: environment.EnvParams) -> spaces.Discrete:
        """Indices of states."""
        del params
        return spaces.Discrete(len(self.outcomes.terminal))

    def state_space(self, params: environment.EnvParams) -> spaces.Dict:
        """State and time."""
        time = spaces.Discrete(params.max_steps_in_episode + 1)
        return spaces.Dict({"time": time, "index": spaces.Discrete(len(self.outcomes.terminal))})


def random_walk(num_states: int = 19, ends: tuple[float, float] = (-1.0, 1.0)) -> Table:
    """A line on which an episode starts in the middle and ends beyond either end.

    Under a policy that goes left and right alike, the values of the states at discount one lie on a straight line from
    the reward of the left end to that of the right one.

    Args:
        num_states: states that do not end an episode, numbered from the left; the left end is state `num_states`, the
            right one the last.
        ends: reward of the step over the left and over the right end; all others earn nothing.

    Returns:
        The environment, with actions `LEFT` and `RIGHT`.
    """
    size = num_states + 2
    inner = np.arange(num_states)
    successor = np.repeat(np.arange(size)[:, None], 2, axis=1)
    successor[inner, LEFT] = np.where(inner == 0, num_states, inner - 1)
    successor[inner, RIGHT] = inner + 1
    successor[num_states - 1, RIGHT] = num_states + 1
    reward = np.zeros((size, 2))
    reward[0, LEFT], reward[num_states - 1, RIGHT] = ends
    picture = Picture((1, num_states), ((0, -1), (0, 1)))
    outcomes = _certain(successor, reward, start=num_states // 2, terminal=np.arange(size) >= num_states)
    return Table("RandomWalk", outcomes, picture=picture)


def line() -> Table:
    """Ten cells, left to right; action 0 goes one cell on and action 1 jumps over one.

    Entering a cell earns 1, but -10 in cells 3 and 6 and beyond the last one, and +10 in cell 9; these four end the
    episode.  At discount 0.9 every cell from which an episode goes on is worth 10.

    Returns:
        The environment; state 10 is what lies beyond the last cell.
    """
    successor = np.minimum(np.arange(11)[:, None] + (1, 2), 10)
    entering = np.ones(11)
    entering[[3, 6, 10]], entering[9] = -10, 10
    outcomes = _certain(successor, entering[successor], start=0, terminal=entering != 1)
    return Table("Line", outcomes, picture=Picture((1, 10), ((0, 1), (0, 2))))


def windy_grid(*, kings_moves: bool = False, stochastic: bool = False) -> Table:
    """Seven rows of ten cells with an upward wind in the middle; -1 a step.

    Args:
        kings_moves: whether there are eight moves instead of four.
        stochastic: whether a wind, where there is one, is one cell stronger or weaker in a third of the steps each.

    Returns:
        The environment; start (3, 0), goal (3, 7), whose state is 37.
    """
    rows, columns, goal = 7, 10, 37
    wind = np.array([0, 0, 0, 1, 1, 1, 2, 2, 1, 0])
    moves = np.array(KINGS_MOVES if kings_moves else KINGS_MOVES[:4])
    gusts = np.array([-1, 0, 1] if stochastic else [0])
    row, column = (axis[:, None, None] for axis in np.divmod(np.arange(rows * columns), columns))
    force = wind[column] + np.where(wind[column] > 0, gusts, 0)
    to_row = np.clip(row + moves[:, 0, None] - force, 0, rows - 1)
    to_column = np.clip(column + moves[:, 1, None], 0, columns - 1)
    successor = to_row * columns + to_column
    outcomes = Outcomes(
        successor=successor,
        probability=np.full(successor.shape, 1 / len(gusts)),
        reward=np.full(successor.shape, -1.0),
        deviation=np.zeros(successor.shape[:2]),
        start=np.eye(rows * columns)[3 * columns],
        terminal=np.arange(rows * columns) == goal,
    )
    picture = Picture((rows, columns), tuple((int(down), int(right)) for down, right in moves))
    return Table("WindyGrid", outcomes, picture=picture)


def baird() -> Table:
    """Baird's star: seven states without reward or end, on which off-policy bootstrapping with features diverges.

    Returns:
        The environment: `DASHED` goes to one of the first six states, `SOLID` to the last one.
    """
    successor = np.broadcast_to(np.stack([np.arange(6), np.full(6, 6)]), (7, 2, 6))
    outcomes = Outcomes(
        successor=successor,
        probability=np.full(successor.shape, 1 / 6),
        reward=np.zeros(successor.shape),
        deviation=np.zeros((7, 2)),
        start=np.full(7, 1 / 7),
        terminal=np.zeros(7, bool),
    )
    return Table("Baird", outcomes, max_steps=2**30)


def maximisation_bias(num_actions: int = 10, mean: float = -0.1, deviation: float = 1.0) -> Table:
    """A choice between the end and a state in which every action ends the episode with a noisy, bad reward.

    From state 0, `RIGHT` ends the episode and `LEFT` leads to state 1, both without reward.  An episode's length less
    one is therefore whether it went left.

    Args:
        num_actions: in state 1; state 0 has two, and what is beyond them goes right.
        mean: of the reward in state 1.
        deviation: its standard deviation.

    Returns:
        The environment; state 2 is the end.
    """
    successor = np.full((3, num_actions), 2)
    successor[0, LEFT] = 1
    reward = np.zeros((3, num_actions))
    reward[1] = mean
    outcomes = _certain(successor, reward, start=0, terminal=np.arange(3) == 2)
    noise = np.zeros((3, num_actions))
    noise[1] = deviation
    return Table("MaximisationBias", outcomes._replace(deviation=noise))


def blind_cliff(num_states: int = 12) -> Table:
    """A path along which one of two actions falls off a cliff, and only the last step is paid: 1.

    Which action goes on alternates, so that what is right in one state says nothing of the next.  A random policy is
    paid in one of `2 ** num_states` episodes: such a success is stored among thousands of failures.

    Args:
        num_states: that do not end an episode.

    Returns:
        The environment: action 0 goes on from even states, action 1 from odd ones; the last state is the end.
    """
    inner = np.arange(num_states)
    successor = np.full((num_states + 1, 2), num_states)
    successor[inner, inner % 2] = inner + 1
    reward = np.zeros((num_states + 1, 2))
    reward[num_states - 1, (num_states - 1) % 2] = 1
    return Table("BlindCliff", _certain(successor, reward, start=0, terminal=np.arange(num_states + 1) == num_states))


def process(native: environment.Environment) -> MDP:
    """The arrays of a tabular environment.

    Args:
        native: a `Table`, a `GridWorld` or gymnax's Frozen Lake.

    Returns:
        The process, its actions numbered as the environment's.

    Raises:
        TypeError: if the environment is none of these.
    """
    # Inside a trace, too, the arrays are constants.
    with jax.ensure_compile_time_eval():
        if isinstance(native, FrozenLake):
            return _frozen_lake(native)
        if isinstance(native, Table | GridWorld):
            return native.mdp()
    raise TypeError(f"{native.name} is no tabular environment")


def _frozen_lake(native: FrozenLake) -> MDP:
    """Frozen Lake's arrays: those of a grid world in which a move goes astray to either side."""
    goal, hole, frozen = native.reward_schedule
    legend = {
        "S": Cell(reward=frozen, start=True),
        "F": Cell(reward=frozen),
        "H": Cell(reward=hole, terminal=True),
        "G": Cell(reward=goal, terminal=True),
    }
    tiles = np.array(list("SFHG"))[np.asarray(native.desc)]
    layout = "\n".join("".join(row) for row in tiles)
    move_probability = native.success_rate if native.is_slippery else 1.0
    world = GridWorld(layout, legend, move_probability=move_probability).mdp()
    actions = np.array(_FROZEN_LAKE_ACTIONS)
    return world._replace(transition=world.transition[:, actions], reward=world.reward[:, actions])


def _certain(successor: np.ndarray, reward: np.ndarray, *, start: int, terminal: np.ndarray) -> Outcomes:
    """Outcomes `[S, A]` of a process without chance."""
    return Outcomes(
        successor=successor[..., None],
        probability=np.ones((*successor.shape, 1)),
        reward=reward[..., None],
        deviation=np.zeros(successor.shape),
        start=np.eye(len(terminal))[start],
        terminal=terminal,
    )


def _process(outcomes: Outcomes) -> MDP:
    """The arrays of outcomes: probabilities of equal next states add up, rewards are averaged."""
    size, shape = len(outcomes.terminal), np.shape(outcomes.successor)
    shapes = tuple(map(np.shape, (outcomes.probability, outcomes.reward, outcomes.deviation)))
    if len(shape) != 3 or shapes != (shape, shape, shape[:2]):
        raise ValueError(f"probability, reward and deviation have shapes {shapes}, successor {shape}")
    transition = (outcomes.probability[..., None] * np.eye(size)[outcomes.successor]).sum(axis=2)
    reward = (outcomes.probability * outcomes.reward).sum(axis=-1)
    return mdp.build(transition, reward, outcomes.start, outcomes.terminal)
