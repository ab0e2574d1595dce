"""What actor-critics that learn from kept experience share: actors, and actions between −1 and 1.

Networks speak of actions between −1 and 1, which is the task's box moved and stretched; what is stored and what acts on
the environment lies in the box itself.

Shape legend: `N` any batch shape, `D` elements of an action.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import Array, Box, Discrete, Key, MultiDiscrete, Space, Spec, Tree
from rlgen.parts import networks


class DeterministicActor(nn.Module):
    """The action itself.

    Attributes:
        spec: of the task.
        config: with `hidden_sizes`, `activation`, `initialiser` and `actor_bound`, half the width of what the last
            layer's weights are drawn from.
    """

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Gives actions `[*N, D]` between −1 and 1 at `[*N, *observation]`."""
        config, space = self.config, self.spec.observation
        torso = networks.torso("mlp", config.hidden_sizes, config.activation, space, initialiser=config.initialiser)
        last = networks.uniform(config.actor_bound)
        dense = networks.head(self.spec.action.shape[0], kernel_init=last, bias_init=last)
        return nn.tanh(dense(torso(networks.encode(obs, space))))


def check_actions(space: Space, *, discrete: bool = False) -> None:
    """Refuses actions that an actor-critic cannot choose.

    Args:
        space: of the actions.
        discrete: whether it can choose among `Discrete` ones.

    Raises:
        ValueError: unless they are a vector `Box` with finite bounds that differ, or `Discrete` where that will do.
    """
    if discrete and isinstance(space, Discrete):
        return
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise ValueError(f"the actor gives a vector of numbers; the task's actions are {space}")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"the actor's numbers are stretched between finite bounds; the task's actions are {space}")
    if not np.less(space.low, space.high).all():
        raise ValueError(f"the actor has nothing to choose where both bounds are one; the task's actions are {space}")


def _middle_and_reach(space: Box) -> tuple[Array, Array]:
    low, high = (jnp.broadcast_to(jnp.asarray(bound, jnp.float32), space.shape) for bound in (space.low, space.high))
    return (low + high) / 2, (high - low) / 2


def to_box(action: Array, space: Space) -> Array:
    """Moves actions `[*N, D]` from between −1 and 1 into the box; discrete ones stay what they are."""
    if not isinstance(space, Box):
        return action
    middle, reach = _middle_and_reach(space)
    return middle + reach * action


def from_box(action: Array, space: Space) -> Array | None:
    """Moves actions `[*N, D]` from the box to between −1 and 1; None for discrete ones, which critics do not read."""
    if not isinstance(space, Box):
        return None
    middle, reach = _middle_and_reach(space)
    return (action - middle) / reach


def at_random(key: Key, space: Space, batch_shape: tuple[int, ...]) -> Array:
    """Draws actions `[*N, *action]`, all alike.  The key is consumed."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, batch_shape, 0, space.num)
    if isinstance(space, MultiDiscrete):
        return jax.random.randint(key, (*batch_shape, *space.shape), 0, jnp.array(space.sizes))
    return to_box(jax.random.uniform(key, (*batch_shape, *space.shape), minval=-1.0, maxval=1.0), space)


def warming(key: Key, step: Array, action: Array, space: Space, first: int) -> Array:
    """Puts actions at random in place of `[*N, *action]` until update `first`.  The key is consumed."""
    batch_shape = action.shape[: action.ndim - len(space.shape)]
    return jnp.where(step < first, at_random(key, space, batch_shape), action)


def follow(target: Tree, params: Tree, tau: Array | float) -> Tree:
    """Moves a target network by a share `tau`."""
    return jax.tree.map(functools.partial(_between, share=tau), target, params)


def _between(old: Array, new: Array, *, share: Array | float) -> Array:
    return old + share * (new - old)
