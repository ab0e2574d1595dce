"""The laws that every algorithm obeys, over one row of the catalogue for each, at a tiny size.

With `--every-row` they are tried on all rows, that is on every switch; of rows that differ in numbers and sizes alone,
one stands for all.

A row compiles one sweep, whose lanes are seeds × (a generic point and every knob moved from there), sharded over two
devices; the first row of an algorithm also compiles the same run alone, without lanes.  Everything else is traced but
not compiled, so that the cost grows with the number of rows and not with that of laws.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh

from rlgen import sweep, train
from rlgen.core import Array, Discrete, Key, Space
from rlgen.experiments import bounds, catalogue, experiment, tabular_tasks

SEEDS, UPDATES, CUT = 2, 6, 2
FACTORS = (1e-3, 0.5, 1.3)  # by which every knob is moved


def program(row: experiment.Experiment) -> Any:
    """What rows that differ in numbers and sizes alone have in common."""
    spaces = jax.tree.leaves(tuple(row.task.spec.__dict__.values()))
    kinds = tuple((type(space), len(space.shape), space.dtype) for space in spaces)
    return row.algorithm, experiment.shrink(row).config, type(row.task), kinds


def rank(row: experiment.Experiment) -> tuple[int, int]:
    """Small examples go first, and among these what differs most from the algorithm at its defaults."""
    spaces = [np.zeros(space.shape).size for space in jax.tree.leaves(tuple(row.task.spec.__dict__.values()))]
    switches = [field for field in dataclasses.fields(row.config) if isinstance(field.default, bool | str)]
    return sum(spaces), -sum(getattr(row.config, field.name) != field.default for field in switches)


PROGRAMS = sorted({program(row): row for row in reversed(catalogue.EXPERIMENTS.values())}.values(), key=rank)
FIRST = list({row.algorithm: row for row in reversed(PROGRAMS)}.values())
# The first row of every algorithm comes first, so that all tests number the rows alike and share what is compiled.
ROWS = (*FIRST, *(row for row in PROGRAMS if row not in FIRST))
SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+|edition, (chapter|section)s? \d")


class Subject(NamedTuple):
    """A row, and what its sweep did."""

    row: experiment.Experiment
    bound: experiment.Bound
    data: Any
    mesh: Mesh
    functions: sweep.Sweep
    points: list[Any]  # the generic one first
    keys: Key  # [E]
    hypers: Any  # leaves [E]
    start: train.RunState  # NumPy leaves [E, ...]
    end: train.RunState  # after `UPDATES` updates
    report: train.Report
    traces: list[str]  # grows by one whenever the run is traced
    shapes: train.RunState  # of one lane's state, as it begins
    run: train.Run  # of one lane
    update: tuple[Any, Any]  # an update's program, and the shapes of what it gives

    def again(self, *arguments: Any) -> Any:
        """The update of one lane, which need not be traced anew."""
        program, shapes = self.update
        return jax.tree.unflatten(jax.tree.structure(shapes), jaxpr_as_fun(program)(*jax.tree.leaves(arguments)))

    def advance(self, start: int, stop: int, state: Any) -> tuple[Any, Any]:
        """Runs updates `start … stop - 1` from a state in NumPy and gives the next one in NumPy."""
        placed = sweep.place(state, self.mesh)
        arguments = (self.data, self.keys, jnp.int32(start), jnp.int32(stop), placed, self.hypers)
        return to_numpy(self.functions.advance(*arguments))


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def generic(hypers: Any) -> Any:
    """Moves numbers off the ends of their intervals, where one knob hides another."""

    def inside(name: str, value: float) -> float:
        if name == "horizon":
            return 4.0 * UPDATES
        value = 0.3 + 0.4 * value if bounds.HYPERS[name].high == 1 else value or 0.017
        return value / 2 if name.endswith("_end") else value  # a schedule between equal ends has a dead horizon

    return type(hypers)(**{name: inside(name, value) for name, value in hypers._asdict().items()})


def moved(base: Any) -> list[Any]:
    """Every knob moved by every factor, one at a time, all factors of a knob together."""
    return [base._replace(**{name: factor * getattr(base, name)}) for name in base._fields for factor in FACTORS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tries every law on the rows that were asked for."""
    if "subject" in metafunc.fixturenames:
        every = metafunc.config.getoption("every_row") and not hasattr(metafunc.function, "first_rows")
        rows = ROWS if every else FIRST
        marked = [pytest.param(row, id=row.name, marks=pytest.mark.xdist_group(row.name)) for row in rows]
        metafunc.parametrize("subject", marked, indirect=True, scope="module")


def for_first_rows(law: Any) -> Any:
    """Marks a law that one row of each algorithm shows."""
    law.first_rows = True
    return law


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    row = experiment.shrink(request.param, UPDATES)
    bound = experiment.bind(row)
    # Two epochs and a half, so that a shuffle falls in the middle.
    data = row.task.make_data(max(UPDATES // 2 * bound.steps_per_update, 1))
    traces: list[str] = []

    # Traced once for all that is done with it here, whichever arrays or tracers are the data.
    init = jax.jit(lambda data, *arguments: bound.make_run(data).init(*arguments))
    update = jax.jit(lambda data, *arguments: bound.make_run(data).update(*arguments))

    def make_run(data: Any) -> train.Run:
        traces.append(row.name)
        return train.Run(functools.partial(init, data), functools.partial(update, data))

    mesh = sweep.mesh(min(2, jax.device_count()))  # an accelerator may be alone
    functions = sweep.build(make_run, mesh)
    base = generic(bound.hypers)
    points = [base, *moved(base)]
    # The same bits from jax's own generator, which takes longer to run and less long to compile.
    plain = jax.random.wrap_key_data(jax.random.key_data(sweep.keys(3, SEEDS, len(points))))
    keys = sweep.place(plain, mesh)
    hypers = sweep.place(sweep.stack(points, SEEDS), mesh)
    state = functions.init(data, keys, hypers)
    start = to_numpy(state)
    end, report = to_numpy(functions.advance(data, keys, jnp.int32(0), jnp.int32(UPDATES), state, hypers))
    run, key = train.Run(functools.partial(init, data), functools.partial(update, data)), jax.random.key(0)
    shapes = jax.eval_shape(run.init, key, bound.hypers)
    traced = jax.make_jaxpr(run.update, return_shape=True)(key, jnp.int32(0), shapes, bound.hypers)
    return Subject(
        row, bound, data, mesh, functions, points, keys, hypers, start, end, report, traces, shapes, run, traced
    )


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: f"{leaf.dtype} {leaf.shape}", tree)


def same_bits(left: Any, right: Any) -> bool:
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and a.tobytes() == b.tobytes(), left, right)
    return all(jax.tree.leaves(same))


def lane(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def positional(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds]


def draw(key: Key, space: Space, num: int) -> Array:
    """Draws inputs `[num, ...]` from a space, its bounds cut to ±1, or from that of each agent."""
    if isinstance(space, tuple):
        return tuple(draw(each, one, num) for each, one in zip(jax.random.split(key, len(space)), space, strict=True))
    if isinstance(space, Discrete):
        return jax.random.randint(key, (num,), 0, space.num)
    low, high = (np.clip(np.asarray(bound, np.float32), -1, 1) for bound in (space.low, space.high))
    return jax.random.uniform(key, (num, *space.shape), minval=low, maxval=high).astype(space.dtype)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, those of its branches and loops included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.xdist_group("rows")
def test_the_laws_of_a_row_run_in_one_process(request):
    """Else each process compiles all rows; groups are known to the scheduler by the names of tests."""
    if hasattr(request.config, "workerinput") and request.config.getoption("dist") == "loadgroup":
        assert request.node.nodeid.endswith("@rows")


def test_1_arguments_have_their_names_and_order(subject):
    spec, config = subject.row.task.spec, subject.row.config
    algorithm = subject.row.algorithm.build(spec, config)
    assert positional(algorithm.init) == ["key", "hypers"]
    assert positional(algorithm.update) == ["key", "step", "state", "batch", "hypers"]
    assert positional(algorithm.policy) == ["step", "state", "hypers"]
    assert inspect.signature(algorithm.policy).parameters["explore"].kind is inspect.Parameter.KEYWORD_ONLY
    source = subject.row.task.source(config, subject.data)
    assert positional(source.init) == ["key", "policy"]
    assert positional(source.next) == ["key", "step", "state", "policy"]

    def outputs(key, hypers, inputs, explore):
        policy = algorithm.policy(jnp.int32(0), algorithm.init(key, hypers), hypers, explore=explore)
        assert positional(policy.memory) == ["batch_shape"]
        first, _, last = positional(policy.apply)
        assert (first, last) == ("key", "memory")
        return policy.apply(key, inputs, policy.memory((5,)))[:2]

    key = jax.random.key(0)
    inputs = draw(key, spec.observation, 5)
    for explore in (True, False):
        output, extras = jax.eval_shape(functools.partial(outputs, explore=explore), key, subject.bound.hypers, inputs)
        assert jax.tree.map(lambda leaf: leaf.shape, output) == jax.tree.map(lambda to: (5, *to.shape), spec.action)
        kinds = jax.tree.map(lambda leaf, to: jnp.issubdtype(leaf.dtype, np.dtype(to.dtype).type), output, spec.action)
        assert all(jax.tree.leaves(kinds))
        assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(extras))


def test_2_update_keeps_structure_shapes_and_dtypes(subject):
    after, _ = subject.update[1]
    assert abstract(after) == abstract(subject.shapes)
    # Python's numbers are weakly typed: where they leak into the state, the next call compiles anew.
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(subject.shapes))


def test_3_same_key_same_bits(subject):
    again = to_numpy(subject.functions.init(subject.data, subject.keys, subject.hypers))
    assert same_bits(again, subject.start)
    assert same_bits(subject.advance(0, UPDATES, subject.start), (subject.end, subject.report))


def test_4_different_seeds_different_parameters(subject):
    # Tables start alike for every seed by definition, and planning draws nothing.
    if not subject.row.algorithm.__name__.startswith("rlgen.tabular."):
        assert not same_bits(lane(subject.start.algorithm, 0), lane(subject.start.algorithm, 1))
    if not isinstance(subject.row.task, tabular_tasks.PlanningTask):
        assert not same_bits(lane(subject.end.algorithm, 0), lane(subject.end.algorithm, 1))


def test_5_one_trace_serves_a_grid_of_hypers_and_every_call(subject):
    state, _ = subject.advance(0, CUT, subject.start)
    subject.advance(CUT, UPDATES, state)
    assert len(subject.points) == 1 + len(FACTORS) * len(subject.bound.hypers)
    assert len(subject.traces) == 2  # one of `init` and one of `advance`
    assert subject.functions.init._cache_size() == subject.functions.advance._cache_size() == 1


@for_first_rows
def test_6_and_12_lanes_on_two_devices_equal_a_loop_on_one(subject):
    @jax.jit
    def alone(key, hypers):
        run = subject.run._replace(update=subject.again)
        start = run.init(key, hypers)
        return start, *train.window(run)(key, jnp.int32(0), jnp.int32(UPDATES), start, hypers)

    keys, hypers = jax.device_put(subject.keys, jax.devices()[0]), to_numpy(subject.hypers)
    looped = [to_numpy(alone(keys[index], lane(hypers, index))) for index in range(len(subject.points) * SEEDS)]
    swept = subject.start, subject.end, subject.report
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(compare, swept, jax.tree.map(lambda *leaves: np.stack(leaves), *looped))


def test_7_no_knob_is_dead_but_those_that_a_switch_leaves_out(subject):
    def outputs(key, state, hypers):
        policy = subject.row.algorithm.build(subject.row.task.spec, subject.row.config).policy(
            jnp.int32(UPDATES // 2), state, hypers, explore=True
        )
        inputs = draw(jax.random.key(1), subject.row.task.spec.observation, 512)
        return policy.apply(key, inputs, policy.memory((512,)))

    def dead(seen):
        names = [name for name in subject.bound.hypers._fields for _ in FACTORS]
        at_base = lane(seen, 0)
        moved = {name for i, name in enumerate(names) if not same_bits(lane(seen, (i + 1) * SEEDS), at_base)}
        return set(names) - moved

    # Exploration may by chance not show in so short a run; it then has to show in many actions.
    still = dead((subject.end, subject.report))
    if still:
        acted = jax.jit(jax.vmap(outputs))(subject.keys, subject.end.algorithm, subject.hypers)
        still &= dead(to_numpy(acted))
    assert still == set(getattr(subject.row.config, "idle", ()))


def test_8_no_key_is_used_twice(subject):
    key, hypers = jax.random.key(0), subject.bound.hypers
    with jax.debug_key_reuse(True):
        jax.make_jaxpr(subject.run.init)(key, hypers)
        jax.make_jaxpr(subject.again)(key, jnp.int32(0), subject.shapes, hypers)


def test_9_metrics_are_finite_scalars_of_fixed_name(subject):
    metrics, stats = subject.report
    assert type(metrics) is subject.row.algorithm.Metrics
    assert metrics._fields
    lanes = len(subject.points) * SEEDS
    for leaf in jax.tree.leaves((metrics, stats)):
        assert (leaf.dtype, leaf.shape) == (np.float32, (lanes,))
        assert np.isfinite(leaf).all()


def test_10_state_is_arrays_without_keys(subject):
    for leaf in jax.tree.leaves(subject.shapes):
        assert not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def test_11_saved_and_resumed_equals_uninterrupted(subject):
    state, _ = subject.advance(0, CUT, subject.start)
    state, _ = subject.advance(CUT, UPDATES, jax.tree.map(np.copy, state))
    assert same_bits(state, subject.end)


def test_13_no_branch_becomes_a_select_over_a_buffer(subject):
    state, (one, _), lanes = subject.shapes, subject.update, 3
    many = [jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(state)]
    axes = [0, None, *(0 for _ in many), *(None for _ in subject.bound.hypers)]
    arguments = jax.random.split(jax.random.key(0), lanes), jnp.int32(0), *many, *subject.bound.hypers
    swept = jax.make_jaxpr(jax.vmap(jaxpr_as_fun(one), in_axes=axes))(*arguments)
    branches = [
        sum(equation.primitive.name == "cond" for equation in equations(program.jaxpr)) for program in (one, swept)
    ]
    assert branches[0] == branches[1]
    ring = max(jax.tree.leaves(getattr(state.algorithm, "replay", ())), key=lambda leaf: leaf.size, default=None)
    whole = None if ring is None else (lanes, *ring.shape)
    writers = [
        equation for equation in equations(swept.jaxpr) if whole in [leaf.aval.shape for leaf in equation.outvars]
    ]
    assert "select_n" not in {equation.primitive.name for equation in writers}
    # jax writes a vmapped slice as a scatter; one index for all lanes, of rank 1, keeps it a slice in place.
    indices = [equation.invars[1].aval for equation in writers if equation.primitive.name == "scatter"]
    assert all(index.ndim == 1 for index in indices)


def test_14_docstring_names_its_source_and_its_shapes(subject):
    text = " ".join((inspect.getdoc(subject.row.algorithm) or "").split())
    assert SOURCE.search(text)
    assert re.search(r"Shape legend: `[A-Z]", text)
