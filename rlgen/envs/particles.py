"""Particles that push each other on a plane: the multi-agent particle environments, arXiv:1706.02275.

Agents are discs that accelerate; what they touch pushes them back, the harder the deeper they are in it.  Landmarks do
not move.  What agents want and see is a `Scenario` (`rlgen.envs.scenarios`).  Physics, observations and rewards are
those of version 3 of the tasks (github.com/Farama-Foundation/MPE2), without its messages and noise, which the three
scenarios do not use: what others said is observed as zeros where the original does so.

An action is one of five, to stay or to accelerate to the left, to the right, down or up; or with `continuous` five
numbers, how much of each.

Shape legend: `A` agents, `L` landmarks, `E = A + L` bodies, agents first; a place is a pair `(x, y)`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlgen.core import Array, Key

STEP = 0.1  # seconds
DAMPING = 0.25  # share of its velocity that a body loses in a step
STIFFNESS = 100.0  # force for a metre of depth
SOFTNESS = 1e-3  # metres over which contact sets in
# Of each action, the acceleration along x and y.
PUSHES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)


@struct.dataclass
class ParticlesState(environment.EnvState):
    """Where everybody is."""

    time: Any  # int32 steps since the start of the episode
    place: Any  # [E, 2]
    velocity: Any  # [A, 2]
    goal: Any  # int32, the landmark that counts, where one does


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What tells one game from another.

    Attributes:
        agents: their names.
        num_landmarks: `L`.
        sizes: radius of each agent.
        landmark_size: radius of each landmark.
        accelerations: of each agent.
        top_speeds: of each agent; infinity for no limit.
        solid_agents: whether agents push each other.
        solid_landmarks: whether landmarks push agents.
        landmark_reach: how far from the middle landmarks lie at most, along each axis.
        has_goal: whether one of the landmarks is drawn to be the one that counts.
        observe: `(scenario, state) -> ` an observation for each agent.
        reward: `(scenario, state) -> ` a reward for each agent.
    """

    agents: tuple[str, ...]
    num_landmarks: int
    sizes: tuple[float, ...]
    landmark_size: float
    accelerations: tuple[float, ...]
    top_speeds: tuple[float, ...]
    observe: Callable[["Scenario", ParticlesState], tuple[Array, ...]]
    reward: Callable[["Scenario", ParticlesState], tuple[Array, ...]]
    solid_agents: bool = True
    solid_landmarks: bool = False
    landmark_reach: float = 1.0
    has_goal: bool = False

    @property
    def num_agents(self) -> int:
        """`A`."""
        return len(self.agents)

    @property
    def reaches(self) -> np.ndarray:
        """At what distance each agent touches each body, `[A, E]`."""
        sizes = np.array(self.sizes, np.float32)
        everyone = np.concatenate([sizes, np.full(self.num_landmarks, self.landmark_size, np.float32)])
        return sizes[:, None] + everyone

    @property
    def pushed(self) -> np.ndarray:
        """Whether each agent is pushed by each body, `[A, E]` bool."""
        agents = ~np.eye(self.num_agents, dtype=bool) & self.solid_agents
        return np.concatenate([agents, np.full((self.num_agents, self.num_landmarks), self.solid_landmarks)], axis=1)


def distances(place: Array, num_agents: int) -> tuple[Array, Array]:
    """How far each agent is from each body.

    Args:
        place: `[E, 2]`.
        num_agents: `A`.

    Returns:
        The ways from the bodies to the agents, `[A, E, 2]`, and their lengths, `[A, E]`, 1 from oneself.
    """
    ways = place[:num_agents, None] - place
    self_ways = np.eye(num_agents, len(place), dtype=np.float32)  # a length of 0 has no gradient
    return ways, jnp.sqrt(jnp.square(ways).sum(-1) + self_ways)


def touching(scenario: Scenario, state: ParticlesState) -> Array:
    """Whether each agent touches each other one, `[A, A]` bool; not itself."""
    num = scenario.num_agents
    _, length = distances(state.place[:num], num)
    return (length < scenario.reaches[:, :num]) & ~np.eye(num, dtype=bool)


def move(scenario: Scenario, state: ParticlesState, push: Array) -> ParticlesState:
    """Moves everybody for one step, as version 3 of the tasks does: places go before velocities.

    Args:
        scenario: of the game.
        state: of the bodies.
        push: acceleration of each agent, `[A, 2]`.

    Returns:
        The state a step later.
    """
    num = scenario.num_agents
    if scenario.pushed.any():
        ways, length = distances(state.place, num)
        depth = SOFTNESS * jnp.logaddexp(0.0, (scenario.reaches - length) / SOFTNESS)
        force = STIFFNESS * scenario.pushed * depth / length
        push = push + (force[..., None] * ways).sum(1)
    place = state.place.at[:num].add(STEP * state.velocity)
    velocity = (1 - DAMPING) * state.velocity + STEP * push
    top = np.array(scenario.top_speeds, np.float32)
    if np.isfinite(top).any():
        speed = jnp.linalg.norm(velocity, axis=-1)
        slower = jnp.where(speed > top, top / jnp.maximum(speed, 1e-12), 1.0)
        velocity = slower[:, None] * velocity
    return ParticlesState(time=state.time + 1, place=place, velocity=velocity, goal=state.goal)


class Particles(environment.Environment[ParticlesState, environment.EnvParams]):
    """A game of several agents: observations, actions and rewards are tuples with an entry for each.

    Nothing ever terminates; episodes are cut by the time limit.

    Attributes:
        scenario: what is played.
        agents: names of the agents.
        continuous: whether actions are five numbers instead of one of five.
    """

    def __init__(self, name: str, scenario: Scenario, continuous: bool = False):
        """Takes a game.

        Args:
            name: of the environment.
            scenario: what is played.
            continuous: whether actions are five numbers between 0 and 1.
        """
        super().__init__()
        self._name, self.scenario, self.continuous = name, scenario, continuous

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents."""
        return self.scenario.agents

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Any, ParticlesState]:
        """Puts everybody anywhere, at rest; the key is consumed."""
        del params
        scenario = self.scenario
        agents_key, landmarks_key, goal_key = jax.random.split(key, 3)
        reach = scenario.landmark_reach
        agents = jax.random.uniform(agents_key, (scenario.num_agents, 2), minval=-1.0, maxval=1.0)
        landmarks = jax.random.uniform(landmarks_key, (scenario.num_landmarks, 2), minval=-reach, maxval=reach)
        goal = jax.random.randint(goal_key, (), 0, scenario.num_landmarks) if scenario.has_goal else jnp.int32(0)
        state = ParticlesState(
            time=jnp.int32(0), place=jnp.concatenate([agents, landmarks]), velocity=jnp.zeros_like(agents), goal=goal
        )
        return scenario.observe(scenario, state), state

    def step_env(
        self, key: Key, state: ParticlesState, action: Any, params: environment.EnvParams
    ) -> tuple[Any, ParticlesState, Any, Array, dict[str, Any]]:
        """Moves everybody; the key is not used."""
        del key
        scenario = self.scenario
        shares = jnp.stack(action) if self.continuous else jax.nn.one_hot(jnp.stack(action), len(PUSHES))
        push = (shares[..., None] * PUSHES).sum(-2) * np.array(scenario.accelerations, np.float32)[:, None]
        state = move(scenario, state, push)
        observations = scenario.observe(scenario, state)
        return observations, state, scenario.reward(scenario, state), self.is_terminated(state, params), {}

    def observe(self, key: Key, state: ParticlesState, action: Any, params: environment.EnvParams) -> Any:
        """What each agent sees."""
        del key, action, params
        return self.scenario.observe(self.scenario, state)

    def is_terminated(self, state: ParticlesState, params: environment.EnvParams) -> Array:
        """Never."""
        del state, params
        return jnp.bool_(False)

    @property
    def default_params(self) -> environment.EnvParams:
        """The time limit."""
        return environment.EnvParams(max_steps_in_episode=25)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    @property
    def num_actions(self) -> int:
        """Of an agent, or numbers of its action."""
        return len(PUSHES)

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Tuple:
        """One of five, or five numbers, for each agent."""
        del params
        one = spaces.Box(0.0, 1.0, (len(PUSHES),)) if self.continuous else spaces.Discrete(len(PUSHES))
        return spaces.Tuple([one] * self.scenario.num_agents)

    def observation_space(self, params: environment.EnvParams) -> spaces.Tuple:
        """A vector for each agent."""
        seen, _ = jax.eval_shape(lambda key: self.reset_env(key, params), jax.random.key(0))
        return spaces.Tuple([spaces.Box(-math.inf, math.inf, each.shape) for each in seen])

    def state_space(self, params: environment.EnvParams) -> spaces.Dict:
        """Time, places, velocities and the goal."""
        scenario = self.scenario
        everywhere = (-math.inf, math.inf)
        return spaces.Dict(
            {
                "time": spaces.Discrete(params.max_steps_in_episode + 1),
                "place": spaces.Box(*everywhere, (scenario.num_agents + scenario.num_landmarks, 2)),
                "velocity": spaces.Box(*everywhere, (scenario.num_agents, 2)),
                "goal": spaces.Discrete(scenario.num_landmarks),
            }
        )
