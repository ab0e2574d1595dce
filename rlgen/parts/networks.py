"""Networks as flax linen modules.

Shape legend: `N` any batch shape, `M` sequences of `T` steps, `D` features.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Discrete, Space, Tree

INITIALISERS = {
    "orthogonal": nn.initializers.orthogonal,
    "lecun": lambda gain: nn.initializers.lecun_normal(),
    "xavier": lambda gain: nn.initializers.xavier_uniform(),
    # PyTorch's: weights and, by `biases`, biases between ±1/√D.
    "uniform": lambda gain: nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
}
CORES = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "elu": nn.elu, "silu": nn.silu, "gelu": nn.gelu}


def encode(observation: Array, space: Space) -> Array:
    """Turns an observation into float32 features: one-hot for `Discrete`, the numbers themselves for a `Box`."""
    if isinstance(space, Discrete):
        return jax.nn.one_hot(observation, space.num)
    return observation.astype(jnp.float32)


def uniform(bound: float) -> Callable[..., Array]:
    """Initialiser that draws from `U(−bound, bound)`."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def biases(initialiser: str, num_inputs: int) -> nn.initializers.Initializer:
    """How the biases of a dense layer begin: at zero, but with `"uniform"` between ±1/√`num_inputs`.

    Rectified layers without biases know of the origin alone: what lies near it is told apart only by its direction.
    """
    if initialiser != "uniform":
        return nn.initializers.zeros
    return uniform(1 / math.sqrt(num_inputs))


def head(num_outputs: int, **arguments: Any) -> nn.Dense:
    """A dense layer of few outputs, such as the values of some actions.

    The gradient of its input contracts the outputs, and XLA's CPU backend computes products that contract two or three
    numbers many times slower than those that contract four: there the product is padded.

    Args:
        num_outputs: how many.
        **arguments: of `nn.Dense`.

    Returns:
        The layer.
    """
    return nn.Dense(num_outputs, dot_general=_padded if num_outputs in (2, 3) else None, **arguments)


def _padded(inputs: Array, kernel: Array, dimension_numbers: Any, **arguments: Any) -> Array:
    """The product with a kernel `[D, outputs]`, from one with four outputs."""
    num_outputs = kernel.shape[1]
    wide = jnp.pad(kernel, ((0, 0), (0, 4 - num_outputs)))
    return lax.dot_general(inputs, wide, dimension_numbers, **arguments)[..., :num_outputs]


class MLP(nn.Module):
    """Dense layers over the flattened observation, an activation after each.

    Attributes:
        hidden_sizes: width of each layer.
        activation: name in `ACTIVATIONS`.
        num_axes: how many trailing axes of the input are one observation.
        initialiser: name in `INITIALISERS`; orthogonal weights have a gain of √2.
        layer_norm: whether features are normalised (arXiv:1607.06450) before each activation.
    """

    hidden_sizes: Sequence[int]
    activation: str = "tanh"
    num_axes: int = 1
    initialiser: str = "orthogonal"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[*N, *observation]` to `[*N, hidden_sizes[-1]]`."""
        hidden = inputs.reshape(*inputs.shape[: inputs.ndim - self.num_axes], -1)
        for size in self.hidden_sizes:
            kernel_init = INITIALISERS[self.initialiser](math.sqrt(2))
            hidden = nn.Dense(size, kernel_init=kernel_init, bias_init=biases(self.initialiser, hidden.shape[-1]))(
                hidden
            )
            hidden = nn.LayerNorm()(hidden) if self.layer_norm else hidden
            hidden = ACTIVATIONS[self.activation](hidden)
        return hidden


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
        use_bias: whether there are biases, as in `Conv`.
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


class CNN(nn.Module):
    """One convolution and dense layers, the network of MinAtar (arXiv:1903.03176): 16 filters of 3×3, then 128 units.

    Attributes:
        hidden_sizes: width of each dense layer after the convolution.
        activation: name in `ACTIVATIONS`.
        num_filters: filters of the convolution.
        initialiser: name in `INITIALISERS`.
        layer_norm: as in `MLP`; after the convolution over the filters at each place.
    """

    hidden_sizes: Sequence[int] = (128,)
    activation: str = "relu"
    num_filters: int = 16
    initialiser: str = "orthogonal"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[*N, height, width, channels]` to `[*N, hidden_sizes[-1]]`."""
        init = INITIALISERS[self.initialiser](math.sqrt(2))
        hidden = Conv(self.num_filters, kernel_init=init)(inputs)
        hidden = nn.LayerNorm()(hidden) if self.layer_norm else hidden
        hidden = ACTIVATIONS[self.activation](hidden)
        return MLP(self.hidden_sizes, self.activation, 3, self.initialiser, self.layer_norm)(hidden)


def apply(network: nn.Module, params: Tree, *inputs: Any, method: str | None = None) -> Any:
    """Runs a network that has no variables but its parameters.

    linen types its own `apply` for networks that also give back what they changed.

    Args:
        network: the module.
        params: what `network.init` gave.
        *inputs: of the method.
        method: name of the method; None for a plain call.

    Returns:
        What the method returns.
    """
    return network.apply(params, *inputs, method=method)


def bind(network: Any, init: Callable[..., Any], update: Callable[..., Any], policy: Callable[..., Any]):
    """Binds an algorithm's functions, which take `network` by keyword, to its network or networks."""
    return Algorithm(*(functools.partial(function, network=network) for function in (init, update, policy)))


def unroll(cell: nn.Module, inputs: Array, start: Array, memory: Tree) -> tuple[Array, Tree]:
    """Goes through sequences with a recurrent core, inside a module that owns it.

    Args:
        cell: the core, of `CORES`.
        inputs: `[M, T, D]`.
        start: `[M, T]` bool, where the memory starts anew.
        memory: `[M, D]`, before the first step.

    Returns:
        Features, `[M, T, D]`, and the memory after each step, `[M, T, D]`.
    """

    def one(cell, memory, each):
        start, inputs = each
        memory = jax.tree.map(lambda leaf: jnp.where(start[:, None], 0.0, leaf), memory)
        memory, features = cell(memory, inputs)
        return memory, (features, memory)

    through = nn.scan(one, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
    return through(cell, memory, (start, inputs))[1]


def initial_memory(core: str, size: int, batch_shape: tuple[int, ...]) -> Tree:
    """What a recurrent core remembers before an episode: zeros.

    Args:
        core: name in `CORES`.
        size: units of the core.
        batch_shape: `N`.

    Returns:
        Leaves `[*N, size]`, two for an LSTM.
    """
    zeros = jnp.zeros((*batch_shape, size))
    return (zeros, zeros) if core == "lstm" else zeros


def torso(
    kind: str,
    hidden_sizes: Sequence[int],
    activation: str,
    space: Space,
    initialiser: str = "orthogonal",
    layer_norm: bool = False,
) -> nn.Module:
    """Builds the network that reads an observation.

    Args:
        kind: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer.
        activation: name in `ACTIVATIONS`.
        space: of the observation, as `encode` gives it.
        initialiser: name in `INITIALISERS`.
        layer_norm: whether features are normalised before each activation.

    Returns:
        A module from `[*N, *observation]` to `[*N, hidden_sizes[-1]]`.

    Raises:
        ValueError: if the kind or the activation is unknown, or a `"cnn"` is asked to read what is no image.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    if kind == "mlp":
        return MLP(tuple(hidden_sizes), activation, max(len(space.shape), 1), initialiser, layer_norm)
    if kind == "cnn" and len(space.shape) == 3:
        return CNN(tuple(hidden_sizes), activation, initialiser=initialiser, layer_norm=layer_norm)
    raise ValueError(
        f"network {kind!r} cannot read observations of shape {space.shape}; there are 'mlp' and 'cnn' (images)"
    )
