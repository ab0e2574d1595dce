"""Monte Carlo prediction: averages of listed returns, other steps, importance sampling, and episodes cut anywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Discrete, Spec, Transition
from rlgen.envs import tables
from rlgen.tabular import monte_carlo

SPEC = Spec(Discrete(5), Discrete(2))
HYPERS = monte_carlo.Hypers(discount=0.9, initial_value=0.5)
OFF = {"behaviour": (0.4, 0.6), "target": (0.6, 0.4)}
RATIOS = {"none": (1.0, 1.0), "ordinary": (3 / 2, 2 / 3), "weighted": (3 / 2, 2 / 3)}


@functools.cache
def build(num_envs, visits, importance, **config):
    policies = {} if importance == "none" else OFF
    config = monte_carlo.Config(num_envs, visits=visits, importance=importance, **policies, **config)
    algorithm = monte_carlo.build(SPEC, config)
    return algorithm, jax.jit(algorithm.update)


def run(batch, hypers=HYPERS, visits="first", importance="none", length=None, **config):
    algorithm, update = build(batch.reward.shape[1], visits, importance, **config)
    state, metrics = algorithm.init(jax.random.key(0), hypers), None
    length = length or len(batch.reward)
    for start in range(0, len(batch.reward), length):
        piece = jax.tree.map(lambda leaf: leaf[start : start + length], batch)  # noqa: B023
        state, metrics = update(jax.random.key(0), jnp.int32(0), state, piece, hypers)
    return state, metrics


def returns(batch, values, hypers, visits, ratios):
    """Yields a list of `(state, G, ρ)` for every episode; `values()` completes a truncated one."""
    obs, action, reward, next_obs, terminated, truncated = (leaf[:, 0] for leaf in batch[:6])
    first = 0
    for end in np.flatnonzero(terminated | truncated):
        goal, ratio, listed = (0.0 if terminated[end] else values()[next_obs[end]]), 1.0, []
        for t in range(end, first - 1, -1):
            goal = reward[t] + hypers.discount * goal
            ratio *= ratios[action[t]]
            if visits == "every" or obs[t] not in obs[first:t]:
                listed.append((obs[t], goal, ratio))
        yield listed[::-1]
        first = end + 1


def by_the_rule(batch, hypers, visits, importance):
    """The rule of the module's docstring over lists: the values and mean differences after every episode."""
    values, counts, seen, differences = np.full(5, hypers.initial_value), np.zeros(5), [], []
    for listed in returns(batch, lambda: values, hypers, visits, RATIOS[importance]):
        old, weights, total = values.copy(), np.zeros(5), 0.0
        for state in {state for state, _, _ in listed}:
            goals, ratios = np.array([each[1:] for each in listed if each[0] == state]).T
            weight = ratios if importance == "weighted" else np.ones(len(ratios))
            goals = ratios * goals if importance == "ordinary" else goals
            weights[state] = weight.sum()
            counts[state] += weights[state]
            difference = np.average(goals, weights=weight) - old[state]
            total += weights[state] * abs(difference)
            size = hypers.learning_rate * weights[state] / counts[state] ** hypers.step_exponent
            values[state] += min(size, 1) * difference
        seen.append(values.copy())
        differences.append(total / weights.sum())
    return np.array(seen), np.array(differences)


@pytest.mark.parametrize("visits", ["first", "every"])
@pytest.mark.parametrize("importance", ["none", "ordinary", "weighted"])
def test_values_are_averages_of_all_returns(make_batch, visits, importance):
    batch = make_batch(0, 200, 1, truncate=0)
    lists = [[] for _ in range(5)]
    for listed in returns(batch, None, HYPERS, visits, RATIOS[importance]):
        for state, goal, ratio in listed:
            lists[state].append((goal, ratio))
    assert min(map(len, lists)) > 5
    averages = {
        "none": [np.mean([goal for goal, _ in each]) for each in lists],
        "ordinary": [np.mean([goal * ratio for goal, ratio in each]) for each in lists],
        "weighted": [np.average([goal for goal, _ in each], weights=[ratio for _, ratio in each]) for each in lists],
    }
    got, _ = run(batch, visits=visits, importance=importance)
    np.testing.assert_allclose(monte_carlo.values(got), averages[importance], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("visits", ["first", "every"])
@pytest.mark.parametrize("importance", ["none", "ordinary", "weighted"])
@pytest.mark.parametrize(("learning_rate", "step_exponent"), [(0.2, 0.3), (0.6, 0.0)])
def test_other_steps_follow_the_rule(make_batch, visits, importance, learning_rate, step_exponent):
    batch, hypers = make_batch(1, 100, 1), HYPERS._replace(learning_rate=learning_rate, step_exponent=step_exponent)
    expected, differences = by_the_rule(batch, hypers, visits, importance)
    got, metrics = run(batch, hypers, visits, importance)
    np.testing.assert_allclose(got.values, expected[-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(metrics.error, differences.mean(), rtol=1e-3)


def test_constant_steps_by_hand():
    leaf = np.array([[0], [1]], np.int32)
    ends, flags = np.array([[False], [True]]), np.zeros((2, 1), bool)
    batch = Transition(leaf, leaf, np.array([[1.0], [2.0]], np.float32), leaf, ends, flags, {})
    state, metrics = run(batch, monte_carlo.Hypers(0.25, 0.0, 0.5, initial_value=4.0))
    np.testing.assert_allclose(state.values, [4 + 0.25 * (1 + 0.5 * 2 - 4), 4 + 0.25 * (2 - 4), 4, 4, 4])
    np.testing.assert_allclose(metrics.error, 2)


@pytest.mark.parametrize("importance", ["none", "weighted"])
def test_episodes_go_on_over_batches(make_batch, importance):
    batch = make_batch(2, 60, 2)
    whole, _ = run(jax.tree.map(lambda leaf: leaf[:, :1], batch), importance=importance)
    part, _ = run(jax.tree.map(lambda leaf: leaf[:, :1], batch), importance=importance, length=6)
    jax.tree.map(np.testing.assert_array_equal, whole, part)
    # An average does not depend on the order of environments but where a value completes a truncated return.
    ends = batch._replace(truncated=np.zeros_like(batch.truncated))
    whole, part = (run(ends, importance=importance, length=length)[0] for length in (60, 6))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), whole, part)
    assert (np.asarray(whole.episodes.weight) > 0).any(1).all()  # both go on


def test_the_unfinished_episode_is_not_learned_from(make_batch):
    batch = make_batch(3, 30, 1)
    batch = batch._replace(terminated=np.zeros((30, 1), bool), truncated=np.zeros((30, 1), bool))
    state, metrics = run(batch)
    np.testing.assert_array_equal(state.values, np.full(5, 0.5, np.float32))
    np.testing.assert_array_equal(metrics, 0)
    assert np.isnan(metrics.error)  # no error is known, which is not an error of zero


def test_updates_without_an_end_leave_the_error_as_it_is(make_batch):
    ended, reference = make_batch(3, 30, 1), (0.1, -0.2)
    going_on = ended._replace(terminated=np.zeros((30, 1), bool), truncated=np.zeros((30, 1), bool))
    for known in ({}, {"reference": reference}):
        first, second = (run(batch, **known)[1] for batch in (ended, going_on))
        # Metrics are averaged over a window.
        both = jax.tree.map(lambda *leaves: np.mean(leaves), first, second)
        assert first.error > 0
        np.testing.assert_allclose(both.error, first.error, rtol=1e-6)


def test_error_is_that_at_the_ends_of_episodes(make_batch):
    batch, reference = make_batch(4, 100, 1), (0.1, -0.2)
    seen, _ = by_the_rule(batch, HYPERS, "first", "none")
    _, metrics = run(batch, reference=reference, num_episodes=4)
    expected = np.sqrt(np.square(seen[:4, :2] - reference).mean(-1)).mean()
    np.testing.assert_allclose(metrics.error, expected, rtol=1e-4)


def test_actions_that_the_target_never_takes_weigh_nothing():
    config = monte_carlo.Config(importance="weighted", behaviour=(0.5, 0.5), target=(0.0, 1.0))
    algorithm = monte_carlo.build(SPEC, config)
    state = algorithm.init(jax.random.key(0), HYPERS)
    leaf = np.zeros((2, 1), np.int32)
    ends = np.array([[False], [True]])
    batch = Transition(leaf, leaf, np.ones((2, 1), np.float32), leaf, ends, np.zeros((2, 1), bool), {})
    state, metrics = algorithm.update(jax.random.key(0), jnp.int32(0), state, batch, HYPERS)
    np.testing.assert_array_equal(state.values, np.full(5, 0.5, np.float32))
    assert np.isfinite(metrics.error)


@pytest.mark.parametrize(
    ("visits", "importance", "target"),
    [
        ("first", "none", ()),
        ("every", "none", ()),
        ("first", "ordinary", (0.4, 0.6)),
        ("first", "weighted", (0.4, 0.6)),
    ],
)
def test_values_of_the_random_walk_are_found(train_on, visits, importance, target):
    config = monte_carlo.Config(4, 256, visits=visits, importance=importance, target=target)
    hypers = monte_carlo.Hypers()
    state, _ = train_on(monte_carlo, tables.random_walk(3), config, hypers, 40, 8)
    left, right = target or (0.5, 0.5)
    steps = np.diag([right] * 2, 1) + np.diag([left] * 2, -1)
    exact = np.linalg.solve(np.eye(3) - steps, [-left, 0, right])
    np.testing.assert_allclose(state.values[:, :3].mean(0), exact, atol=0.04)


def test_what_cannot_be_is_refused():
    for wrong in ({"visits": "last"}, {"importance": "some"}):
        with pytest.raises(ValueError, match="there are no"):
            monte_carlo.build(SPEC, monte_carlo.Config(**wrong))
    with pytest.raises(ValueError, match="need importance"):
        monte_carlo.build(SPEC, monte_carlo.Config(**OFF))
