"""Flow modules with numbers of their own, the only place that names distrax's bijectors.

Affine maps, ActNorm and the invertible 1×1 convolution (arXiv:1807.03039), couplings (arXiv:1605.08803) and masked
autoregressive maps (arXiv:1705.07057) whose elements go through an affine map or a monotone rational-quadratic spline
(arXiv:1906.04032).  Every module with parameters starts as the identity or a rotation.  What a conditioner says is
bounded, scales from both sides and bins and slopes of a spline from below, so that a trained module can still be
inverted in float32.

Shape legend: `N` any batch shape, `S` shape of an example, `C` its last axis: channels of an image or dimensions of a
vector, `D` dimensions, `P` parameters of one element's map, `F` features.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import lu, solve_triangular

from rlgen.core import Array, Key
from rlgen.parts import convolution
from rlgen.parts.flow_modules import FlowModule

TRANSFORMS = ("affine", "spline")
LARGEST_LOG_SCALE = 2.0
SPLINE_RANGE = 4.0  # a spline bends what lies within ± this, and leaves the rest as it is
_SMALLEST_BIN, _SMALLEST_SLOPE = 5e-2, 1e-2  # below which too little of float32 is left for the inverse
_SMALLEST_STD = 1e-6


def num_parameters(transform: str, num_bins: int) -> int:
    """Gives `P`: shift and scale, or widths and heights of all bins and slopes at the knots between them."""
    return 2 if transform == "affine" else 3 * num_bins - 1


def elementwise(transform: str, parameters: Array) -> Any:
    """Builds the map of single numbers that a coupling or an autoregressive module chooses the parameters of.

    Args:
        transform: of `TRANSFORMS`.
        parameters: `[*N, P]` of any size; zeros are the identity.

    Returns:
        A bijector of batch shape `[*N]`.
    """
    if transform == "affine":
        log_scale = LARGEST_LOG_SCALE * jnp.tanh(parameters[..., 1] / LARGEST_LOG_SCALE)
        return distrax.ScalarAffine(parameters[..., 0], log_scale=log_scale)
    bins, slopes = jnp.split(parameters, [2 * (parameters.shape[-1] + 1) // 3], axis=-1)
    # distrax also wants the slopes at both ends, and then sets them to 1.
    slopes = jnp.pad(slopes, [(0, 0)] * (slopes.ndim - 1) + [(1, 1)])
    return distrax.RationalQuadraticSpline(
        jnp.concatenate([bins, slopes], axis=-1),
        range_min=-SPLINE_RANGE,
        range_max=SPLINE_RANGE,
        boundary_slopes="identity",
        min_bin_size=_SMALLEST_BIN,
        min_knot_slope=_SMALLEST_SLOPE,
    )


class Bijector(FlowModule):
    """A module that is one of distrax's bijectors, over the whole of an example."""

    def bijector(self) -> Any:
        """Builds the bijector from the parameters."""
        raise NotImplementedError

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Goes forward."""
        return self.bijector().forward_and_log_det(x)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Goes back."""
        return self.bijector().inverse_and_log_det(y)


class Affine(Bijector):
    """A scale and a shift for each element, `y = x exp(s) + t`."""

    def setup(self):
        """Makes both, `[*S]`."""
        self.shift = self.param("shift", nn.initializers.zeros, self.shape)
        self.log_scale = self.param("log_scale", nn.initializers.zeros, self.shape)

    def bijector(self) -> Any:
        """The same map for every example."""
        return distrax.Block(distrax.ScalarAffine(self.shift, log_scale=self.log_scale), len(self.shape))


class ActNorm(Bijector):
    """A scale and a shift for each channel, which `start` makes from a batch such that its image is normalised."""

    def setup(self):
        """Makes both, `[C]`, for the identity."""
        self.shift = self.param("shift", nn.initializers.zeros, self.shape[-1:])
        self.log_scale = self.param("log_scale", nn.initializers.zeros, self.shape[-1:])

    def bijector(self) -> Any:
        """The same map for every example and pixel."""
        return distrax.Block(distrax.ScalarAffine(self.shift, log_scale=self.log_scale), len(self.shape))

    def start(self, x: Array) -> Array:
        """Writes shift and scale with which `[*N, *S]` has zero mean and unit variance in every channel."""
        axes = tuple(range(x.ndim - 1))
        mean, std = x.mean(axes), x.std(axes) + _SMALLEST_STD
        self.put_variable("params", "shift", -mean / std)
        self.put_variable("params", "log_scale", -jnp.log(std))
        return (x - mean) / std


class Logit(Bijector):
    """Takes [0, 1] to the real line, after moving it a little inwards, where float32 has an inverse to give.

    Attributes:
        margin: by how much, at either end; the value of arXiv:1605.08803.
    """

    margin: float = 0.05

    def bijector(self) -> Any:
        """A fixed map."""
        inwards = distrax.ScalarAffine(self.margin, 1 - 2 * self.margin)
        return distrax.Block(distrax.Chain([distrax.Inverse(distrax.Sigmoid()), inwards]), len(self.shape))


class InvertibleConvolution(FlowModule):
    """A 1×1 convolution `W = P (L + I) (U + diag s)`: one matrix over the channels of every pixel, or over a vector.

    It starts as a rotation or reflection drawn at random.  The signs of `s` are fixed, and written into `P`.
    """

    def setup(self):
        """Makes the factors of `W`, each `[C, C]`, and the logarithm of `s`, `[C]`."""
        factors = self.param("factors", _random_rotation, self.shape[-1])
        # A permutation is no number to learn: held here, it gets a gradient of zero and stays as it was drawn.
        self.permutation = lax.stop_gradient(factors["permutation"])
        self.lower = jnp.tril(factors["lower"], -1) + jnp.eye(self.shape[-1])
        self.upper = jnp.triu(factors["upper"], 1) + jnp.diag(jnp.exp(factors["log_diagonal"]))
        self.log_det = factors["log_diagonal"].sum() * math.prod(self.shape[:-1])

    def matrix(self) -> Array:
        """Gives `W`, `[C, C]`."""
        return _multiply(_multiply(self.permutation, self.lower), self.upper)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Multiplies by `W`."""
        return _multiply(x, self.matrix().T), self.zeros(x) + self.log_det

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Multiplies by `W⁻¹`, from two triangular systems."""
        half = solve_triangular(self.lower, self.permutation.T, lower=True, unit_diagonal=True)
        return _multiply(y, solve_triangular(self.upper, half).T), self.zeros(y) - self.log_det


def _multiply(left: Array, right: Array) -> Array:
    """Multiplies in full float32: accelerators would round to fewer bits, and the inverse would be none."""
    return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)


def _random_rotation(key: Key, size: int) -> dict[str, Array]:
    """Draws an orthogonal matrix as its factors.  The key is consumed."""
    permutation, lower, upper = lu(jax.random.orthogonal(key, size))
    diagonal = jnp.diag(upper)
    signs = jnp.sign(diagonal)
    # P (L + I) (U + diag s) = P S (S L S + I) (S U + diag |s|), where S holds the signs.
    return {
        "permutation": permutation * signs,
        "lower": jnp.tril(signs[:, None] * lower * signs, -1),
        "upper": jnp.triu(signs[:, None] * upper, 1),
        "log_diagonal": jnp.log(jnp.abs(diagonal)),
    }


class Conditioner(nn.Module):
    """Parameters for `C'` elements from some features: dense layers, or convolutions over an image; zeros at first.

    Attributes:
        hidden_sizes: width of each hidden layer; the first and the last convolution are 3×3, the others 1×1.
        num_elements: `C'`.
        num_parameters: `P`.
        spatial: whether the input is an image.
    """

    hidden_sizes: Sequence[int]
    num_elements: int
    num_parameters: int
    spatial: bool

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[*N, F]` to `[*N, C', P]`, or `[*N, H, W, F]` to `[*N, H, W, C', P]`."""
        hidden, num_outputs = inputs, self.num_elements * self.num_parameters
        for index, size in enumerate(self.hidden_sizes):
            wide = self.spatial and index == 0
            hidden = nn.relu((convolution.Conv(size, padding=1) if wide else nn.Dense(size))(hidden))
        zeros = nn.initializers.zeros
        wide = convolution.Conv(num_outputs, padding=1, kernel_init=zeros)
        outputs = (wide if self.spatial else nn.Dense(num_outputs, kernel_init=zeros))(hidden)
        return outputs.reshape(*inputs.shape[:-1], self.num_elements, self.num_parameters)


class Coupling(Bijector):
    """Changes half of the channels by maps whose parameters depend on the other half.

    Attributes:
        hidden_sizes: of the conditioner.
        transform: of `TRANSFORMS`.
        num_bins: of a spline.
        swap: whether the first half is changed, and not the second.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    transform: str = "affine"
    num_bins: int = 8
    swap: bool = False

    def setup(self):
        """Makes the conditioner."""
        channels = self.shape[-1]
        if channels < 2:
            raise ValueError(f"{self.shape} has no two channels, of which one could depend on the other")
        changed = channels // 2 if self.swap else channels - channels // 2
        size = num_parameters(self.transform, self.num_bins)
        self.conditioner = Conditioner(self.hidden_sizes, changed, size, len(self.shape) == 3)

    def bijector(self) -> Any:
        """A map that differs from example to example."""
        conditioner: Any = self.conditioner
        element = functools.partial(elementwise, self.transform)
        return distrax.SplitCoupling(self.shape[-1] // 2, len(self.shape), conditioner, element, swap=self.swap)


class MADE(nn.Module):
    """Parameters for every element of a vector from the elements before it (arXiv:1502.03509); zeros at first.

    Attributes:
        hidden_sizes: width of each hidden layer.
        num_elements: `D`.
        num_parameters: `P`.
        reverse: whether elements depend on those after them.
    """

    hidden_sizes: Sequence[int]
    num_elements: int
    num_parameters: int
    reverse: bool

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[*N, D]` to `[*N, D, P]`."""
        positions = np.arange(self.num_elements)[:: -1 if self.reverse else 1]
        # A unit of degree `d` sees the elements at positions below `d`.  In turn they have all degrees there are, or,
        # where they are fewer, some that are spread evenly up to the highest.
        most = max(self.num_elements - 1, 1)
        hidden, seen = inputs, positions + 1
        for index, size in enumerate(self.hidden_sizes):
            units = np.arange(size)
            degrees = 1 + units % most if size >= most else -(-(units + 1) * most // size)
            hidden = nn.relu(self._masked(hidden, seen[:, None] <= degrees, f"hidden_{index}"))
            seen = degrees
        mask = np.repeat(seen[:, None] <= positions, self.num_parameters, axis=1)
        outputs = self._masked(hidden, mask, "out", nn.initializers.zeros)
        return outputs.reshape(*inputs.shape, self.num_parameters)

    def _masked(self, inputs: Array, mask: np.ndarray, name: str, init: Any = None) -> Array:
        """A dense layer without the weights that the mask leaves out."""
        kernel = self.param(f"{name}_kernel", init or nn.initializers.lecun_normal(), mask.shape)
        bias = self.param(f"{name}_bias", nn.initializers.zeros, mask.shape[1:])
        return inputs @ (kernel * mask) + bias


class Autoregressive(FlowModule):
    """Changes every element by a map whose parameters depend on the elements before it.

    Forward all elements are changed at once; the inverse finds them one after the other, in `D` passes.

    Attributes:
        hidden_sizes: of the masked network.
        transform: of `TRANSFORMS`.
        num_bins: of a spline.
        reverse: whether elements depend on those after them.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    transform: str = "affine"
    num_bins: int = 8
    reverse: bool = False

    def setup(self):
        """Makes the masked network."""
        if len(self.shape) != 1:
            raise ValueError(f"{self.shape} is no vector")
        size = num_parameters(self.transform, self.num_bins)
        self.conditioner = MADE(self.hidden_sizes, self.shape[0], size, self.reverse)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Goes forward, in one pass."""
        y, log_dets = elementwise(self.transform, self.conditioner(x)).forward_and_log_det(x)
        return y, log_dets.sum(-1)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Goes back: each pass makes one more element right, and the last one their log-determinants too."""

        def one(module, carry):
            parameters = module.conditioner(carry[0])
            return elementwise(module.transform, parameters).inverse_and_log_det(y), None

        scan = nn.scan(one, variable_broadcast="params", split_rngs={"params": False}, length=self.shape[0])
        (x, log_dets), _ = scan(self, (y, y))
        return x, log_dets.sum(-1)
