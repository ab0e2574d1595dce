"""Normalising flows: what a module is, how modules become a model, and the modules that only move numbers about.

A `FlowModule` is a bijection with parameters; `FlowModules` is a chain of them; a `FlowModel` is a chain over a base.
Data goes `forward` into the latent space, as in arXiv:1605.08803, whose squeeze and multi-scale split these are; the
factored-out half waits at the end of one flat vector.  Modules with numbers of their own are in `bijectors`.

Shape legend: `N` any batch shape, `S` shape of an example, `R` shape of its latent, `H W C` image, `D` dimensions.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlgen.core import Array, Key, Tree
from rlgen.parts import distributions, networks


class Errors(NamedTuple):
    """How far a module is from being its own inverse's inverse, float32 scalars."""

    inverse: Array  # largest |f⁻¹(f(x)) − x|
    log_det: Array  # largest |log det f(x) + log det f⁻¹(f(x))|


class FlowModule(nn.Module):
    """A bijection with parameters.

    Attributes:
        shape: `S`, of an example.
    """

    shape: tuple[int, ...]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """`R`, of an example's image under the bijection."""
        return self.shape

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Goes forward, so that `init` makes the parameters."""
        return self.forward(x)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps data `[*N, *S]` to `(y [*N, *R], log |det dy/dx| [*N])`."""
        raise NotImplementedError

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Maps `[*N, *R]` back to `(x [*N, *S], log |det dx/dy| [*N])`."""
        raise NotImplementedError

    def start(self, x: Array) -> Array:
        """Writes parameters that depend on data `[*N, *S]` where there are any, and gives its image `[*N, *R]`."""
        return self.forward(x)[0]

    def zeros(self, x: Array) -> Array:
        """The log-determinant of what only moves numbers about, `[*N]`, for data `[*N, *S]`."""
        return jnp.zeros(x.shape[: x.ndim - len(self.shape)])


class FlowModules(FlowModule):
    """A chain.

    Attributes:
        modules: in forward order; each takes what the one before it gives.
    """

    modules: Sequence[FlowModule]

    def setup(self):
        """Checks that the modules fit together."""
        shape = self.shape
        for module in self.modules:
            if module.shape != shape:
                raise ValueError(f"{type(module).__name__} over {module.shape} cannot follow what gives {shape}")
            shape = module.latent_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """That of the last module."""
        return self.modules[-1].latent_shape

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Goes through the modules, from the first to the last."""
        log_det = self.zeros(x)
        for module in self.modules:
            x, more = module.forward(x)
            log_det += more
        return x, log_det

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Goes through the modules, from the last to the first."""
        log_det: Any = 0.0
        for module in reversed(self.modules):
            y, more = module.inverse(y)
            log_det += more
        return y, log_det

    def start(self, x: Array) -> Array:
        """Lets each module see what the started ones before it give."""
        for module in self.modules:
            x = module.start(x)
        return x


class Repeat(FlowModule):
    """A module several times over, each with parameters of its own: compiled once, however often it is repeated.

    Attributes:
        module: from a shape to the same.
        num: how often.
    """

    module: FlowModule
    num: int

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Goes through the copies, from the first to the last."""

        def one(module, carry):
            y, more = module.forward(carry[0])
            return (y, carry[1] + more), None

        return self._through(one, (x, self.zeros(x)))

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Goes through the copies, from the last to the first."""

        def one(module, carry):
            x, more = module.inverse(carry[0])
            return (x, carry[1] + more), None

        return self._through(one, (y, self.zeros(y)), reverse=True)

    def start(self, x: Array) -> Array:
        """Lets each copy see what the started ones before it give."""
        return self._through(lambda module, x: (module.start(x), None), x)

    def _through(self, one: Any, carry: Any, reverse: bool = False) -> Any:
        scan = nn.scan(one, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.num, reverse=reverse)
        return scan(self.module, carry)[0]


class Flatten(FlowModule):
    """Lays an example out as a vector."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """`(D,)`."""
        return (math.prod(self.shape),)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Flattens."""
        log_det = self.zeros(x)
        return x.reshape(*log_det.shape, -1), log_det

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Gives the example its shape back."""
        x = y.reshape(*y.shape[:-1], *self.shape)
        return x, self.zeros(x)


class Squeeze(FlowModule):
    """Turns squares of 2×2 pixels into channels: `[H, W, C]` into `[H / 2, W / 2, 4 C]`."""

    def setup(self):
        """Checks that the image can be cut into squares."""
        if len(self.shape) != 3 or self.shape[0] % 2 or self.shape[1] % 2:
            raise ValueError(f"{self.shape} is no image of an even height and width")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Half as high and wide, four times as deep."""
        height, width, channels = self.shape
        return height // 2, width // 2, 4 * channels

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Stacks the pixels of a square."""
        log_det, (height, width, channels) = self.zeros(x), self.shape
        squares = x.reshape(*log_det.shape, height // 2, 2, width // 2, 2, channels)
        return jnp.moveaxis(squares, -4, -3).reshape(*log_det.shape, *self.latent_shape), log_det

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Lays the pixels of a square out again."""
        log_det, (height, width, channels) = self.zeros(y), self.shape
        squares = y.reshape(*log_det.shape, height // 2, width // 2, 2, 2, channels)
        return jnp.moveaxis(squares, -3, -4).reshape(*log_det.shape, *self.shape), log_det


class Split(FlowModule):
    """Sets half of the channels aside and sends the others on; gives all of them as one vector.

    Attributes:
        rest: what the first half of the channels goes through.
    """

    rest: FlowModule

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """`(D,)`."""
        return (math.prod(self.shape),)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Gives what comes out of the rest, then what was set aside."""
        kept, aside = self._halves(x)
        y, log_det = self.rest.forward(kept)
        return self._joined(y, aside), log_det

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Brings the halves together."""
        batch_shape, kept_size = y.shape[:-1], math.prod(self.rest.latent_shape)
        kept, log_det = self.rest.inverse(y[..., :kept_size].reshape(*batch_shape, *self.rest.latent_shape))
        num_aside = self.shape[-1] - self.rest.shape[-1]
        aside = y[..., kept_size:].reshape(*batch_shape, *self.shape[:-1], num_aside)
        return jnp.concatenate([kept, aside], axis=-1), log_det

    def start(self, x: Array) -> Array:
        """Lets the rest see its half."""
        kept, aside = self._halves(x)
        return self._joined(self.rest.start(kept), aside)

    def _halves(self, x: Array) -> Sequence[Array]:
        return jnp.split(x, [self.rest.shape[-1]], axis=-1)

    def _joined(self, y: Array, aside: Array) -> Array:
        batch_shape = aside.shape[: aside.ndim - len(self.shape)]
        return jnp.concatenate([part.reshape(*batch_shape, -1) for part in (y, aside)], axis=-1)


class FlowModel(nn.Module):
    """A density: a chain over a standard normal base.

    Attributes:
        flow: from data to latents.
    """

    flow: FlowModules

    def __call__(self, x: Array) -> Array:
        """Gives the log-density, so that `init` makes the parameters."""
        return self.log_prob(x)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps data `[*N, *S]` to `(z [*N, *R], log |det dz/dx| [*N])`."""
        return self.flow.forward(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps latents `[*N, *R]` to `(x [*N, *S], log |det dx/dz| [*N])`."""
        return self.flow.inverse(z)

    def start(self, x: Array) -> Array:
        """Writes parameters that depend on data `[*N, *S]`, and gives its latents `[*N, *R]`."""
        return self.flow.start(x)

    def log_prob(self, x: Array) -> Array:
        """Gives the log-density of data `[*N, *S]` in nats, `[*N]`."""
        return self.log_prob_and_log_det(x)[0]

    def log_prob_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Gives the log-density of data `[*N, *S]` in nats, `[*N]`, and that part of it which `forward` gives."""
        z, log_det = self.flow.forward(x)
        normal: Any = distributions.normal(jnp.zeros_like(z), jnp.zeros(()), num_event_axes=len(self.flow.latent_shape))
        return normal.log_prob(z) + log_det, log_det

    def sample(self, key: Key, batch_shape: tuple[int, ...]) -> Array:
        """Draws data `[*N, *S]`.  The key is consumed."""
        return self.flow.inverse(jax.random.normal(key, (*batch_shape, *self.flow.latent_shape)))[0]


def start(module: FlowModule | FlowModel, params: Tree, x: Array) -> Tree:
    """Makes parameters that depend on data: a pure function, to be called once before learning.

    Args:
        module: a module, a chain or a model.
        params: of any values; those that do not depend on data are kept.
        x: a batch, `[*N, *S]`.

    Returns:
        The parameters.
    """
    return module.apply(params, x, method="start", mutable=["params"])[1]


def check(module: FlowModule | FlowModel, params: Tree, x: Array) -> Errors:
    """Measures how exactly a module inverts itself.

    Args:
        module: a module, a chain or a model.
        params: its parameters.
        x: data, `[*N, *S]`.

    Returns:
        The largest errors over the batch.
    """
    y, log_det = networks.apply(module, params, x, method="forward")
    back, log_det_back = networks.apply(module, params, y, method="inverse")
    return Errors(jnp.abs(back - x).max(), jnp.abs(log_det + log_det_back).max())


def dequantise(key: Key, image: Array, num_levels: int = 256) -> Array:
    """Spreads whole numbers `[*N]` evenly over [0, 1), each over an interval of its own.  The key is consumed.

    The log-density of what this gives, less `log num_levels` a pixel, is on average a lower bound of the image's
    log-probability (arXiv:1511.01844).
    """
    noise = jax.random.uniform(key, image.shape, maxval=1 - 2**-16)  # what is nearer to 1 would be rounded up to it
    return (image.astype(jnp.float32) + noise) / num_levels


def quantise(x: Array, num_levels: int = 256) -> Array:
    """Undoes `dequantise`: numbers `[*N]` as uint8 `[*N]`; what lies outside [0, 1) becomes the nearest level."""
    return jnp.clip(jnp.floor(x * num_levels), 0, num_levels - 1).astype(jnp.uint8)
