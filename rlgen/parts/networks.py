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
from rlgen.parts import convolution

INITIALISERS = {
    "orthogonal": nn.initializers.orthogonal,
    "lecun": lambda gain: nn.initializers.lecun_normal(),
    "xavier": lambda gain: nn.initializers.xavier_uniform(),
    # PyTorch's: weights and, by `biases`, biases between ±1/√D.
    "uniform": lambda gain: nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
}
CORES = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "elu": nn.elu, "silu": nn.silu, "gelu": nn.gelu}
_FEW = 32  # outputs of a layer whose kernel is turned


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

    XLA's CPU backend computes products that contract two or three numbers many times slower than those that contract
    four, as the gradient of the input does here: there the product is padded.  It also takes twice as long for the
    gradient of the weights as for that of the weights turned on their side, and so they are turned.

    Args:
        num_outputs: how many.
        **arguments: of `nn.Dense`.

    Returns:
        The layer.
    """
    return nn.Dense(num_outputs, dot_general=_turned if 2 <= num_outputs <= _FEW else None, **arguments)


def _turned(inputs: Array, kernel: Array, dimension_numbers: Any, **arguments: Any) -> Array:
    """The product with a kernel `[D, outputs]`, from one `[4 or more, D]`."""
    num_outputs = kernel.shape[1]
    wide = jnp.pad(kernel, ((0, 0), (0, max(4 - num_outputs, 0))))
    kernel = lax.optimization_barrier(wide.T)  # XLA would turn both the kernel and its gradient back
    (axes, _), batched = dimension_numbers
    return lax.dot_general(inputs, kernel, ((axes, (1,)), batched), **arguments)[..., :num_outputs]


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
        hidden = convolution.Conv(self.num_filters, kernel_init=init)(inputs)
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
    shape = (*batch_shape, size)
    return (jnp.zeros(shape), jnp.zeros(shape)) if core == "lstm" else jnp.zeros(shape)


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
