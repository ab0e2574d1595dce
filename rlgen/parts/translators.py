"""Networks from images to images and from captions to vectors, a discriminator of patches, and a pool of images.

The networks are those of arXiv:1703.10593, made for small images: no layers at the size of the image itself, zeros at
the edges where they are reflected there, and as many strided convolutions in the discriminator as are asked for, three
there.  Each filter of an image is normalised by itself (arXiv:1607.08022), and learns a scale and an offset.  The pool
is that of arXiv:1612.07828, as arXiv:1703.10593 fills it: one image after another.  A caption is read as the mean of
its words' vectors, whatever their order; what comes of it is as large as what stands beside it, so that it is heard
from the first step on.

Shape legend: `M` images in a minibatch, `P` images in a pool, `H W C` image, `R S` patches along height and width,
`L` words of a caption, `E` size of a vector.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key
from rlgen.parts import convolution

_SLOPE = 0.2  # of the discriminator's leaky ReLU


class Captioned(NamedTuple):
    """Images and what they show."""

    image: Array  # [*N, H, W, C] uint8
    caption: Array  # [*N, L] int32, ids of words; 0 is none


class Reader(nn.Module):
    """From captions to vectors.

    Attributes:
        num_words: ids of words that there are.
        size: `E`.
    """

    num_words: int
    size: int

    @nn.compact
    def __call__(self, caption: Array) -> Array:
        """Maps int32 ids `[*N, L]` to `[*N, E]`."""
        is_word = (caption != 0)[..., None]
        embed = nn.Embed(self.num_words, self.size, embedding_init=nn.initializers.normal(1.0))
        words = jnp.where(is_word, embed(caption), 0.0)
        mean = nn.Dense(self.size)(words.sum(-2) / jnp.maximum(is_word.sum(-2), 1))
        return nn.relu(nn.LayerNorm(use_bias=False, use_scale=False)(mean))


def _normalised(hidden: Array) -> Array:
    """Normalises each filter of each image `[*N, H, W, C]` by itself, inside a module."""
    return nn.LayerNorm(reduction_axes=(-3, -2), feature_axes=-1)(hidden)


class Translator(nn.Module):
    """From images to images of the same shape, both in [−1, 1]: two halvings, residual blocks, two doublings.

    Attributes:
        num_filters: of the first layer; the second has twice as many.
        num_blocks: residual blocks, each of two convolutions.
    """

    num_filters: int = 16
    num_blocks: int = 2

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """Maps `[M, H, W, C]` to `[M, H, W, C]`, where 4 divides `H` and `W`."""
        wide = 2 * self.num_filters
        hidden = image
        for size in (self.num_filters, wide):
            hidden = nn.relu(_normalised(convolution.Conv(size, stride=2, padding=1, use_bias=False)(hidden)))
        for _ in range(self.num_blocks):
            inner = nn.relu(_normalised(convolution.Conv(wide, padding=1, use_bias=False)(hidden)))
            hidden = hidden + _normalised(convolution.Conv(wide, padding=1, use_bias=False)(inner))
        hidden = nn.relu(_normalised(convolution.Doubling(self.num_filters, use_bias=False)(hidden)))
        return jnp.tanh(convolution.Doubling(image.shape[-1])(hidden))


class PatchDiscriminator(nn.Module):
    """From images to a logit for each patch: of 18×18 pixels, four apart, after two halvings; of 38×38 after three.

    Attributes:
        num_filters: of the first layer; each further one has twice as many.
        num_halvings: of height and width.
    """

    num_filters: int = 16
    num_halvings: int = 2

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """Maps `[M, H, W, C]` to `[M, R, S]`."""
        hidden = convolution.Conv(self.num_filters, (4, 4), stride=2, padding=1)(image)
        hidden = nn.leaky_relu(hidden, _SLOPE)
        for depth in range(1, self.num_halvings):
            size = 2**depth * self.num_filters
            hidden = convolution.Conv(size, (4, 4), stride=2, padding=1, use_bias=False)(hidden)
            hidden = nn.leaky_relu(_normalised(hidden), _SLOPE)
        return convolution.Conv(1, padding=1)(hidden)[..., 0]


def exchange(key: Key, pool: Array, images: Array, num_seen: Array) -> tuple[Array, Array]:
    """Shows images to a pool, one after another, and takes as many out.

    While the pool is filling, an image is stored and shown itself.  Once it is full, an image changes places with one
    of the pool at random, or is shown itself: both with equal chance.

    Args:
        key: consumed.
        pool: `[P, H, W, C]`; with `P = 0` every image is shown itself.
        images: `[M, H, W, C]`.
        num_seen: images that the pool was shown before, int32 scalar.

    Returns:
        The pool, and the images to be shown, `[M, H, W, C]`.
    """
    size, num = len(pool), len(images)
    if not size:
        return pool, images

    def one(pool, inputs):
        key, image, count = inputs
        coin_key, place_key = jax.random.split(key)
        full, swaps = count >= size, jax.random.bernoulli(coin_key)
        place = jnp.where(full, jax.random.randint(place_key, (), 0, size), count)
        old = pool[place]
        shown = jnp.where(full & swaps, old, image)
        return pool.at[place].set(jnp.where(full & ~swaps, old, image)), shown

    return lax.scan(one, pool, (jax.random.split(key, num), images, num_seen + jnp.arange(num)))
