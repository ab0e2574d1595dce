"""Distributed DQN: against DQN, shard by shard by hand, and the same curve on one, two and eight devices."""

import functools
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import sweep, train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter
from rlgen.parts import asynchrony, experience, q_networks, replay
from rlgen.parts.q_networks import QNetwork
from rlgen.parts.replay import Steps
from rlgen.sources import rollout
from rlgen.value import distributed_dqn, dqn

SPEC = Spec(Box((1,)), Discrete(2))
SMALL = {"num_envs": 6, "batch_size": 12, "capacity": 24, "warm_up": 12, "target_period": 3, "hidden_sizes": ()}
KEY, HYPERS = jax.random.key(0), distributed_dqn.Hypers(learning_rate=0.1, horizon=10.0)
CURVE = distributed_dqn.Config(
    num_envs=16, num_shards=8, batch_size=64, capacity=3200, warm_up=64, target_period=5, hidden_sizes=(8,)
)
NUM_UPDATES = 30
COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)(?:-start)?\(")


def close(left, right):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), left, right)


def rollout_of(step, num_envs=6, length=1):
    """Different at every update and in every environment; some episodes end."""
    keys = jax.random.split(jax.random.key(step), 3)
    obs, next_obs = jax.random.normal(keys[0], (2, length, num_envs, 1))
    action = jax.random.randint(keys[1], (length, num_envs), 0, 2)
    ends = jax.random.uniform(keys[2], (length, num_envs))
    return Transition(obs, action, obs[..., 0] - action, next_obs, ends < 0.2, (ends >= 0.2) & (ends < 0.4), {})


@pytest.mark.parametrize("max_grad_norm", [0.01, 10.0])
def test_a_step_of_three_shards_is_dqns_step_on_all_their_examples(max_grad_norm):
    hypers, network = HYPERS._replace(max_grad_norm=max_grad_norm), QNetwork(SPEC, dqn.Config(hidden_sizes=(4,)))
    params, target = map(jax.jit(lambda key: network.init(key, jnp.zeros((1, 1)))), jax.random.split(KEY))
    data = jax.tree.map(lambda leaf: leaf[0], rollout_of(0, 12))
    minibatch = Steps(data.obs, data.action, data.reward, jnp.where(data.terminated, 0.0, 0.9), data.next_obs)
    weight = jnp.linspace(0.5, 1.5, 12)
    optimisers = dqn.optimiser(hypers), distributed_dqn.optimiser(hypers, axes=("shard",))
    whole, shared = (dqn.Learner(params, target, optimiser.init(params)) for optimiser in optimisers)
    of_all, of_shard = (functools.partial(module.learn, network=network) for module in (dqn, distributed_dqn))
    whole, metrics, priority = jax.jit(of_all)(KEY, whole, minibatch, weight, hypers)
    learn = jax.jit(jax.vmap(of_shard, (0, None, 0, 0, None), axis_name="shard"))
    learner, said, found = learn(jax.random.split(KEY, 3), shared, *asynchrony.apart((minibatch, weight), 3, 0), hypers)
    for shard in range(3):
        params, moments, seen = jax.tree.map(lambda leaf, i=shard: leaf[i], (learner.params, learner.opt_state, said))
        close((params, moments[1], tuple(seen)), (whole.params, whole.opt_state, tuple(metrics)))
    np.testing.assert_allclose(found.ravel(), priority, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"n_step": 2, "double": True},
        {"replay": "proportional", "noisy": True, "dueling": True, "head": "categorical", "num_atoms": 5},
    ],
)
def test_one_shard_is_dqn(config, monkeypatch):
    config = {**SMALL, "rollout_length": 2, "num_steps": 2, **config}
    network = QNetwork(SPEC, dqn.Config(**config))
    monkeypatch.setattr(jax.random, "fold_in", lambda key, number: key)  # a shard's keys are then those of all
    one = distributed_dqn.build(SPEC, distributed_dqn.Config(**config, num_shards=1))
    dqn_init = jax.jit(functools.partial(dqn.init, network=network))
    state, whole = jax.jit(one.init)(KEY, HYPERS), dqn_init(KEY, HYPERS)
    update, dqn_update = jax.jit(one.update), jax.jit(functools.partial(dqn.update, network=network))
    for step in range(4):
        key, batch = jax.random.key(step), rollout_of(step, length=2)
        state, metrics = update(key, jnp.int32(step), state, batch, HYPERS)
        whole, said = dqn_update(key, jnp.int32(step), whole, batch, HYPERS)
        close(tuple(metrics), tuple(said))
    assert metrics.error > 0
    close((state.learner.params, state.learner.target), (whole.learner.params, whole.learner.target))
    close(jax.tree.map(lambda leaf: leaf[0], state.replay), whole.replay)
    close(jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], state.priorities)), jax.tree.leaves(whole.priorities))


def test_each_shard_keeps_its_environments_and_draws_from_them_by_its_own_key():
    algorithm = distributed_dqn.build(SPEC, distributed_dqn.Config(**SMALL, num_shards=3))
    network = QNetwork(SPEC, dqn.Config(**{**SMALL, "num_envs": 2, "batch_size": 4, "capacity": 8}))
    state, update, learned = jax.jit(algorithm.init)(KEY, HYPERS), jax.jit(algorithm.update), []
    assert state.replay.obs.shape == (3, 4, 2, 1)
    for step in range(3):
        before, key = state.learner, jax.random.key(step)
        state, metrics = update(key, jnp.int32(step), state, rollout_of(step), HYPERS)
        learned.append(bool(metrics.error > 0))
    assert learned == [False, True, True]  # 6, 12 and 18 transitions gathered
    rows = [rollout_of(step).obs[0].reshape(3, 2, 1) for step in range(3)]
    np.testing.assert_array_equal(state.replay.obs[:, :3], np.stack(rows, axis=1))
    parts, drawn = [], []
    for shard in range(3):
        draw_key, _ = jax.random.split(jax.random.fold_in(jax.random.split(key, 1)[0], shard))
        index, _ = experience.drawn(draw_key, 2, (), 6, HYPERS, config=network.config)
        ring = jax.tree.map(lambda leaf, i=shard: leaf[i], state.replay)
        parts.append(replay.multi_step(ring, index, jnp.int32(2), HYPERS.discount, 1))
        drawn.append(tuple(index.tolist()))
    assert len(set(drawn)) == 3
    minibatch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    whole = dqn.Learner(before.params, before.target, before.opt_state[1])
    whole, _, _ = jax.jit(functools.partial(dqn.learn, network=network))(KEY, whole, minibatch, jnp.ones(12), HYPERS)
    close(state.learner.params, whole.params)
    close(state.learner.target, whole.params)  # the third update moves it


def moved(text):
    """What a compiled program moves between devices: kind, and the numbers of the largest array."""
    found = []
    for shapes, kind in COLLECTIVE.findall(text):
        sizes = [int(np.prod([int(n) for n in dims.split(",") if n])) for dims in re.findall(r"\w\[([\d,]*)\]", shapes)]
        found.append((kind, max(sizes)))
    return found


def curve(num_devices, config=CURVE):
    """Trains over some devices: reports, the last state, and what the program moves between devices."""
    mesh, env = num_devices and sweep.mesh(num_devices), adapter.make("CartPole-v1")
    algorithm = distributed_dqn.build(env.spec, config, mesh=mesh)
    run = train.make(algorithm, rollout.build(env, num_envs=config.num_envs, length=1))
    hypers = distributed_dqn.Hypers(learning_rate=1e-2, horizon=float(NUM_UPDATES))
    state = jax.jit(run.init)(KEY, hypers)
    program = train.scan(run, NUM_UPDATES).lower(KEY, jnp.int32(0), state, hypers).compile()
    state, reports = program(KEY, jnp.int32(0), state, hypers)
    return reports, state, moved(program.as_text())


def same_curve(reports, others):
    close([np.asarray(leaf) for leaf in jax.tree.leaves(reports)], [np.asarray(leaf) for leaf in others])


@pytest.fixture(scope="module")
def alone():
    """The curve of one device, which holds all shards."""
    reports, _, moves = curve(None)
    assert not moves
    losses = np.asarray(reports.metrics.loss)
    assert (losses[:3] == 0).all()  # until 64 transitions are gathered
    assert (losses[3:] > 0).all()
    return jax.tree.leaves(reports)


@pytest.mark.two_devices
def test_the_curve_is_the_same_on_two_devices(alone):
    reports, state, moves = curve(2)
    same_curve(reports, alone)
    local(state, moves, 2)


def local(state, moves, num_devices):
    """Checks that each device keeps its shards, and that gradients are the most that moves."""
    for leaf in jax.tree.leaves(state.algorithm.replay):
        assert [part.data.shape for part in leaf.addressable_shards] == [
            (CURVE.num_shards // num_devices, *leaf.shape[1:])
        ] * num_devices
    part = min(leaf[0].size for leaf in jax.tree.leaves(state.algorithm.replay))
    params = sum(leaf.size for leaf in jax.tree.leaves(state.algorithm.learner.params))
    assert params < part  # else one could pass for the other
    assert "all-reduce" in dict(moves)
    assert max(size for _, size in moves) <= params
    for leaf in jax.tree.leaves(state.source):  # actors work where their shard is
        assert {part.data.shape[0] for part in leaf.addressable_shards} == {CURVE.num_envs // num_devices}


@pytest.mark.two_devices
def test_a_program_that_gathers_is_seen():
    mesh = sweep.mesh(2)
    apart, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*names)) for names in (["lane"], []))
    gather = jax.jit(lambda x: x * 2, in_shardings=apart, out_shardings=whole)
    assert ("all-gather", 4000) in moved(gather.lower(jnp.zeros((4, 1000))).compile().as_text())


def test_the_curve_is_the_same_on_eight_devices(alone, tmp_path):
    path = tmp_path / "curve.npz"
    settings = {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, __file__, str(path)], env={**os.environ, **settings}, check=True)
    with np.load(path) as reports:
        same_curve([reports[name] for name in sorted(reports.files)], alone)


@pytest.mark.parametrize("name", ["num_envs", "batch_size"])
def test_what_cannot_be_dealt_out_is_refused(name):
    config = {"num_envs": 4, "batch_size": 8, "capacity": 24, "num_shards": 4}
    with pytest.raises(ValueError, match=rf"config.{name}={config[name] + 2} is no multiple of 4 shards"):
        distributed_dqn.Config(**{**config, name: config[name] + 2})


@pytest.mark.two_devices
def test_more_devices_than_shards_are_refused():
    with pytest.raises(ValueError, match=r"config\.num_shards=3 is no multiple of 2 devices"):
        distributed_dqn.build(SPEC, distributed_dqn.Config(**SMALL, num_shards=3), mesh=sweep.mesh(2))


@pytest.mark.learning
@pytest.mark.parametrize("num_devices", [None, pytest.param(2, marks=pytest.mark.two_devices)])
def test_values_of_every_action_are_learned(probe, num_devices):
    env, num = adapter.make(probe), len(probe.observations)
    config = distributed_dqn.Config(
        num_envs=8, num_shards=4, batch_size=32, capacity=1600, warm_up=64, target_period=10, hidden_sizes=(16,)
    )
    hypers = distributed_dqn.Hypers(learning_rate=1e-2, discount=0.5, epsilon_end=1.0, horizon=600.0)
    algorithm = distributed_dqn.build(env.spec, config, mesh=num_devices and sweep.mesh(num_devices))
    run = train.make(algorithm, rollout.build(env, num_envs=8, length=1))
    state = jax.jit(run.init)(KEY, hypers)
    state, _ = jax.jit(train.window(run))(KEY, jnp.int32(0), jnp.int32(600), state, hypers)
    network, params = QNetwork(env.spec, config), jax.device_get(state.algorithm.learner.params)
    q_values = q_networks.q_values(None, params, probe.observations, hypers, network=network)
    expected = np.stack([probe.action_values(0.5, np.full(num, action)) for action in range(2)], -1)
    np.testing.assert_allclose(q_values, expected, atol=0.1)


def main(path):
    """Trains over eight devices, in a process of its own, and saves the curve."""
    reports, state, moves = curve(8)
    local(state, moves, 8)
    np.savez(path, **{f"{i:02}": leaf for i, leaf in enumerate(jax.tree.leaves(reports))})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
