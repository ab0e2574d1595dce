"""`scripts/new_algorithm` on a copy of the project."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = runpy.run_path(str(ROOT / "scripts/new_algorithm.py"))["FAMILIES"]
CATALOGUE = "rlgen/experiments/catalogue.py"
ROWS = "rlgen/experiments/rows/{}.py"


@pytest.fixture
def copy(tmp_path):
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("rlgen", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py", "tests/test_contract.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(copy, *command):
    environment = {**os.environ, "PYTHONPATH": str(copy), "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True)


def new(copy, family, name):
    return run(copy, "scripts/new_algorithm.py", family, name)


def contents(copy):
    return {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("family", "name", "row"),
    [
        ("value", "soft_q", "value/soft_q/CartPole-v1"),
        ("tabular", "soft_sarsa", "tabular/soft_sarsa/CliffWalking"),
        ("generative", "a" * 30, f"generative/{'a' * 30}/digits"),
        ("multiagent", "vdn2", "multiagent/vdn2/CartPole-v1"),
        ("imitation", "cloner", "imitation/cloner/CartPole-v1"),
        ("applied", "ranker", "applied/ranker/CartPole-v1"),
        ("evolution", "nes", "evolution/nes/CartPole-v1"),
    ],
)
def test_writes_a_module_a_test_and_a_row_that_lint_clean(copy, family, name, row):
    before = contents(copy)
    result = new(copy, family, name)
    assert result.returncode == 0, result.stderr
    written = {str(path.relative_to(copy)) for path, text in contents(copy).items() if before.get(path) != text}
    existed = {str(path.relative_to(copy)) for path in before}
    rows, package = ROWS.format(family), f"rlgen/{family}/__init__.py"
    expected = {f"rlgen/{family}/{name}.py", f"tests/{family}/test_{name}.py", rows}
    expected |= set() if package in existed else {package}
    expected |= set() if rows in existed else {CATALOGUE}
    assert written == expected
    assert set(result.stdout.splitlines()[:-1]) == written
    for tool in (("check",), ("format", "--check")):
        lint = run(copy, "-m", "ruff", *tool, "--no-cache", *sorted(written))
        assert lint.returncode == 0, lint.stdout
    assert f'name="{row}"' in (copy / rows).read_text()
    catalogued = run(copy, "-c", f"from rlgen.experiments.rows import {family}")
    assert catalogued.returncode == 0, catalogued.stderr
    assert f"*{family}.ROWS," in (copy / CATALOGUE).read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_one(copy, family):
    """Its rows import what they name, in order."""
    result = new(copy, family, "made_up")
    assert result.returncode == 0, result.stderr
    lint = run(copy, "-m", "ruff", "check", "--no-cache", "rlgen/experiments", f"rlgen/{family}/made_up.py")
    assert lint.returncode == 0, lint.stdout
    assert re.search(rf"^from rlgen\.{family} import .*\bmade_up\b", (copy / ROWS.format(family)).read_text(), re.M)


def test_refuses_where_it_finds_no_import_to_stand_beside(copy):
    table = copy / "scripts/skeleton/rows.txt"
    table.write_text("ROWS = (\n)\n")
    result = new(copy, "imitation", "cloner")
    assert result.returncode == 1 and "import nothing of rlgen" in result.stderr
    assert not (copy / "rlgen/imitation").exists()


def test_file_follows_the_order_of_an_algorithm(copy):
    new(copy, "value", "soft_q")
    names = [
        node.name
        for node in ast.parse((copy / "rlgen/value/soft_q.py").read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    order = "Config Hypers Learner State Metrics optimiser loss learn init update policy build"
    assert names == order.split()


def test_two_in_a_row_leave_every_other_row_and_import_alone(copy):
    rows = copy / ROWS.format("value")
    before = rows.read_text().splitlines()
    imports = next(line for line in before if line.startswith("from rlgen.value import "))
    assert new(copy, "value", "soft_q").returncode == new(copy, "value", "averaged").returncode == 0
    after = rows.read_text().splitlines()
    assert [line for line in before if line not in after] == [imports]
    names = [*imports.removeprefix("from rlgen.value import ").split(", "), "averaged", "soft_q"]
    assert f"from rlgen.value import {', '.join(sorted(names))}" in after


def test_laws_stay_red_until_it_is_filled_in(copy):
    new(copy, "value", "soft_q")
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "soft_q", "-W", "default", "tests")
    result = run(copy, *command)
    assert result.returncode == 1, result.stdout + result.stderr
    red = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    for law in ("test_3", "test_9", "test_14", "test_solves_a_task", "test_learn_agrees"):
        assert any(law in line for line in red), (law, result.stdout)
    assert "NotImplementedError: soft_q:" in result.stdout


@pytest.mark.parametrize(
    ("family", "name", "why"),
    [
        ("values", "soft_q", "no family is called 'values'"),
        ("value", "SoftQ", "no module name"),
        ("value", "soft-q", "no module name"),
        ("value", "2q", "no module name"),
        ("value", "../q", "no module name"),
        ("value", "lambda", "no module name"),
        ("value", "a" * 31, "no module name"),
        ("value", "dqn", "exists already"),
        ("value", "gymnax_task", "means something else"),
    ],
)
def test_refuses_and_writes_nothing(copy, family, name, why):
    before = contents(copy)
    result = new(copy, family, name)
    assert result.returncode == 1
    assert why in result.stderr
    assert "Traceback" not in result.stderr
    assert contents(copy) == before


@pytest.mark.parametrize("table", [CATALOGUE, ROWS.format("value")])
def test_refuses_without_a_table(copy, table):
    path = copy / table
    path.write_text(path.read_text().replace("ROWS = (", "LINES = ("))
    family = "imitation" if table == CATALOGUE else "value"
    result = new(copy, family, "soft_q")
    assert result.returncode == 1
    assert "ROWS" in result.stderr
    assert not (copy / f"rlgen/{family}/soft_q.py").exists()
