"""Moves a hull on two hinged legs as Box2D would, by impulses of contacts, motors and stops.

Sources: contacts with friction as a linear complementarity problem on velocities, doi:10.1023/A:1008292328909; its
tolerances and the order of a step are those of Box2D 2.3, whose sequential impulses solve it.

Departures from Box2D, which gives every body three coordinates and joins them by impulses in 180 sweeps of a step:

* The hinge holds exactly, for a pose has five coordinates: where it is, and the angles of the three bodies.
* A leg's motor and its two stops are one torque, bounded below and above, which is solved for together with each
  impulse of that leg's contacts in turn.  The light legs between hull and ground, which make plain sweeps slow, cost
  nothing so, and a few sweeps that start from zero are enough.
* A leg keeps the two deepest of the points at which it touches the two pieces of ground below it.
* A fast body is not stopped within a step at the time of impact.
* The hull feels no contact.

Shape legend: scalars throughout, vectors are pairs `(x, y)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import Array
from rlgen.envs.rigid import (
    ANGULAR_SLOP,
    LINEAR_SLOP,
    SKIN,
    Contacts,
    Inertia,
    Leg,
    Motion,
    Moving,
    Speeds,
    Vector,
    World,
    add,
    arms_of,
    inertia_of,
    respond,
)

NUM_SWEEPS = 20  # over all impulses of a step
NUM_CORRECTIONS = 3  # sweeps over what overlaps after it
PULL, MAX_PULL, MAX_TURN = 0.2, 0.2, 8 / 180 * np.pi  # share of the overlap corrected by a sweep, and its limits


class Torque(NamedTuple):
    """The torque of a leg's motor and stops."""

    leg: int
    joint: Leg
    angle: Any  # of the leg before the step, outwards
    most: Any  # impulse of the motor
    response: Motion  # what it changes
    effect: Any  # on how fast the leg turns outwards


class Row(NamedTuple):
    """An impulse of a contact, in one direction at one point."""

    torque: Torque  # of that leg
    direction: Vector
    lever: Any  # about the hinge
    response: Motion  # what it changes
    effect: Any  # on how fast the point moves in that direction
    cross: Any  # on how fast the leg turns outwards
    separation: Any  # skins aside


Rows = Sequence[tuple[Row, Row]]  # normal and tangent of every point of contact


def advance(moving: Moving, impulse: Motion, contacts: Contacts, *, world: World) -> Moving:
    """Moves the bodies for one step.

    Args:
        moving: bodies before the step.
        impulse: what pushes the bodies at its start, gravity aside.
        contacts: of that pose.
        world: what the bodies are.

    Returns:
        The bodies after the step.
    """
    pose, speeds, motors = moving
    inertia = inertia_of(pose, world)
    velocity = respond(inertia, add(_momentum(inertia, speeds, world), impulse, 1.0))
    velocity = velocity._replace(y=velocity.y + world.gravity * world.duration)
    torques = [_torque(pose, inertia, leg, world.legs[leg], motors[leg]) for leg in range(2)]
    rows = [_rows(inertia, torque, point, contacts) for torque in torques for point in range(2)]
    velocity, impulses = _solved(velocity, rows, world)
    shift = _corrected(velocity, torques, rows, world)
    x, y, turn = velocity
    speeds = tuple(
        (x - spin * arm_y, y + spin * arm_x, spin) for spin, (arm_x, arm_y) in zip(turn, inertia.arms, strict=True)
    )
    turns = tuple(
        angle + world.duration * spin + more
        for angle, spin, more in zip(pose.turns, velocity.turns, shift.turns, strict=True)
    )
    motors = tuple(_motor(torque, impulse) for torque, impulse in zip(torques, impulses, strict=True))
    return Moving(_placed(pose, shift._replace(turns=turns), speeds, inertia, world), speeds, motors)


def _momentum(inertia: Inertia, speeds: Speeds, world: World) -> Motion:
    """What the bodies' momenta are to the hinge, and about it."""
    moving = list(zip(world.bodies, speeds, inertia.arms, strict=True))
    turns = tuple(part.mass * (arm[0] * y - arm[1] * x) + part.inertia * spin for part, (x, y, spin), arm in moving)
    return Motion(
        sum(part.mass * x for part, (x, _, _), _ in moving), sum(part.mass * y for part, (_, y, _), _ in moving), turns
    )


def _placed(pose: Motion, target: Motion, speeds: Speeds, inertia: Inertia, world: World) -> Motion:
    """Places the hinge so that the common centre of mass goes on straight.

    `target` has the angles after the step, and how far the hinge is moved aside.
    """
    total = sum(part.mass for part in world.bodies)
    x, y = pose.x + target.x, pose.y + target.y
    arms = arms_of(target.turns, world)
    for part, speed, old, new in zip(world.bodies, speeds, inertia.arms, arms, strict=True):
        x += part.mass / total * (old[0] - new[0] + world.duration * speed[0])
        y += part.mass / total * (old[1] - new[1] + world.duration * speed[1])
    return Motion(x, y, target.turns)


def _outward(motion: Motion, torque: Torque) -> Any:
    """How a leg turns, relative to the hull and outwards."""
    return torque.joint.side * (motion.turns[1 + torque.leg] - motion.turns[0])


def _along(motion: Motion, row: Row) -> Any:
    """How the point of a contact moves in its direction."""
    return row.direction[0] * motion.x + row.direction[1] * motion.y + row.lever * motion.turns[1 + row.torque.leg]


def _torque(pose: Motion, inertia: Inertia, leg: int, joint: Leg, motor: Any) -> Torque:
    turns = [-float(joint.side), 0.0, 0.0]
    turns[1 + leg] = float(joint.side)
    response = respond(inertia, Motion(0.0, 0.0, tuple(turns)))
    bare = Torque(leg, joint, 0.0, 0.0, response, 0.0)
    angle = _outward(pose, bare)
    most = jnp.where(angle <= joint.inner, jnp.minimum(motor + joint.rise, joint.impulse), joint.impulse)
    return bare._replace(angle=angle, most=most, effect=_outward(response, bare))


def _motor(torque: Torque, impulse: Any) -> Any:
    """The impulse of a leg's motor in a step, of which at the inner stop more cannot be told than its bound."""
    joint = torque.joint
    return jnp.where(torque.angle <= joint.inner, torque.most, jnp.clip(-impulse, -joint.impulse, joint.impulse))


def _rows(inertia: Inertia, torque: Torque, point: int, contacts: Contacts) -> tuple[Row, Row]:
    """The impulses along the normal and along the ground."""
    place = torque.leg, point
    (x, y), arm = (tuple(part[place] for part in parts) for parts in (contacts.normal, contacts.arm))
    rows = []
    for direction in ((x, y), (y, -x)):
        lever = arm[0] * direction[1] - arm[1] * direction[0]
        turns: list[Any] = [0.0, 0.0, 0.0]
        turns[1 + torque.leg] = lever
        response = respond(inertia, Motion(*direction, tuple(turns)))
        bare = Row(torque, direction, lever, response, 0.0, _outward(response, torque), contacts.separation[place])
        rows.append(bare._replace(effect=_along(response, bare)))
    return rows[0], rows[1]


def _solved(velocity: Motion, rows: Rows, world: World) -> tuple[Motion, tuple[Any, Any]]:
    """Finds the impulses of contacts, motors and stops, and gives the velocity after them and the legs' torques."""

    def sweep(_: Array, carry: Any) -> Any:
        velocity, torques, impulses = carry[0], list(carry[1]), list(carry[2])
        for index, (normal, along) in enumerate(rows):
            grip = world.friction * impulses[2 * index]
            most = jnp.where(normal.separation <= SKIN, jnp.inf, 0.0)
            # Along the ground first: it matters more that bodies do not overlap.
            for place, row, limits in ((2 * index + 1, along, (-grip, grip)), (2 * index, normal, (0.0, most))):
                leg = row.torque.leg
                old = torques[leg], impulses[place]
                torques[leg], impulses[place] = new = _pair(velocity, row, old, limits)
                velocity = add(velocity, row.torque.response, new[0] - old[0])
                velocity = add(velocity, row.response, new[1] - old[1])
        return velocity, tuple(torques), tuple(impulses)

    zero = jnp.zeros_like(velocity.x)
    return jax.lax.fori_loop(0, NUM_SWEEPS, sweep, (velocity, (zero,) * 2, (zero,) * (2 * len(rows))))[:2]


def _pair(velocity: Motion, row: Row, old: tuple[Any, Any], limits: tuple[Any, Any]) -> tuple[Any, Any]:
    """Solves for a leg's torque and an impulse together, each within its bounds.

    With `u = A x + b`: each `u` is what it should be, or `x` is at the bound to which that pushes it.
    """
    torque, spin = row.torque, _outward(velocity, row.torque)
    low, high, speed = _bounds(torque, spin, old[0])
    spin = spin - speed - torque.effect * old[0] - row.cross * old[1]
    slip = _along(velocity, row) - row.cross * old[0] - row.effect * old[1]
    free = (row.cross * slip - row.effect * spin) / (torque.effect * row.effect - row.cross * row.cross)
    impulse = jnp.clip(-(slip + row.cross * jnp.clip(free, low, high)) / row.effect, *limits)
    return jnp.clip(-(spin + row.cross * impulse) / torque.effect, low, high), impulse


def _bounds(torque: Torque, spin: Any, impulse: Any) -> tuple[Any, Any, Any]:
    """The lowest and the highest torque, and how fast the leg turns if the torque is in between.

    Between its stops a leg is turned inwards by the motor.  At the inner stop it rests unless it is pushed outwards
    by more than the motor's torque.  At the outer stop that stop may help the motor.
    """
    joint, most = torque.joint, torque.most
    inner = torque.angle <= joint.inner
    held = (torque.angle >= joint.outer) & ((spin > 0) | (impulse < -most))
    low = jnp.where(held, -jnp.inf, -most)
    high = jnp.where(inner, jnp.inf, jnp.where(held, -most, most))
    return low, high, jnp.where(inner | held, 0.0, -joint.speed)


def _corrected(velocity: Motion, torques: Sequence[Torque], rows: Rows, world: World) -> Motion:
    """How far bodies are moved apart after the step, beyond what their velocity does."""
    normals = [row for row, _ in rows]
    gaps = [row.separation - SKIN + LINEAR_SLOP + world.duration * _along(velocity, row) for row in normals]
    angles = [torque.angle + world.duration * _outward(velocity, torque) for torque in torques]

    def sweep(_: Array, moved: Motion) -> Motion:
        for row, gap in zip(normals, gaps, strict=True):
            pull = jnp.clip(PULL * (gap + _along(moved, row)), -MAX_PULL, 0.0)
            moved = add(moved, row.response, jnp.where(row.separation <= SKIN, -pull / row.effect, 0.0))
        for torque, angle in zip(torques, angles, strict=True):
            joint, turned = torque.joint, angle + _outward(moved, torque)
            inner = jnp.clip(turned - joint.inner + ANGULAR_SLOP, -MAX_TURN, 0.0)
            outer = jnp.clip(turned - joint.outer - ANGULAR_SLOP, 0.0, MAX_TURN)
            is_outer = torque.angle >= joint.outer
            excess = jnp.where(torque.angle <= joint.inner, inner, jnp.where(is_outer, outer, 0.0))
            moved = add(moved, torque.response, -excess / torque.effect)
        return moved

    zero = jnp.zeros_like(velocity.x)
    return jax.lax.fori_loop(0, NUM_CORRECTIONS, sweep, Motion(zero, zero, (zero,) * 3))
