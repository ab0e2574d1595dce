"""The laws of the house: which way imports run, what is pure, and what every family's file and every row contain."""

import ast
import dataclasses
import pathlib
import types
from typing import Any

import pytest

import rlgen
from rlgen.experiments import bounds, catalogue, experiment

ROOT = pathlib.Path(rlgen.__file__).parent
TREES = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
ROWS = list(catalogue.EXPERIMENTS.values())
ALGORITHMS = list(dict.fromkeys(row.algorithm for row in ROWS))

# What is not named here is a family of algorithms.
LEVELS = {
    "core": 0,
    "parts": 1,
    "envs": 1,
    "train": 2,
    "sweep": 2,
    "evaluate": 2,
    "sources": 2,
    "experiments": 4,
    "lab": 5,
}
FAMILY, LAB = 3, 5

# Modules and names by which code logs, reads clocks or disks, starts processes, or calls back to the host.
IMPURE_MODULES = {
    "asyncio", "datetime", "glob", "io", "logging", "multiprocessing", "os", "pathlib", "random", "shutil", "signal",
    "socket", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "warnings",
    "matplotlib", "orbax", "PIL", "pooch", "rich", "tensorboardX", "tyro", "wandb",
    "jax.debug", "jax.experimental", "jax.profiler",
}  # fmt: skip
IMPURE_NAMES = {"breakpoint", "eval", "exec", "input", "open", "print"}
IMPURE_ATTRIBUTES = {
    "callback", "debug", "experimental", "io_callback", "pure_callback", "host_callback", "profiler",
    "fromfile", "genfromtxt", "load", "loadtxt", "memmap", "save", "savetxt", "savez", "savez_compressed", "tofile",
    "read_bytes", "read_text", "write_bytes", "write_text",
}  # fmt: skip
PICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
ORDER = ("Config", "Hypers", "Learner", "State", "Metrics", "optimiser", "learn", "init", "update", "policy", "build")
REQUIRED = {"Config", "Hypers", "Metrics", "learn", "init", "policy", "build"}


def level(parts: tuple[str, ...]) -> int:
    """Of a module of the package, by the path after `rlgen`."""
    return LEVELS.get(parts[0].removesuffix(".py"), FAMILY)


def imports(tree: ast.AST) -> set[str]:
    """Full names of what a module imports, `from a import b` as `a.b`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_of(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def wrong_imports(path: pathlib.PurePath, tree: ast.AST) -> set[str]:
    """What a module imports from a higher level of the house."""
    inner = {name for name in imports(tree) if name.startswith("rlgen.")}
    return {name for name in inner if level(tuple(name.split(".")[1:])) > level(path.parts)}


def impurities(tree: ast.AST) -> set[str]:
    found = {name for name in imports(tree) if is_of(name, IMPURE_MODULES)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in IMPURE_NAMES:
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in IMPURE_ATTRIBUTES:
            found.add(ast.unparse(node))
    return found


def pickles(tree: ast.AST) -> bool:
    allows = any(
        isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
        for node in ast.walk(tree)
    )
    return allows or any(is_of(name, PICKLERS) for name in imports(tree))


INNER = [pytest.param(path, tree, id=str(path)) for path, tree in TREES.items() if path.name != "__init__.py"]


@pytest.mark.parametrize(("path", "tree"), INNER)
def test_imports_run_one_way(path, tree):
    assert not wrong_imports(path, tree)


def test_a_wrong_import_is_seen():
    for path, line in (
        ("parts/replay.py", "from rlgen.value import dqn"),
        ("value/dqn.py", "from rlgen.experiments import tasks"),
        ("experiments/tasks.py", "import rlgen.lab.data"),
    ):
        assert wrong_imports(pathlib.PurePath(path), ast.parse(line))


@pytest.mark.parametrize(("path", "tree"), [row for row in INNER if level(row.values[0].parts) < LAB])
def test_below_the_lab_all_is_pure(path, tree):
    assert not impurities(tree)


@pytest.mark.parametrize(
    "line",
    [
        "print(1)",
        "import time",
        "from os import path",
        "jax.debug.print('{}', x)",
        "jax.pure_callback(f, s)",
        "from jax.experimental import io_callback",
        "np.load('x')",
        "open('x')",
    ],
)
def test_an_impurity_is_seen(line):
    assert impurities(ast.parse(line))


def test_some_libraries_have_one_home():
    homes = {
        "gymnax": lambda path: path.parts[0] == "envs",
        "distrax": lambda path: path.as_posix() in ("parts/distributions.py", "parts/bijectors.py"),
        "mujoco": lambda path: path.as_posix() == "envs/mujoco.py",
        "tensorflow_probability": lambda path: False,
    }
    for library, is_home in homes.items():
        users = {path for path, tree in TREES.items() if any(is_of(name, {library}) for name in imports(tree))}
        assert not {path for path in users if not is_home(path)}


def test_nothing_pickles():
    assert not [path for path, tree in TREES.items() if pickles(tree)]
    assert pickles(ast.parse("import pickle"))
    assert pickles(ast.parse("np.load(file, allow_pickle=True)"))


@pytest.mark.parametrize("path", [path for path in TREES if level(path.parts) == FAMILY and path.name != "__init__.py"])
def test_a_familys_file_reads_in_one_order(path):
    tree = TREES[path]
    assert ast.get_docstring(tree)
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    # What several share comes from `rlgen.parts`, or from the file of the rule whose `Config` this one extends.
    (algorithm,) = (each for each in ALGORITHMS if each.__name__ == ".".join(("rlgen", *path.with_suffix("").parts)))
    homes = {"rlgen.parts", *(kind.__module__ for kind in algorithm.Config.__mro__ if kind.__module__ != "builtins")}
    shared = [node for node in tree.body if isinstance(node, ast.ImportFrom) and is_of(str(node.module), homes)]
    assert {*names, *(name.asname or name.name for node in shared for name in node.names)} >= REQUIRED
    known = [name for name in names if name in ORDER]
    assert known == sorted(known, key=ORDER.index)


@pytest.mark.parametrize("path", [path for path in TREES if level(path.parts) == FAMILY and path.name != "__init__.py"])
def test_every_algorithm_is_in_the_catalogue(path):
    assert ".".join(("rlgen", *path.with_suffix("").parts)) in {algorithm.__name__ for algorithm in ALGORITHMS}


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda module: module.__name__)
def test_config_is_frozen_and_hypers_are_bounded_numbers(algorithm: types.ModuleType):
    assert dataclasses.is_dataclass(algorithm.Config)
    assert algorithm.Config.__hash__ is not None
    hypers: Any = algorithm.Hypers()
    assert all(type(value) is float for value in hypers)
    assert set(hypers._fields) <= set(bounds.HYPERS)
    bounds.check_hypers(hypers)


def test_bounds_name_nothing_unused():
    used = {name for algorithm in ALGORITHMS for name in algorithm.Hypers._fields}
    assert set(bounds.HYPERS) == used
    fields = {field.name for algorithm in ALGORITHMS for field in dataclasses.fields(algorithm.Config)}
    assert set(bounds.REALS) | set(bounds.SMALLEST) <= fields


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_complete(row):
    family, name, task = row.name.split("/")
    assert row.algorithm.__name__ == f"rlgen.{family}.{name}"
    assert task
    bound = experiment.bind(row)
    assert bound.num_updates * bound.steps_per_update <= row.steps
    assert row.seeds >= 1
    if row.target is not None:
        assert row.target.source.strip()
        assert row.target.direction == ("max" if row.task.higher_is_better else "min")
        assert row.target.reached(row.target.value)
        assert not row.target.reached(row.target.value + (-1e-3 if row.task.higher_is_better else 1e-3))
        assert not row.target.reached(float("nan"))
