"""Networks of action values and of distributions of the return.

Sources: two streams are the duelling architecture's, arXiv:1511.06581; noisy layers, with factorised noise, are those
of arXiv:1706.10295; the embedding of fractions is IQN's, arXiv:1806.06923.

An algorithm's `Config` gives what `QNetwork` names, and `num_fractions`, how many quantiles an implicit distribution is
asked for; its `Hypers` the ends of a categorical distribution, `lowest_return` and `highest_return`.

Shape legend: `N` any batch shape, `A` actions, `K` numbers that predict the return, `D` features, `M`
sequences of `L` steps.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Discrete, Key, Spec, Tree
from rlgen.parts import distributional, exploration, networks

_NUM_COSINES = 64
_NO_ZERO = 1e-30  # of a divisor


class ValueNetwork(nn.Module):
    """Action values, and nothing else.

    Attributes:
        spec: of the task.
        config: with `network`, `hidden_sizes` and `activation`.
        layer_norm: whether every layer but the last is normalised before its activation.
    """

    spec: Spec
    config: Any
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Maps `[*N, *observation]` to `[*N, A]`."""
        config, space = self.config, self.spec.observation
        torso = networks.torso(
            config.network, config.hidden_sizes, config.activation, space, layer_norm=self.layer_norm
        )
        return networks.head(self.spec.action.num)(torso(networks.encode(obs, space)))


class NoisyDense(nn.Module):
    """A dense layer whose weights and biases are Gaussian with learned means and deviations.

    The noise of a weight is the product of one number of its input and one of its output.  Where a draw serves a single
    input it multiplies inputs and outputs, and no noisy weight is formed; where it serves many they are, as then one
    product is enough.

    Attributes:
        features: outputs.
        scale: `σ₀`; a deviation starts at `σ₀ / √D`.
    """

    features: int
    scale: float = 0.5

    @nn.compact
    def __call__(self, inputs: Array, key: Key | None) -> Array:
        """Maps `[*N, D]` to `[*N, features]` with one draw for all; without a key the means are the weights."""
        size = inputs.shape[-1]
        bound = 1 / math.sqrt(size)
        deviation = nn.initializers.constant(self.scale * bound)

        def parameters(prefix, initialiser):
            shapes = (("kernel", (size, self.features)), ("bias", (self.features,)))
            return (self.param(f"{prefix}{name}", initialiser, shape) for name, shape in shapes)

        kernel, bias = parameters("", networks.uniform(bound))
        kernel_scale, bias_scale = parameters("noise_", deviation)
        if key is None:
            return inputs @ kernel + bias
        noise = jax.random.normal(key, (size + self.features,))
        # `sign(ε) √|ε|`.  As a product XLA would compute it anew, hash and all, for every number that it multiplies.
        incoming, outgoing = jnp.split(noise / (jnp.sqrt(jnp.abs(noise)) + _NO_ZERO), [size])
        if inputs.ndim == 1:
            return inputs @ kernel + bias + ((inputs * incoming) @ kernel_scale + bias_scale) * outgoing
        return inputs @ (kernel + kernel_scale * incoming[:, None] * outgoing) + bias + bias_scale * outgoing


class Stream(nn.Module):
    """A hidden layer, if any, and the outputs.

    Attributes:
        hidden_sizes: width of the hidden layer; empty for none.
        features: outputs.
        config: with `activation`, `noisy` and `noise_scale`.
        initialiser: of the hidden layer, name in `networks.INITIALISERS`; outputs begin as `"lecun"` has it, or
            `"uniform"` too.
    """

    hidden_sizes: tuple[int, ...]
    features: int
    config: Any
    initialiser: str = "orthogonal"

    @nn.compact
    def __call__(self, inputs: Array, key: Key | None) -> Array:
        """Maps `[*N, D]` to `[*N, features]`; the key draws the noise."""
        hidden_key, key = (None, None) if key is None else jax.random.split(key)
        for size in self.hidden_sizes:
            hidden = self._dense(size, self.initialiser)(inputs, hidden_key)
            inputs = networks.ACTIVATIONS[self.config.activation](hidden)
        return self._dense(self.features, "uniform" if self.initialiser == "uniform" else "lecun")(inputs, key)

    def _dense(self, size: int, initialiser: str) -> Callable[[Array, Key | None], Array]:
        if self.config.noisy:
            return NoisyDense(size, self.config.noise_scale)

        def dense(inputs: Array, key: Key | None) -> Array:
            del key
            kernel_init = networks.INITIALISERS[initialiser](math.sqrt(2))
            bias_init = networks.biases(initialiser, inputs.shape[-1])
            return networks.head(size, kernel_init=kernel_init, bias_init=bias_init)(inputs)

        return dense


class QNetwork(nn.Module):
    """A prediction of the return for every action.

    Attributes:
        spec: of the task.
        config: with `network`, `hidden_sizes`, whose last is that of a stream, `activation`, `initialiser`, `dueling`,
            `noisy`, `noise_scale`, `head` of `distributional.KINDS` and `num_atoms`.
    """

    spec: Spec
    config: Any

    @nn.compact
    def __call__(self, obs: Array, key: Key | None = None, fractions: Array | None = None) -> Array:
        """Predicts the return of each action.

        Args:
            obs: `[*N, *observation]`.
            key: of the noise, the same for all of `N`; None for none.
            fractions: `[*N, K]`, of the quantiles that an `"implicit"` head predicts.

        Returns:
            `[*N, A, K]`, as `distributional` reads it.
        """
        config, space = self.config, self.spec.observation
        torso = networks.torso(config.network, config.hidden_sizes[:-1], config.activation, space, config.initialiser)
        features = torso(networks.encode(obs, space))
        if fractions is not None:
            waves = jnp.cos(jnp.pi * jnp.arange(1, _NUM_COSINES + 1) * fractions[..., None])
            features = features[..., None, :] * nn.relu(nn.Dense(features.shape[-1], name="fractions")(waves))
        size = config.num_atoms if config.head in ("categorical", "quantile") else 1
        keys = (None, None) if key is None else jax.random.split(key)

        def stream(name, num, key):
            last = tuple(config.hidden_sizes[-1:])
            flat = Stream(last, num * size, config, config.initialiser, name=name)(features, key)
            return flat.reshape(*flat.shape[:-1], num, size)

        predicted = stream("advantage", self.spec.action.num, keys[0])
        if config.dueling:
            predicted += stream("value", 1, keys[1]) - predicted.mean(-2, keepdims=True)
        return predicted if fractions is None else jnp.swapaxes(predicted[..., 0], -1, -2)


class RecurrentQNetwork(nn.Module):
    """Action values from what an episode has shown so far.

    Attributes:
        spec: of the task.
        config: as of `QNetwork`, with hidden layers before the core, `core` of `networks.CORES`, `core_size`, and
            `stream_sizes`, of the hidden layers after it.
    """

    spec: Spec
    config: Any

    def setup(self):
        """Builds the layers."""
        config, num = self.config, self.spec.action.num
        self.torso = networks.torso(config.network, config.hidden_sizes, config.activation, self.spec.observation)
        self.cell = networks.CORES[config.core](config.core_size)
        self.advantage = Stream(tuple(config.stream_sizes), num, config)
        if config.dueling:
            self.value = Stream(tuple(config.stream_sizes), 1, config)

    def values(self, features: Array) -> Array:
        """Gives action values `[*N, A]` from features `[*N, D]`."""
        advantage = self.advantage(features, None)
        if not self.config.dueling:
            return advantage
        return self.value(features, None) + advantage - advantage.mean(-1, keepdims=True)

    def step(self, memory: Tree, obs: Array) -> tuple[Tree, Array]:
        """Gives the memory after `[*N, *observation]`, and action values there, `[*N, A]`."""
        memory, features = self.cell(memory, self.torso(networks.encode(obs, self.spec.observation)))
        return memory, self.values(features)

    def unroll(self, obs: Array, start: Array, memory: Tree) -> tuple[Array, Tree]:
        """Goes through sequences.

        Args:
            obs: `[M, L, *observation]`.
            start: `[M, L]` bool, where the memory starts anew.
            memory: `[M, D]`, before the first step.

        Returns:
            Action values, `[M, L, A]`, and the memory after each step, `[M, L, D]`.
        """
        embedded = self.torso(networks.encode(obs, self.spec.observation))
        features, memories = networks.unroll(self.cell, embedded, start, memory)
        return self.values(features), memories


def bind(network: Any, init: Callable[..., Any], update: Callable[..., Any], policy: Callable[..., Any]) -> Algorithm:
    """Binds an algorithm's functions, which take `network` by keyword, to a network of action values.

    Args:
        network: with the `spec` of the task.
        init: of the algorithm.
        update: of the algorithm.
        policy: of the algorithm.

    Returns:
        The algorithm.

    Raises:
        ValueError: if the task's actions are not discrete.
    """
    if not isinstance(network.spec.action, Discrete):
        raise ValueError(f"action values choose among discrete actions; the task's are {network.spec.action}")
    return networks.bind(network, init, update, policy)


def value_of(q_values: Array, action: Array) -> Array:
    """Picks the values `[*N]` of actions `[*N]` among `[*N, A]`."""
    return jnp.take_along_axis(q_values, action[..., None], axis=-1)[..., 0]


def atoms(hypers: Any, *, config: Any) -> Array | None:
    """Atoms of a categorical distribution, `[K]`; None without one."""
    if config.head != "categorical":
        return None
    return distributional.support(hypers.lowest_return, hypers.highest_return, config.num_atoms)


def predict(key: Key, params: Tree, obs: Tree, *, network: QNetwork) -> tuple[Array, Array | None]:
    """Predicts returns with noise and fractions drawn anew.

    Args:
        key: consumed.
        params: of the network.
        obs: `[*N, *observation]`.
        network: what is predicted.

    Returns:
        Predictions, `[*N, A, K]`, and the fractions of an implicit distribution, `[*N, K]`, or None.
    """
    config, fractions = network.config, None
    noise_key, fraction_key = jax.random.split(key)
    if config.head == "implicit":
        batch_shape = obs.shape[: obs.ndim - len(network.spec.observation.shape)]
        fractions = jax.random.uniform(fraction_key, (*batch_shape, config.num_fractions))
    return networks.apply(network, params, obs, noise_key if config.noisy else None, fractions), fractions


def q_values(key: Key | None, params: Tree, obs: Tree, hypers: Any, *, network: QNetwork) -> Array:
    """Values of all actions, `[*N, A]`; an implicit distribution is asked for quantiles equally far apart.

    Args:
        key: of the noise, one draw for all of `N`; None for none.
        params: of the network.
        obs: `[*N, *observation]`.
        hypers: numbers.
        network: what is predicted.
    """
    config, fractions = network.config, None
    if config.head == "implicit":
        batch_shape = obs.shape[: obs.ndim - len(network.spec.observation.shape)]
        middle = distributional.midpoints(config.num_fractions)
        fractions = jnp.broadcast_to(middle, (*batch_shape, config.num_fractions))
    predicted = networks.apply(network, params, obs, key, fractions)
    return distributional.mean(predicted, atoms(hypers, config=config))


def act(
    key: Key, obs: Tree, memory: tuple[()], *, params: Tree, hypers: Any, epsilon: Any, noisy: bool, network: QNetwork
):
    """Chooses actions at `[*N, *observation]`.  The key is consumed."""
    action_key, noise_key = jax.random.split(key)
    see = functools.partial(q_values, params=params, hypers=hypers, network=network)
    if noisy:  # every environment has a draw of its own
        shape = network.spec.observation.shape
        batch_shape = obs.shape[: obs.ndim - len(shape)]
        rows = obs.reshape(-1, *shape)
        values = jax.vmap(lambda key, obs: see(key, obs=obs))(jax.random.split(noise_key, len(rows)), rows)
        values = values.reshape(*batch_shape, -1)
    else:
        values = see(None, obs=obs)
    return exploration.epsilon_greedy(action_key, values, epsilon), {}, memory
