"""Prioritised draws, against NumPy in float64 and flashbax's sum tree, and how they compile under vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flashbax.buffers import sum_tree

from rlgen.parts import priorities

EPSILON = 0.01
put = jax.jit(priorities.update)
write = jax.jit(priorities.add, static_argnames=("size", "num", "sort_period"))
draw = jax.jit(priorities.sample, static_argnums=2)


@functools.partial(jax.jit, static_argnums=2)
def draw_alone(key, state, num, alpha):
    """Independent draws, one from the whole range each."""
    return jax.vmap(lambda key: priorities.sample(key, state, 1, alpha))(jax.random.split(key, num))


@functools.partial(jax.jit, static_argnames=("kind", "size", "num"))
def filled_with(kind, errors, alpha, *, size=None, num=1):
    """A ring whose first slots have these errors, just sorted."""
    errors = jnp.asarray(errors, jnp.float32)
    size = size or errors.size
    write = functools.partial(priorities.add, size=size, num=num)
    state = priorities.init(size, kind=kind, arity=4)
    state = jax.lax.fori_loop(0, errors.size // num, lambda step, state: write(state, step), state)
    state = priorities.update(state, jnp.arange(errors.size), errors, alpha, EPSILON)
    if kind == "rank":
        order, rank = priorities.ranks(state.error)
        state = state._replace(order=order, rank=rank)
    return state


def proportional_law(errors, alpha):
    mass = (np.abs(errors) + EPSILON) ** alpha
    return mass / mass.sum()


def rank_law(errors, alpha):
    mass = scipy.stats.rankdata(-np.abs(errors), method="ordinal") ** -float(alpha)
    return mass / mass.sum()


LAWS = {"proportional": proportional_law, "rank": rank_law}


def assert_follows(index, law):
    counts = np.bincount(np.ravel(index), minlength=law.size)
    assert not counts[law == 0].any()
    possible = law > 0
    assert scipy.stats.chisquare(counts[possible], law[possible] * counts.sum()).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("kind", priorities.KINDS)
def test_draws_follow_their_law(kind, alpha):
    errors = np.random.default_rng(1).normal(size=48) * np.linspace(0.1, 3, 48)
    law = LAWS[kind](errors, alpha)
    state = filled_with(kind, errors, alpha, num=8)
    index, probability = draw_alone(jax.random.key(3), state, 20_000, alpha)
    assert index.dtype == jnp.int32
    np.testing.assert_allclose(probability, law[np.asarray(index)], rtol=2e-4)
    if alpha == 0:
        np.testing.assert_allclose(law, 1 / 48)
    assert_follows(index, law)
    index, _ = draw(jax.random.key(4), state, 20_000, alpha)  # stratified: within one draw of the law at either end
    assert np.abs(np.bincount(index, minlength=48) - 20_000 * law).max() < 4


@pytest.mark.parametrize("kind", priorities.KINDS)
def test_each_range_of_equal_mass_gives_one_draw(kind):
    errors, alpha, num = np.random.default_rng(2).gamma(0.5, size=20), 0.7, 16
    law = LAWS[kind](errors, alpha)
    state = filled_with(kind, errors, alpha)
    order = np.arange(20) if kind == "proportional" else np.argsort(-errors, kind="stable")
    end = np.empty(20)
    end[order] = np.cumsum(law[order])
    index = np.asarray(jax.vmap(lambda key: draw(key, state, num, alpha)[0])(jax.random.split(jax.random.key(0), 50)))
    ranges = np.arange(num) / num
    assert (end[index] > ranges - 1e-4).all()
    assert (end[index] - law[index] < ranges + 1 / num + 1e-4).all()


@pytest.mark.parametrize("arity", [2, 3, 16])
def test_parents_are_the_sums_of_their_children(arity):
    random, size, num = np.random.default_rng(arity), 60, 5
    state = priorities.init(size, kind="proportional", arity=arity)
    leaves, largest = np.zeros(size), 1.0
    for step in range(40):
        state = write(state, jnp.int32(step), size=size, num=num)
        first = (step * num) % size
        leaves[first : first + num] = largest
        index = random.integers(0, min((step + 1) * num, size), 9)  # some more than once
        errors = random.normal(size=9) * 10.0 ** random.integers(-4, 4)
        state = put(state, jnp.asarray(index), jnp.asarray(errors, jnp.float32), 0.6, EPSILON)
        leaves[index] = 0
        np.maximum.at(leaves, index, (np.abs(errors) + EPSILON) ** 0.6)
        largest = max(largest, leaves[index].max())
    np.testing.assert_allclose(state.levels[0][:size], leaves, rtol=1e-5)
    np.testing.assert_allclose(state.largest, largest, rtol=1e-5)
    below = np.asarray(state.levels[0])
    for level in state.levels[1:]:
        sums = below.reshape(-1, arity).sum(1)
        np.testing.assert_allclose(level[: sums.size], sums, rtol=1e-6)
        assert not level[sums.size :].any()
        below = np.asarray(level)
    assert below.size == arity
    assert not state.levels[0][size:].any()


@pytest.mark.parametrize("kind", priorities.KINDS)
def test_the_largest_of_repeated_errors_counts_and_new_slots_get_the_largest_so_far(kind):
    state = filled_with(kind, [1.0] * 6, 1.0, num=2)
    state = put(state, jnp.array([3, 1, 3, 3]), jnp.array([0.5, 0.25, -4.0, 0.0]), 1.0, 0.0)
    values = state.levels[0][:6] if kind == "proportional" else state.error
    start = 1 + EPSILON if kind == "proportional" else 1.0
    np.testing.assert_allclose(values, [start, 0.25, start, 4, start, start], rtol=1e-6)
    state = put(state, jnp.array([3]), jnp.array([0.5]), 1.0, 0.0)
    state = write(state, jnp.int32(5), size=6, num=2)
    values = state.levels[0][:6] if kind == "proportional" else state.error
    np.testing.assert_allclose(values, [start, 0.25, start, 0.5, 4, 4], rtol=1e-6)


@pytest.mark.parametrize("kind", priorities.KINDS)
def test_what_is_not_filled_is_never_drawn(kind):
    errors = np.random.default_rng(5).gamma(0.1, size=21)
    state = filled_with(kind, errors, 0.5, size=70, num=7)
    index, probability = draw(jax.random.key(0), state, 50_000, 0.5)
    assert set(np.asarray(index).tolist()) == set(range(21))
    law = LAWS[kind](errors, 0.5)
    np.testing.assert_allclose(probability, law[np.asarray(index)], rtol=2e-4)


def test_rounding_beyond_the_sum_leads_to_the_last_child_with_mass():
    masses = jnp.array([[0.0, 0.1, 0.0, 0.3, 0.0, 0.0]] * 4)
    child, rest, mass = priorities._descend(masses, jnp.array([0.0, 0.1, 0.4, 5.0]))
    np.testing.assert_array_equal(child, [1, 3, 3, 3])
    np.testing.assert_allclose(rest, [0, 0, 0.3, 4.9], atol=1e-7)
    np.testing.assert_allclose(mass, [0.1, 0.3, 0.3, 0.3])


def test_draws_are_those_of_flashbax():
    errors = np.random.default_rng(7).normal(size=100)
    state = filled_with("proportional", errors, 0.6, num=10)
    masses = np.float32((np.abs(errors) + EPSILON) ** 0.6)
    theirs = jax.jit(lambda masses: sum_tree.set_batch_scan(sum_tree.init(100), jnp.arange(100), masses))(masses)
    key = jax.random.key(2)
    quantile = (jnp.arange(512) + jax.random.uniform(key, (512,))) / 512
    index, probability = draw(key, state, 512, 0.6)
    expected = jax.jit(jax.vmap(sum_tree.sample, in_axes=(None, None, 0)))(theirs, None, quantile)
    assert (np.asarray(index) != np.asarray(expected)).sum() <= 1  # where rounding meets an edge
    np.testing.assert_allclose(probability, jax.jit(sum_tree.get_probability)(theirs, index), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.5])
def test_ranks_invert_their_cumulative_in_a_large_ring(alpha):
    size, num = 200_000, 150_001
    quantile = np.linspace(0, 1, 20_001, dtype=np.float32)
    place, total = jax.jit(priorities._invert, static_argnums=2)(quantile, jnp.int32(num), size, jnp.float32(alpha))
    place, mass = np.asarray(place), np.arange(1, num + 1) ** -alpha
    np.testing.assert_allclose(total, mass.sum(), rtol=1e-5)
    ends = np.cumsum(mass) / mass.sum()
    assert place.min() == 0
    assert num - 10 < place.max() < num  # rounding may hide the last few, but never leads beyond
    assert (quantile < ends[place] + 1e-5).all()
    assert (quantile > (ends - mass / mass.sum())[place] - 1e-5).all()


def fresh_law(order, ranked, fresh, end, size, alpha):
    """Masses of the slots written since the last sort, newest first, and of those in order at that time."""
    places = [(end - 1 - age) % size for age in range(fresh)] + list(order[:ranked])
    mass = np.zeros(size)
    np.add.at(mass, places, np.arange(1, len(places) + 1) ** -float(alpha))
    return mass / mass.sum()


@pytest.mark.parametrize("last", [4, 10])  # while the ring fills, and over the seam
def test_slots_written_since_the_last_sort_stand_in_front(last):
    size, num, period, alpha = 18, 2, 4, 0.8
    state, random = priorities.init(size, kind="rank"), np.random.default_rng(last)
    errors, order, ranked = np.full(size, -1.0), None, 0
    for step in range(last + 1):
        state = write(state, jnp.int32(step), size=size, num=num, sort_period=period)
        first, filled = (step * num) % size, min((step + 1) * num, size)
        errors[first : first + num] = 1.0
        if step % period == 0:
            order, ranked = np.argsort(-errors, kind="stable"), filled
        fresh = step % period * num
        law = fresh_law(order, ranked, fresh, first + num, size, alpha)
        assert (law > 0).sum() == filled
        index = random.choice(filled, min(3, filled), replace=False)
        errors[index] = random.uniform(size=index.size)
        state = put(state, jnp.asarray(index), jnp.asarray(errors[index], jnp.float32), alpha, 0.0)
        drawn, probability = draw(jax.random.key(step), state, 64, alpha)
        np.testing.assert_allclose(probability, law[np.asarray(drawn)], rtol=2e-4)
    assert_follows(draw_alone(jax.random.key(1), state, 20_000, alpha)[0], law)


def test_weights_by_hand():
    probability = jnp.array([0.1, 0.4, 0.2])
    np.testing.assert_allclose(priorities.weights(probability, 0.5), [1, 0.5, np.sqrt(0.5)], rtol=1e-6)
    np.testing.assert_allclose(priorities.weights(probability, 0.0), [1, 1, 1])
    paper = (30 * np.asarray(probability)) ** -0.7
    np.testing.assert_allclose(priorities.weights(probability, 0.7), paper / paper.max(), rtol=1e-6)


@pytest.mark.parametrize("kind", priorities.KINDS)
def test_full_correction_takes_the_bias_away(kind):
    random = np.random.default_rng(9)
    errors, values = random.gamma(0.5, size=40), random.normal(size=40) + 1
    state = filled_with(kind, errors, 0.8, num=4)
    keys = jax.random.split(jax.random.key(0), 2000)
    index, probability = jax.vmap(lambda key: draw(key, state, 16, 0.8))(keys)
    estimates = (values[np.asarray(index)] / (40 * np.asarray(probability, np.float64))).mean(1)
    error = estimates.std() / np.sqrt(estimates.size)
    assert abs(estimates.mean() - values.mean()) < 3 * error
    assert abs(values[np.asarray(index)].mean() - values.mean()) > 10 * error  # uncorrected it is biased
    # Normalised, the weights give the same mean as a ratio.
    weight = np.asarray(jax.vmap(priorities.weights, in_axes=(0, None))(probability.reshape(1, -1), 1.0))[0]
    np.testing.assert_allclose((weight * values[np.ravel(index)]).sum() / weight.sum(), values.mean(), atol=0.05)


def cycle(key, state, steps, *, size, num=10, batch_size=16, sort_period=50):
    """Writes, draws and updates, as an algorithm would."""

    def body(state, step):
        state = priorities.add(state, step, size=size, num=num, sort_period=sort_period)
        index, probability = priorities.sample(jax.random.fold_in(key, step), state, batch_size, 0.6)
        state = priorities.update(state, index, jnp.sin(1.0 * index), 0.6, EPSILON)
        return state, (index, probability)

    return jax.lax.scan(body, state, steps)


@pytest.mark.parametrize("kind", priorities.KINDS)
def test_lanes_equal_a_loop_and_same_key_same_bits(kind):
    run = functools.partial(cycle, size=60, num=5, sort_period=4)
    state, steps = priorities.init(60, kind=kind), jnp.arange(30)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    keys = jax.random.split(jax.random.key(0), 3)
    lanes = jax.jit(jax.vmap(run, in_axes=(0, None, None)))
    together = jax.device_get(lanes(keys, state, steps))
    alone = jax.jit(run)
    for lane, key in enumerate(keys):
        compare = functools.partial(np.testing.assert_allclose, rtol=1e-5)
        jax.tree.map(compare, jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), alone(key, state, steps))
    jax.tree.map(np.testing.assert_array_equal, together, lanes(keys, state, steps))
    assert (np.asarray(together[1][0][0]) != np.asarray(together[1][0][1])).any()


@pytest.mark.parametrize("kind", priorities.KINDS)
def test_all_writes_are_in_place(kind):
    size, seeds = 100_000, 3
    one = jax.eval_shape(functools.partial(priorities.init, size, kind=kind))
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((seeds, *leaf.shape), leaf.dtype), one)
    run = jax.jit(jax.vmap(functools.partial(cycle, size=size), in_axes=(0, 0, None)), donate_argnums=1)
    memory = run.lower(jax.random.split(jax.random.key(0), seeds), state, np.arange(8)).compile().memory_analysis()
    held, room = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)), 0
    if kind == "rank":  # a sort needs room of its own
        sort = jax.jit(jax.vmap(priorities.ranks)).lower(state.error).compile().memory_analysis()
        room = sort.temp_size_in_bytes + sort.output_size_in_bytes
    assert memory.alias_size_in_bytes >= held
    assert memory.temp_size_in_bytes - room < 0.1 * held


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("kind", priorities.KINDS)
def test_new_slots_and_the_branch_to_sort_have_no_lanes(kind):
    add = functools.partial(priorities.add, size=24, num=4, sort_period=2)
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), priorities.init(24, kind=kind, arity=4))
    program = jax.make_jaxpr(jax.vmap(add, in_axes=(0, None)))(state, jnp.int32(0))
    found = list(equations(program.jaxpr))
    # jax writes a vmapped slice as a scatter; one index of rank 1 for all lanes keeps it a slice in place.
    ranks = [row.invars[1].aval.ndim for row in program.eqns if row.primitive.name == "scatter"]
    assert ranks == [1] * (len(state.levels) if kind == "proportional" else 1)
    assert sum(row.primitive.name == "cond" for row in found) == (kind == "rank")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: priorities.init(8, kind="heap"), "kind='heap' is not one of proportional, rank"),
        (lambda: priorities.init(0, kind="rank"), "size=0 must be at least 1"),
        (lambda: priorities.init(8, kind="proportional", arity=1), "arity=1 at least 2"),
        (lambda: priorities.add(priorities.init(8, kind="rank"), 0, size=8, num=3), "size=8 is no multiple of the 3"),
        (
            lambda: priorities.add(priorities.init(8, kind="rank"), 0, size=8, num=2, sort_period=5),
            "sort_period=5 is not between 1 and the 4 updates",
        ),
    ],
)
def test_what_cannot_work_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
