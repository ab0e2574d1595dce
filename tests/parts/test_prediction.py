"""Prediction's shared parts: policies, their draws and ratios, streams, and which errors count."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.parts import prediction


def config(behaviour=(), target=(), reference=()):
    return types.SimpleNamespace(behaviour=behaviour, target=target, reference=reference)


def test_empty_policies_are_filled():
    spec = Spec(Discrete(3), Discrete(4))
    assert prediction.bind(spec, config()) == (3, prediction.Policies((0.25,) * 4, (0.25,) * 4))
    half = (0.5, 0.5, 0.0, 0.0)
    _, policies = prediction.bind(spec, config(half))
    assert policies.target == half
    assert not policies.differ
    _, policies = prediction.bind(spec, config((), half))
    assert policies.differ
    np.testing.assert_array_equal(policies.ratios, [2, 2, 0, 0])
    np.testing.assert_allclose(prediction.target_policy(config((), half), 4), half)
    np.testing.assert_array_equal(prediction.Policies(half, half).ratios, [1, 1, 0, 0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config((0.5, 0.6)), "probabilities of 2"),
        (config((1.5, -0.5)), "probabilities of 2"),
        (config((0.2, 0.3, 0.5)), "probabilities of 2"),
        (config((), (1.0,)), "probabilities of 2"),
        (config((1.0, 0.0), (0.5, 0.5)), "never does"),
        (config(reference=(0.0,) * 4), "only 3 states"),
    ],
)
def test_impossible_policies_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        prediction.bind(Spec(Discrete(3), Discrete(2)), wrong)


@pytest.mark.parametrize("spec", [Spec(Box((1,)), Discrete(2)), Spec(Discrete(2), Box((1,)))])
def test_what_is_no_table_is_refused(spec):
    with pytest.raises(ValueError, match="needs a table"):
        prediction.bind(spec, config())


@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.0, 0.7, 0.3, 0.0), (0.0, 0.0, 0.0, 1.0)])
def test_actions_are_drawn_by_their_probabilities(shares):
    policy = prediction.fixed_policy(shares)
    obs = jnp.zeros((100, 200), jnp.int32)
    action, extras, memory = policy.apply(jax.random.key(0), obs, policy.memory((100, 200)))
    assert (action.shape, action.dtype, extras, memory) == ((100, 200), jnp.int32, {}, ())
    counts = np.bincount(np.ravel(action), minlength=4)
    assert not counts[np.array(shares) == 0].any()
    np.testing.assert_allclose(counts / action.size, shares, atol=0.015)  # four standard deviations


def test_streams_put_environments_first():
    leaf = jnp.arange(6).reshape(3, 2)
    streams = prediction.streams(Transition(leaf, leaf, leaf, leaf, leaf, leaf, {}))
    np.testing.assert_array_equal(streams.obs, [[0, 2, 4], [1, 3, 5]])


def test_error_is_measured_over_the_known_states():
    values = jnp.array([1.0, 2.0, 100.0])
    np.testing.assert_allclose(prediction.step_error(values, jnp.float32(-3), (4.0, -2.0)), np.sqrt((9 + 16) / 2))
    np.testing.assert_allclose(prediction.step_error(values, jnp.float32(-3), ()), 3)


@pytest.mark.parametrize(
    ("counts", "num_episodes", "mean"),
    [("0101", 0, 3.0), ("0101", 1, 2.0), ("1101", 2, 1.5), ("0101", 9, 3.0), ("0000", 0, 4.0), ("0000", 2, 4.0)],
)
def test_errors_that_count_are_averaged(counts, num_episodes, mean):
    errors = jnp.array([[1.0, 2.0], [jnp.inf, 4.0]])
    mask = jnp.array([letter == "1" for letter in counts]).reshape(2, 2)
    assert prediction.mean_error(errors, mask, num_episodes) == mean
    total, num = prediction.total_error(errors, mask, num_episodes)
    assert num == min(counts.count("1"), num_episodes or 4)
    assert total == mean * num


def test_ends_count_with_a_reference_and_all_steps_without():
    flags = jnp.array([[False, True, False]])
    stream = Transition(flags, flags, flags, flags, flags, jnp.roll(flags, 1), {})
    errors = jnp.array([[1.0, 3.0, 11.0]])
    assert prediction.report(errors, stream, (0.0,), 0) == 7
    assert prediction.report(errors, stream, (0.0,), 1) == 3
    assert prediction.report(errors, stream, (), 1) == 5
