"""Convolutions as matrix products, which keep their speed under `vmap` on a CPU.

Shape legend: `N` any batch shape, `M` images, `H W C` height, width and channels.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array


class Affine(nn.Module):
    """The parameters of a dense layer, as `nn.Dense` makes and names them, for a product that is written elsewhere.

    Attributes:
        num_inputs: rows of the kernel.
        num_outputs: columns of the kernel.
        use_bias: whether there are biases.
        kernel_init: initialiser of the kernel.
    """

    num_inputs: int
    num_outputs: int
    use_bias: bool
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self) -> tuple[Array, Array | None]:
        """Gives the kernel `[num_inputs, num_outputs]` and the biases `[num_outputs]`, if there are any."""
        kernel = self.param("kernel", self.kernel_init, (self.num_inputs, self.num_outputs))
        return kernel, self.param("bias", nn.initializers.zeros, (self.num_outputs,)) if self.use_bias else None


class Conv(nn.Module):
    """A convolution written as one matrix product and shifted slices of what goes into it, or comes out of it.

    Kernels that are vmapped over seeds become grouped convolutions, whose gradients XLA's CPU backend computes several
    times slower than the same number of separate ones; a batched matrix product keeps its speed.

    Attributes:
        features: output channels.
        kernel_size: height and width of the window.
        stride: step of the window along both axes.
        padding: rows and columns of zeros on every side.
        kernel_init: initialiser of the kernel, `[height * width * channels, features]`.
        use_bias: whether each feature has a bias, which a normalisation of that feature would take away again.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: int = 0
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[*N, height, width, channels]` to `[*N, height', width', features]`."""
        height, width = self.kernel_size
        num_inputs = height * width * inputs.shape[-1]
        kernel, bias = Affine(num_inputs, self.features, self.use_bias, self.kernel_init, name="Dense_0")()
        # What is smaller is shifted: each place's neighbours, or what each place adds to its neighbours.
        narrows = self.stride == 1 and self.features < inputs.shape[-1]
        outputs = (self._scattered if narrows else self._gathered)(inputs, kernel)
        return outputs if bias is None else outputs + bias

    def _gathered(self, inputs: Array, kernel: Array) -> Array:
        """Multiplies patches by the kernel."""
        (height, width), stride, channels = self.kernel_size, self.stride, inputs.shape[-1]
        rows, columns = self._places(inputs)
        # Columns are read a stride at a time: slices without gaps are copied, and their gradients added, much faster.
        num_blocks = columns + (width - 1) // stride
        missing = num_blocks * stride - inputs.shape[-2] - self.padding
        padded = _surrounded(inputs, (self.padding, self.padding), (self.padding, missing))
        blocks = padded.reshape(*padded.shape[:-2], num_blocks, stride * channels)

        def shifted(row, column):
            vertical = slice(row, row + stride * (rows - 1) + 1, stride)
            size = min(stride, width - column) * channels
            return blocks[..., vertical, column // stride : column // stride + columns, :size]

        slices = [shifted(row, column) for row in range(height) for column in range(0, width, stride)]
        return jnp.concatenate(slices, axis=-1) @ kernel

    def _scattered(self, inputs: Array, kernel: Array) -> Array:
        """Adds what each place gives to its neighbours, for a stride of one."""
        (height, width), padding = self.kernel_size, self.padding
        by_place = kernel.reshape(height * width, -1, self.features).swapaxes(0, 1)
        given = jnp.split(inputs @ by_place.reshape(inputs.shape[-1], -1), height * width, axis=-1)
        places = [(row, column) for row in range(height) for column in range(width)]
        shifted = [
            _surrounded(
                each, (padding - row, padding + row + 1 - height), (padding - column, padding + column + 1 - width)
            )
            for each, (row, column) in zip(given, places, strict=True)
        ]
        return functools.reduce(jnp.add, shifted)

    def _places(self, inputs: Array) -> tuple[int, int]:
        """Counts the rows and columns of the output."""
        height, width = (
            (inputs.shape[axis] + 2 * self.padding - size) // self.stride + 1
            for axis, size in zip((-3, -2), self.kernel_size, strict=True)
        )
        return height, width


def _surrounded(image: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """Puts zeros around `[*N, height, width, channels]`; fewer than none cut it."""
    edges = [(0, 0, 0)] * (image.ndim - 3) + [(*rows, 0), (*columns, 0), (0, 0, 0)]
    return lax.pad(image, jnp.zeros((), image.dtype), edges)


class Doubling(nn.Module):
    """A transposed convolution of 4×4 with a stride of two, which doubles height and width.

    It is written as one of 2×2, whose features are the four pixels that each place becomes.

    Attributes:
        features: output channels.
        use_bias: whether there are biases, one for each of the four pixels of a feature.
        kernel_init: initialiser of the kernel, `[4 * channels, 4 * features]`.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[M, H, W, C]` to `[M, 2 H, 2 W, features]`."""
        num, rows, columns, _ = inputs.shape
        places = Conv(4 * self.features, (2, 2), 1, 1, self.kernel_init, self.use_bias)(inputs)
        pixels = iter(jnp.split(places, 4, axis=-1))
        phases = [
            [next(pixels)[:, row : row + rows, column : column + columns] for column in range(2)] for row in range(2)
        ]
        lines = [jnp.stack(line, axis=3).reshape(num, rows, 2 * columns, -1) for line in phases]
        return jnp.stack(lines, axis=2).reshape(num, 2 * rows, 2 * columns, -1)
