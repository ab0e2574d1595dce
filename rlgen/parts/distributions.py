"""Probability distributions, the only place that names distrax's.

Distributions live inside a trace: some lose their batch shape when they are returned out of `jit` or `vmap`, so
functions hand on parameters and build the distribution where they need it.

Shape legend: `N` any batch shape, `A` actions, `D` dimensions.
"""

import distrax
import jax.numpy as jnp

from rlgen.core import Array, Box, Discrete, Space, Tree


def categorical(logits: Array) -> distrax.Categorical:
    """Categorical over `A` classes from logits `[*N, A]`."""
    return distrax.Categorical(logits=logits)


def normal(mean: Array, log_std: Array, num_event_axes: int = 1) -> distrax.Independent:
    """Normal with diagonal covariance.

    Args:
        mean: `[*N, *D]`.
        log_std: logarithm of the standard deviation, broadcastable to `mean`.
        num_event_axes: how many trailing axes are one event.

    Returns:
        A distribution of batch shape `[*N]`.
    """
    std = jnp.broadcast_to(jnp.exp(log_std), mean.shape)
    return distrax.Independent(distrax.Normal(mean, std), reinterpreted_batch_ndims=num_event_axes)


def bernoulli(logits: Array, num_event_axes: int = 1) -> distrax.Independent:
    """Independent coins from logits `[*N, *D]`; `num_event_axes` trailing axes are one event."""
    return distrax.Independent(distrax.Bernoulli(logits=logits), reinterpreted_batch_ndims=num_event_axes)


def num_parameters(space: Space) -> int:
    """How many numbers a network gives for an action of this space: logits, or a mean."""
    return space.num if isinstance(space, Discrete) else space.shape[0]


def over(space: Space, parameters: Tree, log_std: Array | None = None) -> distrax.Distribution:
    """Builds the distribution over an action space.

    Args:
        space: categorical for `Discrete`, diagonal normal for a vector `Box`.
        parameters: the network's output, `[*N, num_parameters(space)]`.
        log_std: `[D]` for a `Box`.

    Returns:
        A distribution of batch shape `[*N]`.

    Raises:
        ValueError: if the space is a box that is no vector, or a box without `log_std`.
    """
    if isinstance(space, Discrete):
        return categorical(parameters)
    if not isinstance(space, Box) or len(space.shape) != 1 or log_std is None:
        raise ValueError(f"no distribution over {space} with log_std {'absent' if log_std is None else 'given'}")
    return normal(parameters, log_std)
