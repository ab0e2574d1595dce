"""Processes given by their outcomes: the arrays against samples, gymnasium, published values and hand computation."""

import functools
import itertools

import gymnasium.spaces
import gymnax
import gymnax.wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnax.environments.misc import frozen_lake

from rlgen.core import Discrete
from rlgen.envs import adapter, grid, mdp, tables
from rlgen.parts import backups, planning

TABLES = {
    "random walk": tables.random_walk(),
    "short random walk": tables.random_walk(5, (0.0, 1.0)),
    "line": tables.line(),
    "windy": tables.windy_grid(),
    "stochastic windy": tables.windy_grid(stochastic=True),
    "windy, king's moves": tables.windy_grid(kings_moves=True),
    "stochastic windy, king's moves": tables.windy_grid(kings_moves=True, stochastic=True),
    "baird": tables.baird(),
    "maximisation bias": tables.maximisation_bias(),
    "blind cliff": tables.blind_cliff(5),
}
UNUSUAL = {"is_slippery": True, "success_rate": 0.7, "reward_schedule": (2.0, -1.0, -0.25)}
LAKES = {
    "4x4": {"map_name": "4x4", "is_slippery": False},
    "slippery 4x4": {"map_name": "4x4", "is_slippery": True},
    "slippery 8x8": {"map_name": "8x8", "is_slippery": True},
    "unusual 4x4": {"map_name": "4x4", **UNUSUAL},
}


def to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def state_at(native, index):
    """A state of an environment, in mid-episode."""
    if isinstance(native, frozen_lake.FrozenLake):
        return frozen_lake.EnvState(time=jnp.int32(0), position=index)
    return tables.TableState(time=jnp.int32(0), index=index)


@functools.partial(jax.jit, static_argnums=(0, 4))
def samples(native, key, states, actions, num):
    """Next states, rewards and ends of `num` steps from each of `N` states and actions, `[N, num]`."""

    def step(key, index, action):
        obs, _, reward, terminated, _ = native.step_env(key, state_at(native, index), action, native.default_params)
        return obs, reward, terminated

    keys = jax.random.split(key, (len(states), num))
    return jax.vmap(jax.vmap(step, in_axes=(0, None, None)))(keys, states, actions)


@pytest.fixture(params=[*TABLES, *LAKES])
def native(request):
    return TABLES.get(request.param) or frozen_lake.FrozenLake(**LAKES[request.param])


def test_process_is_a_process(native):
    process = to_numpy(tables.process(native))
    num_states = native.observation_space(native.default_params).n
    assert process.transition.shape == (num_states, native.num_actions, num_states)
    np.testing.assert_allclose(process.transition.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(process.start.sum(), 1, atol=1e-6)
    assert (process.transition >= 0).all()
    for state in np.flatnonzero(process.terminal):
        assert (process.transition[state, :, state] == 1).all()
        assert not process.reward[state].any()
        assert process.start[state] == 0


def test_frequencies_of_steps_agree_with_the_process(native):
    process, num = to_numpy(tables.process(native)), 256
    pairs = np.argwhere(np.repeat(~process.terminal[:, None], native.num_actions, axis=1)).astype(np.int32)
    obs, reward, terminated = to_numpy(samples(native, jax.random.key(3), pairs[:, 0], pairs[:, 1], num))
    np.testing.assert_array_equal(terminated, process.terminal[obs])
    # Bounded rewards deviate by half their range at most.
    noise = native.outcomes.deviation[tuple(pairs.T)] if isinstance(native, tables.Table) else 0.0
    deviation = np.where(noise > 0, noise, np.ptp(reward, axis=1) / 2)
    error = np.abs(reward.mean(1) - process.reward[tuple(pairs.T)])
    assert (error <= 4 * deviation / np.sqrt(num) + 1e-5).all()
    observed = np.stack([np.bincount(row, minlength=len(process.terminal)) for row in obs])
    expected = num * process.transition[tuple(pairs.T)]
    possible = expected > 0
    assert observed[~possible].sum() == 0
    statistic = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - len(pairs)
    if freedom == 0:
        assert statistic == 0
    else:
        assert 1e-3 < scipy.stats.chi2.sf(statistic, freedom) < 1 - 1e-3


def test_starts_agree_with_the_process(native):
    process, num = to_numpy(tables.process(native)), 700
    reset = jax.jit(jax.vmap(native.reset_env, in_axes=(0, None)))
    obs, _ = reset(jax.random.split(jax.random.key(1), num), native.default_params)
    counts, possible = np.bincount(obs, minlength=len(process.start)), process.start > 0
    assert counts[possible].sum() == num
    if possible.sum() > 1:
        assert (
            scipy.stats.chisquare(counts[possible], num * process.start[possible].astype(float), sum_check=False).pvalue
            > 1e-3
        )


@pytest.mark.parametrize("settings", LAKES.values(), ids=list(LAKES))
def test_frozen_lake_is_that_of_gymnasium(settings):
    table = FrozenLakeEnv(**settings)
    process = to_numpy(tables.process(frozen_lake.FrozenLake(**settings)))
    transition, reward = np.zeros_like(process.transition, float), np.zeros_like(process.reward, float)
    for state, actions in table.P.items():
        for action, outcomes in actions.items():
            for probability, after, step_reward, ends in outcomes:
                transition[state, action, after] += probability
                reward[state, action] += probability * step_reward
                assert ends == process.terminal[after]
    np.testing.assert_allclose(process.transition, transition, atol=1e-7)
    np.testing.assert_allclose(process.reward, reward, atol=1e-7)
    np.testing.assert_array_equal(process.start, table.initial_state_distrib)


def test_frozen_lake_by_its_name_is_the_slippery_one():
    process = tables.process(gymnax.make("FrozenLake-misc")[0])
    np.testing.assert_allclose(process.transition[0, 1, [0, 1, 4]], [1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_values_of_actions_on_the_line():
    process = tables.line().mdp()
    found = to_numpy(jax.jit(planning.value_iteration)(process, 0.9))
    expected = {0: (10, 10), 1: (10, -10), 2: (-10, 10), 4: (10, -10), 5: (-10, 10), 7: (10, 10), 8: (10, -10)}
    for state, values in expected.items():
        np.testing.assert_allclose(found.q_values[state], values, rtol=1e-6)
    assert np.flatnonzero(process.terminal).tolist() == [3, 6, 9, 10]
    assert not found.q_values[[3, 6, 9, 10]].any()


def test_a_walk_along_the_line():
    env = adapter.make(tables.line())
    assert (env.name, env.spec.observation, env.spec.action) == ("Line", Discrete(11), Discrete(2))
    step = jax.jit(env.step)
    state, obs = env.reset(jax.random.key(0), 2)
    assert obs.tolist() == [0, 0]
    ways = (
        [(0, 1, 1, False), (0, 2, 1, False), (1, 4, 1, False), (0, 5, 1, False), (1, 7, 1, False), (1, 9, 10, True)],
        [(0, 1, 1, False), (1, 3, -10, True), (1, 2, 1, False), (0, 3, -10, True), (0, 1, 1, False), (0, 2, 1, False)],
    )
    for time, moves in enumerate(zip(*ways, strict=True)):
        state, got = step(jax.random.key(time), state, jnp.array([move[0] for move in moves]))
        seen = zip(got.next_obs.tolist(), got.reward.tolist(), got.terminated.tolist(), strict=True)
        assert list(seen) == [move[1:] for move in moves]
        assert got.obs.tolist() == [0 if ends else after for _, after, _, ends in moves]
        assert not got.truncated.any()


@pytest.mark.parametrize(("kings_moves", "steps"), [(False, 15), (True, 7)])
def test_shortest_way_through_the_wind(kings_moves, steps):
    world = tables.windy_grid(kings_moves=kings_moves)
    found = to_numpy(jax.jit(planning.value_iteration)(world.mdp(), 1.0))
    assert found.values[30] == -steps
    index = 30
    for _ in range(steps):
        index = world.outcomes.successor[index, found.actions[index], 0]
    assert index == 37


def test_the_wind_by_hand():
    calm = to_numpy(tables.windy_grid().mdp())
    # No wind, a wind of one, a wind of two, and the upper edge.
    for state, action, after in ((30, 1, 31), (33, 1, 24), (36, 2, 26), (6, 0, 6)):
        assert np.flatnonzero(calm.transition[state, action]).tolist() == [after]
    gusty = to_numpy(tables.windy_grid(stochastic=True, kings_moves=True).mdp())
    # Right of (3, 6), up by one to three; down and right of (3, 3), up by nothing to two; no wind, no gusts.
    for state, action, after in ((36, 1, (7, 17, 27)), (33, 5, (24, 34, 44)), (30, 4, (21,))):
        assert tuple(np.flatnonzero(gusty.transition[state, action])) == after
        np.testing.assert_allclose(gusty.transition[state, action, after], 1 / len(after), rtol=1e-6)


@pytest.mark.parametrize(("num_states", "ends"), [(19, (-1.0, 1.0)), (5, (0.0, 1.0))])
def test_values_of_the_random_walk_lie_on_a_line(num_states, ends):
    process = tables.random_walk(num_states, ends).mdp()
    values = backups.solve(process, jnp.full(process.reward.shape, 0.5), 1.0)
    np.testing.assert_allclose(values[:num_states], np.linspace(*ends, num_states + 2)[1:-1], atol=1e-5)
    np.testing.assert_array_equal(values[num_states:], 0)
    assert np.flatnonzero(process.start).tolist() == [num_states // 2]


def test_bias_is_worse_than_nothing():
    process = to_numpy(tables.maximisation_bias(3, -0.5).mdp())
    found = jax.jit(planning.value_iteration)(process, 1.0)
    np.testing.assert_allclose(found.q_values, [[-0.5, 0, 0], [-0.5, -0.5, -0.5], [0, 0, 0]])


@pytest.mark.parametrize("num_states", [1, 4])
def test_one_sequence_of_actions_walks_the_blind_cliff(num_states):
    native = tables.blind_cliff(num_states)
    process = to_numpy(native.mdp())
    assert process.terminal.tolist() == [False] * num_states + [True]
    paid = []
    for actions in itertools.product([0, 1], repeat=num_states):
        state, reward, length = int(np.argmax(process.start)), 0.0, 0
        while not process.terminal[state]:
            action = actions[length]
            reward += process.reward[state, action]
            state, length = int(np.argmax(process.transition[state, action])), length + 1
        if reward:
            paid.append((actions, reward, length))
    assert paid == [(tuple(i % 2 for i in range(num_states)), 1.0, num_states)]


def test_noise_of_the_reward_is_gaussian():
    native = tables.maximisation_bias(mean=0.25, deviation=0.5)
    _, reward, _ = samples(native, jax.random.key(0), jnp.array([1, 0]), jnp.array([4, 0]), 2000)
    assert scipy.stats.kstest(np.asarray(reward[0]), scipy.stats.norm(0.25, 0.5).cdf).pvalue > 1e-3
    assert not reward[1].any()


def test_pictures_cover_the_first_states():
    for native in TABLES.values():
        if native.picture is not None:
            num_cells = np.prod(native.picture.shape)
            ends = np.flatnonzero(native.outcomes.terminal)
            assert num_cells <= len(native.outcomes.terminal)
            assert all(state in ends for state in range(num_cells, len(native.outcomes.terminal)))
            assert len(native.picture.directions) == native.num_actions
            for down, right in native.picture.directions:
                assert {type(down), type(right)} == {int}


@pytest.mark.parametrize("native", TABLES.values(), ids=list(TABLES))
def test_state_keeps_strong_dtypes(native):
    params = native.default_params
    _, before = jax.eval_shape(native.reset, jax.random.key(0), params)
    obs, after, reward, terminated, _, _ = jax.eval_shape(native.step, jax.random.key(0), before, jnp.int32(1), params)
    for leaf in jax.tree.leaves((before, after, obs)):
        assert (leaf.shape, leaf.dtype, leaf.weak_type) == ((), jnp.int32, False)
    assert (reward.dtype, reward.weak_type, terminated.dtype) == (jnp.float32, False, jnp.bool_)


def test_time_limit_truncates_and_terminates_nothing():
    env = adapter.make(tables.baird(), max_steps_in_episode=2)
    step = jax.jit(env.step)
    state, _ = env.reset(jax.random.key(0), 1)
    for time in range(4):
        state, got = step(jax.random.key(time), state, jnp.array([tables.SOLID]))
        assert (bool(got.truncated[0]), bool(got.terminated[0]), int(got.next_obs[0])) == (time % 2 == 1, False, 6)


def test_wrappers_of_gymnax_accept_it():
    native = tables.line()
    flat = gymnax.wrappers.FlattenObservationWrapper(gymnax.wrappers.LogWrapper(native))
    obs, state = flat.reset(jax.random.key(0))
    obs, state, *_, info = flat.step(jax.random.key(1), state, jnp.int32(1))
    assert obs.shape == info["final_observation"].shape == (1,)
    assert float(state.episode_returns) == 1
    host = gymnax.wrappers.GymnaxToGymWrapper(native, seed=0)
    assert (host.observation_space, host.action_space) == (gymnasium.spaces.Discrete(11), gymnasium.spaces.Discrete(2))
    assert host.reset(seed=1)[0] == 0
    assert np.asarray(host.step(1)[:4]).tolist() == [2, 1, 0, 0]
    assert native.state_space(native.default_params).contains(host.env_state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("probability", np.full((2, 1, 1), 0.5)),
        ("probability", np.full((2, 1, 1), -1.0)),
        ("reward", np.zeros((3, 1, 1))),
        ("start", np.array([0.5, 0.4])),
        ("terminal", np.array([True])),
    ],
)
def test_wrong_outcomes_are_refused(field, value):
    right = tables.Outcomes(
        successor=np.zeros((2, 1, 1), int),
        probability=np.ones((2, 1, 1)),
        reward=np.zeros((2, 1, 1)),
        deviation=np.zeros((2, 1)),
        start=np.array([0.5, 0.5]),
        terminal=np.zeros(2, bool),
    )
    tables.Table("Right", right)
    with pytest.raises(ValueError, match=r"shape|probabilities|broadcast"):
        tables.Table("Wrong", right._replace(**{field: value}))


def test_what_is_not_tabular_has_no_process():
    with pytest.raises(TypeError, match="CartPole-v1 is no tabular environment"):
        tables.process(gymnax.make("CartPole-v1")[0])


@pytest.mark.parametrize(
    "world",
    [
        grid.CliffWalking(),
        grid.CliffWalking(1 / 3),
        grid.four_by_three(),
        grid.dyna_maze(),
        grid.GridWorld("S.r+\n.#.-\nSr..", {"r": grid.Cell(0.5)}, move_probability=0.0, living_reward=-0.1),
    ],
    ids=["cliff", "slippery cliff", "4x3", "maze", "never straight"],
)
def test_sparse_grid_is_the_dense_one(world):
    sparse, dense = to_numpy(world.sparse()), to_numpy(world.mdp())
    assert tables.process(world).transition.shape == dense.transition.shape
    assert sparse.probability.shape[0] == 1
    transition = (sparse.probability[..., None] * np.eye(world.num_states)[sparse.successor]).sum(2)
    np.testing.assert_allclose(transition, dense.transition, atol=1e-6)
    np.testing.assert_allclose(sparse.reward, dense.reward, atol=1e-5)
    np.testing.assert_array_equal(sparse.start, dense.start)
    np.testing.assert_array_equal(sparse.terminal, dense.terminal)


def test_several_restarts_have_no_sparse_form():
    with pytest.raises(ValueError, match="no sparse form"):
        grid.GridWorld("Sx+\nS..", {"x": grid.Cell(restart=True)}).sparse()


def test_shortest_way_through_the_maze():
    world = grid.dyna_maze()
    values = jax.jit(planning.value_iteration)(world.mdp(), 0.5).values
    assert np.flatnonzero(world.mdp().start).tolist() == [18]
    assert values[18] == 0.5**13  # the reward comes with the fourteenth step


def test_expectations_by_hand():
    transition = np.array([[[0.5, 0.5, 0], [0, 0.25, 0.75]], [[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]])
    values, expected = jnp.array([8.0, 4.0, 0.0]), [[6, 1], [8, 0], [4, 4]]
    start, terminal = np.array([1.0, 0, 0]), np.zeros(3, bool)
    dense = mdp.build(transition, np.zeros((3, 2)), start, terminal)
    np.testing.assert_array_equal(mdp.expected(dense, values), expected)
    successor = jnp.array([[[0, 1], [1, 2]], [[0, 0], [2, 2]], [[1, 0], [1, 1]]])
    probability = jnp.array([[[0.5, 0.5], [0.25, 0.75]], [[0.5, 0.5], [1, 0]], [[1, 0], [0.5, 0.5]]])
    sparse = mdp.SparseMDP(successor, probability, dense.reward, dense.start, dense.terminal)
    np.testing.assert_array_equal(mdp.expected(sparse, values), expected)
    shared = sparse._replace(probability=probability[:1])
    np.testing.assert_array_equal(mdp.expected(shared, values), [[6, 1], [8, 0], [6, 4]])


def test_expectations_are_vmapped_over_values_and_processes():
    dense = tables.windy_grid(stochastic=True).mdp()
    many = jnp.arange(140.0).reshape(2, 70)
    np.testing.assert_allclose(
        jax.vmap(functools.partial(mdp.expected, dense))(many),
        np.einsum("sat,nt->nsa", dense.transition, many),
        rtol=1e-5,
    )
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), dense.transition)
    got = jax.vmap(lambda transition, values: mdp.expected(dense._replace(transition=transition), values))(both, many)
    np.testing.assert_allclose(got, np.einsum("nsat,nt->nsa", both, many), rtol=1e-5)
