"""Particles beside jaxmarl's, an independent implementation, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxmarl.environments import mpe
from jaxmarl.environments.mpe.simple import State

from rlgen.actor_critic import sac
from rlgen.core import Box, Discrete
from rlgen.envs import adapter, scenarios
from rlgen.envs.particles import ParticlesState
from rlgen.value import dqn

PEERS = {"SimpleSpread": mpe.SimpleSpreadMPE, "SimpleAdversary": mpe.SimpleAdversaryMPE, "SimpleTag": mpe.SimpleTagMPE}


def crowded(rng, native):
    """A state in which many touch each other and some are beyond the fence."""
    scenario = native.scenario
    agents, bodies = scenario.num_agents, scenario.num_agents + scenario.num_landmarks
    place = rng.uniform(-0.3, 0.3, (bodies, 2)) + rng.choice([0.0, 0.75, -0.8], (1, 2))
    goal = rng.integers(scenario.num_landmarks) if scenario.has_goal else 0
    return ParticlesState(
        time=jnp.int32(0),
        place=jnp.asarray(place, jnp.float32),
        velocity=jnp.asarray(rng.uniform(-1, 1, (agents, 2)), jnp.float32),
        goal=jnp.int32(goal),
    )


SIZES = {
    "SimpleSpread": ({"num_agents": 5, "local_ratio": 0.9}, {"num_agents": 5, "num_landmarks": 5, "local_ratio": 0.9}),
    "SimpleAdversary": ({"num_good": 3}, {"num_good_agents": 3, "num_obs": 3}),
    "SimpleTag": ({"num_pursuers": 2}, {"num_adversaries": 2}),
}


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", PEERS)
def test_episodes_are_jaxmarls(name, continuous):
    ours, theirs = SIZES[name] if continuous else ({}, {})
    native = scenarios.SCENARIOS[name](continuous=continuous, **ours)
    peer = PEERS[name](action_type="Continuous" if continuous else "Discrete", **theirs)
    num, params, rng = native.scenario.num_agents, native.default_params, np.random.default_rng(0)
    step, peer_step = jax.jit(native.step_env), jax.jit(peer.step_env)
    touched = 0
    for _ in range(40):
        state = crowded(rng, native)
        still = jnp.zeros((native.scenario.num_landmarks, 2))
        theirs = State(
            p_pos=state.place,
            p_vel=jnp.concatenate([state.velocity, still]),
            c=jnp.zeros((num, 2)),
            done=jnp.array(False),
            step=jnp.array(0),
            goal=state.goal,
        )
        for _ in range(5):
            if continuous:
                action = tuple(jnp.asarray(rng.uniform(size=5), jnp.float32) for _ in range(num))
            else:
                action = tuple(jnp.int32(rng.integers(5)) for _ in range(num))
            obs, state, reward, terminated, _ = step(jax.random.key(0), state, action, params)
            named = dict(zip(peer.agents, action, strict=True))
            seen, theirs, earned, _, _ = peer_step(jax.random.PRNGKey(0), theirs, named)
            for ours, agent in zip(obs, peer.agents, strict=True):
                np.testing.assert_allclose(ours, seen[agent], atol=2e-5)
            np.testing.assert_allclose(reward, [earned[agent] for agent in peer.agents], rtol=1e-5, atol=2e-5)
            assert not terminated
            touched += int(scenarios.touching(native.scenario, state).any())
            # Contact is stiff: what rounding adds in a step must not add up over many.
            theirs = theirs.replace(p_pos=state.place, p_vel=jnp.concatenate([state.velocity, still]))
    assert touched > 20


def test_spaces_have_an_entry_for_each_agent_and_episodes_are_cut():
    env = adapter.make(scenarios.simple_tag())
    assert [space.shape for space in env.spec.observation] == [(16,)] * 3 + [(14,)]
    assert env.spec.action == (Discrete(5),) * 4
    assert adapter.make(scenarios.simple_spread(continuous=True)).spec.action == (Box((5,), 0.0, 1.0),) * 3
    state, obs = env.reset(jax.random.key(0), 3)
    step = jax.jit(env.step)
    for time in range(env.max_steps):
        before = obs
        state, (obs, reward, next_obs, terminated, truncated) = step(
            jax.random.fold_in(jax.random.key(1), time), state, (jnp.full(3, 1, jnp.int32),) * 4
        )
        assert [each.shape for each in reward] == [(3,)] * 4
        assert not terminated.any()
        assert truncated.all() if time + 1 == env.max_steps else not truncated.any()
    assert jax.tree.leaves(jax.tree.map(lambda a, b: not np.allclose(a, b), obs, next_obs))[0]
    # The last observation is of the episode that ended: a step moves nobody further than its top speed.
    assert all(np.abs(a[:, 2:4] - b[:, 2:4]).max() < 0.2 for a, b in zip(next_obs, before, strict=True))


def test_a_reset_starts_at_rest_within_the_field_and_draws_the_goal():
    native = scenarios.simple_adversary()
    reset = jax.jit(jax.vmap(lambda key: native.reset_env(key, native.default_params)[1]))
    state = reset(jax.random.split(jax.random.key(0), 500))
    assert (state.velocity == 0).all() and abs(state.place).max() <= 1 and abs(state.place).max() > 0.95
    assert abs((state.goal == 0).mean() - 0.5) < 0.1
    tag = scenarios.simple_tag()
    place = jax.vmap(lambda key: tag.reset_env(key, tag.default_params)[1].place)(
        jax.random.split(jax.random.key(0), 500)
    )
    assert abs(place[:, 4:]).max() <= 0.9 < abs(place[:, :4]).max()


def test_pursuers_see_how_fast_every_evader_is_and_an_evader_the_others():
    native = scenarios.simple_tag(num_pursuers=1, num_evaders=2)
    speeds = jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    state = ParticlesState(time=jnp.int32(0), place=jnp.zeros((5, 2)), velocity=speeds, goal=jnp.int32(0))
    seen = native.scenario.observe(native.scenario, state)
    assert [len(each) for each in seen] == [16, 14, 14]
    np.testing.assert_allclose(seen[0][12:], [0.3, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(seen[2][12:], [0.3, 0.4])


def test_an_environment_with_other_spaces_than_agents_is_refused(monkeypatch):
    native = scenarios.simple_spread()
    monkeypatch.setattr(type(native), "agents", ("one", "two"))
    with pytest.raises(TypeError, match="SimpleSpread has 2 agents, and not as many spaces"):
        adapter.make(native)


@pytest.mark.parametrize(
    "build", [lambda spec: sac.build(spec, sac.Config()), lambda spec: dqn.build(spec, dqn.Config())]
)
def test_an_algorithm_of_one_agent_refuses_several(build):
    spec = adapter.make(scenarios.simple_spread(continuous=True)).spec
    with pytest.raises(ValueError, match=r"agents|actions"):
        build(spec).init(jax.random.key(0), sac.Hypers())


def test_covered_landmarks_cost_nothing_and_a_touch_costs_its_share():
    native = scenarios.simple_spread(local_ratio=0.5)
    landmarks = np.array([[0.0, 0.0], [0.5, 0.5], [-0.5, 0.5]], np.float32)

    def reward(agents):
        place = jnp.concatenate([jnp.asarray(agents), landmarks])
        state = ParticlesState(time=jnp.int32(0), place=place, velocity=jnp.zeros((3, 2)), goal=jnp.int32(0))
        return native.scenario.reward(native.scenario, state)

    np.testing.assert_allclose(reward(landmarks), 0.0, atol=1e-7)
    near = landmarks.copy()
    near[2] = near[1] + [0.2, 0.0]  # touches the second, and leaves its own uncovered
    uncovered = np.linalg.norm(landmarks[2] - landmarks[0])
    np.testing.assert_allclose(
        reward(near), [-0.5 * uncovered, -0.5 - 0.5 * uncovered, -0.5 - 0.5 * uncovered], rtol=1e-6
    )


@pytest.mark.parametrize("make", [scenarios.simple_spread, scenarios.simple_adversary])
def test_one_agent_is_refused(make):
    with pytest.raises(ValueError, match="agents"):
        make(1 if make is scenarios.simple_spread else 0)
