"""Grid worlds: tables against samples, against gymnasium and against published values."""

import functools

import gymnasium.spaces
import gymnax.wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv

from rlgen.core import Discrete
from rlgen.envs import adapter, grid, mdp

# Two starts, a wall, a reward on an open cell, a cell that sends back and two ends: everything a layout can say.
EVERYTHING = """
    S.r+
    .#.-
    Sx..
"""
LEGEND = {"r": grid.Cell(reward=0.5), "x": grid.Cell(reward=-2.0, restart=True)}
WORLDS = {
    "cliff": grid.CliffWalking(),
    "slippery cliff": grid.CliffWalking(move_probability=0.6),
    "4x3": grid.four_by_three(),
    "deterministic 4x3": grid.four_by_three(move_probability=1.0),
    "everything": grid.GridWorld(EVERYTHING, LEGEND, move_probability=0.5, living_reward=-0.1),
}


@pytest.fixture(params=WORLDS.values(), ids=list(WORLDS))
def world(request):
    return request.param


@functools.partial(jax.jit, static_argnums=(0, 4))
def outcomes(env, key, index, action, num):
    """What `num` independent steps from one state and action give, `[num]` each."""
    state = grid.GridState(time=jnp.int32(0), index=index)
    step = jax.vmap(env.step_env, in_axes=(0, None, None, None))
    _, after, reward, terminated, _ = step(jax.random.split(key, num), state, action, env.default_params)
    return after.index, reward, terminated


def optimal_values(process, sweeps=300):
    """Values at discount one, `[S]`, by value iteration."""
    values = np.zeros(len(process.start))
    for _ in range(sweeps):
        values = (np.asarray(process.reward) + np.asarray(process.transition) @ values).max(-1)
    return values


def test_process_is_a_process(world):
    process = world.mdp()
    np.testing.assert_allclose(process.transition.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(process.start.sum(), 1, atol=1e-6)
    assert (process.transition >= 0).all()
    assert process.terminal.tolist() == (world.cell_terminal | world.cell_wall).tolist()
    for state in np.flatnonzero(process.terminal):
        assert (process.transition[state, :, state] == 1).all()
        assert not process.reward[state].any()
        assert process.start[state] == 0


def test_frequencies_of_steps_agree_with_the_process(world):
    env, num = world, 512
    process = jax.tree.map(np.asarray, env.mdp())
    statistic, freedom = 0.0, 0
    open_cells = np.flatnonzero(~process.terminal)
    pairs = np.array([(state, action) for state in open_cells for action in range(4)], np.int32)
    batched = jax.vmap(outcomes, in_axes=(None, 0, 0, 0, None))
    keys = jax.random.split(jax.random.key(3), len(pairs))
    index, reward, terminated = map(np.asarray, batched(env, keys, pairs[:, 0], pairs[:, 1], num))
    np.testing.assert_array_equal(terminated, env.cell_terminal[index])
    four_deviations = 2 * np.ptp(reward, axis=1) / np.sqrt(num)
    assert (np.abs(reward.mean(1) - process.reward[tuple(pairs.T)]) <= four_deviations + 1e-4).all()
    for (state, action), after in zip(pairs, index, strict=True):
        expected = num * process.transition[state, action]
        observed = np.bincount(after, minlength=env.num_states)
        possible = expected > 0
        assert observed[~possible].sum() == 0
        statistic += ((observed - expected)[possible] ** 2 / expected[possible]).sum()
        freedom += possible.sum() - 1
    if freedom == 0:
        assert statistic == 0
    else:
        assert 1e-3 < scipy.stats.chi2.sf(statistic, freedom) < 1 - 1e-3


def test_starts_are_drawn_uniformly():
    env = WORLDS["everything"]
    keys = jax.random.split(jax.random.key(1), 1000)
    obs, state = jax.jit(jax.vmap(env.reset_env, in_axes=(0, None)))(keys, env.default_params)
    counts = np.bincount(state.index, minlength=env.num_states)
    np.testing.assert_array_equal(obs, state.index)
    assert set(np.flatnonzero(counts)) == {0, 8} == set(np.flatnonzero(env.mdp().start))
    assert scipy.stats.chisquare(counts[[0, 8]]).pvalue > 1e-3


def test_published_values_of_the_4x3_world():
    env = grid.four_by_three()
    values = optimal_values(env.mdp())
    assert values[env.cell_terminal].tolist() == [0, 0]
    shown = np.where(env.cell_terminal, env.cell_reward, values).reshape(env.shape).round(2)
    assert shown[0].tolist() == [0.85, 0.89, 0.93, 1.00]
    assert shown[1, [0, 2, 3]].tolist() == [0.81, 0.68, -1.00]
    assert shown[2].tolist() == [0.77, 0.73, 0.70, 0.47]
    assert env.cell_wall.reshape(env.shape)[1, 1]
    assert np.flatnonzero(env.mdp().start).tolist() == [8]


def test_values_of_the_deterministic_4x3_world_count_the_steps():
    env = grid.four_by_three(move_probability=1.0)
    steps = np.array([[3, 2, 1], [4, 0, 2], [5, 4, 3]])
    values = optimal_values(env.mdp()).reshape(env.shape)[:, :3]
    open_cells = steps > 0
    np.testing.assert_allclose(values[open_cells], (1 - 0.03 * steps)[open_cells], atol=1e-6)


@pytest.mark.parametrize(("slippery", "move_probability"), [(False, 1.0), (True, 1 / 3)])
def test_cliff_walking_is_that_of_gymnasium(slippery, move_probability):
    table = CliffWalkingEnv(is_slippery=slippery).P
    process = grid.CliffWalking(move_probability).mdp()
    transition, reward = np.zeros((48, 4, 48)), np.zeros((48, 4))
    for state in range(47):
        for action in range(4):
            for probability, after, step_reward, ends in table[state][action]:
                transition[state, action, after] += probability
                reward[state, action] += probability * step_reward
                assert ends == bool(process.terminal[after])
    np.testing.assert_allclose(process.transition[:47], transition[:47], atol=1e-6)
    np.testing.assert_allclose(process.reward[:47], reward[:47], rtol=1e-6)
    assert np.flatnonzero(process.start).tolist() == [36]


def test_best_return_of_cliff_walking():
    assert optimal_values(grid.CliffWalking().mdp())[36] == pytest.approx(-13)


def test_fall_goes_back_to_the_start_and_the_episode_goes_on():
    env = adapter.make(grid.CliffWalking())
    assert (env.name, env.spec.observation, env.spec.action) == ("CliffWalking", Discrete(48), Discrete(4))
    step = jax.jit(env.step)
    state, obs = env.reset(jax.random.key(0), 2)
    assert obs.tolist() == [36, 36]
    assert obs.dtype == jnp.int32
    way = [(1, 36, -100.0), (0, 24, -1.0), *((1, 24 + column, -1.0) for column in range(1, 12)), (2, 47, -1.0)]
    for time, (action, after, reward) in enumerate(way):
        state, got = step(jax.random.key(time), state, jnp.array([action, 3]))
        assert (int(got.next_obs[0]), float(got.reward[0])) == (after, reward)
        assert got.terminated.tolist() == [after == 47, False]
        assert got.next_obs[1] == 36  # the other copy bumps into the edge all the while
        assert not got.truncated.any()
        assert got.obs[0] == (36 if after == 47 else after)
    assert state.time.tolist() == [0, len(way)]


def test_time_limit_truncates_and_shows_the_last_observation():
    env = adapter.make(grid.CliffWalking(), max_steps_in_episode=3)
    step = jax.jit(env.step)
    state, _ = env.reset(jax.random.key(0), 1)
    for time, (after, truncated) in enumerate([(24, False), (12, False), (0, True), (24, False)]):
        state, got = step(jax.random.key(time), state, jnp.array([0]))
        assert (int(got.next_obs[0]), bool(got.truncated[0]), bool(got.terminated[0])) == (after, truncated, False)
        assert int(got.obs[0]) == (36 if truncated else after)


def test_end_at_the_time_limit_is_an_end():
    env = adapter.make(grid.GridWorld("S+"), max_steps_in_episode=1)
    state, _ = env.reset(jax.random.key(0), 1)
    _, got = jax.jit(env.step)(jax.random.key(0), state, jnp.array([1]))
    assert (bool(got.terminated[0]), bool(got.truncated[0])) == (True, False)
    assert (int(got.next_obs[0]), int(got.obs[0]), float(got.reward[0])) == (1, 0, 1.0)


def test_state_keeps_strong_dtypes(world):
    params = world.default_params
    _, before = jax.eval_shape(world.reset, jax.random.key(0), params)
    obs, after, reward, terminated, _, _ = jax.eval_shape(world.step, jax.random.key(0), before, jnp.int32(1), params)
    for leaf in jax.tree.leaves((before, after, obs)):
        assert (leaf.shape, leaf.dtype, leaf.weak_type) == ((), jnp.int32, False)
    assert (reward.dtype, reward.weak_type, terminated.dtype) == (jnp.float32, False, jnp.bool_)


def test_wrappers_of_gymnax_accept_it():
    env = grid.CliffWalking()
    wrapped = gymnax.wrappers.LogWrapper(gymnax.wrappers.StickyActionWrapper(env, 0.5))
    flat = gymnax.wrappers.FlattenObservationWrapper(wrapped)
    obs, state = flat.reset(jax.random.key(0))
    obs, state, *_, info = flat.step(jax.random.key(1), state, jnp.int32(1))
    assert obs.shape == info["final_observation"].shape == (1,)
    assert float(state.episode_returns) in (-1.0, -100.0)  # the sticky action before the first is 0, up
    host = gymnax.wrappers.GymnaxToGymWrapper(env, seed=0)
    assert (host.observation_space, host.action_space) == (gymnasium.spaces.Discrete(48), gymnasium.spaces.Discrete(4))
    assert host.reset(seed=1)[0] == 36
    assert np.asarray(host.step(1)[:4]).tolist() == [36, -100, 0, 0]
    assert env.state_space(env.default_params).contains(host.env_state)


@pytest.mark.parametrize(
    ("layout", "arguments", "message"),
    [
        ("S.\n.", {}, "differ in length"),
        ("S?", {}, "not in the legend"),
        ("..", {}, "needs a start"),
        ("SG", {"move_probability": 1.5}, "not in"),
        ("AG", {"legend": {"A": grid.Cell(start=True, terminal=True)}}, "needs a start"),
    ],
)
def test_wrong_layouts_are_refused(layout, arguments, message):
    with pytest.raises(ValueError, match=message):
        grid.GridWorld(layout, **arguments)


@pytest.mark.parametrize("field", ["transition", "start", "terminal"])
def test_wrong_processes_are_refused(field):
    fields = {
        "transition": np.full((2, 3, 2), 0.5),
        "reward": np.ones((2, 3)),
        "start": np.array([1.0, 0.0]),
        "terminal": np.array([False, True]),
    }
    process = mdp.build(**fields)
    assert process.reward.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert process.transition[:, 0].tolist() == [[0.5, 0.5], [0, 1]]
    with pytest.raises(ValueError, match=r"shapes|probabilities"):
        mdp.build(**{**fields, field: fields[field][..., :1] if field == "terminal" else fields[field] * 0.9})
