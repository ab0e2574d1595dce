"""What actor-critics that learn from kept experience share: ensembles of critics, and actions between −1 and 1.

Networks speak of actions between −1 and 1, which is the task's box moved and stretched; what is stored and what acts on
the environment lies in the box itself.

An algorithm's `Config` gives what `Critic` names and `num_critics`.

Shape legend: `N` any batch shape, `C` critics, `D` elements of an action, `A` discrete actions, `J` actions that an
expectation is taken over, one that was drawn or all discrete ones, `K` numbers that predict a return.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import Array, Box, Discrete, Key, Space, Spec, Tree
from rlgen.parts import distributional, networks, random


class Critic(nn.Module):
    """A prediction of the return of an action, or with discrete actions of every one.

    Attributes:
        spec: of the task.
        config: with `hidden_sizes`, `activation`, `initialiser` of `networks.INITIALISERS`, `critic_bound`, half the
            width of what the last layer's weights are drawn from, `layer_norm`, `dropout`, the share of units that are
            left out (arXiv:2110.02034), `head`, `num_atoms` and `num_quantiles`.
    """

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array, action: Array | None, noise: Array | None = None) -> Array:
        """Predicts returns.

        Args:
            obs: `[*N, *observation]`.
            action: `[*N, D]` between −1 and 1; None where actions are discrete.
            noise: `[*N, K]`, of which a `"sampled"` head makes returns.

        Returns:
            `[*N, K]`, or `[*N, A]` where actions are discrete.
        """
        config, space = self.config, self.spec.observation
        obs = networks.encode(obs, space)
        hidden = obs.reshape(*obs.shape[: obs.ndim - max(len(space.shape), 1)], -1)
        if action is not None:
            hidden = jnp.concatenate([hidden, action], axis=-1)
        if noise is not None:
            rows = jnp.broadcast_to(hidden[..., None, :], (*noise.shape, hidden.shape[-1]))
            hidden = jnp.concatenate([rows, noise[..., None]], axis=-1)
        init = networks.INITIALISERS[config.initialiser](np.sqrt(2))
        for size in config.hidden_sizes:
            hidden = nn.Dense(size, kernel_init=init, bias_init=networks.biases(config.initialiser, hidden.shape[-1]))(
                hidden
            )
            # The order of these is that of the paper.
            hidden = nn.Dropout(config.dropout, deterministic=False)(hidden) if config.dropout else hidden
            hidden = nn.LayerNorm()(hidden) if config.layer_norm else hidden
            hidden = networks.ACTIVATIONS[config.activation](hidden)
        size = {"categorical": config.num_atoms, "quantile": config.num_quantiles}.get(config.head, 1)
        size = self.spec.action.num if isinstance(self.spec.action, Discrete) else size
        last = networks.uniform(config.critic_bound)
        predicted = nn.Dense(size, kernel_init=last, bias_init=last)(hidden)
        return predicted if noise is None else predicted[..., 0]


class Critics(nn.Module):
    """`C` critics that share nothing.

    Attributes:
        spec: of the task.
        config: of `Critic`, and `num_critics`.
    """

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array, action: Array | None, noise: Array | None = None) -> Array:
        """Predicts as each critic does: `[C, *N, K]`."""
        many = nn.vmap(
            Critic,
            in_axes=None,  # pyright: ignore[reportArgumentType]  # flax says int and takes None for all inputs
            axis_size=self.config.num_critics,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
        )
        return many(self.spec, self.config, name="critic")(obs, action, noise)

    def predict(self, key: Key, params: Tree, obs: Array, action: Array | None) -> Array:
        """Predicts with noise and units left out drawn anew: `[C, *N, K]`; the key is consumed."""
        noise_key, dropout_key = jax.random.split(key)
        noise = None
        if self.config.head == "sampled":
            batch_shape = obs.shape[: obs.ndim - len(self.spec.observation.shape)]
            noise = jax.random.normal(noise_key, (*batch_shape, self.config.num_quantiles))
        rngs = {"dropout": dropout_key} if self.config.dropout else {}
        predicted: Any = self.apply(params, obs, action, noise, rngs=rngs)
        return jnp.sort(predicted, axis=-1) if noise is not None else predicted

    def begin(self, key: Key) -> Tree:
        """Draws the parameters.  The key is consumed."""
        space, action = self.spec.observation, self.spec.action
        obs = jnp.zeros((1, *space.shape), space.dtype)
        noise = jnp.zeros((1, self.config.num_quantiles)) if self.config.head == "sampled" else None
        params_key, dropout_key = jax.random.split(key)
        inner = None if isinstance(action, Discrete) else jnp.zeros((1, *action.shape))
        return self.init({"params": params_key, "dropout": dropout_key}, obs, inner, noise)


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
        dense = nn.Dense(self.spec.action.shape[0], kernel_init=last, bias_init=last)
        return nn.tanh(dense(torso(networks.encode(obs, space))))


class ActorAndCritics(NamedTuple):
    """The networks of a task; static."""

    actor: Any  # a module with `spec` and `config`
    critics: Critics

    @property
    def config(self) -> Any:
        """The algorithm's."""
        return self.actor.config

    @property
    def spec(self) -> Spec:
        """Of the task."""
        return self.actor.spec


def atoms(hypers: Any, *, config: Any) -> Array | None:
    """Atoms of a categorical distribution, `[K]`; None without one."""
    if config.head != "categorical":
        return None
    return distributional.support(hypers.lowest_return, hypers.highest_return, config.num_atoms)


def least(key: Key, predicted: Array, *, num: int) -> Array:
    """Least value of some critics, drawn anew at every call unless all are asked: arXiv:2101.05982.

    Args:
        key: consumed.
        predicted: `[C, *N]`.
        num: critics that are asked, at most `C`.

    Returns:
        `[*N]`.
    """
    if num < len(predicted):
        predicted = predicted[random.permutation(key, len(predicted))[:num]]
    return predicted.min(axis=0)


def check_actions(space: Space, *, discrete: bool = False) -> None:
    """Refuses actions that an actor-critic cannot choose.

    Args:
        space: of the actions.
        discrete: whether it can choose among `Discrete` ones.

    Raises:
        ValueError: unless they are a vector `Box` with finite bounds, or `Discrete` where that will do.
    """
    if discrete and isinstance(space, Discrete):
        return
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise ValueError(f"the actor gives a vector of numbers; the task's actions are {space}")
    if not np.isfinite([space.low, space.high]).all():
        raise ValueError(f"the actor's numbers are stretched between finite bounds; the task's actions are {space}")


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
