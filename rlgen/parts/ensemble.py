"""Ensembles of critics for actor-critics that learn from kept experience.

An algorithm's `Config` gives what `Critic` names and `num_critics`.

Shape legend: `N` any batch shape, `M` examples in a minibatch, `C` critics, `D` elements of an action, `A` discrete
actions, `J` actions that an expectation is taken over, one that was drawn or all discrete ones, `K` numbers that
predict a return, `L` returns that a target is made of.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlgen.core import Array, Discrete, Key, Spec, Tree
from rlgen.parts import control, distributional, losses, networks, q_networks, random
from rlgen.parts.replay import Steps


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
        predicted = networks.head(size, kernel_init=last, bias_init=last)(hidden)
        return predicted if noise is None else predicted[..., 0]


class Critics(nn.Module):
    """`C` critics that share nothing.

    Attributes:
        spec: of the task.
        config: of `Critic`, and `num_critics`.
        num: of critics; 0 for as many as the config says.
    """

    spec: Spec
    config: Any
    num: int = 0

    @nn.compact
    def __call__(self, obs: Array, action: Array | None, noise: Array | None = None) -> Array:
        """Predicts as each critic does: `[C, *N, K]`."""
        many = nn.vmap(
            Critic,
            in_axes=None,  # pyright: ignore[reportArgumentType]  # flax says int and takes None for all inputs
            axis_size=self.num or self.config.num_critics,
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

    def predict_first(self, key: Key, params: Tree, obs: Array, action: Array | None) -> Array:
        """Predicts as the first critic does, `[*N, K]`; the others are not asked.  The key is consumed."""
        return self.clone(num=1).predict(key, jax.tree.map(lambda leaf: leaf[:1], params), obs, action)[0]

    def begin(self, key: Key) -> Tree:
        """Draws the parameters.  The key is consumed."""
        space, action = self.spec.observation, self.spec.action
        obs = jnp.zeros((1, *space.shape), space.dtype)
        noise = jnp.zeros((1, self.config.num_quantiles)) if self.config.head == "sampled" else None
        params_key, dropout_key = jax.random.split(key)
        inner = None if isinstance(action, Discrete) else jnp.zeros((1, *action.shape))
        return self.init({"params": params_key, "dropout": dropout_key}, obs, inner, noise)


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


def equally_likely(returns: Array) -> tuple[Array, Array]:
    """Gives returns `[M, L]` their probabilities, `[M, L]`."""
    return returns, jnp.full(returns.shape, 1 / returns.shape[-1])


def loss(
    params: Tree,
    key: Key,
    target: tuple[Array, Array],
    minibatch: Steps,
    weight: Array,
    hypers: Any,
    *,
    critics: Critics,
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Errors of what was predicted for the actions taken: their weighted mean, summed over critics.

    Args:
        params: of the critics.
        key: consumed.
        target: returns and their probabilities, `[M, L]` each.
        minibatch: `[M, ...]`.
        weight: of each example, `[M]`.
        hypers: with `lowest_return` and `highest_return` for the head `"categorical"`.
        critics: who predict.

    Returns:
        `(loss, (loss, q_value, error))`: the mean value, and how wrong each example is, `[M]`.
    """
    config, space, (returns, probability) = critics.config, critics.spec.action, target
    predicted = critics.predict(key, params, minibatch.obs, control.from_box(minibatch.action, space))
    if isinstance(space, Discrete):
        predicted = jax.vmap(q_networks.value_of, (0, None))(predicted, minibatch.action)[..., None]
    atoms = q_networks.atoms(hypers, config=config)
    value = distributional.mean(predicted, atoms)
    error = jnp.abs((returns * probability).sum(-1) - value).mean(axis=0)
    if config.head == "expected":
        each = losses.squared(returns[:, 0] - value)
    elif atoms is not None:
        each = distributional.divergence(predicted, distributional.project(returns, probability, atoms))
    else:
        each = distributional.quantile_regression(predicted, distributional.midpoints(config.num_quantiles), returns)
    total = (weight * each).mean(axis=1).sum()
    return total, (total, value.mean(), error)
