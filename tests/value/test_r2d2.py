"""R2D2: sequences and seams by enumeration, memories as they were, targets by hand, and a task that needs memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rlgen import evaluate, train
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, memory, probes
from rlgen.parts import networks, priorities, sequences
from rlgen.parts.q_networks import RecurrentQNetwork
from rlgen.parts.replay import Steps
from rlgen.parts.sequences import Sequences
from rlgen.sources import rollout
from rlgen.value import dqn, r2d2

SPEC = Spec(Box((3,)), Discrete(4))
SIZES = {"core_size": 5, "hidden_sizes": (6,), "stream_sizes": (4,)}
# What is small compiles soon.
SMALL = {
    "core": "gru",
    "dueling": False,
    "num_envs": 2,
    "rollout_length": 2,
    "burn_in": 3,
    "sequence_length": 4,
    "capacity": 24,
    "warm_up": 0,
    **SIZES,
}
HYPERS = r2d2.Hypers(discount=0.9, horizon=10.0)
CORES = tuple(networks.CORES)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)


def config_of(**fields):
    return r2d2.Config(**{**SMALL, "batch_size": 4, "num_steps": 1, "target_period": 3, **fields})


def blank(network):
    """A state of zeros, which need not be compiled."""
    shapes = jax.eval_shape(functools.partial(r2d2.init, network=network), jax.random.key(0), HYPERS)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def begun(spec=SPEC, **fields):
    """A network, and two sets of its parameters."""
    network, rng = RecurrentQNetwork(spec, config_of(**fields)), np.random.default_rng(1)
    shapes = blank(network).learner.params
    draw = functools.partial(jax.tree.map, lambda leaf: 0.5 * rng.normal(size=leaf.shape).astype(np.float32))
    return network, draw(shapes), draw(shapes)


def looker(network):
    """`hindsight` of a network, compiled."""
    return jax.jit(functools.partial(r2d2.hindsight, network=network))


def invented(network, num=3, length=7, terminated=(), truncated=()):
    """Sequences of noise, with ends at some places `(sequence, step)` and otherwise none."""
    rng = np.random.default_rng(5)
    obs = rng.normal(size=(num, length + 1, 3)).astype(np.float32)
    ends = np.zeros((2, num, length), bool)
    for flags, places in zip(ends, (terminated, truncated), strict=True):
        for place in places:
            flags[place] = True
    next_obs = obs[:, 1:] + ends.any(0)[..., None]
    action, reward = rng.integers(0, 4, (num, length)), rng.normal(size=(num, length)).astype(np.float32)
    steps = Transition(obs[:, :-1], action, reward, next_obs, *ends, {})
    blank = networks.initial_memory(network.config.core, 5, (num,))
    return Sequences(steps, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), blank))


def part(sequences, start, stop, memory):
    return Sequences(jax.tree.map(lambda leaf: leaf[:, start:stop], sequences.steps), memory)


# Ring: that each sequence is what it should be.


@functools.cache
def lived():
    """Ten updates on a probe whose episodes have one, three and four steps, and all sequences after each of them.

    The one who acts is not the one who learns, so that it can be asked again.
    """
    features, starts, successors = (-1.0, -0.2, 0.2, 0.6, 1.0), (0, 1, 4), (-1, 2, 3, -1, 4)
    table = probes.Table(features, starts, successors, lambda obs, action: 1.0 * action, (0,))
    env = adapter.make(probes.Probe("Lengths", table, max_steps=4))
    network, params, target = begun(env.spec, core="lstm", warm_up=17)
    algorithm, source = r2d2.build(env.spec, network.config), rollout.build(env, num_envs=2, length=2)
    state = blank(network)._replace(priorities=priorities.init(6, kind="proportional"))
    state = state._replace(learner=state.learner._replace(params=params, target=target))

    @jax.jit
    def run(key, state):
        policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)

        def one(carry, step):
            state, position = carry
            key, update_key = jax.random.split(jax.random.fold_in(jax.random.key(3), step))
            position, batch, _ = source.next(key, step, position, policy)
            state, metrics = algorithm.update(update_key, step, state, batch, HYPERS)
            found = sequences.take(step, state.replay, jnp.arange(6), config=network.config)
            return (state, position), (batch, found, state._replace(replay=()), metrics)

        carry = (state, source.init(key, policy))
        return jax.lax.scan(one, carry, jnp.arange(10, dtype=jnp.int32))[1]

    batch, *rest = jax.tree.map(np.asarray, run(jax.random.key(3), state))
    return network, params, target, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch), *rest


def test_stored_memory_is_the_actors_and_learning_sees_what_it_saw():
    network, params, _, batch, sequences, _, _ = lived()
    sequences = jax.tree.map(lambda leaf: leaf[-1], sequences)
    values, next_values = looker(network)(params, sequences)
    look = jax.jit(functools.partial(network.apply, params, method="step"))
    by_row = {}
    for env in range(2):
        remembered = blank_memory = networks.initial_memory("lstm", 5, ())
        for row in range(20):
            before = remembered
            remembered, here = look(remembered, batch.obs[row, env])
            by_row[row, env] = before, here, look(remembered, batch.next_obs[row, env])[1]
            if batch.terminated[row, env] | batch.truncated[row, env]:
                remembered = blank_memory
    # Twelve rows are left of twenty; sequences of seven steps begin with rows 8, 10 and 12, which are rollouts 4 to 6.
    for index in range(6):
        first, env = 2 * (4 + (index // 2 - 4) % 3), index % 2
        np.testing.assert_array_equal(sequences.steps.obs[index], batch.obs[first : first + 7, env])
        jax.tree.map(lambda left, right, i=index: close(left[i], right), sequences.memory, by_row[first, env][0])
        for step in range(4):
            _, here, after = by_row[first + 3 + step, env]
            close((values[index, step], next_values[index, step]), (here, after))
    assert batch.truncated[8:18].any() and batch.terminated[8:18].any()
    assert any(np.any(leaf) for leaf in jax.tree.leaves(sequences.memory))


def test_what_an_update_moves_and_when():
    """Learning waits for 17 transitions, which are in five rollouts; the first four make a sequence whole."""
    network, params, target, _, stored, states, metrics = lived()
    online, copy = (
        np.stack([first["params"]["cell"]["hi"]["kernel"], *rest["params"]["cell"]["hi"]["kernel"]])
        for first, rest in ((params, states.learner.params), (target, states.learner.target))
    )
    for step in range(10):
        assert np.array_equal(online[step], online[step + 1]) == (step < 4)
        assert bool(metrics.error[step] > 0) == (step >= 4)
        np.testing.assert_array_equal(copy[step + 1], online[step + 1] if step in (2, 5, 8) else copy[step])
    assert sequences.warm(config_of()) == 4 and sequences.warm(config_of(warm_up=16)) == 4
    assert sequences.warm(config_of(warm_up=17)) == 5

    leaves, largest = states.priorities.levels[0], states.priorities.largest
    np.testing.assert_array_equal(leaves[:4], [[1, 1, 0, 0, 0, 0, 0, 0]] * 4)
    # Of four that are equally likely each is drawn once, and then has the priority that the loss gives it.
    drawn = jax.tree.map(lambda leaf: leaf[4, :4], stored)
    copied = jax.tree.map(lambda leaf: leaf[3], states.learner.target)
    loss = jax.jit(functools.partial(r2d2.loss, network=network))
    _, (_, priority) = loss(params, copied, drawn, jnp.ones(4), HYPERS)
    close(leaves[4], [*(priority + 1e-6) ** 0.9, 0, 0, 0, 0])
    assert largest[4] == max(1, leaves[4].max()) and (leaves[5:, :6] > 0).all() and not leaves[:, 6:].any()


# Hindsight: burn-in, resets.


def test_burn_in_gives_what_going_through_gives_and_no_gradient():
    network, params, _ = begun(core="lstm")
    plain, _, _ = begun(core="lstm", burn_in=0)
    sequences = invented(network, terminated=[(0, 1), (1, 4)], truncated=[(2, 2)])

    def total(params, obs, memory, sequences, network):
        sequences = Sequences(sequences.steps._replace(obs=obs), memory)
        values = r2d2.hindsight(params, sequences, network=network)
        return values[0].sum(), values

    slopes = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True), static_argnums=4)
    early = jnp.zeros((3, 3), bool).at[0, 2].set(True)
    _, memories = jax.jit(functools.partial(network.apply, params, method="unroll"))(
        sequences.steps.obs[:, :3], early, sequences.memory
    )
    last = part(sequences, 3, 7, jax.tree.map(lambda leaf: leaf[:, -1], memories))
    # The end just before the last four steps is what a stored memory would have seen.
    last = last._replace(memory=jax.tree.map(lambda leaf: leaf.at[2].set(0.0), last.memory))
    (slope, by_obs, by_memory), values = slopes(params, sequences.steps.obs, sequences.memory, sequences, network)
    (slope_of_last, _, _), values_of_last = slopes(params, last.steps.obs, last.memory, last, plain)
    jax.tree.map(close, (slope, values), (slope_of_last, values_of_last))
    assert not np.any(by_obs[:, :3]) and np.all(np.any(by_obs[:, 3:], axis=-1))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_memory))
    # Without a burn-in gradients reach what was remembered before the sequence.
    (_, by_obs, by_memory), all_values = slopes(params, sequences.steps.obs, sequences.memory, sequences, plain)
    close(values, [each[:, 3:] for each in all_values])
    assert np.any(by_obs[:, 0]) and all(np.any(leaf) for leaf in jax.tree.leaves(by_memory))


def test_an_episodes_end_inside_a_sequence_makes_it_two():
    network, params, _ = begun(burn_in=0)
    sequences = invented(network, terminated=[(0, 2), (1, 2)], truncated=[(2, 2)])
    look = functools.partial(looker(network), params)
    zeros = networks.initial_memory("gru", 5, (3,))
    whole, before, after = (
        look(each) for each in (sequences, part(sequences, 0, 3, sequences.memory), part(sequences, 3, 7, zeros))
    )
    jax.tree.map(lambda left, *right: close(left, np.concatenate(right, axis=1)), whole, before, after)
    # What follows a step is seen with what its own episode showed, also where that ended there.
    on = part(sequences, 0, 4, sequences.memory)
    flags = jnp.zeros((3, 4), bool)
    obs = jnp.asarray(on.steps.obs).at[:, 3].set(sequences.steps.next_obs[:, 2])
    on = on._replace(steps=on.steps._replace(obs=obs, terminated=flags, truncated=flags))
    close(whole[1][:, 2], look(on)[0][:, 3])
    assert np.abs(whole[0][:, 3] - whole[1][:, 2]).max() > 1e-2


# Targets, loss and priorities.


def scaled(value):
    return np.sign(value) * (np.sqrt(np.abs(value) + 1) - 1) + 1e-3 * value


def unscaled(value):
    z = (np.sqrt(1 + 4e-3 * (1e-3 + 1 + np.abs(value))) - 1) / 2e-3
    return np.sign(value) * (z**2 - 1)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("n_step", [1, 3, 9])
def test_targets_by_hand(n_step, double, rescale):
    config = config_of(n_step=n_step, double=double, rescaling=rescale)
    rng = np.random.default_rng(0)
    chooser, target = rng.normal(size=(2, 2, 6, 4))
    reward = rng.normal(size=(2, 6))
    terminated, truncated = np.zeros((2, 2, 6), bool)
    terminated[0, 1] = truncated[1, 3] = truncated[0, 4] = True
    steps = Transition((), (), *map(jnp.asarray, (reward, (), terminated, truncated)), {})
    found = r2d2.goal(chooser if double else target, target, steps, HYPERS, config=config)
    into, out = (scaled, unscaled) if rescale else (lambda x: x,) * 2
    for m in range(2):
        for first in range(6):
            total = 0.0
            for k, t in enumerate(range(first, min(first + n_step, 6))):
                total += 0.9**k * reward[m, t]
                if terminated[m, t]:
                    break
                if truncated[m, t] or t == min(first + n_step, 6) - 1:
                    best = np.argmax((chooser if double else target)[m, t])
                    total += 0.9 ** (k + 1) * out(target[m, t, best])
                    break
            np.testing.assert_allclose(found[m, first], into(total), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*:PendingDeprecationWarning:rlax")
def test_loss_and_priorities_agree_with_rlax_where_nothing_is_truncated():
    network, online, target = begun(n_step=3)
    sequences = invented(network, terminated=[(0, 4), (1, 6)])
    weight, steps = jnp.array([0.5, 1.0, 2.0]), jax.tree.map(lambda leaf: leaf[:, 3:], sequences.steps)

    @jax.jit
    def both(online, target, sequences):
        (values, chooser), (_, next_target) = (r2d2.hindsight(p, sequences, network=network) for p in (online, target))
        delta = functools.partial(rlax.transformed_n_step_q_learning, n=3, tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR)
        delta = jax.vmap(delta)(
            values, steps.action, next_target, chooser.argmax(-1), steps.reward, 0.9 * ~steps.terminated
        )
        return delta, values, r2d2.loss(online, target, sequences, weight, HYPERS, network=network)

    delta, values, (value, (metrics, priority)) = jax.tree.map(np.asarray, both(online, target, sequences))
    close(value, (weight * 0.5 * (delta**2).mean(1)).mean(), rtol=1e-3)
    close(priority, 0.9 * np.abs(delta).max(1) + 0.1 * np.abs(delta).mean(1), rtol=1e-3)
    close(metrics.error, np.abs(delta).mean(), rtol=1e-3)
    taken = np.take_along_axis(values, steps.action[..., None], -1)[..., 0]
    close(metrics.q_value, unscaled(taken).mean(), rtol=1e-3)


class SameOutputs:
    """Reads a memory and what was seen since as one observation, as a network without memory would."""

    def __init__(self, network, config):
        self.network, self.spec, self.config = network, network.spec, config

    def apply(self, params, seen, *nothing, method=None):
        remembered, *observations = seen
        for obs in observations:
            remembered, values = self.network.apply(params, remembered, obs, method="step")
        return values[..., None]


@pytest.mark.parametrize(("error", "double"), [("huber", True), ("squared", False)])
def test_one_step_without_rescaling_is_dqn(error, double):
    fields = {"rollout_length": 1, "burn_in": 0, "sequence_length": 1, "n_step": 1, "rescaling": False}
    network, online, target = begun(**fields, double=double, error=error)
    sequences, weight = invented(network, 5, 1, terminated=[(1, 0)], truncated=[(3, 0)]), jnp.linspace(0.5, 2, 5)
    steps = jax.tree.map(lambda leaf: leaf[:, 0], sequences.steps)
    seen = (sequences.memory, steps.obs)
    minibatch = Steps(seen, steps.action, steps.reward, 0.9 * ~steps.terminated, (*seen, steps.next_obs))
    plain = SameOutputs(network, dqn.Config(double=double, error=error))
    ours = jax.grad(functools.partial(r2d2.loss, network=network), has_aux=True)
    theirs = jax.grad(functools.partial(dqn.loss, network=plain), has_aux=True)
    found = jax.jit(ours)(online, target, sequences, weight, HYPERS)
    expected = jax.jit(theirs)(online, jax.random.key(0), target, minibatch, weight, dqn.Hypers(discount=0.9))
    jax.tree.map(close, (found[0], *map(tuple, found[1])), (expected[0], *map(tuple, expected[1])))


# Acting.


def test_epsilon_is_spread_over_environments():
    np.testing.assert_allclose(r2d2.epsilons(HYPERS, (3,)), [0.4, 0.4**4.5, 0.4**8], rtol=1e-6)
    np.testing.assert_allclose(r2d2.epsilons(HYPERS, (1,)), [0.4])
    assert r2d2.epsilons(HYPERS, ()).shape == () and r2d2.epsilons(HYPERS, (2, 3)).shape == (2, 3)


def test_policy_is_greedy_or_explores_by_its_place():
    network, params, _ = begun()
    algorithm, state = r2d2.build(SPEC, network.config), blank(network)
    state = state._replace(learner=state.learner._replace(params=params))
    hypers = HYPERS._replace(epsilon=0.5, epsilon_spread=1.0)

    @functools.partial(jax.jit, static_argnums=0)
    def acted(explore):
        policy = algorithm.policy(jnp.int32(3), state, hypers, explore=explore)
        remembered = jax.tree.map(lambda leaf: leaf + 0.5, policy.memory((6000,)))
        return remembered, *policy.apply(jax.random.key(1), jnp.ones((6000, 3)), remembered)

    (_, best, _, _), (remembered, action, extras, after) = map(acted, (False, True))
    jax.tree.map(np.testing.assert_array_equal, extras["memory"], remembered)
    assert np.all(after != remembered)
    shares = [np.mean(each != best[0]) for each in (best, action[:2000], action[-2000:])]
    # ε falls from ½ to ¼, and three draws in four are not the best action.
    epsilon = 0.5 ** (1 + np.linspace(0, 1, 6000))
    np.testing.assert_allclose(shares, [0, 0.75 * epsilon[:2000].mean(), 0.75 * epsilon[-2000:].mean()], atol=0.03)


def test_streams_are_dueling_or_one():
    features, kernels = jnp.ones((5,)), []
    for dueling in (False, True):
        network, params, _ = begun(dueling=dueling)

        def parts(self, features):
            advantage = self.advantage(features, None)
            value = self.value(features, None) if self.config.dueling else advantage.mean()
            return self.values(features), value + advantage - advantage.mean()

        close(*network.apply(params, features, method=parts))
        kernels.append(sorted(params["params"]))
    assert kernels == [["advantage", "cell", "torso"], ["advantage", "cell", "torso", "value"]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"error": "cubic"}, "config.error='cubic'"),
        ({"replay": "fifo"}, "config.replay='fifo'"),
        ({"core": "none"}, "config.core='none' is not one of lstm, gru"),
        ({"capacity": 26}, "config.capacity=26 is no multiple of 2 environments × 2 steps"),
        ({"capacity": 12}, r"config.capacity=12 holds no sequence of 3 \+ 4 steps"),
        ({"sequence_length": 1}, "config.sequence_length=1 leaves out steps"),
    ],
)
def test_an_impossible_config_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        config_of(**fields)


@pytest.mark.learning
@pytest.mark.parametrize(("core", "kind"), [("lstm", "proportional"), ("gru", "uniform")])
def test_what_was_shown_is_remembered(core, kind):
    env = adapter.make(memory.repeat_previous(2, 2, 8))
    config = r2d2.Config(
        num_envs=8, rollout_length=4, burn_in=4, sequence_length=8, num_steps=2, batch_size=16, capacity=1600,
        warm_up=256, target_period=10, n_step=3, core=core, replay=kind, core_size=16, hidden_sizes=(16,),
        stream_sizes=(16,),
    )  # fmt: skip
    hypers = r2d2.Hypers(learning_rate=1e-2, adam_epsilon=1e-5, discount=0.5, horizon=300.0)
    algorithm = r2d2.build(env.spec, config)
    run = train.make(algorithm, rollout.build(env, num_envs=8, length=4))

    @jax.jit
    @jax.vmap
    def scores(key):
        state, _ = train.window(run)(key, jnp.int32(0), jnp.int32(300), run.init(key, hypers), hypers)
        policy = algorithm.policy(jnp.int32(300), state.algorithm, hypers, explore=False)
        return evaluate.episodes(key, policy, env, 32).total_return.mean()

    # Without memory the best return is 0 on the average, and with it 1.
    assert scores(jax.random.split(jax.random.key(0), 2)).min() > 0.9
