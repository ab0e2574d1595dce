"""Controllers as vectors of parameters, who of a population plays where, and the moments that they act by."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete, MultiDiscrete, Spec
from rlgen.parts import controllers, normalise

CARTPOLE = Spec(Box((4,)), Discrete(2))
CANDIDATES = 4
VECTORS = np.random.default_rng(0).standard_normal((CANDIDATES, 8), np.float32)


def made(spec, **config):
    fields = {"hidden_sizes": (), "activation": "tanh", "normalise_observations": False}
    return controllers.make_controller(spec, types.SimpleNamespace(**(fields | config)))


def test_a_place_is_played_by_its_candidate_wherever_it_is():
    policy = controllers.together(VECTORS, (), controller=made(CARTPOLE))
    kernels = VECTORS.reshape(CANDIDATES, 4, 2)
    remember, act = jax.jit(policy.memory, static_argnums=0), jax.jit(policy.apply)
    for shape in ((), (3,), (2, 3), (CANDIDATES + 1,)):
        turns = np.arange(int(np.prod(shape))).reshape(shape) % CANDIDATES
        memory = remember(shape)
        np.testing.assert_array_equal(jax.tree.leaves(memory)[0], kernels[turns])
        obs = np.random.default_rng(2).standard_normal((*shape, 4), np.float32)
        action, extras, after = act(jax.random.key(0), obs, memory)
        np.testing.assert_array_equal(action, np.argmax(np.einsum("...i,...ij", obs, kernels[turns]), -1))
        assert (action.shape, extras) == (shape, {})
        jax.tree.map(np.testing.assert_array_equal, after, memory)


@pytest.mark.parametrize(
    ("action", "check"),
    [
        (Discrete(3), lambda got, outputs: np.testing.assert_array_equal(got, outputs.argmax(-1))),
        (Box((2,), -0.5, (0.25, 2.0)), lambda got, outputs: np.testing.assert_allclose(
            got, np.clip(outputs, -0.5, [0.25, 2.0]), rtol=1e-5)),
        (MultiDiscrete((2, 3)), lambda got, outputs: np.testing.assert_array_equal(
            got, np.stack([outputs[:, :2].argmax(-1), outputs[:, 2:].argmax(-1)], -1))),
    ],
)  # fmt: skip
def test_a_linear_controller_acts_by_its_outputs(action, check):
    controller = made(Spec(Box((3,)), action))
    vector = np.asarray(jax.jit(lambda key: controllers.initial_params(key, controller))(jax.random.key(0)))
    assert not vector.any()
    outputs = {Discrete: 3, Box: 2, MultiDiscrete: 5}[type(action)]
    assert vector.shape == (3 * outputs,)
    generator = np.random.default_rng(1)
    vector, obs = (generator.standard_normal(shape, np.float32) for shape in (vector.shape, (64, 3)))
    policy = controllers.single(vector, (), controller=controller)
    got, _, memory = jax.jit(policy.apply)(jax.random.key(0), obs, policy.memory((64,)))
    assert memory == ()
    check(np.asarray(got), np.asarray(obs @ vector.reshape(3, -1)))


def test_hidden_layers_start_at_random_and_the_last_at_zero():
    controller = made(CARTPOLE, hidden_sizes=(5,))
    start = jax.jit(jax.vmap(lambda key: controllers.initial_params(key, controller)))
    vectors = np.asarray(start(jax.random.split(jax.random.key(0))))
    assert vectors.shape == (2, 5 * 4 + 5 + 2 * 5 + 2)
    assert not np.asarray(controllers.unravel(vectors, controller)["params"]["Dense_0"]["kernel"]).any()
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1


def test_observations_are_standardised_but_for_what_never_changes():
    seen = normalise.Moments(jnp.array([1.0, 2.0]), jnp.array([4.0, 0.0]), jnp.float32(9))
    np.testing.assert_allclose(controllers.standardise(jnp.array([[5.0, 2.0], [-1.0, 7.0]]), seen), [[2, 0], [-1, 0]])
    obs = jnp.array([3.0, 4.0])
    assert controllers.standardise(obs, ()) is obs
    np.testing.assert_array_equal(controllers.standardise(obs, normalise.moments((2,))), obs)


def test_moments_merge_as_their_batches_do():
    batches = [np.random.default_rng(seed).normal(5, 2 + seed, (3 + seed, 2)) for seed in range(3)]
    merged = expected = normalise.moments((2,))
    for batch in batches:
        added = normalise.Moments(jnp.float32(batch.mean(0)), jnp.float32(batch.var(0)), jnp.float32(len(batch)))
        merged, expected = normalise.join(merged, added), normalise.merge(expected, jnp.float32(batch))
    whole = np.concatenate(batches)
    np.testing.assert_allclose(merged.mean, whole.mean(0), rtol=1e-5)
    np.testing.assert_allclose(merged.variance, whole.var(0), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), merged, expected)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="has no meaning for observations in Discrete"):
        made(Spec(Discrete(3), Discrete(2)), normalise_observations=True)
    with pytest.raises(ValueError, match="no distribution over"):
        made(Spec(Box((3,)), Box((2, 2))))
