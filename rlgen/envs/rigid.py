"""A rigid hull on two hinged legs: what the bodies are, where they may be, and what impulses do to them.

Source: the mass matrix of bodies joined at one hinge, in coordinates that hold the hinge exactly; how contacts are then
solved, and what differs from Box2D, is in `rlgen.envs.impulses` (doi:10.1023/A:1008292328909).

Code is written with one scalar for every number, which a batch of worlds turns into long vectors.

Shape legend: scalars throughout, vectors are pairs `(x, y)`; the bodies are hull, first leg and second leg.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rlgen.core import Array

Vector = tuple[Any, Any]

LINEAR_SLOP, ANGULAR_SLOP = 0.005, 2 / 180 * np.pi  # metres and radians of overlap that are let be
SKIN = 0.02  # distance of two bodies that touch, both skins together
IMPACT = SKIN - 3 * LINEAR_SLOP  # a body that comes so near within a step touches at its end
FAR = 1e9  # separation of what does not touch


class Body(NamedTuple):
    """What a body weighs and where; a hinge is its origin."""

    mass: float
    centre: tuple[float, float]  # of mass, from the hinge
    inertia: float  # about the centre of mass


class Leg(NamedTuple):
    """How a leg is hinged to the hull; a leg's relative angle counts outwards, from stop to stop."""

    side: int  # 1 or -1, the sign of angles that count outwards
    inner: float  # angle of the stop at which the motor holds it
    outer: float  # angle of the other stop
    speed: float  # of the motor, inwards
    impulse: float  # at most that of the motor's torque within a step
    rise: float  # by how much more it holds the leg at the inner stop with each step there


class World(NamedTuple):
    """Everything that stays the same."""

    bodies: tuple[Body, Body, Body]  # hull and legs
    legs: tuple[Leg, Leg]
    hull: tuple[tuple[float, float], ...]  # corners of the hull, counter-clockwise, from the hinge
    foot: tuple[float, float]  # half the width and half the height of a leg, a box about its centre of mass
    spacing: float  # horizontal length of a piece of ground
    friction: float
    gravity: float
    duration: float  # of a step


class Motion(NamedTuple):
    """Coordinates, velocities or impulses of the five ways to move."""

    x: Any  # of the hinge
    y: Any
    turns: tuple[Any, ...]  # of hull and legs, each for itself


Speeds = tuple[tuple[Any, Any, Any], ...]  # of each body: x and y of its centre of mass, and its turn


class Moving(NamedTuple):
    """Where the bodies are, how they move, and how much their motors did last."""

    pose: Motion
    speeds: Speeds
    motors: tuple[Any, ...]  # impulses, inwards


class Inertia(NamedTuple):
    """The mass matrix of a pose, `[[total, levers], [levers', spins]]`."""

    arms: tuple[Vector, ...]  # centres of mass, from the hinge
    levers: tuple[Vector, ...]  # momentum of the whole when a body turns
    spins: tuple[float, ...]  # moments of inertia about the hinge
    inverse: tuple[Any, Any, Any]  # xx, xy and yy of the inverse mass that the hinge feels


class Contacts(NamedTuple):
    """Two points for each leg at which it touches the ground, the deepest first."""

    normal: tuple[Array, Array]  # x and y, each [2, 2], from the ground
    arm: tuple[Array, Array]  # of the point from the hinge
    separation: Array  # [2, 2], `FAR` where there is no such point


def body(corners: Sequence[tuple[float, float]], density: float, hinge: tuple[float, float] = (0.0, 0.0)) -> Body:
    """Weighs a polygon.

    Args:
        corners: counter-clockwise, in metres.
        density: in kilograms a square metre.
        hinge: where the hinge is.

    Returns:
        Mass, centre of mass from the hinge, and moment of inertia about that centre.
    """
    first = np.asarray(corners, np.float64)
    second = np.roll(first, -1, axis=0)
    areas = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    centre = (areas[:, None] * (first + second)).sum(0) / (3 * areas.sum())
    squares = (first**2 + first * second + second**2).sum(1)
    inertia = (areas * squares).sum() / 6 - areas.sum() * (centre**2).sum()
    x, y = centre - np.asarray(hinge)
    return Body(float(density * areas.sum()), (float(x), float(y)), float(density * inertia))


def arms_of(turns: tuple[Any, ...], world: World) -> tuple[Vector, ...]:
    """Where the centres of mass are, from the hinge, if the bodies are turned so."""
    arms = []
    for angle, part in zip(turns, world.bodies, strict=True):
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        x, y = part.centre
        arms.append((cosine * x - sine * y, sine * x + cosine * y))
    return arms[0], arms[1], arms[2]


def inertia_of(pose: Motion, world: World) -> Inertia:
    """Computes the mass matrix of a pose.

    Args:
        pose: of the bodies.
        world: what they are.

    Returns:
        The matrix, in parts.
    """
    arms = arms_of(pose.turns, world)
    levers = tuple((-part.mass * y, part.mass * x) for part, (x, y) in zip(world.bodies, arms, strict=True))
    spins = tuple(part.inertia + part.mass * float(np.square(part.centre).sum()) for part in world.bodies)
    total = sum(part.mass for part in world.bodies)
    xx = total - sum(x * x / spin for (x, _), spin in zip(levers, spins, strict=True))
    yy = total - sum(y * y / spin for (_, y), spin in zip(levers, spins, strict=True))
    xy = -sum(x * y / spin for (x, y), spin in zip(levers, spins, strict=True))
    scale = 1 / (xx * yy - xy * xy)
    return Inertia(arms, levers, spins, (yy * scale, -xy * scale, xx * scale))


def respond(inertia: Inertia, impulse: Motion) -> Motion:
    """Computes the change of velocity that impulses make.

    Args:
        inertia: of the pose.
        impulse: at the hinge, and on the turn of each body.

    Returns:
        The change of velocity.
    """
    parts = list(zip(inertia.levers, inertia.spins, impulse.turns, strict=True))
    push_x = impulse.x - sum(lever[0] * turn / spin for lever, spin, turn in parts)
    push_y = impulse.y - sum(lever[1] * turn / spin for lever, spin, turn in parts)
    xx, xy, yy = inertia.inverse
    x, y = xx * push_x + xy * push_y, xy * push_x + yy * push_y
    hull, first, second = ((turn - lever[0] * x - lever[1] * y) / spin for lever, spin, turn in parts)
    return Motion(x, y, (hull, first, second))


def add(motion: Motion, change: Motion, factor: Any) -> Motion:
    """Adds a multiple of a change."""
    hull, first, second = (old + factor * new for old, new in zip(motion.turns, change.turns, strict=True))
    return Motion(motion.x + factor * change.x, motion.y + factor * change.y, (hull, first, second))
