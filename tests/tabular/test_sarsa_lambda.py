"""Sarsa(λ): the book's procedure, the forward view that dutch traces equal, and values found by planning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.tabular import sarsa, sarsa_lambda

ALPHA, GAMMA, LAMBDA, EPSILON = 0.25, 0.9, 0.7, 0.3
HYPERS = sarsa_lambda.Hypers(ALPHA, GAMMA, LAMBDA, 0.5, epsilon_start=EPSILON, epsilon_end=EPSILON, horizon=1.0)
FALLING = HYPERS._replace(epsilon_start=0.8, epsilon_end=0.2, horizon=6.0)
FALLEN = np.repeat([0.8, 0.7, 0.6, 0.5, 0.4, 0.3], 4)  # at each of 24 steps, four to an update


def mean_value(q_values, obs, epsilon=EPSILON):
    return (1 - epsilon) * q_values[obs].max() + epsilon * q_values[obs].mean()


def by_the_book(batch, kind, epsilon=(EPSILON,) * 24):
    """Traces over a dictionary of the pairs visited, each environment with its own episode."""
    q_values = np.full((4, 3), 0.5)
    traces, last = [{}, {}], [None, None]

    def learn(env, next_value):
        at, reward, _ = last[env]
        error = reward + GAMMA * next_value - q_values[at]
        for pair, trace in traces[env].items():
            q_values[pair] += ALPHA * error * trace

    for t in range(len(batch.reward)):
        for env, trace in enumerate(traces):
            obs, action, reward, next_obs, terminated, truncated = (np.asarray(leaf)[t, env] for leaf in batch[:6])
            at = int(obs), int(action)
            if last[env] is not None:
                learn(env, q_values[at])
            for pair in trace:
                trace[pair] *= GAMMA * LAMBDA
            trace[at] = 1 + (trace.get(at, 0) if kind == "accumulating" else 0)
            last[env] = at, reward, None
            if terminated or truncated:
                learn(env, 0 if terminated else mean_value(q_values, next_obs, epsilon[t]))
                trace.clear()
                last[env] = None
    return q_values


def forward_view(batch):
    """The online λ-return algorithm of section 12.3: every step redoes the episode with the returns known by then."""
    start = np.full((4, 3), 0.5)
    pairs, rewards, values = [], [], []  # `values[k]`: of the pair of step `k` when it was known
    for t in range(len(batch.reward)):
        obs, action, reward, next_obs, terminated, truncated = (np.asarray(leaf)[t, 0] for leaf in batch[:6])
        pairs.append((obs, action))
        values.append(redone(start, pairs[:-2], rewards, values)[obs, action])
        rewards.append(reward)
        if terminated or truncated:
            latest = redone(start, pairs[:-1], rewards[:-1], values)
            value = 0 if terminated else mean_value(latest, next_obs)
            start = redone(start, pairs, rewards, [*values, value])
            pairs, rewards, values = [], [], []
    return redone(start, pairs[:-1], rewards[:-1], values)


def redone(start, pairs, rewards, values):
    """Learns from all steps of an episode anew, with `λ`-returns cut at its last one; `values` has one more."""
    q_values, horizon = start.copy(), len(pairs)
    for k, at in enumerate(pairs):
        discounted = [GAMMA**i * reward for i, reward in enumerate(rewards[k:horizon])]
        goals = [sum(discounted[:n]) + GAMMA**n * values[k + n] for n in range(1, horizon - k + 1)]
        weights = [(1 - LAMBDA) * LAMBDA**n for n in range(len(goals) - 1)] + [LAMBDA ** (len(goals) - 1)]
        q_values[at] += ALPHA * (np.dot(weights, goals) - q_values[at])
    return q_values


@pytest.mark.parametrize("kind", ["accumulating", "replacing"])
def test_learns_by_the_book_however_batches_are_cut(table_spec, experience, feed, kind):
    config = sarsa_lambda.Config(num_envs=2, trace=kind)
    whole = feed(sarsa_lambda, table_spec, config, HYPERS, experience)
    np.testing.assert_allclose(whole.q_values, by_the_book(experience, kind), atol=1e-5)
    pieces = feed(sarsa_lambda, table_spec, config, HYPERS, experience, length=1)
    jax.tree.map(np.testing.assert_array_equal, whole, pieces)


def test_the_share_of_random_actions_falls_from_update_to_update(table_spec, experience, feed):
    config = sarsa_lambda.Config(num_envs=2, trace="replacing")
    state = feed(sarsa_lambda, table_spec, config, FALLING, experience, length=4)
    np.testing.assert_allclose(state.q_values, by_the_book(experience, "replacing", FALLEN), atol=1e-5)


def test_dutch_traces_equal_the_forward_view_at_every_step(table_spec, experience, feed):
    alone = jax.tree.map(lambda leaf: leaf[:, :1], experience)
    for num in (5, 24):
        batch = jax.tree.map(lambda leaf: leaf[:num], alone)  # noqa: B023
        got = feed(sarsa_lambda, table_spec, sarsa_lambda.Config(trace="dutch"), HYPERS, batch)
        np.testing.assert_allclose(got.q_values, forward_view(batch), atol=1e-5)


@pytest.mark.parametrize("kind", sarsa_lambda.TRACES)
def test_without_traces_it_is_one_step_sarsa(table_spec, experience, feed, kind):
    hypers = HYPERS._replace(trace_decay=0.0)
    one = sarsa.Hypers(**{name: value for name, value in hypers._asdict().items() if name in sarsa.Hypers._fields})
    got = feed(sarsa_lambda, table_spec, sarsa_lambda.Config(num_envs=2, trace=kind), hypers, experience)
    expected = feed(sarsa, table_spec, sarsa.Config(num_envs=2), one, experience)
    np.testing.assert_allclose(got.q_values, expected.q_values, atol=1e-5)


def test_traces_mark_visits_by_their_kind():
    trace, at = jnp.array([[0.8, 0.4]]), (jnp.int32(0), jnp.int32(0))
    fade = GAMMA * LAMBDA
    marks = {"accumulating": 1 + fade * 0.8, "replacing": 1.0, "dutch": 1 + (1 - ALPHA) * fade * 0.8}
    for kind, mark in marks.items():
        np.testing.assert_allclose(sarsa_lambda.visit(trace, *at, HYPERS, kind=kind), [[mark, fade * 0.4]], rtol=1e-6)


def test_values_of_the_policy_are_found(known, learn_known):
    discount, epsilon, exact = known
    hypers = sarsa_lambda.Hypers(0.02, discount, 0.5, epsilon_start=epsilon, epsilon_end=epsilon, horizon=1.0)
    config = sarsa_lambda.Config(num_envs=4, rollout_length=16, trace="dutch")
    np.testing.assert_allclose(learn_known(sarsa_lambda, config, hypers, 300).mean(0), exact, atol=0.06)


def test_what_is_no_trace_is_refused():
    with pytest.raises(ValueError, match="not one of accumulating, replacing, dutch"):
        sarsa_lambda.Config(trace="none")
