"""What adversarial learning is made of: losses, penalties, spectral norms, and the networks of both players.

The game is arXiv:1406.2661.  A loss is three functions of logits, elementwise, so that one table serves every game:

* `saturating` and `non_saturating`: arXiv:1406.2661, minimax and as it proposes to train;
* `hinge`: arXiv:1705.02894;
* `wasserstein`: arXiv:1701.07875;
* `least_squares`: arXiv:1611.04076, with 1 for real and 0 for generated examples.

Networks are dense, or convolutional after DCGAN (arXiv:1511.06434): strides of two, doubled by transposed convolutions.
What batch normalisation does there, layer normalisation over the filters at each place does here in the generator, so
that no image depends on those drawn beside it; the discriminator has none, as penalties of its slope ask for
(arXiv:1704.00028).  Biases of dense hidden layers are drawn from a normal: where they are zero, all kinks of a network
of ReLUs pass through the origin, and it has to move them apart before it resolves anything in a plane.

Shape legend: `N` any batch shape, `M` examples in a minibatch, `S` shape of an example, `Z` latent size, `E` size of a
condition, `F` features, `m` examples that are judged together, `H W C` image.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Key, Tree
from rlgen.parts import convolution

Discriminate = Callable[[Array], Array]  # `[M, *S] -> logits [M]`, each of its own example alone
NETWORKS = ("mlp", "dcgan")
NUM_SQUARINGS = 6  # of the power method: as good as 64 of its iterations
_BIASES = nn.initializers.normal(1.0)
_SLOPE = 0.2  # of the discriminator's leaky ReLU, as in DCGAN
_EPSILON = 1e-12


class Loss(NamedTuple):
    """What either player pays, elementwise `[*N] -> [*N]`, for the discriminator's logits.

    Attributes:
        real: what the discriminator pays for a real example.
        fake: what it pays for a generated one, or one that does not match its condition.
        generator: what the generator pays for its example.
    """

    real: Callable[[Array], Array]
    fake: Callable[[Array], Array]
    generator: Callable[[Array], Array]


def _accept(logit: Array) -> Array:
    """`−log D` of `D = σ(logit)`."""
    return nn.softplus(-logit)


def _reject(logit: Array) -> Array:
    """`−log(1 − D)` of `D = σ(logit)`."""
    return nn.softplus(logit)


def _squares(target: float) -> Callable[[Array], Array]:
    return lambda logit: 0.5 * jnp.square(logit - target)


saturating = Loss(_accept, _reject, lambda logit: -_reject(logit))
non_saturating = Loss(_accept, _reject, _accept)
hinge = Loss(lambda logit: nn.relu(1 - logit), lambda logit: nn.relu(1 + logit), jnp.negative)
wasserstein = Loss(jnp.negative, lambda logit: logit, jnp.negative)
least_squares = Loss(_squares(1.0), _squares(0.0), _squares(1.0))

LOSSES: dict[str, Loss] = {
    "saturating": saturating,
    "non_saturating": non_saturating,
    "hinge": hinge,
    "wasserstein": wasserstein,
    "least_squares": least_squares,
}


def squared_slopes(discriminate: Discriminate, examples: Array) -> Array:
    """Squared norms of the gradients of logits by their examples `[M, *S]`, `[M]`."""
    slopes = jax.grad(lambda points: discriminate(points).sum())(examples)
    return jnp.square(slopes).reshape(len(slopes), -1).sum(-1)


def gradient_penalty(key: Key, discriminate: Discriminate, real: Array, fake: Array) -> Array:
    """Holds the norm of the slope at one on lines between real and generated examples, arXiv:1704.00028.

    Args:
        key: consumed.
        discriminate: `[M, *S] -> [M]`.
        real: `[M, *S]`.
        fake: `[M, *S]`.

    Returns:
        `(‖∇D‖ − 1)²`, mean, to be weighed by 10 there.
    """
    weight = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
    squared = squared_slopes(discriminate, fake + weight * (real - fake))
    # The root has no slope at zero, where a network of ReLUs may well be flat.
    return jnp.square(jnp.sqrt(squared + _EPSILON) - 1).mean()


def zero_centred_penalty(discriminate: Discriminate, examples: Array) -> Array:
    """Holds the slope at examples `[M, *S]` at zero, `½ ‖∇D‖²`; R1 of real ones, R2 of others: arXiv:1801.04406."""
    return 0.5 * squared_slopes(discriminate, examples).mean()


def spectral_norm(matrix: Array, num_squarings: int = NUM_SQUARINGS) -> Array:
    """Largest singular value of a matrix by the power method, from below: seldom by more than a hundredth.

    The method begins anew at every call, instead of where it ended a step ago as in arXiv:1802.05957, and needs no
    state.  So it takes more iterations, which are products of small matrices: each squares the one before.  As there,
    the gradient takes both vectors for constants.

    Args:
        matrix: `[rows, columns]`.
        num_squarings: of the matrix of products of its shorter side; `s` of them stand for `2^s` iterations.

    Returns:
        Scalar.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return spectral_norm(matrix.T, num_squarings)
    still = lax.stop_gradient(matrix)
    power = still.T @ still
    for _ in range(num_squarings):
        # The largest entry of a positive matrix is on its diagonal.  With 1 for it, squares neither grow nor vanish.
        power = power / (jnp.diagonal(power).max() + _EPSILON)
        power = power @ power
    right = _unit(power[jnp.diagonal(power).argmax()])
    left = _unit(still @ right)
    return left @ matrix @ right


def _unit(vector: Array) -> Array:
    return vector * lax.rsqrt(jnp.square(vector).sum() + _EPSILON)


def normalise_spectra(params: Tree) -> Tree:
    """Divides every matrix among parameters by its largest singular value, arXiv:1802.05957.

    Kernels of dense layers and of `convolution.Conv` are matrices; so are embeddings.
    """

    def divided(leaf: Array) -> Array:
        return leaf / (spectral_norm(leaf) + _EPSILON) if leaf.ndim == 2 else leaf

    return jax.tree.map(divided, params)


def pack(examples: Array, num: int) -> Array:
    """Puts examples together that are judged as one, arXiv:1712.04086.

    Args:
        examples: `[M, *S]`.
        num: `m`, which divides `M`.

    Returns:
        `[M / m, ..., m C]`: along the last axis.
    """
    grouped = examples.reshape(-1, num, *examples.shape[1:])
    return jnp.moveaxis(grouped, 1, -2).reshape(len(grouped), *examples.shape[1:-1], -1)


def check_halvings(shape: tuple[int, ...], num: int, name: str, least: int = 1) -> None:
    """Refuses networks that halve images until nothing is left.

    Args:
        shape: of the images, `[H, W, C]`.
        num: halvings.
        name: of the field that asks for them.
        least: pixels that must be left a side.

    Raises:
        ValueError: if fewer would be left.
    """
    height, width = shape[:2]
    if min(height, width) >> num < least:
        raise ValueError(
            f"config.{name} halves images of {height}×{width} {num} times, and at least {least}×{least} pixels must be"
            " left"
        )


def check_filters(shape: tuple[int, ...], config: Any) -> None:
    """Refuses a `Config` whose convolutions have no first image, or halve images until nothing is left.

    Args:
        shape: of the images, `[H, W, C]`.
        config: with `generator_sizes` and `discriminator_sizes`.

    Raises:
        ValueError: if so.
    """
    if not config.generator_sizes:
        raise ValueError("config.generator_sizes=(): a convolutional generator needs channels to begin with")
    check_halvings(shape, len(config.discriminator_sizes), "discriminator_sizes")


def signed(examples: Array) -> Array:
    """Gives what networks read: uint8 images in [−1, 1], other examples as they are."""
    return examples.astype(jnp.float32) / 127.5 - 1 if examples.dtype == jnp.uint8 else examples


def pixels(images: Array) -> Array:
    """Turns images in [−1, 1] into uint8."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


class Generator(nn.Module):
    """From latents to examples; images come in [−1, 1] through a hyperbolic tangent.

    Attributes:
        shape: `S`, of an example.
        network: of `NETWORKS`; `"dcgan"` for images only.
        hidden_sizes: widths of the dense layers; or channels before each doubling, the smallest image first.
    """

    shape: tuple[int, ...]
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (128, 128)

    @nn.compact
    def __call__(self, latent: Array) -> Array:
        """Maps `[M, Z]`, or latents beside conditions `[M, Z + E]`, to `[M, *S]`."""
        if self.network == "dcgan":
            return jnp.tanh(self._grow(latent))
        hidden = latent
        for size in self.hidden_sizes:
            hidden = nn.relu(nn.Dense(size, kernel_init=nn.initializers.he_normal(), bias_init=_BIASES)(hidden))
        output = nn.Dense(math.prod(self.shape))(hidden).reshape(-1, *self.shape)
        return jnp.tanh(output) if len(self.shape) == 3 else output

    def _grow(self, latent: Array) -> Array:
        """Doubles an image of the first size until the others are used up, and cuts it to its own size."""
        height, width, channels = self.shape
        sizes = self.hidden_sizes
        rows, columns = (-(-length // 2 ** len(sizes)) for length in (height, width))
        hidden = nn.Dense(rows * columns * sizes[0])(latent).reshape(-1, rows, columns, sizes[0])
        for size in (*sizes[1:], channels):
            hidden = convolution.Doubling(size)(nn.relu(nn.LayerNorm()(hidden)))
        top, left = (hidden.shape[1] - height) // 2, (hidden.shape[2] - width) // 2
        return hidden[:, top : top + height, left : left + width]


class Discriminator(nn.Module):
    """From examples to logits: dense layers, or convolutions that halve the image.

    Attributes:
        network: of `NETWORKS`.
        hidden_sizes: widths of the dense layers; or filters of the convolutions.
    """

    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (128, 128)

    def setup(self):
        """Builds the layers."""
        init = nn.initializers.he_normal()
        if self.network == "dcgan":
            sizes = self.hidden_sizes
            self.body = [convolution.Conv(size, (4, 4), stride=2, padding=1, kernel_init=init) for size in sizes]
        else:
            self.body = [nn.Dense(size, kernel_init=init, bias_init=_BIASES) for size in self.hidden_sizes]
        self.head = nn.Dense(1)

    def features(self, examples: Array) -> Array:
        """Maps `[M, *S]` to `[M, F]`."""
        hidden = examples if self.network == "dcgan" else examples.reshape(len(examples), -1)
        for module in self.body:
            hidden = nn.leaky_relu(module(hidden), _SLOPE)
        return hidden.reshape(len(hidden), -1)

    def __call__(self, examples: Array) -> Array:
        """Maps `[M, *S]` to `[M]`."""
        return self.head(self.features(examples))[:, 0]
