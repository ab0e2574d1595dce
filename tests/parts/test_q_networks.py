"""Networks of action values: streams by hand, noise by its law, and shapes of every head."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, Spec
from rlgen.parts import distributional, networks, q_networks


@dataclasses.dataclass(frozen=True)
class Config:
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (6, 5)
    activation: str = "relu"
    dueling: bool = False
    noisy: bool = False
    noise_scale: float = 0.5
    head: str = "expected"
    num_atoms: int = 7
    num_fractions: int = 8
    initialiser: str = "orthogonal"


@dataclasses.dataclass(frozen=True)
class Hypers:
    lowest_return: float = -1.0
    highest_return: float = 2.0


SPEC = Spec(Box((3,)), Discrete(4))


@functools.cache
def made(**config):
    config = Config(**config)
    network = q_networks.QNetwork(SPEC, config)
    fractions = jnp.zeros((1, 8)) if config.head == "implicit" else None
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 3)), None, fractions)
    # Parameters from NumPy, where none has to be compiled.
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.5 * generator.standard_normal(leaf.shape, np.float32), shapes)
    return network, params, generator.standard_normal((2, 5, 3), np.float32)


@pytest.mark.parametrize("head", distributional.KINDS)
@pytest.mark.parametrize("switches", [{}, {"dueling": True}, {"noisy": True, "dueling": True}])
def test_every_head_predicts_and_has_values(head, switches):
    network, params, obs = made(head=head, **switches)

    @jax.jit
    def seen(params):
        see = functools.partial(q_networks.q_values, None, params, hypers=Hypers(), network=network)
        return q_networks.predict(jax.random.key(2), params, obs, network=network), see(obs), see(obs[1, 2])

    (predicted, fractions), values, alone = jax.device_get(seen(params))
    size = {"expected": 1, "implicit": 8}.get(head, 7)
    assert predicted.shape == (2, 5, 4, size)
    assert (fractions is not None) == (head == "implicit")
    assert values.shape == (2, 5, 4)
    if head == "categorical":
        assert ((values > -1) & (values < 2)).all()
    np.testing.assert_allclose(alone, values[1, 2], rtol=1e-4, atol=1e-6)


def test_two_streams_make_a_value_and_advantages_of_mean_zero():
    network, params, obs = made(dueling=True)
    tree = params["params"]

    def stream(name, features):
        hidden = np.maximum(features @ tree[name]["Dense_0"]["kernel"] + tree[name]["Dense_0"]["bias"], 0)
        return hidden @ tree[name]["Dense_1"]["kernel"] + tree[name]["Dense_1"]["bias"]

    torso = tree["MLP_0"]["Dense_0"]
    features = np.maximum(obs @ torso["kernel"] + torso["bias"], 0)
    advantage = stream("advantage", features)
    expected = stream("value", features) + advantage - advantage.mean(-1, keepdims=True)
    found = jax.jit(functools.partial(networks.apply, network))(params, obs)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-5, atol=1e-6)


def test_noise_of_a_layer_has_its_mean_and_variance_and_is_factorised():
    layer = q_networks.NoisyDense(3, scale=0.5)
    inputs = np.float32([1.0, -2.0])
    apply = jax.jit(layer.apply)
    params = jax.device_get(jax.jit(layer.init)(jax.random.key(0), inputs, None))
    tree = params["params"]
    np.testing.assert_allclose(tree["noise_kernel"], 0.5 / np.sqrt(2))
    assert (np.abs(tree["kernel"]) <= 1 / np.sqrt(2)).all()
    assert np.unique(np.sign(tree["kernel"])).tolist() == [-1, 1]
    mean = np.asarray(apply(params, inputs, None))
    np.testing.assert_allclose(mean, inputs @ tree["kernel"] + tree["bias"], rtol=1e-6)
    keys = jax.random.split(jax.random.key(1), 20_000)
    noise = np.asarray(jax.jit(jax.vmap(lambda key: layer.apply(params, inputs, key)))(keys)) - mean
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.05)
    # A number of the noise is √|x| in size for a normal x, and E|x| = √(2/π); a weight's is the product of two.
    size = np.sqrt(2 / np.pi)
    expected = 0.125 * (size**2 * (1 + 4) + size)
    np.testing.assert_allclose(noise.var(0), expected, rtol=0.08)
    # One draw serves all rows, in the same way, and as it serves a single one.
    both = apply(params, np.stack([inputs, inputs]), keys[0])
    np.testing.assert_array_equal(both[0], both[1])
    np.testing.assert_allclose(both[0], mean + noise[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_a_layer_survives_noise_of_zero(shape, monkeypatch):
    layer, inputs = q_networks.NoisyDense(3), jnp.ones(shape)
    params = jax.jit(layer.init)(jax.random.key(0), inputs, None)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.zeros(shape))
    with_noise, without = (layer.apply(params, inputs, key) for key in (jax.random.key(1), None))
    np.testing.assert_array_equal(with_noise, without)


def test_environments_that_act_have_noise_of_their_own_and_none_when_they_do_not_explore():
    network, params, _ = made(noisy=True)
    obs = jnp.ones((64, 3))

    def acted(noisy):
        arguments = {"params": params, "hypers": Hypers(), "epsilon": 0.0, "noisy": noisy, "network": network}
        return jax.jit(functools.partial(q_networks.act, **arguments))(jax.random.key(0), obs, ())[0]

    assert len(np.unique(acted(True))) > 1
    assert len(np.unique(acted(False))) == 1


def test_an_implicit_head_reads_its_fractions_in_order():
    network, params, obs = made(head="implicit")
    fractions = np.random.default_rng(3).random((2, 5, 8), np.float32)
    see = jax.jit(functools.partial(networks.apply, network))
    predicted, turned = (np.asarray(see(params, obs, None, each)) for each in (fractions, fractions[..., ::-1]))
    np.testing.assert_allclose(predicted, turned[..., ::-1], rtol=1e-4, atol=1e-6)
    assert np.abs(predicted - turned).max() > 1e-3
    acting = np.broadcast_to(distributional.midpoints(8), (2, 5, 8))
    values = jax.jit(functools.partial(q_networks.q_values, None, hypers=Hypers(), network=network))(params, obs)
    np.testing.assert_allclose(values, np.mean(see(params, obs, None, acting), axis=-1), rtol=1e-4, atol=1e-6)
