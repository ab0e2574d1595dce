"""Environments of gymnax as pure functions: which parameters may be changed."""

import jax
import jax.numpy as jnp
import pytest

from rlgen.envs import adapter


@pytest.mark.parametrize(("name", "limit"), [("BernoulliBandit-misc", 4), ("CartPole-v1", 4)])
def test_a_limit_may_be_any_number(name, limit):
    """Whatever the type of the environment's own, whose state keeps its types from step to step."""
    env = adapter.make(name, max_steps_in_episode=limit)
    assert env.max_steps == limit
    state, _ = env.reset(jax.random.key(0), 2)
    after, _ = jax.jit(env.step)(jax.random.key(1), state, jnp.zeros(2, jnp.int32))
    assert jax.tree.map(jnp.dtype, after) == jax.tree.map(jnp.dtype, state)


def test_an_override_that_nothing_knows_is_refused():
    with pytest.raises(TypeError):
        adapter.make("CartPole-v1", size=4)
