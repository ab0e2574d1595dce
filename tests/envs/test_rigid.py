"""Rigid bodies: masses, the mass matrix, momenta in flight, and where the ground is touched."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs import ground, impulses, rigid
from rlgen.envs.lander import CORNERS, FOOT, WORLD
from rlgen.envs.rigid import FAR, SKIN, Contacts, Motion, Moving

POSE = (10.0, 6.0, 0.3, 0.75, -0.1)


def pose_of(numbers) -> Motion:
    x, y, *turns = jnp.asarray(numbers, jnp.float32)
    return Motion(x, y, tuple(turns))


@jax.jit
def find(numbers, heights):
    return ground.find(pose_of(numbers), heights, world=WORLD)


@jax.jit
def fly(numbers, speeds, motors):
    one = jnp.ones((2, 2))
    nothing = Contacts((0 * one, one), (0 * one, -one), FAR * one)
    moving = Moving(pose_of(numbers), tuple(tuple(row) for row in speeds), tuple(motors))
    moving = impulses.advance(moving, Motion(0.0, 0.0, (0.0, 0.0, 0.0)), nothing, world=WORLD)
    pose = moving.pose
    return jnp.array([pose.x, pose.y, *pose.turns]), jnp.array(moving.speeds), jnp.array(moving.motors)


def test_a_box_weighs_what_the_formulas_say():
    box = rigid.body(((0, 0), (2, 0), (2, 1), (0, 1)), 3.0, hinge=(0.5, 0.5))
    assert box.mass == pytest.approx(6) and box.centre == pytest.approx((0.5, 0))
    assert box.inertia == pytest.approx(6 * (4 + 1) / 12)


def test_bodies_weigh_what_box2d_says():
    hull, first, second = WORLD.bodies
    assert hull.mass == pytest.approx(4.8166666) and hull.centre == pytest.approx((0, 0.1013072), abs=1e-6)
    assert hull.inertia + hull.mass * hull.centre[1] ** 2 == pytest.approx(0.8333149, rel=1e-5)
    for leg in (first, second):
        assert leg.mass == pytest.approx(0.0711111, rel=1e-5) and leg.inertia == pytest.approx(0.00179095, rel=1e-4)


def test_responses_invert_the_mass_matrix():
    inertia = rigid.inertia_of(pose_of(POSE), WORLD)
    columns = []
    for column in np.eye(5):
        motion = rigid.respond(inertia, Motion(column[0], column[1], tuple(column[2:])))
        columns.append([float(motion.x), float(motion.y), *map(float, motion.turns)])
    matrix = np.zeros((5, 5))
    for index, (part, (x, y)) in enumerate(zip(WORLD.bodies, inertia.arms, strict=True)):
        jacobian = np.zeros((3, 5))  # of the centre of mass and of the turn
        jacobian[[0, 1, 2], [0, 1, 2 + index]] = 1
        jacobian[:2, 2 + index] = -float(y), float(x)
        matrix += jacobian.T @ np.diag([part.mass, part.mass, part.inertia]) @ jacobian
    np.testing.assert_allclose(np.array(columns) @ matrix, np.eye(5), atol=1e-4)


def test_flight_keeps_momentum_and_its_centre_of_mass():
    masses = np.array([part.mass for part in WORLD.bodies])

    def centre(pose):
        arms = np.array(rigid.arms_of(pose_of(pose).turns, WORLD), np.float64)
        return np.asarray(pose[:2]) + masses @ arms / masses.sum()

    # Speeds that the hinge allows: it moves at (1, 2) while the bodies turn at 1.5.
    arms = np.array(rigid.arms_of(pose_of(POSE).turns, WORLD))
    speeds = np.array([[1 - 1.5 * y, 2 + 1.5 * x, 1.5] for x, y in arms], np.float32)
    pose, motors = np.array(POSE), np.zeros(2)
    for _ in range(5):
        before, momentum = centre(pose), masses @ np.asarray(speeds)[:, :2]
        pose, speeds, motors = fly(pose, speeds, motors)
        after = masses @ np.asarray(speeds)[:, :2]
        np.testing.assert_allclose(after - momentum, [0, -10 * 0.02 * masses.sum()], atol=1e-4)
        np.testing.assert_allclose(centre(pose) - before, 0.02 * after / masses.sum(), atol=1e-5)


def test_motors_turn_legs_to_their_stops():
    pose, speeds, motors = np.array([10, 9, 0, 0.5, -0.5]), np.zeros((3, 3)), np.zeros(2)
    angles = []
    for _ in range(40):
        pose, speeds, motors = fly(pose, speeds, motors)
        angles.append([float(pose[3] - pose[2]), float(pose[2] - pose[4])])
    steps = np.diff(np.array(angles), axis=0)
    np.testing.assert_allclose(steps[:15], -0.3 * 0.02, atol=1e-4)
    np.testing.assert_allclose(steps[28:], 0, atol=1e-5)
    np.testing.assert_allclose(angles[-1], 0.35, atol=0.3 * 0.02)
    np.testing.assert_allclose(motors, 0.8, atol=1e-6)


def test_a_foot_touches_with_its_lowest_corner():
    level = np.full(11, 3.0, np.float32)
    arm = np.array(rigid.arms_of(pose_of((0, 0, 0, 0.35, -0.35)).turns, WORLD))[1]
    corners = np.array([(x * FOOT[0], y * FOOT[1]) for x, y in itertools.product((-1, 1), repeat=2)])
    turn = np.array([[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]])
    lowest = min((arm + turn @ corner for corner in corners), key=lambda place: place[1])
    for gap in (0.015, 0.0, -0.01):
        found = find((9.0, 3.0 + gap - lowest[1], 0, 0.35, -0.35), level)
        np.testing.assert_allclose(found.contacts.separation[:, 0], gap, atol=1e-5)
        np.testing.assert_allclose(found.contacts.normal[1][:, 0], 1, atol=1e-6)
        place = [float(part[0, 0]) for part in found.contacts.arm]
        np.testing.assert_allclose(place, [lowest[0], lowest[1] - gap / 2], atol=1e-4)
    found = find((9.0, 3.0 + 0.03 - lowest[1], 0, 0.35, -0.35), level)
    assert (found.contacts.separation > SKIN).all() and (found.near > SKIN).all()


def test_a_peak_is_touched_by_a_leg_with_its_side():
    heights = np.where(np.arange(11) == 5, 4.0, 0.0).astype(np.float32)  # a steep peak at 10
    turns = 0.0, np.pi / 2, 0.0
    arm = np.array(rigid.arms_of(pose_of((0, 0, *turns)).turns, WORLD))[1]
    # A leg that lies across the peak.
    found = find((10 - arm[0], 4.0 + FOOT[0] + 0.01 - arm[1], *turns), heights)
    np.testing.assert_allclose(found.contacts.separation[0], 0.01, atol=1e-4)  # one point of either slope
    np.testing.assert_allclose([part[0] for part in found.contacts.normal], [[0, 0], [1, 1]], atol=1e-5)
    np.testing.assert_allclose(found.contacts.arm[0][0], arm[0], atol=1e-4)
    np.testing.assert_allclose(found.contacts.arm[1][0], arm[1] - FOOT[0] - 0.005, atol=1e-4)


def test_the_hulls_clearance_is_that_of_its_corners():
    level = np.full(11, 2.0, np.float32)
    for angle in (0.0, 0.4, -1.2, 3.0):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        lowest = min(float((turn @ np.array(corner))[1]) for corner in CORNERS)
        found = find((7.3, 3.0, angle, angle + 0.35, angle - 0.35), level)
        np.testing.assert_allclose(found.hull, 1.0 + lowest, atol=1e-5)
