"""Evolution strategies: evosax's own steps, updates by hand, and what they find."""

import functools

import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen import train
from rlgen.core import Box, Discrete, Spec
from rlgen.envs import adapter, probes
from rlgen.evolution import es
from rlgen.parts import normalise
from rlgen.sources import population

HYPERS = es.Hypers(learning_rate=0.03, sigma=0.1)
SPEC = Spec(Box((3,)), Box((2,), -1.0, 1.0))
KEYS = jax.random.split(jax.random.key(0), 4)
TARGET = np.array([1.0, -1.0, 0.5, 0.0, 1.0, -0.5])
FITNESS = jnp.array([3.0, -1.0, 0.5, 7.0, 2.0, -4.0, 1.0, 0.0])


def config(strategy, **fields):
    return es.Config(**({"strategy": strategy, "num_candidates": 8, "hidden_sizes": ()} | fields))


@functools.cache
def begun(strategy, **fields):
    """The algorithm and its first state, whose mean is zero: 6 parameters of a linear map from 3 numbers to 2."""
    algorithm = es.build(SPEC, config(strategy, **fields))
    algorithm = algorithm._replace(update=jax.jit(algorithm.update))
    return algorithm, jax.jit(algorithm.init)(KEYS[0], HYPERS)


def alone(strategy):
    """The same strategy set up by hand: `(algorithm, numbers)`."""
    schedule, adam = optax.constant_schedule(0.1), optax.adam(0.03)
    kind, arguments = {
        "open_es": (evosax.algorithms.Open_ES, {"optimizer": adam, "std_schedule": schedule}),
        "cma_es": (evosax.algorithms.CMA_ES, {}),
        "sep_cma_es": (evosax.algorithms.Sep_CMA_ES, {}),
        "snes": (evosax.algorithms.SNES, {}),
        "pgpe": (evosax.algorithms.PGPE, {"optimizer": adam}),
        "simple_ga": (evosax.algorithms.SimpleGA, {"std_schedule": schedule}),
    }[strategy]
    algorithm = kind(16, np.zeros(6, np.float32), **arguments)
    numbers = algorithm.default_params
    if strategy == "sep_cma_es":
        numbers = numbers.replace(c_1=numbers.c_1 * 8 / 3, c_mu=numbers.c_mu * 8 / 3)
    return algorithm, numbers.replace(std_init=0.1) if hasattr(numbers, "std_init") else numbers


@functools.cache
def climbed(strategy):
    """300 generations on a sphere, and evosax's alone with keys derived as ours are.

    Returns:
        Candidates of both, `[300, P, 6]`, metrics `[300]`, and what the last policy does at the unit vectors: a linear
        map shows its parameters to them.
    """
    algorithm, (theirs, numbers) = es.build(SPEC, config(strategy, num_candidates=16)), alone(strategy)

    def fitness(candidates):
        return -jnp.square(candidates - TARGET).sum(-1)

    def one(carry, step):
        state, (candidates, search) = carry
        key = jax.random.key(step)
        tell_key, ask_key = jax.random.split(key)
        search, _ = theirs.tell(jax.random.split(tell_key)[0], candidates, -fitness(candidates), search, numbers)
        batch = population.Evaluation(fitness(state.candidates), ())
        after, metrics = algorithm.update(key, step, state, batch, HYPERS)
        new, search = theirs.ask(ask_key, search, numbers)
        return (after, (new, es._strong(search))), (state.candidates, candidates, metrics)

    @jax.jit
    def run(key):
        _, init_key, ask_key = jax.random.split(key, 3)
        start = (jnp.zeros((16, 6)), jnp.zeros(16)) if strategy == "simple_ga" else (jnp.zeros(6),)
        candidates, search = theirs.ask(ask_key, theirs.init(init_key, *start, numbers), numbers)
        carry = (algorithm.init(key, HYPERS), (candidates, es._strong(search)))
        (state, _), seen = jax.lax.scan(one, carry, jnp.arange(300, dtype=jnp.int32))
        policy = algorithm.policy(jnp.int32(300), state, HYPERS, explore=False)
        return *seen, policy.apply(key, jnp.eye(3), ())[0].ravel()

    return jax.tree.map(np.asarray, run(KEYS[0]))


@pytest.mark.parametrize("strategy", es.STRATEGIES)
def test_steps_agree_with_evosax_called_alone(strategy):
    ours, theirs, metrics, _ = climbed(strategy)
    np.testing.assert_allclose(ours[:6], theirs[:6], rtol=1e-3, atol=1e-4)
    assert ours[:6].std((1, 2)).min() > 0.05
    assert np.abs(ours[5].mean(0) - ours[0].mean(0)).max() > 0.05
    fitness = -np.square(ours - TARGET).sum(-1)
    np.testing.assert_allclose(metrics.fitness, fitness.mean(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(metrics.best_fitness, fitness.max(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(metrics.deviation, ours.std(1).mean(1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("strategy", es.STRATEGIES)
def test_a_sphere_is_climbed(strategy):
    """From the origin to a point at a distance of two, by the generation's mean or its best."""
    *_, found = climbed(strategy)
    bound = 0.3 if strategy == "simple_ga" else 0.05  # whose mutations never become smaller
    np.testing.assert_allclose(found, TARGET, atol=bound)


@pytest.mark.parametrize("strategy", es.ANTITHETIC)
def test_samples_come_in_pairs_around_the_mean(strategy):
    _, state = begun(strategy)
    mean = np.asarray(state.search.mean)
    np.testing.assert_allclose(state.candidates[:4] - mean, mean - state.candidates[4:], rtol=1e-5)
    _, wide = es.ask(KEYS[1], state.search, 6, HYPERS, config=config(strategy))
    assert not np.allclose(wide, state.candidates)


def test_open_es_by_hand():
    """Centred ranks weigh the samples, and Adam's first step is its learning rate along the sign of the sum."""
    _, state = begun("open_es")
    minibatch = es.Minibatch(state.candidates, FITNESS)
    search, metrics = es.learn(KEYS[1], state.search, minibatch, HYPERS, config=config("open_es"))
    ranks = np.argsort(np.argsort(FITNESS)) / 7 - 0.5
    ascent = ranks @ np.asarray(state.candidates) / (8 * 0.1**2)
    np.testing.assert_allclose(search.mean, 0.03 * ascent / (np.abs(ascent) + 1e-8), rtol=1e-4)
    np.testing.assert_allclose(metrics, [FITNESS.mean(), 7, np.asarray(state.candidates).std(0).mean()], rtol=1e-5)


def test_the_mean_of_cma_es_by_hand():
    """Moves to the weighted mean of the better half, by the weights of the tutorial's equations 8, 42 and 49."""
    _, state = begun("cma_es")
    minibatch = es.Minibatch(state.candidates, FITNESS)
    search, _ = es.learn(KEYS[1], state.search, minibatch, HYPERS, config=config("cma_es"))
    weights = np.log(4.5) - np.log(np.arange(1, 5))
    best = np.asarray(state.candidates)[np.argsort(-FITNESS)[:4]]
    np.testing.assert_allclose(search.mean, weights @ best / weights.sum(), rtol=1e-4)
    assert np.abs(search.C - np.eye(6)).max() > 1e-2
    np.testing.assert_allclose(search.C, search.C.T, atol=1e-6)


def test_equal_returns_carry_the_mean_of_snes_nowhere():
    """Its weights add up to zero, so that over all orders of what is equal no direction is left."""
    _, state = begun("snes")
    minibatch = es.Minibatch(state.candidates, jnp.zeros(8))

    def move(key):
        return es.learn(key, state.search, minibatch, HYPERS, config=config("snes"))[0].mean - state.search.mean

    moves = jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(1), 400))
    assert np.linalg.norm(moves.mean(0)) < 0.2 * np.linalg.norm(moves, axis=1).mean()


@pytest.mark.parametrize("strategy", ["cma_es", "sep_cma_es"])
def test_equal_returns_do_not_shrink_the_search(strategy):
    algorithm, state = begun(strategy, num_candidates=16)
    start = state.candidates

    @jax.jit
    def run(state):
        def one(state, step):
            batch = population.Evaluation(jnp.zeros(16), ())
            return algorithm.update(jax.random.key(step), step, state, batch, HYPERS)[0], None

        return jax.lax.scan(one, state, jnp.arange(20, dtype=jnp.int32))[0]

    after = run(state)
    assert after.candidates.std(0).mean() > 0.3 * start.std(0).mean()


def test_the_diagonal_is_learned_faster_than_a_full_covariance():
    """Of twenty parameters, each matters 1.6 times as much as the one before: the last ten thousand times the first."""
    scale = 10 ** jnp.linspace(0, 4, 20)
    spec = Spec(Box((4,)), Box((5,), -1.0, 1.0))
    algorithm = es.build(spec, config("sep_cma_es", num_candidates=16))

    @jax.jit
    def run(key):
        def one(state, step):
            cost = (scale * jnp.square(state.candidates - 1)).sum(-1)
            batch = population.Evaluation(-cost, ())
            return algorithm.update(jax.random.key(step), step, state, batch, HYPERS)[0], cost.min()

        return jax.lax.scan(one, algorithm.init(key, HYPERS), jnp.arange(300, dtype=jnp.int32))[1]

    assert run(KEYS[0])[-1] < 1e-3


def test_a_single_candidate_is_refused():
    with pytest.raises(ValueError, match=r"config\.num_candidates=1 leaves nothing to choose from"):
        config("cma_es", num_candidates=1)


def test_hypers_may_be_traced():
    def run(hypers):
        algorithm = es.build(SPEC, config("open_es"))
        state = algorithm.init(KEYS[0], hypers)
        batch = population.Evaluation(FITNESS, ())
        return algorithm.update(KEYS[1], jnp.int32(0), state, batch, hypers)[0].candidates

    grid = es.Hypers(jnp.array([0.05, 0.1, 0.05]), jnp.array([0.2, 0.2, 0.4]))
    together = jax.jit(jax.vmap(run))(grid)
    for index in range(3):
        one = jax.jit(run)(es.Hypers(*(leaf[index] for leaf in grid)))
        np.testing.assert_allclose(together[index], one, rtol=1e-4, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-2
    assert np.abs(together[0] - together[2]).max() > 1e-2


@pytest.mark.parametrize("strategy", es.STRATEGIES)
def test_state_keeps_its_shapes_and_types(strategy):
    algorithm = es.build(SPEC, config(strategy, normalise_observations=True))
    before = jax.eval_shape(algorithm.init, KEYS[0], HYPERS)
    batch = population.Evaluation(FITNESS, normalise.moments((3,)))
    after, _ = jax.eval_shape(algorithm.update, KEYS[1], jnp.int32(0), before, batch, HYPERS)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, False)
        assert old.weak_type is False


def test_candidates_explore_and_observations_are_standardised():
    algorithm, state = begun("open_es", normalise_observations=True)
    seen = normalise.Moments(jnp.array([1.0, 2.0, 0.0]), jnp.array([4.0, 0.25, 1.0]), jnp.float32(10))
    state = state._replace(observations=seen)
    obs = np.random.default_rng(0).normal([1.0, 2.0, 0.0], 0.5, (8, 3))
    kernels = np.asarray(state.candidates).reshape(8, 3, 2)
    policy = algorithm.policy(jnp.int32(0), state, HYPERS, explore=True)
    action, _, _ = policy.apply(KEYS[1], jnp.asarray(obs), policy.memory((8,)))
    expected = np.einsum("bi,bij->bj", (obs - [1, 2, 0]) / [2, 0.5, 1], kernels)
    np.testing.assert_allclose(action, np.clip(expected, -1, 1), rtol=1e-4, atol=1e-6)
    batch = population.Evaluation(FITNESS, normalise.Moments(seen.mean + 2, seen.variance, jnp.float32(10)))
    after, _ = algorithm.update(KEYS[2], jnp.int32(0), state, batch, HYPERS)
    np.testing.assert_allclose(after.observations.mean, seen.mean + 1)
    np.testing.assert_allclose(after.observations.variance, seen.variance + 1)


def test_a_genetic_algorithm_is_judged_by_its_best():
    algorithm, state = begun("simple_ga")
    played = state.candidates
    after, _ = algorithm.update(KEYS[1], jnp.int32(0), state, population.Evaluation(FITNESS, ()), HYPERS)
    policy = algorithm.policy(jnp.int32(1), after, HYPERS, explore=False)
    action, _, _ = policy.apply(KEYS[2], jnp.eye(3), ())
    np.testing.assert_allclose(action, np.clip(np.asarray(played[3]).reshape(3, 2), -1, 1), rtol=1e-5)
    np.testing.assert_array_equal(after.search.population, played)


def test_a_genetic_algorithm_passes_over_who_diverged():
    algorithm, state = begun("simple_ga")
    fitness = FITNESS.at[3].set(jnp.nan)
    after, _ = algorithm.update(KEYS[1], jnp.int32(0), state, population.Evaluation(fitness, ()), HYPERS)
    action, _, _ = algorithm.policy(jnp.int32(1), after, HYPERS, explore=False).apply(KEYS[2], jnp.eye(3), ())
    best = np.asarray(state.candidates[np.nanargmax(fitness)])
    np.testing.assert_allclose(action, np.clip(best.reshape(3, 2), -1, 1), rtol=1e-5)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"config\.strategy='annealing' is not one of open_es, cma_es"):
        es.Config(strategy="annealing")
    with pytest.raises(ValueError, match=r"config\.num_candidates=7 is odd"):
        es.Config(num_candidates=7)
    assert es.Config("cma_es", num_candidates=7).idle == {"learning_rate": "config.strategy='cma_es'"}
    assert es.Config("pgpe").idle == es.Config("open_es").idle == {}
    with pytest.raises(ValueError, match="has no meaning for observations in Discrete"):
        es.build(Spec(Discrete(3), Discrete(2)), es.Config(normalise_observations=True))


@pytest.mark.learning
@pytest.mark.parametrize("strategy", es.STRATEGIES)
def test_actions_are_learned(strategy):
    probe, fields = probes.continuous_action(), config(strategy, num_candidates=16, num_evaluations=16)
    env = adapter.make(probe)
    source = population.build(env, num_candidates=16, num_episodes=16, common_starts=True)
    algorithm, hypers = es.build(env.spec, fields), es.Hypers(0.02, 0.05)
    run = train.make(algorithm, source)

    @jax.jit
    @jax.vmap
    def learned(key):
        def body(state, step):
            return run.update(key, step, state, hypers)[0], None

        state, _ = jax.lax.scan(body, run.init(key, hypers), jnp.arange(200, dtype=jnp.int32))
        policy = algorithm.policy(jnp.int32(200), state.algorithm, hypers, explore=False)
        return policy.apply(key, probe.observations, ())[0]

    action = learned(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(action, np.broadcast_to(probe.best_actions, action.shape), atol=0.1)
