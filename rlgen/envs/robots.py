"""What tells MuJoCo's robots apart: pendulums, a reacher, a swimmer, a hopper, a walker and half a cheetah.

Source: version 5 of gymnasium's tasks (gymnasium.farama.org/environments/mujoco, arXiv:2407.17032) in frame skips,
observations, rewards, ends and starts.  An end of a healthy interval counts as outside.

Shape legend: `Q` positions and `V` velocities of joints, `P` points that are watched, `O` numbers that are observed.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment

from rlgen.core import Array


@struct.dataclass
class RobotState(environment.EnvState):
    """Everything about a robot."""

    time: Any  # int32 actions since the start of the episode
    position: Any  # [Q]
    velocity: Any  # [V]
    points: Any  # [P, 3] where the points were that are watched, at the simulation's last look
    force: Any  # [V] of contacts and stops, likewise


@dataclasses.dataclass(frozen=True)
class Robot:
    """What tells one task from another.

    Attributes:
        file: name of the model.
        frame_skip: steps of the simulation for an action.
        noise: how far positions at the start are from the model's, uniformly.
        speed_noise: the same of velocities, or their standard deviation.
        is_normal: whether velocities at the start are normal instead of uniform.
        goal_radius: of the disc around the origin that a goal is drawn in, whose place is the last two positions; 0
            where there is none.
        num_hidden: positions at the front that are not observed.
        speed_limit: beyond which observed velocities are clipped.
        observe: what is observed instead, `state -> [O]`.
        forward: reward for a metre a second along the first position.
        effort: cost of the sum of an action's squares.
        survival: reward of an action after which the robot is healthy.
        bonus: what is earned besides, `state -> scalar`.
        healthy: index, lower and upper bound of what has to stay between them: of positions, velocities and the
            coordinates of points, in a row.  Episodes end otherwise.
        sites: names of the sites that are watched.
        bodies: names of the bodies that are watched, after the sites.
        max_steps: time limit of an episode.
    """

    file: str
    frame_skip: int
    noise: float
    speed_noise: float
    is_normal: bool = False
    goal_radius: float = 0.0
    num_hidden: int = 0
    speed_limit: float = math.inf
    observe: Callable[[RobotState], Array] | None = None
    forward: float = 0.0
    effort: float = 0.0
    survival: float = 0.0
    bonus: Callable[[RobotState], Array] | None = None
    healthy: tuple[tuple[int, float, float], ...] = ()
    sites: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()
    max_steps: int = 1000


def _see_pendulums(state: RobotState) -> Array:
    """Cart, sines and cosines of both angles, velocities, and the force of the rail's ends on the cart, `[9]`."""
    cart, angles = state.position[:1], state.position[1:]
    moving = jnp.clip(jnp.concatenate([state.velocity, state.force[:1]]), -10, 10)
    return jnp.concatenate([cart, jnp.sin(angles), jnp.cos(angles), moving])


def _pendulums_bonus(state: RobotState) -> Array:
    """Less for a tip away from where it is when both stand, and for turning."""
    x, _, height = state.points[0]
    _, first, second = state.velocity
    return -(0.01 * x**2 + (height - 2) ** 2 + 1e-3 * first**2 + 5e-3 * second**2)


def _see_reacher(state: RobotState) -> Array:
    """Cosines and sines of both angles, the goal, the arm's velocities, and the way from goal to tip, `[10]`."""
    angles, goal = state.position[:2], state.position[2:]
    way = state.points[0] - state.points[1]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), goal, state.velocity[:2], way[:2]])


def _reacher_bonus(state: RobotState) -> Array:
    """Less for a tip away from the goal."""
    return -jnp.linalg.norm(state.points[0] - state.points[1])


_legged = functools.partial(
    Robot,
    frame_skip=4,
    noise=5e-3,
    speed_noise=5e-3,
    num_hidden=1,
    speed_limit=10.0,
    forward=1.0,
    effort=1e-3,
    survival=1.0,
)

ROBOTS = {
    "InvertedPendulum": Robot(
        "inverted_pendulum.xml", 2, noise=0.01, speed_noise=0.01, survival=1.0, healthy=((1, -0.2, 0.2),)
    ),
    "InvertedDoublePendulum": Robot(
        "inverted_double_pendulum.xml",
        5,
        noise=0.1,
        speed_noise=0.1,
        is_normal=True,
        observe=_see_pendulums,
        survival=10.0,
        bonus=_pendulums_bonus,
        healthy=((8, 1.0, math.inf),),  # height of the tip
        sites=("tip",),
    ),
    "Reacher": Robot(
        "reacher.xml",
        2,
        noise=0.1,
        speed_noise=0.005,
        goal_radius=0.2,
        observe=_see_reacher,
        effort=1.0,
        bonus=_reacher_bonus,
        bodies=("fingertip", "target"),
        max_steps=50,
    ),
    "Swimmer": Robot("swimmer.xml", 4, noise=0.1, speed_noise=0.1, num_hidden=2, forward=1.0, effort=1e-4),
    "Hopper": _legged(
        "hopper.xml",
        healthy=((1, 0.7, math.inf), (2, -0.2, 0.2), *((index, -100.0, 100.0) for index in range(2, 12))),
    ),
    "Walker2d": _legged("walker2d_v5.xml", healthy=((1, 0.8, 2.0), (2, -1.0, 1.0))),
    "HalfCheetah": Robot(
        "half_cheetah.xml", 5, noise=0.1, speed_noise=0.1, is_normal=True, num_hidden=1, forward=1.0, effort=0.1
    ),
}
