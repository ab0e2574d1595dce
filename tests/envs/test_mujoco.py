"""Robots beside gymnasium's: steps from the same states, starts, spaces and ends.

Parity is tried on two robots that between them have contacts, both integrators, watched points, forces and ends; the
marker `learning` tries the others, whose steps take as long to compile.
"""

import functools
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import mujoco as original
import numpy as np
import pytest
from scipy import stats

from rlgen.core import Box
from rlgen.envs import adapter, mujoco
from rlgen.experiments import catalogue, experiment
from rlgen.lab import request
from rlgen.lab.errors import UsageError

NUM_LANES = 96
# Of float32 beside float64, as a share of 1 + the size of the number: some five times what was measured.
TOLERANCES = {"HalfCheetah": 2e-3, "Walker2d": 3e-4}
TOLERANCE = 2e-5
COMMON = ("InvertedDoublePendulum", "HalfCheetah")
MOST = [pytest.param(name, marks=() if name in COMMON else pytest.mark.learning, id=name) for name in mujoco.ROBOTS]

pytestmark = pytest.mark.xdist_group("mujoco")  # so that each program is compiled by one process alone


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """MuJoCo warns of the cheetah's file on every reading, on the screen and in a file of its own."""
    original.set_mju_user_warning(lambda text: None)
    yield
    original.set_mju_user_warning(None)


@functools.cache
def robot(name):
    return mujoco.Mujoco(name)


@functools.cache
def theirs(name):
    return gymnasium.make(f"{name}-v5")


@functools.cache
def programs(name):
    """Of `NUM_LANES` robots: put somewhere, and moved as gymnax does it; all tests share what is compiled."""
    env = robot(name)
    return jax.jit(jax.vmap(env.state)), jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))


def step(name, state, action, max_steps=1000):
    params = robot(name).default_params.replace(max_steps_in_episode=jnp.int32(max_steps))
    keys = jax.random.split(jax.random.key(0), NUM_LANES)
    return programs(name)[1](keys, state, jnp.asarray(action, jnp.float32), params)


def transitions(name):
    """Steps of the original from states of float32 along random episodes, of which every third end is passed over."""
    env, random, rows = theirs(name).unwrapped, np.random.default_rng(0), []
    env.reset(seed=0)
    for time in range(NUM_LANES):
        position, velocity = env.data.qpos.astype(np.float32), env.data.qvel.astype(np.float32)
        env.set_state(position.astype(float), velocity.astype(float))
        action = random.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        obs, reward, terminated, _, _ = env.step(action)
        rows.append((position, velocity, action, obs, reward, terminated))
        if (terminated and time % 3) or time % 32 == 31:
            env.reset(seed=time)
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("name", MOST)
def test_steps_are_the_originals(name):
    position, velocity, action, obs, reward, terminated = transitions(name)
    state = programs(name)[0](position, velocity)
    _, _, own_reward, own_terminated, truncated, info = step(name, state, action)
    tolerance = TOLERANCES.get(name, TOLERANCE)
    np.testing.assert_allclose(info["final_observation"], obs, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(own_reward, reward, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(own_terminated, terminated)
    assert not np.any(truncated)
    assert terminated.any() == (name not in ("Reacher", "Swimmer", "HalfCheetah"))


@pytest.mark.parametrize("name", mujoco.ROBOTS)
def test_spaces_and_limits_are_the_originals(name):
    env, own = theirs(name), adapter.make(robot(name))
    assert own.name == name and own.max_steps == env.spec.max_episode_steps
    assert own.spec.observation == Box(env.observation_space.shape)
    bounds = [set(bound.tolist()) for bound in (env.action_space.low, env.action_space.high)]
    assert own.spec.action == Box(env.action_space.shape, *(float(*bound) for bound in bounds))
    assert robot(name).num_actions == env.action_space.shape[0]


@pytest.mark.parametrize("name", mujoco.ROBOTS)
def test_starts_are_drawn_and_seen_as_the_originals(name):
    env, own = theirs(name).unwrapped, robot(name)
    keys = jax.random.split(jax.random.key(1), 1000)
    obs, state = jax.jit(jax.vmap(own.reset_env, in_axes=(0, None)))(keys, own.default_params)
    drawn = np.concatenate([state.position, state.velocity], axis=1)
    resets = [env.reset(seed=seed) and np.concatenate([env.data.qpos, env.data.qvel]) for seed in range(1000)]
    for own_column, column in zip(drawn.T, np.transpose(resets), strict=True):
        assert stats.ks_2samp(own_column, column).pvalue > 1e-4
        np.testing.assert_allclose(own_column.std(), column.std(), rtol=0.12)
    for index in range(5):
        env.set_state(*(np.asarray(part[index], float) for part in (state.position, state.velocity)))
        np.testing.assert_allclose(obs[index], env._get_obs(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", mujoco.ROBOTS)
def test_models_are_the_originals(name):
    """But for what the solver is told; the cheetah's mass is set in another way than its file says."""
    own, model = robot(name)._model, theirs(name).unwrapped.model
    for field in ("body_mass", "body_inertia", "dof_invweight0", "body_invweight0", "actuator_acc0", "geom_friction"):
        np.testing.assert_array_equal(getattr(own, field), getattr(model, field))
    assert own.opt.timestep == model.opt.timestep and own.opt.integrator == model.opt.integrator


ENDS = [
    ("InvertedPendulum", 0, 0.9, False),
    ("InvertedPendulum", 1, 0.18, False),
    ("InvertedPendulum", 1, -0.201, True),
    ("Hopper", 1, 0.69, True),
    ("Hopper", 1, 9.0, False),
    ("Hopper", 2, 0.21, True),
    ("Hopper", 5, -101.0, True),
    ("Hopper", 6, 101.0, True),
    ("Hopper", 11, 99.0, False),
    ("Walker2d", 1, 0.79, True),
    ("Walker2d", 1, 2.01, True),
    ("Walker2d", 2, 0.99, False),
    ("Walker2d", 2, -1.01, True),
    ("HalfCheetah", 1, -5.0, False),
]


@pytest.mark.parametrize(("name", "index", "value", "expected"), ENDS)
def test_ends_come_where_the_originals_do(name, index, value, expected):
    env = robot(name)
    position = jnp.asarray(env._model.qpos0, jnp.float32)
    numbers = jnp.concatenate([position, jnp.zeros(env._model.nv)]).at[index].set(value)
    state = env.state(numbers[: len(position)], numbers[len(position) :])
    assert env.is_terminated(state, env.default_params) == expected
    theirs(name).unwrapped.set_state(np.asarray(state.position, float), np.asarray(state.velocity, float))
    original = theirs(name).unwrapped
    if hasattr(original, "is_healthy"):
        assert original.is_healthy != expected
    else:  # what ends such a task is found in its step alone
        assert original.step(np.zeros(original.action_space.shape))[2] == expected


def test_a_time_limit_truncates_and_does_not_terminate():
    _, state = jax.vmap(robot("HalfCheetah").reset_env, in_axes=(0, None))(
        jax.random.split(jax.random.key(0), NUM_LANES), robot("HalfCheetah").default_params
    )
    for time in range(1, 5):
        _, state, _, terminated, truncated, _ = step("HalfCheetah", state, np.zeros((NUM_LANES, 6)), max_steps=2)
        assert not terminated.any() and (truncated == (time % 2 == 0)).all() and (state.time == time % 2).all()


def test_lanes_equal_robots_on_their_own():
    name = "InvertedDoublePendulum"
    position, velocity, action, *_ = transitions(name)
    state = programs(name)[0](position, velocity)
    swept = step(name, state, action)
    alone, params = jax.jit(robot(name).step), robot(name).default_params.replace(max_steps_in_episode=jnp.int32(1000))
    for index in (0, 7, NUM_LANES - 1):
        key = jax.random.split(jax.random.key(0), NUM_LANES)[index]
        own = alone(key, jax.tree.map(lambda leaf: leaf[index], state), jnp.asarray(action[index]), params)  # noqa: B023
        jax.tree.map(lambda one, many: np.testing.assert_allclose(one, many[index], 1e-5, 1e-5), own, swept)  # noqa: B023


def test_a_simulation_that_breaks_down_starts_again_at_rest():
    name = "InvertedDoublePendulum"
    position, velocity, action, *_ = transitions(name)
    position[1, 0], velocity[2, 1] = np.nan, 1e11
    state = programs(name)[0](position, velocity)
    _, _, _, terminated, _, info = step(name, state, action)
    seen = info["final_observation"]
    assert np.isfinite(seen).all() and not terminated[1:3].any()
    np.testing.assert_allclose(seen[1:3], [[0, 0, 0, 1, 1, 0, 0, 0, 0]] * 2, atol=1e-6)


def test_an_unknown_robot_is_refused():
    with pytest.raises(ValueError, match="no robot is called 'Pusher'; there are InvertedPendulum, "):
        mujoco.Mujoco("Pusher")


@pytest.mark.parametrize("library", ["mujoco", "gymnasium"])
def test_a_missing_extra_is_named(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[mjx\]'"):
        mujoco.Mujoco("Hopper")


def test_a_missing_extra_is_a_usage_error_of_the_command_line(monkeypatch):
    task = catalogue.EXPERIMENTS["actor_critic/sac/Hopper-mjx"].task
    monkeypatch.delitem(task.__dict__, "env", raising=False)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[mjx\]'"):
        request.plan(request.Request(experiment="actor_critic/sac/Hopper-mjx"))


def test_a_row_is_bound_without_simulating():
    row = catalogue.EXPERIMENTS["actor_critic/sac/Hopper-mjx"]
    assert experiment.bind(row).num_updates == row.steps
    assert "physics" not in row.task.env.native.__dict__


def test_the_catalogue_needs_no_mujoco():
    program = """
import sys
from rlgen.experiments import catalogue
from rlgen.lab import cli
assert "actor_critic/sac/Hopper-mjx" in catalogue.EXPERIMENTS and "mujoco" not in sys.modules
assert cli.main(["list"]) == 0 and "mujoco" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
