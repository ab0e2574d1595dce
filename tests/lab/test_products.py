"""What the products of a program compute, and whether they are small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rlgen.lab import devices, lanes, products, request

LEFT, RIGHT = jnp.ones((3, 4)), jnp.ones((4, 5))


def counted(function, *arguments):
    return products.count(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_product_is_two_operations_for_each_pair_that_is_multiplied():
    assert products.flops(counted(jnp.matmul, LEFT, RIGHT)) == 2 * 3 * 4 * 5
    batched = counted(jax.vmap(jnp.matmul), jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5)))
    assert products.flops(batched) == 7 * 2 * 3 * 4 * 5


def test_scans_repeat_and_the_branch_with_most_work_counts():
    def many(left, right):
        return lax.scan(lambda carry, _: (carry, left @ right), 0, length=6)

    assert products.flops(counted(many, LEFT, RIGHT)) == 6 * 2 * 3 * 4 * 5

    def either(condition, left, right):
        return lax.cond(condition, lambda: left @ right, lambda: (left @ right) + (left @ right @ right.T @ right))

    assert products.flops(counted(either, True, LEFT, RIGHT)) == 2 * 3 * (4 * 5 + 4 * 5 + 5 * 4 + 4 * 5)


def test_a_loop_without_a_known_length_counts_once():
    def loop(stop, left, right):
        return lax.fori_loop(0, stop, lambda _, result: left @ right + result, jnp.zeros((3, 5)))

    assert products.flops(counted(jax.jit(loop), 9, LEFT, RIGHT)) == 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    ("size", "times", "small"), [(64, 1, True), (256, 1, False), (256, 0, True)], ids=["small", "large", "none"]
)
def test_products_are_small_where_the_larger_ones_do_little(size, times, small):
    rows = jnp.ones((128, size))

    def program(rows):
        return lax.scan(lambda carry, _: (carry @ jnp.ones((size, size)), None), rows, length=times)[0]

    assert products.are_small(jax.make_jaxpr(program)(rows).jaxpr) == small


@pytest.mark.parametrize(
    ("program", "small"),
    [
        (jnp.sin, False),
        (lambda array: array.at[3].set(1.0), True),
        (lambda array: lax.dynamic_update_slice(array.reshape(2, -1), jnp.ones((1, 1)), (0, 0)), True),
        (lambda array: lax.fori_loop(0, 3, lambda _, carry: jnp.cos(carry), array), False),
    ],
    ids=["computed", "written", "slice", "loop"],
)
def test_an_array_that_is_computed_counts_and_one_that_is_written_to_does_not(program, small):
    array = jnp.ones(2 * products.SMALL_ARRAY)
    assert products.are_small(jax.make_jaxpr(program)(array).jaxpr) == small


on_the_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators have threads of their own")


def planned(experiment, seeds, **settings):
    changes = tuple(f"config.{name}={value}" for name, value in settings.items())
    return request.plan(request.Request(experiment=experiment, seeds=seeds, settings=changes))


@on_the_cpu
@pytest.mark.parametrize(
    ("made", "alone"),
    [
        (planned("policy/ppo/CartPole-v1", 1), True),
        (planned("actor_critic/sac/Pendulum-v1", 1), True),
        (planned("actor_critic/sac/Pendulum-v1", 2), False),
        (planned("actor_critic/sac/Pendulum-v1", 1, hidden_sizes="256,256"), False),
        (planned("value/pqn/CartPole-v1", 1), False),
        (planned("policy/ppo/Breakout-MinAtar-1M", 1), False),
        (planned("value/dqn/CartPole-v1", 1), True),
    ],
    ids=lambda value: value if isinstance(value, bool) else f"{value.experiment.name}-{value.request.seeds}",
)
def test_one_small_lane_has_a_thread_of_its_own(made, alone):
    spread = lanes.spread(made, devices.choose("auto", made.request.seeds))
    assert (spread.mesh.devices.flat[0].client is not jax.local_devices()[0].client) == alone


@on_the_cpu
def test_a_thread_of_its_own_changes_no_bits(monkeypatch):
    made = planned("policy/ppo/CartPole-v1", 1, num_envs=2, rollout_length=4, num_minibatches=2, hidden_sizes="8")

    def trained():
        spread = lanes.spread(made, devices.choose("auto", 1))
        programs, (keys, hypers) = lanes.compile_training(spread), spread.inputs(0)
        state = programs.init(spread.data, keys, hypers)
        state, _ = programs.advance(spread.data, keys, np.int32(0), np.int32(3), state, hypers)
        return spread.mesh, jax.tree.map(np.asarray, state.algorithm)

    mesh, alone = trained()
    monkeypatch.setattr(lanes, "is_small", lambda bound, data: False)
    other, shared = trained()
    assert mesh.devices.flat[0].client is not other.devices.flat[0].client
    jax.tree.map(np.testing.assert_array_equal, alone, shared)
