"""Candidates of a population as one policy: vectors of parameters, and who of them plays.

What the policy of a population remembers at the start of an episode is the candidate that plays it, so that any source
can run it; candidates are dealt to the places of a batch in turn.

Shape legend: `P` candidates, `D` parameters, `B` any batch shape.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from rlgen.core import Array, Box, Key, Policy, Spec, Tree, memoryless
from rlgen.parts import distributions, networks
from rlgen.parts.normalise import Moments

_LEAST_STD = 1e-7  # of an element of an observation that is not left out when observations are normalised


class Controller(nn.Module):
    """A linear map, or an MLP, whose outputs are an action: the largest wins, or a box cuts them off.

    The last layer starts at zero.  A map without hidden layers has no bias.

    Attributes:
        spec: of the task.
        config: with `hidden_sizes` and `activation`.
    """

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Maps `[*B, *observation]` to `[*B, *action]`."""
        config, space = self.config, self.spec.action
        torso = networks.torso("mlp", config.hidden_sizes, config.activation, self.spec.observation)
        head = nn.Dense(
            distributions.num_parameters(space), use_bias=bool(config.hidden_sizes), kernel_init=nn.initializers.zeros
        )
        outputs = head(torso(networks.encode(obs, self.spec.observation)))
        action = distributions.over(space, outputs, jnp.float32(0)).mode()
        return jnp.clip(action, jnp.asarray(space.low), jnp.asarray(space.high)) if isinstance(space, Box) else action


def make_controller(spec: Spec, config: Any) -> Controller:
    """Makes the controller of a task, once what it is asked for is known to make sense.

    Args:
        spec: observations of one array; actions `Discrete`, `MultiDiscrete` or a vector `Box`.
        config: with `hidden_sizes`, `activation` and `normalise_observations`.

    Returns:
        The module.

    Raises:
        ValueError: if discrete observations are to be normalised, or there are no such actions.
    """
    if config.normalise_observations and not isinstance(spec.observation, Box):
        raise ValueError(f"config.normalise_observations has no meaning for observations in {spec.observation}")
    distributions.num_parameters(spec.action)
    return Controller(spec, config)


def initial_params(key: Key, controller: Controller) -> Array:
    """Draws the parameters of a controller as one vector `[D]`.  The key is consumed."""
    space = controller.spec.observation
    return ravel_pytree(controller.init(key, jnp.zeros(space.shape, space.dtype)))[0]


def unravel(params: Array, controller: Controller) -> Tree:
    """Gives vectors `[*B, D]` the shape of a controller's parameters, leaves `[*B, *parameter]`."""
    space = controller.spec.observation
    shapes = jax.eval_shape(controller.init, jax.random.key(0), jax.ShapeDtypeStruct(space.shape, space.dtype))
    restore = ravel_pytree(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))[1]
    for _ in params.shape[:-1]:
        restore = jax.vmap(restore)
    return restore(params)


def standardise(obs: Array, seen: Tree) -> Array:
    """Subtracts the mean and divides by the standard deviation, as the authors of augmented random search do.

    Args:
        obs: `[*B, *observation]`.
        seen: `Moments` of `[*observation]`, or `()` to leave observations as they are.

    Returns:
        `[*B, *observation]`; an element that has hardly changed so far is zero.
    """
    if not isinstance(seen, Moments):
        return obs
    std = jnp.sqrt(seen.variance)
    return jnp.where(std < _LEAST_STD, 0.0, (obs - seen.mean) / jnp.maximum(std, _LEAST_STD))


def act(key: Key, obs: Array, memory: Tree, *, params: Tree | None, seen: Tree, controller: Controller):
    """Acts at `[*B, *observation]`, with one set of parameters for all or else with those in memory, `[*B, ...]`."""
    del key
    function = functools.partial(networks.apply, controller)
    if params is None:
        for _ in range(obs.ndim - len(controller.spec.observation.shape)):
            function = jax.vmap(function)
    return function(memory if params is None else params, standardise(obs, seen)), {}, memory


def single(params: Array, seen: Tree, *, controller: Controller) -> Policy:
    """The policy of one vector of parameters `[D]`; `seen` as in `standardise`."""
    tree = unravel(params, controller)
    return memoryless(functools.partial(act, params=tree, seen=seen, controller=controller))


def deal(batch_shape: tuple[int, ...], *, candidates: Array, controller: Controller) -> Tree:
    """Deals candidates `[P, D]` to the places of a batch in turn, leaves `[*B, *parameter]`."""
    turns = np.arange(math.prod(batch_shape)) % len(candidates)
    return unravel(candidates[turns].reshape(*batch_shape, -1), controller)


def together(candidates: Array, seen: Tree, *, controller: Controller) -> Policy:
    """The policy of a population `[P, D]`: each episode is played by one candidate, place `e` by candidate `e % P`.

    Args:
        candidates: vectors of parameters.
        seen: as in `standardise`.
        controller: whose parameters they are.

    Returns:
        A policy whose memory is the candidate that plays.
    """
    return Policy(
        memory=functools.partial(deal, candidates=candidates, controller=controller),
        apply=functools.partial(act, params=None, seen=seen, controller=controller),
    )
