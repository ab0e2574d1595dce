"""Robots of MuJoCo, simulated by mujoco-mjx; `rlgen.envs.robots` says what each has to do.

Sources: the tasks and the files of the models are gymnasium's (arXiv:2407.17032); the physics are MuJoCo's (Todorov et
al. 2012, doi:10.1109/IROS.2012.6386109) as mujoco-mjx writes them in JAX.  The extra `rlgen[mjx]` brings both, and
nothing of it is imported before such an environment is made.

Departures: numbers are float32 where the original's are float64.  The solver of contacts starts anew at every step of
the simulation instead of from the last one's solution, so that positions and velocities are the whole state of the
physics, and it takes at most `ITERATIONS` steps with `LINE_ITERATIONS` trials along each; all of the latter are made
whether they are needed or not.  A simulation that has broken down starts again at rest when the action has been taken,
not in the middle of it.

Shape legend: `Q` positions and `V` velocities of joints, `A` actuators, `P` points that are watched, `O` numbers that
are observed.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jax import lax

from rlgen.core import Array, Key
from rlgen.envs.robots import ROBOTS, RobotState

ITERATIONS, LINE_ITERATIONS = 20, 10
BROKEN = 1e10  # size of a position or velocity beyond which MuJoCo itself gives a simulation up
MISSING = "robots need MuJoCo, which is not installed: .venv/bin/pip install -e '.[mjx]'"
STAGES = ((0.5, 1 / 6), (0.5, 1 / 3), (1.0, 1 / 3), (0.0, 1 / 6))  # Runge-Kutta: share of a step to go on, and weight


class Physics(NamedTuple):
    """A model as mujoco-mjx wants it; NumPy leaves, which become constants of whatever they are traced into."""

    mjx: Any  # the module
    model: Any
    data: Any  # at the model's own positions
    sites: np.ndarray  # indices
    bodies: np.ndarray
    timestep: float  # seconds
    is_euler: bool  # which of the two ways to integrate the model asks for, Euler's or Runge-Kutta's


def simulate(physics: Physics, state: RobotState, action: Array, num_steps: int) -> RobotState:
    """Simulates some steps under one action; the time is left alone.

    Args:
        physics: of the robot, with joints that slide or turn about one axis.
        state: before.
        action: `[A]` controls.
        num_steps: of the simulation.

    Returns:
        The state after it.
    """
    model, data = jax.tree.map(jnp.asarray, (physics.model, physics.data))
    data = data.replace(ctrl=action)
    integrate = _euler if physics.is_euler else _runge_kutta

    def step(_: int, state: RobotState) -> RobotState:
        return integrate(physics, model, data, state)

    # Accelerators would round products to ten bits, of which contacts make a mess.
    with jax.default_matmul_precision("highest"):
        return lax.fori_loop(0, num_steps, step, state)


def _euler(physics: Physics, model: Any, data: Any, state: RobotState) -> RobotState:
    """A step of Euler's method."""
    data = physics.mjx.forward(model, data.replace(qpos=state.position, qvel=state.velocity))
    after = physics.mjx.euler(model, data)
    state = dataclasses.replace(state, points=_points(physics, data), force=data.qfrc_constraint)
    return dataclasses.replace(state, position=after.qpos, velocity=after.qvel)


def _runge_kutta(physics: Physics, model: Any, data: Any, start: RobotState) -> RobotState:
    """A step of the Runge-Kutta method.

    The same as mjx's own, which writes the forces out four times; in a loop they compile once.
    """
    stages = jnp.asarray(STAGES, start.position.dtype)

    def stage(index: Any, carry: tuple[RobotState, Array, Array]) -> tuple[RobotState, Array, Array]:
        state, mean_velocity, mean_change = carry
        found = physics.mjx.forward(model, data.replace(qpos=state.position, qvel=state.velocity))
        onward, weight = physics.timestep * stages[index, 0], stages[index, 1]
        reached = dataclasses.replace(
            state,
            position=start.position + onward * state.velocity,
            velocity=start.velocity + onward * found.qacc,
            points=_points(physics, found),
            force=found.qfrc_constraint,
        )
        return reached, mean_velocity + weight * state.velocity, mean_change + weight * found.qacc

    zero = jnp.zeros_like(start.velocity)
    last, velocity, change = lax.fori_loop(0, len(STAGES), stage, (start, zero, zero))
    return dataclasses.replace(
        last,
        position=start.position + physics.timestep * velocity,
        velocity=start.velocity + physics.timestep * change,
    )


def _points(physics: Physics, data: Any) -> Array:
    """Where the points are that are watched, `[P, 3]`."""
    return jnp.concatenate([data.site_xpos[physics.sites], data.xpos[physics.bodies]])


class Mujoco(environment.Environment[RobotState, environment.EnvParams]):
    """A robot to be moved by the torques and forces of its actuators.

    Attributes:
        robot: what tells the task from others.
    """

    def __init__(self, name: str):
        """Loads a model.

        Args:
            name: of `ROBOTS`.

        Raises:
            ValueError: if there is no such robot.
            ModuleNotFoundError: if the extra is not installed.
        """
        super().__init__()
        if name not in ROBOTS:
            raise ValueError(f"no robot is called {name!r}; there are {', '.join(ROBOTS)}")
        self.robot, self._name = ROBOTS[name], name
        self._model = _load(self.robot.file)
        with jax.ensure_compile_time_eval():
            state = self._at(np.array(self._model.qpos0, np.float32), np.zeros(self._model.nv, np.float32))
            self._num_observed = jax.eval_shape(self._see, state).shape[0]

    @functools.cached_property
    def physics(self) -> Physics:
        """The model in JAX, made when it is first needed: the spaces are known without."""
        mujoco, mjx = _library("mujoco"), _library("mujoco.mjx")
        with jax.ensure_compile_time_eval():
            model = mjx.put_model(self._model)
            data = mjx.make_data(model)
        return Physics(
            mjx=mjx,
            model=jax.tree.map(np.asarray, model),
            data=jax.tree.map(np.asarray, data),
            sites=np.array([self._model.site(name).id for name in self.robot.sites], int),
            bodies=np.array([self._model.body(name).id for name in self.robot.bodies], int),
            timestep=float(self._model.opt.timestep),
            is_euler=self._model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER,
        )

    def state(self, position: Array, velocity: Array) -> RobotState:
        """Puts the robot somewhere, at the start of an episode.

        Args:
            position: `[Q]`.
            velocity: `[V]`.

        Returns:
            The state.
        """
        state = self._at(position, velocity)
        if not (self.robot.sites or self.robot.bodies):
            return state
        model, data = jax.tree.map(jnp.asarray, (self.physics.model, self.physics.data))
        data = self.physics.mjx.kinematics(model, data.replace(qpos=state.position))
        return dataclasses.replace(state, points=_points(self.physics, data))

    def _at(self, position: Any, velocity: Any) -> RobotState:
        """The state with points and forces still at zero."""
        num_points = len(self.robot.sites) + len(self.robot.bodies)
        return RobotState(
            time=jnp.int32(0),
            position=jnp.asarray(position, jnp.float32),
            velocity=jnp.asarray(velocity, jnp.float32),
            points=jnp.zeros((num_points, 3)),
            force=jnp.zeros(self._model.nv),
        )

    def _see(self, state: RobotState) -> Array:
        """What is observed, `[O]`."""
        if self.robot.observe is not None:
            return self.robot.observe(state)
        limit = self.robot.speed_limit
        return jnp.concatenate([state.position[self.robot.num_hidden :], jnp.clip(state.velocity, -limit, limit)])

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, RobotState]:
        """Puts the robot near the model's own positions; the key is consumed."""
        del params
        robot, model = self.robot, self._model
        key_position, key_velocity, key_goal = jax.random.split(key, 3)
        moved = jax.random.uniform(key_position, (model.nq,), minval=-robot.noise, maxval=robot.noise)
        position = jnp.asarray(model.qpos0, jnp.float32) + moved
        draw = jax.random.normal if robot.is_normal else functools.partial(jax.random.uniform, minval=-1.0)
        velocity = robot.speed_noise * draw(key_velocity, (model.nv,))
        if robot.goal_radius:
            goal = robot.goal_radius * jax.random.ball(key_goal, 2)
            position, velocity = position.at[-2:].set(goal), velocity.at[-2:].set(0.0)
        state = self.state(position, velocity)
        return self._see(state), state

    def step_env(
        self, key: Key, state: RobotState, action: int | float | Array, params: environment.EnvParams
    ) -> tuple[Array, RobotState, Array, Array, dict[Any, Any]]:
        """Simulates one action; the key has no use."""
        del key
        robot, action = self.robot, jnp.asarray(action, jnp.float32)
        after = simulate(self.physics, state, action, robot.frame_skip)
        after = dataclasses.replace(self._mended(after), time=state.time + 1)
        terminated = self.is_terminated(after, params)
        speed = (after.position[0] - state.position[0]) / (robot.frame_skip * self._model.opt.timestep)
        reward = robot.forward * speed + robot.survival * ~terminated - robot.effort * jnp.square(action).sum()
        if robot.bonus is not None:
            reward += robot.bonus(after)
        return self._see(after), after, reward, terminated, {}

    def _mended(self, state: RobotState) -> RobotState:
        """The robot at rest if its simulation has broken down."""
        numbers = jnp.concatenate([state.position, state.velocity])
        rest = self.state(jnp.asarray(self._model.qpos0, jnp.float32), jnp.zeros_like(state.velocity))
        return jax.tree.map(functools.partial(jnp.where, (jnp.abs(numbers) < BROKEN).all()), state, rest)

    def observe(self, key: Key, state: RobotState, action: Any, params: environment.EnvParams) -> Array:
        """What is observed, `[O]`."""
        del key, action, params
        return self._see(state)

    def is_terminated(self, state: RobotState, params: environment.EnvParams) -> Array:
        """Whether the robot is no longer healthy."""
        del params
        numbers = jnp.concatenate([state.position, state.velocity, state.points.ravel()])
        inside = [(low < numbers[index]) & (numbers[index] < high) for index, low, high in self.robot.healthy]
        return ~jnp.array(inside, bool).all()

    @property
    def default_params(self) -> environment.EnvParams:
        """The original's time limit."""
        return environment.EnvParams(max_steps_in_episode=self.robot.max_steps)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    @property
    def num_actions(self) -> int:
        """Number of actuators."""
        return int(self._model.nu)

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Box:
        """The range of every actuator."""
        del params
        low, high = self._model.actuator_ctrlrange.T.astype(np.float32)
        return spaces.Box(low, high, (self.num_actions,))

    def observation_space(self, params: environment.EnvParams) -> spaces.Box:
        """Numbers without bounds."""
        del params
        return spaces.Box(-jnp.inf, jnp.inf, (self._num_observed,))


def _load(file: str) -> Any:
    """Reads a model of gymnasium's and sets its solver up."""
    mujoco, found = _library("mujoco"), importlib.util.find_spec("gymnasium")
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("mujoco.mjx") is None:
        raise ModuleNotFoundError(MISSING)
    spec = mujoco.MjSpec.from_file(f"{found.submodule_search_locations[0]}/envs/mujoco/assets/{file}")
    # MuJoCo warns of models that name their mass, and says to do this instead.
    mass, spec.compiler.settotalmass = spec.compiler.settotalmass, -1.0
    model = spec.compile()
    if mass > 0:
        mujoco.mj_setTotalmass(model, mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    model.opt.iterations, model.opt.ls_iterations = ITERATIONS, LINE_ITERATIONS
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
    return model


def _library(name: str) -> Any:
    """Imports what the extra brings.

    Raises:
        ModuleNotFoundError: naming the extra.
    """
    try:
        # mujoco-mjx prints that it found no Warp, which nobody asked for.
        with contextlib.redirect_stdout(None):
            return importlib.import_module(name)
    except ImportError as error:
        raise ModuleNotFoundError(MISSING) from error
