"""Finds the best mean return that Pendulum allows, by dynamic programming over its angle, its speed and the time left.

Between the points of the grid values are interpolated.  What counts is not these values but what the policy that is
greedy in them earns in the environment itself, from many starts; how little a finer grid adds says how close it is.
"""

import functools
from typing import NamedTuple

import gymnax
import jax
import jax.numpy as jnp
from gymnax.environments.classic_control import pendulum
from jax import lax
from jax.scipy import ndimage

from benchmarks import measure
from rlgen.core import Array

NAME = "Pendulum-v1"
NUM_EPISODES = 65_536


class Grid(NamedTuple):
    """Sizes of the grid."""

    angles: int
    speeds: int
    torques: int


GRIDS = Grid(201, 201, 21), Grid(401, 401, 41)
ENV, PARAMS = gymnax.make(NAME)


def run() -> None:
    """Finds it on grids ever finer, and keeps it."""
    points = []
    for grid in GRIDS:
        returns = jax.jit(functools.partial(play, grid=grid))(jax.random.key(0), plan(grid))
        error = float(returns.std()) / NUM_EPISODES**0.5
        points.append({"grid": list(grid), "mean": float(returns.mean()), "standard_error": error})
        print(f"{' × '.join(map(str, grid))}: {points[-1]['mean']:.2f} ± {error:.2f}", flush=True)
    content = {"name": NAME, "num_episodes": NUM_EPISODES, "points": points, "machine": measure.machine()}
    print(measure.save("optimum", NAME, content))


@functools.partial(jax.jit, static_argnames="grid")
def plan(grid: Grid) -> Array:
    """Values of the grid's points, `[steps, angles, speeds]`: entry `t` is with `t` steps to go."""
    angle = jnp.linspace(-jnp.pi, jnp.pi, grid.angles)
    speed = jnp.linspace(-PARAMS.max_speed, PARAMS.max_speed, grid.speeds)
    points = jnp.meshgrid(angle, speed, indexing="ij")

    def back(values: Array, _: None) -> tuple[Array, Array]:
        return returns_of(values, *points, grid=grid).max(0), values

    steps = PARAMS.max_steps_in_episode
    return lax.scan(back, jnp.zeros((grid.angles, grid.speeds)), None, length=steps)[1]


def play(key: Array, values: Array, *, grid: Grid) -> Array:
    """What the greedy policy earns, `[NUM_EPISODES]`."""
    _, start = jax.vmap(ENV.reset_env, in_axes=(0, None))(jax.random.split(key, NUM_EPISODES), PARAMS)

    def act(carry: tuple[Array, Array, Array], onward: Array) -> tuple[tuple[Array, Array, Array], None]:
        angle, speed, earned = carry
        best = torques(grid)[returns_of(onward, angle, speed, grid=grid).argmax(0)]
        reward, angle, speed = move(angle, speed, best)
        return (angle, speed, earned + reward), None

    begin = start.theta, start.theta_dot, jnp.zeros(NUM_EPISODES)
    return lax.scan(act, begin, values, reverse=True)[0][2]


def torques(grid: Grid) -> Array:
    """The torques that are tried, `[torques]`."""
    return jnp.linspace(-PARAMS.max_torque, PARAMS.max_torque, grid.torques)


def move(angle: Array, speed: Array, torque: Array) -> tuple[Array, Array, Array]:
    """A step of the environment from states of any shape: reward, angle and speed."""

    def one(angle: Array, speed: Array, torque: Array) -> tuple[Array, Array, Array]:
        state = pendulum.EnvState(theta=angle, theta_dot=speed, last_u=torque, time=0)
        _, state, reward, _, _ = ENV.step_env(jax.random.key(0), state, torque, PARAMS)
        return reward, state.theta, state.theta_dot

    return jnp.vectorize(one)(angle, speed, torque)


def returns_of(values: Array, angle: Array, speed: Array, *, grid: Grid) -> Array:
    """Reward of every torque and the value of where it leads, `[torques, ...]`."""

    def of(torque: Array) -> Array:
        reward, *there = move(angle, speed, torque)
        return reward + interpolate(values, *there)

    return lax.map(of, torques(grid))


def interpolate(values: Array, angle: Array, speed: Array) -> Array:
    """Bilinear interpolation in a table `[angles, speeds]`, round the circle of angles."""
    share = (angle / jnp.pi + 1) / 2 % 1, (speed / PARAMS.max_speed + 1) / 2
    places = [part * (size - 1) for part, size in zip(share, values.shape, strict=True)]
    return ndimage.map_coordinates(values, places, order=1, mode="nearest")
