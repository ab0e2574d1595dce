"""Batch renormalisation, arXiv:1702.03275: batch normalisation whose training and use agree; and networks of it.

An algorithm's `Config` gives `hidden_sizes` of the actor, `critic_sizes`, `num_critics`, `activation`, `decay` and
`renorm_warm_up`.

Shape legend: `N` any batch shape, `D` features, or elements of an action, `C` critics.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from rlgen.core import Array, Spec
from rlgen.parts import networks, soft

STATISTICS = "batch_stats"  # the collection that running statistics lie in


class BatchRenorm(nn.Module):
    """Normalises features by statistics of the batch, corrected towards the running ones.

    Attributes:
        decay: share of the running statistics that a batch leaves.
        warm_up: batches that are normalised as in batch normalisation, while the running statistics settle.
        max_ratio: the correction of the deviation lies between its inverse and this.
        max_shift: the correction of the mean lies between its negative and this, in deviations.
        epsilon: added to variances.
    """

    decay: float = 0.99
    warm_up: int = 10_000
    max_ratio: float = 3.0
    max_shift: float = 5.0
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Normalises `[*N, D]`.

        Args:
            inputs: features.
            train: whether the batch's statistics are used, and move the running ones where these may change; else the
                running ones are used.

        Returns:
            `[*N, D]`.
        """
        size = inputs.shape[-1:]
        mean = self.variable(STATISTICS, "mean", jnp.zeros, size)
        var = self.variable(STATISTICS, "var", jnp.ones, size)
        count = self.variable(STATISTICS, "count", lambda: jnp.float32(0))
        scale = self.param("scale", nn.initializers.ones, size)
        bias = self.param("bias", nn.initializers.zeros, size)
        running, deviation = mean.value, jnp.sqrt(var.value + self.epsilon)
        if not train:
            return (inputs - running) / deviation * scale + bias
        axes = tuple(range(inputs.ndim - 1))
        batch_mean, batch_var = inputs.mean(axes), inputs.var(axes)
        batch_deviation = jnp.sqrt(batch_var + self.epsilon)
        settled = count.value >= self.warm_up
        ratio = jnp.clip(batch_deviation / deviation, 1 / self.max_ratio, self.max_ratio)
        shift = jnp.clip((batch_mean - running) / deviation, -self.max_shift, self.max_shift)
        # The corrections count as constants: the gradient sees the batch's statistics alone.
        ratio = lax.stop_gradient(jnp.where(settled, ratio, 1.0))
        shift = lax.stop_gradient(jnp.where(settled, shift, 0.0))
        if not self.is_initializing() and self.is_mutable_collection(STATISTICS):
            mean.value = self.decay * running + (1 - self.decay) * batch_mean
            var.value = self.decay * var.value + (1 - self.decay) * batch_var
            count.value = count.value + 1
        return ((inputs - batch_mean) / batch_deviation * ratio + shift) * scale + bias


class Torso(nn.Module):
    """Dense layers, each behind a renormalisation of what it reads."""

    config: Any
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Maps `[*N, features]` to `[*N, sizes[-1]]`, renormalised."""
        norm = functools.partial(BatchRenorm, self.config.decay, self.config.renorm_warm_up)
        hidden = norm()(inputs, train=train)
        for size in self.sizes:
            hidden = networks.ACTIVATIONS[self.config.activation](nn.Dense(size)(hidden))
            hidden = norm()(hidden, train=train)
        return hidden


class Actor(nn.Module):
    """The policy."""

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array, *, train: bool) -> Any:
        """Gives the distribution over actions between −1 and 1 at `[*N, *observation]`."""
        obs = networks.encode(obs, self.spec.observation)
        features = Torso(self.config, self.config.hidden_sizes)(obs, train=train)
        mean, log_std = jnp.split(networks.head(2 * self.spec.action.shape[0])(features), 2, axis=-1)
        return soft.squashed(mean, log_std)


class Critic(nn.Module):
    """A prediction of the return of an action."""

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array, action: Array, train: bool) -> Array:
        """Maps `[*N, *observation]` and `[*N, D]` between −1 and 1 to returns `[*N]`."""
        inputs = jnp.concatenate([networks.encode(obs, self.spec.observation), action], axis=-1)
        return nn.Dense(1)(Torso(self.config, self.config.critic_sizes)(inputs, train=train))[..., 0]


class Networks(NamedTuple):
    """Of a task; static."""

    spec: Spec
    config: Any

    @property
    def actor(self) -> Actor:
        """The policy."""
        return Actor(self.spec, self.config)

    @property
    def critics(self) -> Any:
        """`C` critics that share nothing: `(obs, action, train) -> [C, *N]`."""
        many = nn.vmap(
            Critic,
            in_axes=None,  # pyright: ignore[reportArgumentType]  # flax says int and takes None for all inputs
            axis_size=self.config.num_critics,
            variable_axes={"params": 0, STATISTICS: 0},
            split_rngs={"params": True},
        )
        return many(self.spec, self.config)
