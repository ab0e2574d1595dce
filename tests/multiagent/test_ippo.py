"""IPPO: that it is PPO for each agent, that sharing is one learner in more environments, groups, and a probe."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from rlgen import evaluate, train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, scenarios
from rlgen.multiagent import ippo
from rlgen.parts import agents
from rlgen.policy import ppo
from rlgen.sources import rollout

SMALL = {"num_envs": 2, "rollout_length": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (8,)}
HYPERS = ippo.Hypers(learning_rate=1e-2, horizon=10.0)


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@functools.cache
def begun(**config):
    """IPPO on simple spread, and a rollout that it drew itself."""
    env, config = adapter.make(scenarios.simple_spread()), ippo.Config(**SMALL, **config)
    algorithm = ippo.build(env.spec, config)
    source = rollout.build(env, num_envs=config.num_envs, length=config.rollout_length)

    @jax.jit
    def start(key):
        keys = jax.random.split(key, 3)
        state = algorithm.init(keys[0], HYPERS)
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)
        return state, source.next(keys[2], jnp.int32(0), source.init(keys[1], policy), policy)[1]

    return env, config, algorithm, *start(jax.random.key(0))


def of_agent(batch, k, say):
    """What agent `k` went through, with what `say` picks of what was said."""
    own = (each[k] for each in batch[:4])
    return Transition(*own, batch.terminated, batch.truncated, jax.tree.map(say, batch.extras["0"]))


SWITCHES = [
    {},
    {"core": "gru"},
    {"normalise_observations": True, "normalise_rewards": True},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_an_agent_of_its_own_learns_what_ppo_does(switches):
    env, _, algorithm, state, batch = begun(share_parameters=False, **switches)
    alone = ppo.build(Spec(env.spec.observation[0], env.spec.action[0]), ppo.Config(**{**SMALL, **switches}))
    key, step = jax.random.key(5), jnp.int32(3)
    after, metrics = jax.jit(algorithm.update)(key, step, state, batch, HYPERS)
    learn, told = jax.jit(alone.update), []
    for k in range(3):
        before = jax.tree.map(lambda leaf, k=k: leaf[k], state.groups[0])
        own = of_agent(batch, k, lambda leaf, k=k: leaf[:, :, k])
        expected, metrics_of = learn(key, step, before, own, HYPERS)
        told.append(metrics_of)
        got = jax.tree.map(lambda leaf, k=k: leaf[k], after.groups[0])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), got, expected)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves), *told)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), metrics, mean)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_sharing_is_ppo_with_an_agent_as_one_environment_more(switches):
    env, config, algorithm, state, batch = begun(share_parameters=True, **switches)
    wide = ppo.Config(**{**SMALL, **switches, "num_envs": 3 * config.num_envs})
    alone = ppo.build(Spec(env.spec.observation[0], env.spec.action[0]), wide)
    own = (jnp.stack(each, 2) for each in batch[:4])
    ends = (jnp.stack([each] * 3, 2) for each in (batch.terminated, batch.truncated))
    parts = (*own, *ends, batch.extras["0"])
    merged = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], -1, *leaf.shape[3:]), parts)
    key, step = jax.random.key(5), jnp.int32(3)
    after, metrics = jax.jit(algorithm.update)(key, step, state, batch, HYPERS)
    expected, told = jax.jit(alone.update)(key, step, state.groups[0], Transition(*merged), HYPERS)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), after.groups[0], expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), metrics, told)


@pytest.mark.parametrize("share", [True, False])
def test_groups_learn_apart_and_metrics_weigh_their_agents(share):
    """Of simple tag: three pursuers and an evader."""
    env, config = adapter.make(scenarios.simple_tag()), ippo.Config(**SMALL, share_parameters=share)
    algorithm = ippo.build(env.spec, config)
    source = rollout.build(env, num_envs=2, length=8)
    state = algorithm.init(jax.random.key(0), HYPERS)
    policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)
    batch = source.next(jax.random.key(1), jnp.int32(0), source.init(jax.random.key(2), policy), policy)[1]
    key, step = jax.random.key(5), jnp.int32(3)
    after, metrics = jax.jit(algorithm.update)(key, step, state, batch, HYPERS)
    evader = ppo.build(Spec(env.spec.observation[3], env.spec.action[3]), ppo.Config(**SMALL))
    before = state.groups[1] if share else jax.tree.map(lambda leaf: leaf[0], state.groups[1])
    own = of_agent(batch, 3, lambda leaf: leaf)._replace(extras={"log_prob": batch.extras["1"]["log_prob"][..., 0]})
    expected, told = jax.jit(evader.update)(jax.random.split(key)[1], step, before, own, HYPERS)
    got = after.groups[1] if share else jax.tree.map(lambda leaf: leaf[0], after.groups[1])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), got, expected)
    # The evader's share of a mean over four agents: what moves it alone moves that by a quarter.
    paid = batch._replace(reward=(*batch.reward[:3], batch.reward[3] + jnp.arange(8.0)[:, None]))
    _, moved = jax.jit(algorithm.update)(key, step, state, paid, HYPERS)
    own = own._replace(reward=paid.reward[3])
    _, told_moved = jax.jit(evader.update)(jax.random.split(key)[1], step, before, own, HYPERS)
    difference = (told_moved.value_loss - told.value_loss) / 4
    assert difference > 0.1
    np.testing.assert_allclose(moved.value_loss - metrics.value_loss, difference, rtol=1e-3)


def test_minibatches_are_dealt_of_what_a_learner_has():
    """With sharing three agents are three sequences an environment, which a core reads whole."""
    spec = adapter.make(scenarios.simple_spread()).spec
    config = {**SMALL, "core": "gru", "num_minibatches": 3}
    ippo.build(spec, ippo.Config(**config))
    for changes in ({"share_parameters": False}, {"num_minibatches": 4}):
        with pytest.raises(ValueError, match=r"config.num_minibatches=\d does not divide"):
            ippo.build(spec, ippo.Config(**{**config, **changes}))


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_said_is_of_the_agent_that_acted(shared):
    env, _, algorithm, state, batch = begun(share_parameters=shared)
    policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=False)
    alone = ppo.build(Spec(env.spec.observation[0], env.spec.action[0]), ppo.Config(**SMALL))
    action, extras, _ = jax.jit(policy.apply)(jax.random.key(1), batch.obs, policy.memory((8, 2)))
    for k in range(3):
        own = state.groups[0] if shared else jax.tree.map(lambda leaf, k=k: leaf[k], state.groups[0])
        greedy = alone.policy(jnp.int32(0), own, HYPERS, explore=False)
        expected, said, _ = jax.jit(greedy.apply)(jax.random.key(2), batch.obs[k], ())
        same(action[k], expected)
        np.testing.assert_allclose(extras["0"]["log_prob"][:, :, k], said["log_prob"], rtol=1e-5)
    drawn = np.stack(batch.action, -1)
    assert all((drawn[..., k] != drawn[..., k - 1]).any() for k in range(3))  # no two agents draw alike


def test_agents_are_grouped_by_what_they_see_and_do():
    spec = adapter.make(scenarios.simple_tag()).spec
    groups = agents.groups(spec)
    assert [group.members for group in groups] == [(0, 1, 2), (3,)]
    assert groups[1].spec == Spec(spec.observation[3], Discrete(5))
    mixed = Spec((Box((2,)), Box((3,)), Box((2,))), (Discrete(2),) * 3)
    groups = agents.groups(mixed)
    assert [group.members for group in groups] == [(0, 2), (1,)]
    tree = tuple(np.full((4, 2), k) for k in range(3))
    parts = tuple(agents.gathered(tree, group, 1) for group in groups)
    assert [part.shape for part in parts] == [(4, 2, 2), (4, 1, 2)]
    same(agents.scattered(parts, groups, 1), tree)
    with pytest.raises(ValueError, match="several are needed"):
        ippo.build(Spec(Box((2,)), Discrete(2)), ippo.Config())


@struct.dataclass
class Moment(environment.EnvState):
    time: Any


class EachItsOwn(environment.Environment):
    """Two agents that see the same and earn one for different actions; the second one sees whether it is time."""

    agents = ("first", "second")

    def __init__(self, unlike):
        super().__init__()
        self.unlike = unlike

    def seen(self, state):
        first = jnp.ones(1)
        return first, jnp.ones(2) if self.unlike else first

    def reset_env(self, key, params):
        state = Moment(time=jnp.int32(0))
        return self.seen(state), state

    def step_env(self, key, state, action, params):
        state = Moment(time=state.time + 1)
        reward = tuple((act == k).astype(jnp.float32) for k, act in enumerate(action))
        return self.seen(state), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state, params):
        return state.time >= 2

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=5)

    @property
    def name(self):
        return "EachItsOwn"

    def action_space(self, params=None):
        return spaces.Tuple([spaces.Discrete(2)] * 2)

    def observation_space(self, params):
        return spaces.Tuple([spaces.Box(0, 1, (1,)), spaces.Box(0, 1, (1 + self.unlike,))])


@pytest.mark.learning
@pytest.mark.parametrize(("shared", "unlike"), [(False, False), (True, False), (True, True)])
def test_agents_find_what_each_of_them_should_do(shared, unlike):
    env = adapter.make(EachItsOwn(unlike))
    config = ippo.Config(num_envs=8, rollout_length=8, hidden_sizes=(16,), num_minibatches=1, share_parameters=shared)
    algorithm = ippo.build(env.spec, config)
    run = train.make(algorithm, rollout.build(env, num_envs=8, length=8))
    hypers = ippo.Hypers(learning_rate=1e-2)
    state = run.init(jax.random.key(0), hypers)
    state, _ = train.scan(run, 60)(jax.random.key(0), jnp.int32(0), state, hypers)
    policy = algorithm.policy(jnp.int32(60), state.algorithm, hypers, explore=False)
    played = evaluate.episodes(jax.random.key(1), policy, env, 4)
    assert (played.length == 2).all()
    returns = np.stack(played.total_return)
    if shared and not unlike:
        # One policy that cannot tell them apart lets one of them have it all.
        assert (returns.sum(axis=0) == 2).all() and (returns.max(axis=0) == 2).all()
    else:
        assert (returns == 2).all()
