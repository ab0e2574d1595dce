"""TD(λ): traces by hand, TD(0) and Monte Carlo at its ends, true online TD(λ) against its forward view."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Discrete, Spec, Transition
from rlgen.envs import tables
from rlgen.tabular import n_step_td, td_lambda

SPEC = Spec(Discrete(5), Discrete(2))
HYPERS = td_lambda.Hypers(learning_rate=0.3, discount=0.9, initial_value=0.5, trace_decay=0.7)
KINDS = ("accumulating", "replacing", "dutch")
OFF = {"behaviour": (0.3, 0.7), "target": (0.8, 0.2)}


@functools.cache
def build(traces, **config):
    algorithm = td_lambda.build(SPEC, td_lambda.Config(traces=traces, **config))
    return algorithm, jax.jit(algorithm.update)


def run(traces, batch, hypers, length=None, **config):
    """Learns from `length` steps a batch and gives the last state and metrics."""
    algorithm, update = build(traces, num_envs=batch.reward.shape[1], **config)
    state, metrics = algorithm.init(jax.random.key(0), hypers), None
    length = length or len(batch.reward)
    for start in range(0, len(batch.reward), length):
        piece = jax.tree.map(lambda leaf: leaf[start : start + length], batch)  # noqa: B023
        state, metrics = update(jax.random.key(0), jnp.int32(0), state, piece, hypers)
    return state, metrics


def by_the_book(traces, batch, hypers, ratios=(1.0, 1.0)):
    """Accumulating and replacing traces of one environment in plain loops."""
    values, trace, seen = np.full(5, hypers.initial_value), np.zeros(5), []
    obs, action, reward, next_obs, terminated, truncated = (leaf[:, 0] for leaf in batch[:6])
    for t in range(len(reward)):
        error = reward[t] - values[obs[t]] + (0 if terminated[t] else hypers.discount * values[next_obs[t]])
        trace *= hypers.discount * hypers.trace_decay
        trace[obs[t]] = 1 if traces == "replacing" else trace[obs[t]] + 1
        trace *= ratios[action[t]]
        values = values + hypers.learning_rate * error * trace
        if terminated[t] or truncated[t]:
            trace[:] = 0
        seen.append(values)
    return np.array(seen)


def forward_view(batch, hypers):
    """The online λ-return algorithm: at every step the episode is learned again from the λ-returns cut there.

    The bootstraps of a step's returns are values that were current when the state was reached.
    """
    start, first, seen = np.full(5, hypers.initial_value), 0, []
    obs, _, reward, next_obs, terminated, truncated = (leaf[:, 0] for leaf in batch[:6])
    gamma, lambda_ = hypers.discount, hypers.trace_decay
    bootstraps: list[float] = []  # of the state after each step of the episode, by the values before that step's update
    values = start
    for t in range(len(reward)):
        bootstraps.append(0 if terminated[t] else values[next_obs[t]])
        values = start.copy()
        for k in range(first, t + 1):
            goal = bootstraps[t - first]
            for i in range(t, k - 1, -1):
                mixed = goal if i == t else (1 - lambda_) * bootstraps[i - first] + lambda_ * goal
                goal = reward[i] + gamma * mixed
            values[obs[k]] += hypers.learning_rate * (goal - values[obs[k]])
        if terminated[t] or truncated[t]:
            start, first, bootstraps = values, t + 1, []
        seen.append(values)
    return np.array(seen)


@pytest.mark.parametrize("traces", KINDS)
def test_learns_by_the_book_however_batches_are_cut(make_batch, traces):
    batch = make_batch(0, 60, 1)
    expected = forward_view(batch, HYPERS) if traces == "dutch" else by_the_book(traces, batch, HYPERS)
    whole, _ = run(traces, batch, HYPERS)
    np.testing.assert_allclose(whole.values, expected[-1], rtol=1e-4, atol=1e-5)
    part, _ = run(traces, batch, HYPERS, length=20)
    jax.tree.map(np.testing.assert_array_equal, whole, part)


def test_dutch_traces_equal_the_forward_view_at_every_step(make_batch):
    batch = make_batch(1, 40, 1)
    expected = forward_view(batch, HYPERS)
    state = build("dutch", num_envs=1)[0].init(jax.random.key(0), HYPERS)
    learner = td_lambda.Learner(state.values, state.traces[0], state.previous[0])
    policies = td_lambda.prediction.Policies((0.5, 0.5), (0.5, 0.5))
    learn = jax.jit(functools.partial(td_lambda.learn, traces="dutch", policies=policies))
    for t in range(40):
        learner, _ = learn(learner, jax.tree.map(lambda leaf: leaf[t, 0], batch), HYPERS)  # noqa: B023
        np.testing.assert_allclose(learner.values, expected[t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("traces", ["accumulating", "replacing"])
def test_off_policy_traces_are_multiplied_by_ratios(make_batch, traces):
    batch, hypers = make_batch(2, 60, 1), HYPERS._replace(learning_rate=0.05)
    expected = by_the_book(traces, batch, hypers, (8 / 3, 2 / 7))
    np.testing.assert_allclose(run(traces, batch, hypers, **OFF)[0].values, expected[-1], rtol=1e-4, atol=1e-5)


def test_without_traces_it_is_td0(make_batch):
    batch = make_batch(3, 60, 2)
    config = n_step_td.Config(num_envs=2)
    td0 = n_step_td.build(SPEC, config)
    hypers = n_step_td.Hypers(0.3, 0.9, 0.5, num_steps=1.0)
    start = td0.init(jax.random.key(0), hypers)
    expected, error = td0.update(jax.random.key(0), jnp.int32(0), start, batch, hypers)
    for traces in KINDS:
        state, metrics = run(traces, batch, HYPERS._replace(trace_decay=0.0))
        np.testing.assert_allclose(state.values, expected.values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics, error, rtol=1e-4)


def test_environments_have_their_own_traces():
    # Neither environment visits a state of the other, so that each learns as if it were alone.
    leaves = [[0, 2], [1, 3]], [[0, 0], [0, 0]], [[0.0, 0.0], [1.0, 2.0]], [[1, 3], [0, 2]]
    flags = np.zeros((2, 2), bool)
    batch = Transition(*map(np.array, leaves), np.array([[False, False], [True, True]]), flags, {})
    hypers = td_lambda.Hypers(learning_rate=0.5, discount=0.5, trace_decay=0.5)
    for traces in KINDS:
        for length in (1, 2):
            state, _ = run(traces, batch, hypers, length=length)
            np.testing.assert_allclose(state.values, [0.125, 0.5, 0.25, 1, 0])
            np.testing.assert_array_equal(state.traces, np.zeros((2, 5)))


def test_error_is_that_at_the_ends_of_episodes(make_batch):
    batch, reference = make_batch(4, 60, 1), (0.1, -0.2)
    expected = by_the_book("replacing", batch, HYPERS)[(batch.terminated | batch.truncated)[:, 0]][:3, :2]
    _, metrics = run("replacing", batch, HYPERS, reference=reference, num_episodes=3)
    np.testing.assert_allclose(metrics.error, np.sqrt(np.square(expected - reference).mean(-1)).mean(), rtol=1e-4)


@pytest.mark.parametrize("traces", ["accumulating", "dutch"])
def test_values_of_the_random_walk_are_found(train_on, traces):
    config = td_lambda.Config(num_envs=4, rollout_length=128, traces=traces)
    state, _ = train_on(td_lambda, tables.random_walk(5), config, td_lambda.Hypers(0.02), 60, 8)
    np.testing.assert_allclose(td_lambda.values(state)[:, :5].mean(0), np.arange(-2, 3) / 3, atol=0.05)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="none of accumulating"):
        td_lambda.build(SPEC, td_lambda.Config(traces="fading"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no importance ratios"):
        td_lambda.build(SPEC, td_lambda.Config(traces="dutch", **OFF))


def test_policy_is_the_behaviour_or_the_target():
    algorithm, _ = build("accumulating", **OFF)
    state = algorithm.init(jax.random.key(0), HYPERS)
    for explore, share in ((True, 0.7), (False, 0.2)):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=explore)
        action, _, _ = policy.apply(jax.random.key(1), jnp.zeros(4000, jnp.int32), policy.memory((4000,)))
        np.testing.assert_allclose(action.mean(), share, atol=0.03)
