"""Where a hull and its legs touch the ground, whose pieces are straight and equally long on the map.

Source: separating axes and clipped faces, in the manner of Box2D 2.3's edges and polygons; how the points are used is
in `rlgen.envs.impulses` (doi:10.1023/A:1008292328909).

Departures: ground is solid from above only; two pieces, those under a body's left and right end, are looked at.

Shape legend: `C` corners of the ground from left to right; the legs are an axis of length 2, and vectors are pairs
`(x, y)` of such arrays.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import Array
from rlgen.envs.rigid import FAR, SKIN, Contacts, Motion, Vector, World, arms_of


class Ground(NamedTuple):
    """How bodies and ground lie to each other."""

    contacts: Contacts
    piece: Array  # [2] int32, the first of the two pieces that each leg was compared with
    near: Array  # [2, 2], how near each of these is to each leg, skins aside; pieces come first
    hull: Array  # how near the hull is


class Face(NamedTuple):
    """A straight part of a body's edge, and what lies against it."""

    along: Vector  # unit vector
    out: Vector  # unit vector
    offset: Array  # of the face along `out`
    low: Array  # end of the face along `along`
    high: Array  # the other end
    start: Vector  # the other body's part
    stop: Vector


def find(pose: Motion, heights: Array, *, world: World) -> Ground:
    """Finds where the ground is touched.

    Args:
        pose: of the bodies.
        heights: `[C]` of the ground.
        world: what the bodies are.

    Returns:
        Points of contact and distances.
    """
    arms = arms_of(pose.turns, world)
    arm = jnp.stack([arms[1][0], arms[2][0]]), jnp.stack([arms[1][1], arms[2][1]])
    turns = jnp.stack(pose.turns)
    cosine, sine = jnp.cos(turns), jnp.sin(turns)
    places = pose.x + jnp.concatenate([jnp.zeros_like(arm[0][:1]), arm[0]])
    reach = float(np.hypot(*world.foot)) + SKIN
    reaches = np.array([max(np.hypot(*corner) for corner in world.hull) + SKIN, reach, reach], np.float32)
    first = jnp.floor((places - reaches) / world.spacing).astype(jnp.int32)
    first = jnp.clip(first, 0, heights.shape[0] - 3)

    def visit(best: Any, offset: Array) -> tuple[Any, tuple[Array, Array]]:
        left, right = ((first + offset + k) * world.spacing - pose.x for k in range(2))
        low, high = (heights[first + offset + k] - pose.y for k in range(2))
        hull = _hull((left[0], low[0]), (right[0], high[0]), (cosine[0], sine[0]), world.hull)
        start, stop = (left[1:] - arm[0], low[1:] - arm[1]), (right[1:] - arm[0], high[1:] - arm[1])
        points = _foot(start, stop, (cosine[1:], sine[1:]), world.foot)
        for normal, place, separation in points:
            best = _inserted(best, normal, (place[0] + arm[0], place[1] + arm[1]), separation)
        return best, (jnp.minimum(points[0][2], points[1][2]), hull)

    zero, one = jnp.zeros_like(arm[0]), jnp.ones_like(arm[0])
    none = (zero, one), (zero, -one), FAR * one
    best, (near, hull) = jax.lax.scan(visit, (none, none), jnp.arange(2))
    contacts = jax.tree.map(lambda *pair: jnp.stack(pair, axis=1), *best)
    return Ground(Contacts(*contacts), first[1:], near, hull.min())


def _inserted(best: Any, normal: Vector, place: Vector, separation: Array) -> Any:
    """The two deepest of three points, the deepest first."""
    new = normal, place, separation
    first, second = best

    def pick(condition: Array, yes: Any, no: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)

    is_first, is_second = separation < first[2], separation < second[2]
    return pick(is_first, new, first), pick(is_first, first, pick(is_second, new, second))


def _dot(first: Vector, second: Vector) -> Any:
    return first[0] * second[0] + first[1] * second[1]


def _edge(left: Vector, right: Vector) -> tuple[Vector, Vector, Array]:
    """Unit vectors along and up from a piece of ground, and its length."""
    x, y = right[0] - left[0], right[1] - left[1]
    length = jnp.sqrt(x * x + y * y)
    along = x / length, y / length
    return along, (-along[1], along[0]), length


def _foot(left: Vector, right: Vector, turn: Vector, half: tuple[float, float]) -> list[tuple[Vector, Vector, Array]]:
    """Compares the legs with a piece of ground each, seen from the legs' centres.

    The part that is farther from the other along its own normal is the face, against which the other's is clipped.

    Returns:
        Normal from the ground, place and separation of two points; `FAR` where there is no such point.
    """
    along, up, length = _edge(left, right)
    axes = turn, (-turn[1], turn[0])
    rises = _dot(up, axes[0]), _dot(up, axes[1])
    edge_gap = -_dot(up, left) - half[0] * jnp.abs(rises[0]) - half[1] * jnp.abs(rises[1])
    # The face of the leg that is farthest from the piece, on one side of the leg and on the other.
    ends = [(_dot(axis, left), _dot(axis, right)) for axis in axes]
    gaps = [(jnp.minimum(a, b) - size, -jnp.maximum(a, b) - size) for (a, b), size in zip(ends, half, strict=True)]
    wide, tall = jnp.maximum(*gaps[0]), jnp.maximum(*gaps[1])
    face_gap, is_wide = jnp.maximum(wide, tall), wide >= tall
    sign = jnp.where(jnp.where(is_wide, gaps[0][0] >= gaps[0][1], gaps[1][0] >= gaps[1][1]), 1.0, -1.0)
    out = tuple(sign * jnp.where(is_wide, axes[0][i], axes[1][i]) for i in range(2))
    # The face of the leg that looks at the ground most: its middle and half its length.
    is_flat = jnp.abs(rises[1]) >= jnp.abs(rises[0])
    down = jnp.where(jnp.where(is_flat, rises[1], rises[0]) > 0, -1.0, 1.0)
    middle = [down * jnp.where(is_flat, axes[1][i] * half[1], axes[0][i] * half[0]) for i in range(2)]
    reach = [jnp.where(is_flat, axes[0][i] * half[0], axes[1][i] * half[1]) for i in range(2)]
    corners = [tuple(m + s * r for m, r in zip(middle, reach, strict=True)) for s in (-1, 1)]
    base, width = _dot(along, left), jnp.where(is_wide, half[1], half[0])
    of_ground = Face(along, up, _dot(up, left), base, base + length, *corners)
    of_leg = Face((-out[1], out[0]), out, jnp.where(is_wide, half[0], half[1]), -width, width, left, right)
    # Ground comes first unless the leg's face is clearly farther.
    is_leg = face_gap > 0.98 * edge_gap + 0.001
    face = jax.tree.map(lambda a, b: jnp.where(is_leg, a, b), of_leg, of_ground)
    normal = jnp.where(is_leg, -face.out[0], face.out[0]), jnp.where(is_leg, -face.out[1], face.out[1])
    exists = jnp.maximum(edge_gap, face_gap) <= SKIN
    return [(normal, place, jnp.where(exists & ok, gap, FAR)) for place, gap, ok in _clipped(face)]


def _clipped(face: Face) -> list[tuple[Vector, Array, Array]]:
    """The ends of what lies against a face, within its width: where, how far off, and whether anything is there."""
    first, second = _dot(face.along, face.start), _dot(face.along, face.stop)
    run = second - first
    run = jnp.where(jnp.abs(run) < 1e-6, 1e-6, run)
    shares = (face.low - first) / run, (face.high - first) / run
    exists = (jnp.maximum(first, second) >= face.low) & (jnp.minimum(first, second) <= face.high)
    points = []
    for share in (jnp.minimum(*shares), jnp.maximum(*shares)):
        share = jnp.clip(share, 0.0, 1.0)
        x, y = (a + share * (b - a) for a, b in zip(face.start, face.stop, strict=True))
        gap = _dot(face.out, (x, y)) - face.offset
        # Halfway between the two bodies.
        place = x - 0.5 * gap * face.out[0], y - 0.5 * gap * face.out[1]
        points.append((place, gap, exists & (gap <= SKIN)))
    return points


def _hull(left: Vector, right: Vector, turn: Vector, corners: tuple[tuple[float, float], ...]) -> Array:
    """How near the hull is to a piece of ground, seen from the hinge."""
    cosine, sine = turn
    left, right = ((cosine * x + sine * y, cosine * y - sine * x) for x, y in (left, right))
    _, up, _ = _edge(left, right)
    gap = jax.tree.reduce(jnp.minimum, [_dot(up, corner) for corner in corners]) - _dot(up, left)
    for corner, following in zip(corners, corners[1:] + corners[:1], strict=True):
        x, y = following[1] - corner[1], corner[0] - following[0]
        face = float(x / np.hypot(x, y)), float(y / np.hypot(x, y))
        gap = jnp.maximum(gap, jnp.minimum(_dot(face, left), _dot(face, right)) - _dot(face, corner))
    return gap
