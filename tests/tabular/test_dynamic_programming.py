"""Planners against linear solves, pymdptoolbox, brute force and published values; the algorithm against planners."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mdptoolbox.mdp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Spec
from rlgen.envs import grid, mdp, tables
from rlgen.parts import backups, planning
from rlgen.tabular import dynamic_programming, prioritised_sweeping

DISCOUNTS = (0.1, 0.5, 0.9, 0.96)
PLANNERS = {
    "value iteration": planning.value_iteration,
    "gauss seidel": planning.gauss_seidel,
    "policy iteration": planning.policy_iteration,
    "modified policy iteration": functools.partial(planning.modified_policy_iteration, num_sweeps=3),
    "prioritised sweeping": lambda *args, max_iterations, **limits: prioritised_sweeping.plan(
        *args, max_backups=max_iterations, **limits
    ),
}
SPARSE = ("value iteration", "gauss seidel", "modified policy iteration")  # planners that need no matrix


@functools.partial(jax.jit, static_argnums=0)
def compiled(name, process, discount, initial_values, tolerance, max_iterations):
    limits = {"initial_values": initial_values, "tolerance": tolerance, "max_iterations": max_iterations}
    return PLANNERS[name](process, discount, **limits)


def find(name, process, discount, *, initial_values=0.0, tolerance=1e-6, max_iterations=10_000):
    """What a planner finds, in NumPy; one program serves all processes of a shape."""
    return to_numpy(compiled(name, process, discount, initial_values, tolerance, max_iterations))


def to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def random_arrays(seed, num_states=9, num_actions=3, num_successors=4):
    """A process with an end, as NumPy arrays: `[S, A, S]`, `[S, A]`, `[S, A, K]` int and `[S, A, K]`."""
    rng = np.random.default_rng(seed)
    successor = rng.integers(num_states, size=(num_states, num_actions, num_successors))
    probability = rng.dirichlet(np.ones(num_successors), (num_states, num_actions))
    reward = rng.normal(size=(num_states, num_actions))
    successor[-1], reward[-1] = num_states - 1, 0
    transition = (probability[..., None] * np.eye(num_states)[successor]).sum(2)
    return transition, reward, successor, probability


def dense(seed, **sizes):
    transition, reward, _, _ = random_arrays(seed, **sizes)
    end = np.arange(len(reward)) == len(reward) - 1
    return mdp.build(transition, reward, np.full(len(reward), 1 / len(reward)), end)


def sparse(seed):
    _, reward, successor, probability = random_arrays(seed)
    like = dense(seed)
    return mdp.SparseMDP(
        jnp.asarray(successor), jnp.asarray(probability), jnp.asarray(reward), like.start, like.terminal
    )


def exact(process, policy, discount):
    """Values of a policy `[S, A]` by NumPy's linear solve."""
    going_on = ~np.asarray(process.terminal)
    transition = np.einsum("sa,sat->st", policy, process.transition) * going_on
    return np.linalg.solve(np.eye(len(going_on)) - discount * transition, (policy * process.reward).sum(-1))


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", PLANNERS)
def test_planners_agree_with_a_linear_solve_and_with_pymdptoolbox(name):
    processes = [to_numpy(dense(seed)) for seed in range(3)]
    family = jax.tree.map(lambda *leaves: np.stack(leaves), *processes)
    found = to_numpy(jax.vmap(lambda process: compiled(name, process, 0.9, 0.0, 1e-9, 10_000))(family))
    assert found.values.dtype == np.float64
    for index, process in enumerate(processes):
        values, actions = found.values[index], found.actions[index]
        np.testing.assert_allclose(values, exact(process, np.eye(3)[actions], 0.9), atol=1e-7, rtol=0)
        peer = mdptoolbox.mdp.PolicyIteration(process.transition.swapaxes(0, 1), process.reward, 0.9)
        peer.run()
        np.testing.assert_allclose(values, peer.V, atol=1e-7, rtol=0)
        assert tuple(actions[:-1].tolist()) == peer.policy[:-1]
        ahead = process.reward + 0.9 * process.transition @ values
        np.testing.assert_allclose(found.q_values[index], ahead, atol=1e-7, rtol=0)


@pytest.mark.usefixtures("double")
def test_sweeps_are_those_of_pymdptoolbox():
    process = to_numpy(dense(0))
    for name, peer_class, more in (
        ("value iteration", mdptoolbox.mdp.ValueIteration, 0),
        ("gauss seidel", mdptoolbox.mdp.ValueIterationGS, 1),  # it sweeps once more when it writes its policy down
    ):
        peer = peer_class(process.transition.swapaxes(0, 1), process.reward, 0.9, epsilon=1e-9)
        peer.max_iter = 7
        peer.run()
        found = find(name, process, 0.9, max_iterations=7 + more)
        assert found.iterations == peer.iter + more == 7 + more
        np.testing.assert_allclose(found.values, peer.V, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_values_of_a_policy_by_sweeps_and_by_a_linear_solve():
    process, rng = to_numpy(dense(1)), np.random.default_rng(5)
    mixed, actions = rng.dirichlet(np.ones(3), 9), rng.integers(3, size=9)
    evaluate = jax.jit(functools.partial(planning.policy_evaluation, tolerance=1e-10))
    for policy, shares in ((mixed, mixed), (actions, np.eye(3)[actions])):
        truth, found = exact(process, shares, 0.96), to_numpy(evaluate(process, policy, 0.96))
        np.testing.assert_allclose(jax.jit(backups.solve)(process, policy, 0.96), truth, atol=1e-12)
        np.testing.assert_allclose(found.values, truth, atol=1e-8)
        np.testing.assert_allclose(found.q_values, process.reward + 0.96 * process.transition @ truth, atol=1e-8)
        assert 0 < found.residual <= 1e-10


@pytest.mark.parametrize("name", PLANNERS)
def test_discounts_are_swept_in_one_call(name):
    process = to_numpy(grid.four_by_three().mdp())
    sweep = jax.jit(jax.vmap(lambda discount: compiled(name, process, discount, 0.0, 1e-6, 10_000)))
    found = to_numpy(sweep(jnp.array(DISCOUNTS)))
    for index, discount in enumerate(DISCOUNTS):
        alone = find(name, process, discount)
        np.testing.assert_allclose(found.values[index], alone.values, atol=1e-6)
        assert found.iterations[index] == alone.iterations
        np.testing.assert_allclose(alone.values, exact(process, np.eye(4)[alone.actions], discount), atol=1e-5)
    assert (np.diff(found.values[:, 8]) > 0).all()  # the further one looks ahead, the better the start


def test_rewards_are_vmapped_over_one_process():
    process = to_numpy(dense(2))
    rewards = process.reward * np.array([1, -1, 0], np.float32)[:, None, None]
    axes = mdp.MDP(None, 0, None, None)
    swept = jax.vmap(lambda process: compiled("value iteration", process, 0.5, 0.0, 1e-6, 10_000), in_axes=(axes,))
    found = to_numpy(swept(process._replace(reward=rewards)))
    for index, reward in enumerate(rewards):
        alone = find("value iteration", process._replace(reward=reward), 0.5)
        np.testing.assert_allclose(found.values[index], alone.values, atol=1e-6)
        assert found.iterations[index] == alone.iterations
    assert not found.values[2].any()


@pytest.mark.usefixtures("double")
def test_finite_horizon_is_the_best_of_all_plans():
    process = to_numpy(dense(3, num_states=3, num_actions=2))
    found = to_numpy(planning.finite_horizon(process, 0.7, horizon=3))
    best = np.full(3, -np.inf)
    for plan in itertools.product(itertools.product(range(2), repeat=3), repeat=3):
        values = np.zeros(3)
        for actions in plan:  # from the last time to the first
            values = (process.reward + 0.7 * process.transition @ values)[np.arange(3), np.array(actions)]
        best = np.maximum(best, values)
    np.testing.assert_allclose(found.values[0], best, atol=1e-12)
    np.testing.assert_array_equal(found.values[3], 0)
    assert (found.values.shape, found.actions.shape, found.actions.dtype) == ((4, 3), (3, 3), np.int32)
    peer = mdptoolbox.mdp.FiniteHorizon(
        np.asarray(process.transition).swapaxes(0, 1), np.asarray(process.reward), 0.7, 3
    )
    peer.run()
    np.testing.assert_allclose(found.values, peer.V.T, atol=1e-12)
    np.testing.assert_array_equal(found.actions[:, :-1], peer.policy.T[:, :-1])


@pytest.mark.parametrize("name", PLANNERS)
def test_published_values_of_the_4x3_world(name):
    world = grid.four_by_three()
    found = find(name, world.mdp(), 1.0)
    assert found.values[world.cell_terminal].tolist() == [0, 0]
    shown = np.where(world.cell_terminal, world.cell_reward, found.values).reshape(world.shape).round(2)
    assert shown[0].tolist() == [0.85, 0.89, 0.93, 1.00]
    assert shown[1, [0, 2, 3]].tolist() == [0.81, 0.68, -1.00]
    assert shown[2].tolist() == [0.77, 0.73, 0.70, 0.47]
    right, up, left = grid.RIGHT, grid.UP, grid.LEFT
    actions = np.asarray(found.actions).reshape(world.shape)
    assert actions[0, :3].tolist() == [right] * 3
    assert actions[1, [0, 2]].tolist() == [up, up]
    assert actions[2].tolist() == [up, left, left, left]


@pytest.mark.parametrize("name", PLANNERS)
def test_without_chance_and_discount_values_count_the_steps(name):
    world = grid.four_by_three(move_probability=1.0)
    steps = np.array([[3, 2, 1], [4, 0, 2], [5, 4, 3]])
    values = find(name, world.mdp(), 1.0).values.reshape(world.shape)[:, :3]
    np.testing.assert_allclose(values[steps > 0], (1 - 0.03 * steps)[steps > 0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "away_from_the_start", "along_the_sweep"),
    [
        # A value travels one cell an iteration, or all cells in a sweep's own direction; the last finds no change.
        ("value iteration", 12, 12),
        ("gauss seidel", 12, 2),
        ("modified policy iteration", 12, 12),  # greedy actions are known no earlier than by value iteration
        ("prioritised sweeping", 11, 11),  # every state once
    ],
)
def test_iterations_are_counted(name, away_from_the_start, along_the_sweep):
    values = 0.5 ** np.arange(11)
    found = find(name, grid.GridWorld("S..........+").mdp(), 0.5)
    np.testing.assert_allclose(found.values, [*values[::-1], 0])
    assert (int(found.iterations), float(found.residual)) == (away_from_the_start, 0)
    found = find(name, grid.GridWorld("+..........S").mdp(), 0.5)
    np.testing.assert_allclose(found.values, [0, *values])
    assert int(found.iterations) == along_the_sweep


def test_policies_are_counted():
    # All actions are equally good but beside the goal, so that the random policy is evaluated first.  Its values tell
    # the way from everywhere; the policy that goes it is evaluated twice.
    found = find("policy iteration", grid.GridWorld("S..........+").mdp(), 0.5)
    assert (int(found.iterations), float(found.residual)) == (3, 0)
    np.testing.assert_allclose(found.values, [*0.5 ** np.arange(11)[::-1], 0], rtol=1e-5)


def test_a_planner_stops_when_it_is_told_and_goes_on_from_there():
    process = grid.GridWorld("S..........+").mdp()
    found = find("value iteration", process, 0.5, max_iterations=2)
    np.testing.assert_array_equal(found.values, [*[0] * 9, 0.5, 1, 0])
    assert (int(found.iterations), float(found.residual)) == (2, 0.5)
    assert find("value iteration", process, 0.5, initial_values=found.values).iterations == 10
    # A value changes by 1/2, 1/4, 1/8 in the sweeps after the first one.
    assert find("value iteration", process, 0.5, tolerance=0.125).iterations == 4


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["grid", "random"])
def test_sparse_equals_dense(kind):
    legend = {"r": grid.Cell(0.5), "x": grid.Cell(-2, restart=True)}
    world = grid.GridWorld("S.r+\n.#.-\n.x..", legend, move_probability=0.6)
    num_states, num_actions = (12, 4) if kind == "grid" else (9, 3)
    rng = np.random.default_rng(0)
    mixed, actions = rng.dirichlet(np.ones(num_actions), num_states), rng.integers(num_actions, size=num_states)

    @jax.jit
    def everything(process):
        values = [PLANNERS[name](process, 0.9, max_iterations=9).values for name in SPARSE]
        for policy in (jnp.asarray(mixed), jnp.asarray(actions)):
            values.append(planning.policy_evaluation(process, policy, 0.9, max_iterations=9).values)
        return values, planning.finite_horizon(process, 0.9, horizon=4)

    one, other = (world.sparse(), world.mdp()) if kind == "grid" else (sparse(4), dense(4))
    assert one.probability.shape[0] == (1 if kind == "grid" else num_states)
    left, right = to_numpy(everything(one)), to_numpy(everything(other))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-12), left, right)


def test_a_sparse_process_has_no_linear_solve():
    with pytest.raises(TypeError, match="whole matrix"):
        planning.policy_iteration(sparse(0), 0.9)


def test_one_sweep_is_value_iteration_and_many_are_policy_iteration():
    @jax.jit
    def steps(process, values):
        once, many = (backups.modified_step(process, values, 0.5, num_sweeps=num) for num in (1, 60))
        return once, backups.value_step(process, values, 0.5), many, backups.policy_step(process, values, 0.5)

    once, value, many, policy = to_numpy(steps(dense(0), jnp.arange(9.0)))
    jax.tree.map(np.testing.assert_array_equal, once, value)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), many, policy)


@pytest.mark.parametrize(("discount", "second"), [(0.999, 0.993), (0.99, 0.9995)])
def test_what_rounding_hides_does_not_add_up(discount, second):
    """An action that falls short by less than a look-ahead may round, at every one of a thousand steps."""
    stays = jnp.stack([jnp.eye(2), jnp.eye(2)], 1)
    reward = jnp.array([[1.0, second], [0.0, 0.0]])
    process = mdp.MDP(stays, reward, jnp.array([1.0, 0.0]), jnp.array([False, True]))
    found = planning.policy_iteration(process, discount)
    np.testing.assert_allclose(found.values[0], 1 / (1 - discount), rtol=2e-5)
    assert found.residual <= 1e-6


def test_equally_good_actions_share():
    q_values = jnp.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
    third = np.float32(1 / 3)
    expected = [[0.5, 0.5, 0], [0, 1, 0], [third, third, third]]
    np.testing.assert_array_equal(backups.greedy_policy(q_values), np.float32(expected))
    np.testing.assert_allclose(backups.greedy_policy(q_values, 1.0), [[third] * 3, [0, 0.5, 0.5], [third] * 3])


@pytest.mark.parametrize("method", dynamic_programming.METHODS)
def test_updates_are_the_iterations_of_the_planner(method):
    process, num_updates = grid.four_by_three().mdp(), 3
    hypers = dynamic_programming.Hypers(discount=0.9, initial_value=0.2)
    config = dynamic_programming.Config(method, num_sweeps=3)
    algorithm = dynamic_programming.build(Spec(Discrete(12), Discrete(4)), config)
    state = algorithm.init(jax.random.key(0), hypers)
    update = jax.jit(algorithm.update)
    for step in range(num_updates):
        state, metrics = update(jax.random.key(0), jnp.int32(step), state, process, hypers)
    limits = {"initial_values": 0.2, "tolerance": 0.0, "max_iterations": num_updates}
    if method == "policy_evaluation":
        found = jax.jit(planning.policy_evaluation)(process, jnp.full((12, 4), 0.25), 0.9, **limits)
    else:
        found = find(method.replace("_", " "), process, 0.9, **limits)
    np.testing.assert_allclose(state.values, found.values, atol=1e-6)
    np.testing.assert_allclose(metrics, [found.residual, found.values[8]], atol=1e-6)
    assert not np.asarray(state.values)[np.asarray(process.terminal)].any()


@pytest.mark.parametrize(
    ("method", "values"),
    [
        # Two states and an end; the second one goes to the first, or on to the end.
        ("value_iteration", [1 + 0.5 * 2, max(0.5 * 2, 1.0)]),
        ("gauss_seidel", [1 + 0.5 * 2, max(0.5 * 2, 1.0)]),
        ("policy_evaluation", [np.mean([0, 1 + 0.5 * 2]), np.mean([0.5 * 2, 1])]),
        # Greedy: to the second state, and from there either way, for which both are equally good.
        ("policy_iteration", np.linalg.solve([[1, -0.5], [-0.25, 1]], [1, 0.5])),
        ("modified_policy_iteration", [1 + 0.5 * 1, 0.5 * 2]),  # the first of equally good actions goes back
    ],
)
def test_one_update_by_hand(method, values):
    transition = np.zeros((3, 2, 3))
    transition[[0, 0, 1, 1], [0, 1, 0, 1], [2, 1, 0, 2]] = 1
    reward = np.array([[0.0, 1.0], [0.0, 1.0], [9.0, 9.0]])
    process = mdp.build(transition, reward, np.array([0.0, 1.0, 0.0]), np.array([False, False, True]))
    algorithm = dynamic_programming.build(
        Spec(Discrete(3), Discrete(2)), dynamic_programming.Config(method, num_sweeps=2)
    )
    hypers = dynamic_programming.Hypers(discount=0.5, initial_value=2.0)
    state = jax.jit(algorithm.init)(jax.random.key(0), hypers)
    assert (state.values.tolist(), state.q_values.tolist()) == ([2] * 3, [[2, 2]] * 3)
    state, metrics = jax.jit(algorithm.update)(jax.random.key(0), jnp.int32(0), state, process, hypers)
    np.testing.assert_allclose(state.values, [*values, 0], atol=1e-6)
    np.testing.assert_allclose(state.q_values, [[0, 2], [1, 1], [0, 0]])
    np.testing.assert_allclose(metrics, [np.abs(np.array(values) - 2).max(), values[1]], atol=1e-6)


def test_policy_is_greedy_and_ties_are_drawn():
    algorithm = dynamic_programming.build(Spec(Discrete(2), Discrete(3)), dynamic_programming.Config())
    state = dynamic_programming.State(jnp.zeros(2), jnp.array([[1.0, 3.0, 2.0], [1.0, 0.0, 1.0]]))
    for explore in (True, False):
        policy = algorithm.policy(jnp.int32(0), state, dynamic_programming.Hypers(), explore=explore)
        obs = jnp.repeat(jnp.arange(2), 500)
        action, extras, memory = policy.apply(jax.random.key(0), obs, policy.memory(obs.shape))
        assert (extras, memory) == ({}, ())
        assert (action[:500] == 1).all()
        np.testing.assert_allclose(np.bincount(action[500:], minlength=3) / 500, [0.5, 0, 0.5], atol=0.1)


def test_best_actions_on_the_line_avoid_the_traps():
    actions = jax.jit(planning.policy_iteration)(tables.line().mdp(), 0.9).actions
    assert np.asarray(actions)[[1, 2, 4, 5, 8]].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("spec", [Spec(Box((1,)), Discrete(2)), Spec(Discrete(2), Box((1,)))])
def test_what_is_no_table_is_refused(spec):
    for module in (dynamic_programming, prioritised_sweeping):
        with pytest.raises(ValueError, match="needs a table"):
            module.build(spec, module.Config())


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="not one of value_iteration, gauss_seidel"):
        dynamic_programming.Config("guess")
