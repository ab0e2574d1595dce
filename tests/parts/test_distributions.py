"""Distributions, against closed forms."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
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


def test_coins_of_any_logit_against_distrax():
    logits = np.linspace(-100.0, 100.0, 401, dtype=np.float32)
    for bits in (np.zeros_like(logits), np.ones_like(logits)):
        coins, expected = distributions.Bernoulli(logits=logits), distrax.Bernoulli(logits=logits)
        np.testing.assert_allclose(coins.log_prob(bits), expected.log_prob(bits), rtol=1e-6, atol=1e-6)
        slope = jax.grad(lambda at, bits=bits: distributions.Bernoulli(logits=at).log_prob(bits).sum())(logits)
        np.testing.assert_allclose(slope, bits - scipy.special.expit(logits), atol=1e-6)


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


def test_categorical_against_scipy_and_distrax():
    logits = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32) * 3
    value, key = np.array([0, 2, 1, 1, 0]), jax.random.key(3)

    def answers(dist):
        drawn = dist.sample(seed=key, sample_shape=(4000,))
        again, log_prob = dist.sample_and_log_prob(seed=key)
        return dist.log_prob(value), dist.entropy(), dist.mode(), dist.prob(value), drawn, again, log_prob

    ours, theirs = (answers(make(logits=logits)) for make in (distributions.categorical, distrax.Categorical))
    normal = scipy.special.log_softmax(logits, -1)
    np.testing.assert_allclose(ours[0], normal[np.arange(5), value], rtol=1e-5)
    np.testing.assert_allclose(ours[1], -(np.exp(normal) * normal).sum(-1), rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), ours, theirs)
    assert ours[4].dtype == ours[2].dtype == np.int32
    np.testing.assert_array_equal(distributions.categorical(logits).log_prob(np.array([3, -1, 0, 1, 2]))[:2], -np.inf)

    def slopes(make):
        return jax.jacobian(lambda logits: (make(logits=logits).log_prob(value), make(logits=logits).entropy()))(logits)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        *map(slopes, (distributions.categorical, distrax.Categorical)),
    )


SIZES = (3, 2, 4)
LOGITS = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
BOX = Box((2,), (-1.0, 0.5), (3.0, 1.0))  # of neither zero middle nor equal sides
BETA = np.array([[0.3, 2.0, -1.0, 4.0], [1.0, -3.0, 0.0, 0.5]], np.float32)
RANGES = list(zip(BOX.low, BOX.high, strict=True))


def test_multi_categorical_is_one_categorical_a_choice():
    choice = np.array([[2, 0, 3], [0, 1, 1]])

    @jax.jit
    def everything(logits):
        dist = distributions.multi_categorical(logits, SIZES)
        slope = jax.grad(lambda logits: distributions.multi_categorical(logits, SIZES).entropy().sum())(logits)
        drawn = dist.sample(seed=jax.random.key(0), sample_shape=(4000,))
        return dist.log_prob(choice), dist.entropy(), dist.mode(), drawn, slope

    log_prob, entropy, mode, drawn, slope = map(np.asarray, everything(LOGITS))
    pieces = [scipy.special.log_softmax(piece, -1) for piece in np.split(LOGITS, np.cumsum(SIZES)[:-1], -1)]
    np.testing.assert_allclose(log_prob, sum(p[np.arange(2), choice[:, k]] for k, p in enumerate(pieces)), rtol=1e-5)
    np.testing.assert_allclose(entropy, sum(-(np.exp(p) * p).sum(-1) for p in pieces), rtol=1e-5)
    np.testing.assert_array_equal(mode, np.stack([p.argmax(-1) for p in pieces], -1))
    assert drawn.dtype == np.int32
    for k, p in enumerate(pieces):
        np.testing.assert_allclose((drawn[..., k, None] == np.arange(SIZES[k])).mean(0), np.exp(p), atol=0.04)
    assert np.isfinite(slope).all()


def test_logits_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="8 logits cannot serve choices of 3, 2, 4 classes"):
        distributions.multi_categorical(LOGITS[:, :8], SIZES)


def bounded(kind):
    """A distribution of batch shape `[2]` over the box."""
    return distributions.over(BOX, BETA if kind == "beta" else MEAN, LOG_STD, kind)


def elements(kind):
    """The same in scipy, one for each element, `[2][2]`."""
    low, high = np.array(BOX.low), np.array(BOX.high)
    if kind == "beta":
        shape = 1 + np.log1p(np.exp(BETA))
        exact = [
            [scipy.stats.beta(*shape[n, [d, d + 2]], loc=low[d], scale=high[d] - low[d]) for d in (0, 1)]
            for n in (0, 1)
        ]
        return exact

    class Squashed(scipy.stats.rv_continuous):
        def _argcheck(self, mean, std):
            return std > 0  # scipy would have every shape positive

        def _cdf(self, x, mean, std):
            return scipy.stats.norm.cdf(np.arctanh(x), mean, std)

        def _pdf(self, x, mean, std):
            return scipy.stats.norm.pdf(np.arctanh(x), mean, std) / (1 - x**2)

    mean, std = MEAN, np.broadcast_to(np.exp(LOG_STD), (2, 2))
    family = Squashed(a=-1.0, b=1.0, shapes="mean, std")
    exact = [
        [family(mean[n, d], std[n, d], loc=(low + high)[d] / 2, scale=(high - low)[d] / 2) for d in (0, 1)]
        for n in (0, 1)
    ]
    return exact


@pytest.mark.parametrize("kind", ["tanh_normal", "beta"])
def test_a_bounded_distribution_against_scipy(kind):
    value = np.array([[0.25, 0.6], [2.5, 0.7]], np.float32)

    @jax.jit
    def everything():
        dist = bounded(kind)
        drawn = dist.sample(seed=jax.random.key(0), sample_shape=(2000,))
        again, log_prob = dist.sample_and_log_prob(seed=jax.random.key(0), sample_shape=(2000,))
        return dist.log_prob(value), dist.entropy(), dist.mode(), drawn, again, log_prob - dist.log_prob(drawn)

    log_prob, entropy, mode, drawn, again, difference = map(np.asarray, everything())
    exact = elements(kind)
    np.testing.assert_allclose(log_prob, [sum(exact[n][d].logpdf(value[n, d]) for d in (0, 1)) for n in (0, 1)], 1e-4)
    np.testing.assert_allclose(again, drawn, rtol=1e-6)
    np.testing.assert_allclose(difference, 0, atol=1e-2)
    expected = np.zeros(2)
    for n, d in np.ndindex(2, 2):
        single = exact[n][d]
        assert scipy.stats.kstest(drawn[:, n, d].astype(float), single.cdf).pvalue > 0.01
        grid = np.linspace(*RANGES[d], 4001)[1:-1]
        expected[n] += scipy.integrate.quad(lambda x, p=single.pdf: scipy.special.entr(p(x)), *RANGES[d], limit=200)[0]
        best = grid[single.pdf(grid).argmax()] if kind == "beta" else single.median()
        np.testing.assert_allclose(mode[n, d], best, atol=2e-3)
    np.testing.assert_allclose(entropy, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["tanh_normal", "beta"])
def test_bounded_densities_are_finite_at_the_bounds(kind):
    low, high = np.array(BOX.low, np.float32), np.array(BOX.high, np.float32)

    @jax.jit
    def everything():
        extreme = jnp.array([[40.0, -40.0, -40.0, 40.0] if kind == "beta" else [40.0, -40.0]])
        drawn = distributions.over(BOX, extreme, LOG_STD, kind).sample(seed=jax.random.key(0), sample_shape=(200,))
        value = jnp.concatenate([drawn, jnp.broadcast_to(low, drawn.shape), jnp.broadcast_to(high, drawn.shape)])
        log_prob = jax.value_and_grad(lambda p: distributions.over(BOX, p, LOG_STD, kind).log_prob(value).sum())
        return drawn, log_prob(extreme)

    drawn, found = everything()
    assert ((low < drawn) & (drawn < high)).all()
    assert all(np.isfinite(leaf).all() for leaf in found)


def test_kinds_over_a_box():
    assert [distributions.num_parameters(BOX, kind) for kind in distributions.KINDS] == [2, 2, 4]
    assert [distributions.has_log_std(BOX, kind) for kind in distributions.KINDS] == [True, True, False]
    assert not distributions.has_log_std(Discrete(3))


@pytest.mark.parametrize(
    ("space", "kind", "words"),
    [
        (Box((2,)), "tanh_normal", "finite bounds"),
        (Box((2,), 0.0), "beta", "finite bounds"),
        (BOX, "cauchy", "'cauchy' is not one of normal, tanh_normal, beta"),
    ],
)
def test_a_kind_without_a_distribution_is_refused(space, kind, words):
    with pytest.raises(ValueError, match=words):
        distributions.num_parameters(space, kind)
