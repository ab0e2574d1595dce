"""Networks from images to vectors and back, dense or convolutional, for models with a code or a latent between them.

Tied weights are those of doi:10.1145/1390156.1390294: a layer of the decoder is the transpose of the encoder's, with a
bias of its own.  The transpose of a strided convolution is a transposed convolution.

Shape legend: `M` images, `H W C` image, `Z` numbers that stand for one, `F` units of the first layer.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlgen.core import Array, Tree
from rlgen.parts import checks, convolution, networks

KINDS = ("dense", "convolutional")


def check(config: Any) -> None:
    """Refuses a `Config` whose `network`, `hidden_sizes` and `dense_sizes` no encoder has.

    Args:
        config: an algorithm's.

    Raises:
        ValueError: if the network is unknown, a convolutional one has no convolutions, or a dense one has layers after
            them.
    """
    checks.one_of(config, network=KINDS)
    if config.network == "convolutional" and not config.hidden_sizes:
        raise ValueError("config.hidden_sizes=(): a convolutional network needs a convolution or more")
    if config.network == "dense" and config.dense_sizes:
        raise ValueError(f"config.dense_sizes={config.dense_sizes}: a dense network has its layers in hidden_sizes")


class Encoder(nn.Module):
    """Hidden layers with ReLUs, and a linear one.

    Attributes:
        kind: of `KINDS`.
        hidden_sizes: widths of the dense layers; or filters of the convolutions, each of which halves the image.
        num_outputs: of the linear layer.
        dense_sizes: widths of dense layers between convolutions and the linear one.
    """

    kind: str
    hidden_sizes: tuple[int, ...]
    num_outputs: int
    dense_sizes: tuple[int, ...] = ()

    def setup(self):
        """Builds the layers."""
        filters, hidden = ((), self.hidden_sizes) if self.kind == "dense" else (self.hidden_sizes, ())
        widths = (*hidden, *self.dense_sizes, self.num_outputs)
        convolutions = [
            convolution.Conv(size, stride=2, padding=1, name=f"Conv_{index}") for index, size in enumerate(filters)
        ]
        self.layers = convolutions + [nn.Dense(size, name=f"Dense_{index}") for index, size in enumerate(widths)]

    def __call__(self, image: Array) -> Array:
        """Maps `[M, H, W, C]` to `[M, num_outputs]`."""
        hidden = image
        for index, layer in enumerate(self.layers):
            if isinstance(layer, nn.Dense):
                hidden = hidden.reshape(len(hidden), -1)
            hidden = layer(nn.relu(hidden) if index else hidden)
        return hidden


class Decoder(nn.Module):
    """An encoder's layers in reverse, where a stride becomes a doubling.

    Attributes:
        kind: of `KINDS`.
        hidden_sizes: of the encoder.
        image_shape: `(H, W, C)`.
        dense_sizes: of the encoder.
    """

    kind: str
    hidden_sizes: tuple[int, ...]
    image_shape: tuple[int, ...]
    dense_sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, code: Array) -> Array:
        """Maps `[M, Z]` to `[M, H, W, C]`, real numbers."""
        is_dense, hidden = self.kind == "dense", code
        for size in (*self.dense_sizes[::-1], *(self.hidden_sizes[::-1] if is_dense else ())):
            hidden = nn.relu(nn.Dense(size)(hidden))
        if is_dense:
            return nn.Dense(math.prod(self.image_shape))(hidden).reshape(-1, *self.image_shape)
        sizes, (height, width, channels) = self.hidden_sizes[::-1], self.image_shape
        rows, columns = (-(-length // 2 ** len(sizes)) for length in (height, width))
        hidden = nn.Dense(rows * columns * sizes[0])(hidden).reshape(-1, rows, columns, sizes[0])
        for size in (*sizes[1:], channels):
            hidden = convolution.Doubling(size)(nn.relu(hidden))
        return hidden[:, :height, :width]


class TiedDecoder(nn.Module):
    """The transposes of an encoder's layers in reverse; only the biases are its own.

    Attributes:
        encoder: whose weights these are; it has to run first when parameters are made.
        image_shape: `(H, W, C)`.
    """

    encoder: Encoder
    image_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, code: Array) -> Array:
        """Maps `[M, Z]` to `[M, H, W, C]`, real numbers."""
        inputs, transposes = jnp.zeros((len(code), *self.image_shape)), []
        for layer in self.encoder.layers:
            inputs, transpose = jax.vjp(functools.partial(_affine, layer.clone(parent=None), layer.variables), inputs)
            transposes.append(transpose)
        hidden = code
        for index, (layer, transpose) in reversed([*enumerate(zip(self.encoder.layers, transposes, strict=True))]):
            hidden = hidden if layer is self.encoder.layers[-1] else nn.relu(hidden)
            (hidden,) = transpose(hidden)
            shape = hidden.shape[1:] if isinstance(layer, nn.Dense) else hidden.shape[-1:]
            hidden = hidden + self.param(f"bias_{index}", nn.initializers.zeros, shape)
        return hidden


def _affine(layer: nn.Module, variables: Tree, inputs: Array) -> Array:
    """Runs one layer alone; a dense one flattens what comes in."""
    return networks.apply(layer, variables, inputs.reshape(len(inputs), -1) if isinstance(layer, nn.Dense) else inputs)


def filters(params: Tree, kind: str, image_shape: tuple[int, ...]) -> Array:
    """Gives the weights of an encoder's first layer as images.

    Args:
        params: of the encoder.
        kind: of `KINDS`.
        image_shape: `(H, W, C)`.

    Returns:
        `[F, H, W, C]`, or of a convolution the windows `[F, 3, 3, C]`.
    """
    if kind == "dense":
        return params["Dense_0"]["kernel"].T.reshape(-1, *image_shape)
    kernel = params["Conv_0"]["Dense_0"]["kernel"]
    return kernel.T.reshape(-1, *convolution.Conv.kernel_size, image_shape[-1])
