"""Rollouts: what a transition shows at an episode's end, whose memory is reset, and which episodes are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Policy
from rlgen.envs import adapter, probes
from rlgen.sources import rollout

ENVS, LENGTH, LIMIT = 3, 7, 3


def remember(key, obs, memory):
    """Counts its own steps in memory and says what it remembers; the action is noise."""
    action = jax.random.bernoulli(key, 0.5, obs.shape[:1]).astype(jnp.int32)
    return (
        action,
        {"count": memory["count"], "parity": memory["parity"]},
        {
            "count": memory["count"] + 1,
            "parity": 1 - memory["parity"],
        },
    )


POLICY = Policy(
    memory=lambda batch_shape: {"count": jnp.zeros(batch_shape, jnp.int32), "parity": jnp.ones((*batch_shape, 2))},
    apply=remember,
)


@pytest.fixture(scope="module", params=["terminated", "truncated"])
def collected(request):
    """Three rollouts `[3 T, B]` of episodes of three steps, with the stats of each."""
    env = adapter.make(getattr(probes, request.param)(LIMIT))
    source = rollout.build(env, num_envs=ENVS, length=LENGTH)
    state = source.init(jax.random.key(0), POLICY)
    step, batches, stats = jax.jit(lambda *arguments: source.next(*arguments, POLICY)), [], []
    for index in range(3):
        state, batch, said = step(jax.random.key(index), jnp.int32(index), state)
        batches.append(batch)
        stats.append(said)
    return request.param, jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches), stats


def test_flags_fall_on_the_last_step_of_an_episode(collected):
    end, batch, _ = collected
    is_last = np.arange(3 * LENGTH) % LIMIT == LIMIT - 1
    for flag in ("terminated", "truncated"):
        np.testing.assert_array_equal(getattr(batch, flag), np.tile((is_last & (flag == end))[:, None], ENVS))


def test_final_observation_is_the_true_one(collected):
    end, batch, _ = collected
    time = np.arange(3 * LENGTH) % LIMIT
    # The terminated probe observes the time and shows its last situation once more; the truncated one observes 0.
    scale = 1 / LIMIT if end == "terminated" else 0
    np.testing.assert_allclose(batch.obs, np.tile((time * scale)[:, None, None], (1, ENVS, 1)), rtol=1e-6)
    after = np.minimum(time + 1, LIMIT - 1) * scale
    np.testing.assert_allclose(batch.next_obs, np.tile(after[:, None, None], (1, ENVS, 1)), rtol=1e-6)


def test_memory_starts_anew_exactly_where_an_episode_ends(collected):
    _, batch, _ = collected
    time = np.arange(3 * LENGTH) % LIMIT
    np.testing.assert_array_equal(batch.extras["count"], np.tile(time[:, None], ENVS))
    np.testing.assert_array_equal(batch.extras["parity"], np.tile((1 - time % 2)[:, None, None], (1, ENVS, 2)))


def test_stats_count_finished_episodes_only(collected):
    _, _, stats = collected
    # Of 7, 14 and 21 steps 2, 4 and 7 episodes are whole, each of three steps with reward 1, in every copy.
    assert [float(said.episodes) for said in stats] == [2 * ENVS, 2 * ENVS, 3 * ENVS]
    for said in stats:
        assert float(said.total_return) == float(said.total_length) == LIMIT * float(said.episodes)


def test_actions_and_keys_differ_between_steps_and_copies(collected):
    _, batch, _ = collected
    assert 0.2 < batch.action.mean() < 0.8
    assert len({tuple(column) for column in batch.action.T}) == ENVS
    assert len({tuple(rows.ravel()) for rows in batch.action.reshape(3, LENGTH, ENVS)}) == 3


def test_select_chooses_copy_by_copy():
    trees = ({"a": jnp.ones((2, 3)), "b": jnp.ones(2)}, {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)})
    got = rollout.select(jnp.array([True, False]), *trees)
    np.testing.assert_array_equal(got["a"], [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(got["b"], [1, 0])


def test_an_episode_is_one_copys_own():
    """In copies that end at different times, only those that ended begin anew."""
    env = adapter.make("CartPole-v1", max_steps_in_episode=20)
    source = rollout.build(env, num_envs=4, length=40)
    state = source.init(jax.random.key(0), POLICY)
    state, batch, stats = jax.jit(lambda *arguments: source.next(*arguments, POLICY))(
        jax.random.key(1), jnp.int32(0), state
    )
    batch = jax.tree.map(np.asarray, batch)
    done = batch.terminated | batch.truncated
    assert len({tuple(column) for column in done.T}) == 4
    count, lengths = np.zeros(4, int), []
    for row in range(40):
        np.testing.assert_array_equal(batch.extras["count"][row], count)
        lengths += (count[done[row]] + 1).tolist()
        count = np.where(done[row], 0, count + 1)
        if row < 39:
            going_on = ~done[row]
            np.testing.assert_array_equal(batch.obs[row + 1][going_on], batch.next_obs[row][going_on])
            assert (batch.obs[row + 1] != batch.next_obs[row])[done[row]].all()
    assert float(stats.episodes) == len(lengths)
    assert float(stats.total_length) == float(stats.total_return) == sum(lengths)
    np.testing.assert_array_equal(state.episode_length, count)
