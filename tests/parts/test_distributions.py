"""Distributions, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen.core import Box, Discrete
from rlgen.parts import distributions

MEAN, LOG_STD = np.array([[1.0, -2.0], [0.5, 0.0]], np.float32), np.array([0.3, -1.0], np.float32)
VALUE = np.array([[0.0, -1.5], [2.0, 0.25]], np.float32)


def test_categorical():
    logits = jnp.log(jnp.array([[0.2, 0.3, 0.5], [0.7, 0.1, 0.2]]))
    both = distributions.categorical(logits)
    np.testing.assert_allclose(both.log_prob(jnp.array([2, 1])), np.log([0.5, 0.1]), rtol=1e-5)
    np.testing.assert_allclose(both.entropy(), scipy.stats.entropy([[0.2, 0.7], [0.3, 0.1], [0.5, 0.2]]), rtol=1e-5)
    np.testing.assert_array_equal(both.mode(), [2, 0])


@pytest.mark.parametrize("num_event_axes", [1, 2])
def test_normal(num_event_axes):
    dist = distributions.normal(MEAN, LOG_STD, num_event_axes)
    single = scipy.stats.norm(MEAN, np.exp(LOG_STD))
    axes = tuple(range(2 - num_event_axes, 2))
    np.testing.assert_allclose(dist.log_prob(VALUE), single.logpdf(VALUE).sum(axes), rtol=1e-5)
    np.testing.assert_allclose(dist.entropy(), single.entropy().sum(axes), rtol=1e-5)
    np.testing.assert_array_equal(dist.mode(), MEAN)
    drawn = dist.sample(seed=jax.random.key(0), sample_shape=(4000,))
    np.testing.assert_allclose(drawn.mean(0), MEAN, atol=0.1)
    np.testing.assert_allclose(drawn.std(0), np.broadcast_to(np.exp(LOG_STD), (2, 2)), rtol=0.1)


def test_bernoulli():
    logits, bits = np.array([[0.5, -2.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
    p = scipy.stats.logistic.cdf(logits)
    expected = np.log(np.where(bits == 1, p, 1 - p)).sum(-1)
    np.testing.assert_allclose(distributions.bernoulli(logits).log_prob(bits), expected, rtol=1e-5)


def test_over_a_space():
    discrete, box = Discrete(3), Box((2,), -1.0, 1.0)
    assert [distributions.num_parameters(space) for space in (discrete, box)] == [3, 2]
    logits = jnp.array([[1.0, 2.0, 0.5]])
    expected = jax.nn.log_softmax(logits)[:, 1]
    np.testing.assert_allclose(distributions.over(discrete, logits).log_prob(jnp.array([1])), expected, rtol=1e-6)
    expected = distributions.normal(MEAN, LOG_STD).log_prob(VALUE)
    np.testing.assert_array_equal(distributions.over(box, MEAN, LOG_STD).log_prob(VALUE), expected)


@pytest.mark.parametrize(("space", "log_std"), [(Box((2,)), None), (Box((2, 2)), LOG_STD), (Box(()), LOG_STD)])
def test_a_space_without_a_distribution_is_refused(space, log_std):
    with pytest.raises(ValueError, match="no distribution over"):
        distributions.over(space, jnp.zeros((1, 2)), log_std)
