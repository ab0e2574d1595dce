"""Measures of samples, `(key, sample, data) -> scalar`, of which rows bind all but these three arguments.

Shape legend: `N` samples, `C` modes, `F` features, `H W` image.
"""

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key
from rlgen.experiments import judges
from rlgen.experiments.pictures import Data, Sample
from rlgen.parts import quality, random

_CHUNK = 500  # samples at a time


def draw(key: Key, sample: Sample, num: int) -> Array:
    """Draws `[num, ...]` in pieces, so that no more than a few hundred go through a network at once.

    Args:
        key: consumed.
        sample: `(key, N) -> [N, ...]`.
        num: how many.

    Returns:
        The samples.
    """
    if num <= _CHUNK:
        return sample(key, num)
    pieces = lax.map(lambda key: sample(key, _CHUNK), jax.random.split(key, -(-num // _CHUNK)))
    return pieces.reshape(-1, *pieces.shape[2:])[:num]


def quality_of_modes(
    key: Key, sample: Sample, data: object, *, centres: tuple[tuple[float, ...], ...], std: float, num: int = 2_500
) -> Array:
    """Share of samples near a mode, and 0 where a mode has none; both as in arXiv:1712.04086.

    Args:
        key: consumed.
        sample: `(key, N) -> [N, 2]`.
        data: unused; part of every measure.
        centres: of the modes, `[C, 2]`.
        std: of each mode.
        num: samples.

    Returns:
        Scalar; that of the distribution itself is `1 − exp(−9 / 2)`, 0.989.
    """
    del data
    covered = quality.coverage(draw(key, sample, num), jnp.array(centres), std)
    return jnp.where(covered.num_modes == len(centres), covered.share, 0.0)


def num_modes(
    key: Key, sample: Sample, data: object, *, centres: tuple[tuple[float, ...], ...], std: float, num: int = 2_500
) -> Array:
    """How many modes have a sample near them; the arguments are those of `quality_of_modes`."""
    del data
    return quality.coverage(draw(key, sample, num), jnp.array(centres), std).num_modes


def frechet_distance(key: Key, sample: Sample, data: Data, *, judge: str, num: int = 10_000) -> Array:
    """Fréchet distance to the held-out images by a judge's features: FID with the judge in Inception's place.

    Args:
        key: consumed.
        sample: `(key, N) -> [N, H, W, C]` uint8.
        data: with the judge's parameters.
        judge: its name.
        num: samples.

    Returns:
        Scalar.
    """
    seen, held_out = _features(key, sample, data, judge, num)
    return quality.frechet_distance(quality.moments(seen), quality.moments(held_out))


def kernel_distance(key: Key, sample: Sample, data: Data, *, judge: str, num: int = 10_000, size: int = 1_000) -> Array:
    """Kernel distance to the held-out images by a judge's features, mean over random subsets of `size`: KID likewise.

    Args:
        key: consumed.
        sample: `(key, N) -> [N, H, W, C]` uint8.
        data: with the judge's parameters.
        judge: its name.
        num: samples.
        size: of a subset; all there are where they are fewer.

    Returns:
        Scalar.
    """
    draw_key, order_key = jax.random.split(key)
    seen, held_out = _features(draw_key, sample, data, judge, num)
    size = min(size, num, len(held_out))
    num_subsets = min(num, len(held_out)) // size
    # Datasets come in an order, by writer or by class: parts of it are no samples of the whole.
    features = seen, _some(order_key, held_out, num_subsets * size)
    subsets = [one[: num_subsets * size].reshape(num_subsets, size, -1) for one in features]
    return lax.map(lambda pair: quality.kernel_distance(*pair), tuple(subsets)).mean()


def neighbour_accuracy(key: Key, sample: Sample, data: Data, *, num: int, pool: int = 1) -> Array:
    """Accuracy with which the nearest neighbour tells samples from held-out examples, arXiv:1610.06545.

    Args:
        key: consumed.
        sample: `(key, N) -> [N, H, W, C]` uint8, or `[N, F]`.
        data: the dataset.
        num: samples, and held-out examples chosen at random; fewer where there are fewer of these.
        pool: side of the squares of images whose means are compared in place of pixels; it divides height and width.

    Returns:
        Scalar: ½ at best, 1 where samples lie apart from examples.
    """
    draw_key, choice_key = jax.random.split(key)
    held_out = _some(choice_key, jnp.asarray(data.test), min(num, len(data.test)))

    def coarse(examples: Array) -> Array:
        if pool == 1:
            return examples.reshape(len(examples), -1).astype(jnp.float32)
        count, height, width, channels = examples.shape
        squares = examples.astype(jnp.float32).reshape(count, height // pool, pool, width // pool, pool, channels)
        return squares.mean(axis=(2, 4)).reshape(count, -1)

    return quality.neighbour_accuracy(coarse(draw(draw_key, sample, len(held_out))), coarse(held_out))


def _some(key: Key, examples: Array, num: int) -> Array:
    """Chooses `[num, ...]` of examples at random, none twice.  The key is consumed."""
    return examples[random.permutation(key, len(examples))[:num]]


def _features(key: Key, sample: Sample, data: Data, judge: str, num: int) -> tuple[Array, Array]:
    """Features of samples and of held-out images, `[N, F]` each."""
    images = (draw(key, sample, num), data.test)
    seen, held_out = (judges.features(judge, data.judge, each) for each in images)
    return seen, held_out
