"""Starts a new algorithm: its file, its test and its row among those of its family.

All three are made from `scripts/skeleton`.  What they leave open raises `NotImplementedError`, so that the tests are
red until it is written.
"""

import argparse
import ast
import keyword
import re
import sys
from pathlib import Path
from string import Template
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SKELETON = Path(__file__).resolve().parent / "skeleton"

WIDTH = 121  # of a line with its end
LONGEST = 30  # letters of a name, so that the lines of the skeleton stay within the limit
FAMILIES = {
    "tabular": "Tabular methods.",
    "value": "Methods that learn action values.",
    "policy": "Policy gradients.",
    "actor_critic": "Actor-critic methods.",
    "evolution": "Evolutionary search.",
    "multiagent": "Several agents.",
    "imitation": "Learning from demonstrations.",
    "goal": "Goals that the policy is told.",
    "model": "Learned and searched models.",
    "applied": "Methods made for one application.",
    "generative": "Generative models on one optax loop.",
}


class RefusedError(Exception):
    """The request cannot be carried out; nothing was written."""


class Kind(NamedTuple):
    """What the skeleton fills in: from a dataset or from an environment."""

    task: str  # last part of the row's name
    make_task: str  # expression of the row
    steps: str
    fields: dict[str, str]
    common: str = ""  # what the row takes from `rows/common.py`, if its family's rows do not already


_ROLLOUTS = {
    "batch": "Transition, Tree",
    "minibatch": "Transition",
    "batch_docs": "rollouts `[T, B]` of `Transition`",
    "config_docs": "        num_envs: `B`.\n        rollout_length: `T`.",
    "config": "    num_envs: int = 4\n    rollout_length: int = 128",
    "hypers": "    learning_rate: float = 2.5e-4\n    discount: float = 0.99",
}
_EXAMPLES = {
    "batch": "Tree",
    "minibatch": "Array",
    "batch_docs": "uint8 images `[K, M, H, W, C]`",
    "config_docs": "        batch_size: `M`.\n        num_steps: `K`, gradient steps an update.",
    "config": "    batch_size: int = 128\n    num_steps: int = 1",
    "hypers": "    learning_rate: float = 1e-3",
}


def kind_of(family: str) -> Kind:
    """Chooses the task that a family's algorithms are first tried on."""
    if family == "generative":
        return Kind("digits", 'ImageTask("digits", (8, 8, 1))', "60_000", _EXAMPLES)
    if family == "tabular":
        return Kind("CliffWalking", "EnvTask(cliff)", "50_000", _ROLLOUTS)
    return Kind("CartPole-v1", 'gymnax_task("CartPole-v1")', "500_000", _ROLLOUTS, "gymnax_task")


def names_of(tree: ast.Module) -> set[str]:
    """Lists the names that a module uses, imports or defines."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {alias.asname or alias.name for node in tree.body for alias in getattr(node, "names", ())}
    return names | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def with_import(source: str, family: str, name: str) -> str:
    """Adds `from rlgen.<family> import <name>` to a module, in order.

    Raises:
        RefusedError: if the module already means something else by that name.
    """
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    if name in names_of(tree):
        raise RefusedError(f"{name!r} means something else among the rows already; choose another name")
    imports = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rlgen.")
    ]
    for node in imports:
        if node.module == f"rlgen.{family}":
            names = sorted([*(alias.name for alias in node.names), name])
            line = f"from rlgen.{family} import {', '.join(names)}\n"
            if len(line) > WIDTH:
                line = f"from rlgen.{family} import (\n" + "".join(f"    {entry},\n" for entry in names) + ")\n"
            lines[node.lineno - 1 : node.end_lineno] = [line]
            return "".join(lines)
    if not imports:
        raise RefusedError("the rows import nothing of rlgen that the new import could stand beside")
    before = [node for node in imports if (node.module or "") < f"rlgen.{family}"]
    place = before[-1].end_lineno or 0 if before else imports[0].lineno - 1
    lines.insert(place, f"from rlgen.{family} import {name}\n")
    return "".join(lines)


def with_row(source: str, row: str) -> str:
    """Appends a row to the tuple `ROWS` or `_ROWS` of a module.

    Raises:
        RefusedError: if the module has no such tuple, or it does not close on a line of its own.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id.lstrip("_") == "ROWS" for target in targets):
            end = (node.end_lineno or 0) - 1
            if lines[end].strip() == ")":
                lines.insert(end, row)
                return "".join(lines)
    raise RefusedError("there is no tuple of ROWS that closes on a line of its own")


def check(family: str, name: str, new_files: list[Path]) -> None:
    """Refuses what cannot become a module.

    Raises:
        RefusedError: saying why.
    """
    if family not in FAMILIES:
        raise RefusedError(f"no family is called {family!r}; there are {', '.join(FAMILIES)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST or keyword.iskeyword(name):
        raise RefusedError(f"{name!r} is no module name: lower-case letters, digits and single underscores are wanted")
    for path in new_files:
        if path.exists():
            raise RefusedError(f"{path} exists already")


def create(root: Path, family: str, name: str) -> list[Path]:
    """Writes the skeleton of an algorithm.

    Args:
        root: folder of the project.
        family: one of `FAMILIES`; its package is made where there is none yet.
        name: of the module.

    Returns:
        The files written or changed.

    Raises:
        RefusedError: if the name is bad or taken; nothing is written then.
    """
    module, test = root / "rlgen" / family / f"{name}.py", root / "tests" / family / f"test_{name}.py"
    check(family, name, [module, test])
    kind, experiments = kind_of(family), root / "rlgen" / "experiments"
    row = "".join(
        f"{line}\n"
        for line in (
            "    Experiment(",
            f'        name="{family}/{name}/{kind.task}",',
            f"        algorithm={name},",
            f"        task={kind.make_task},",
            f"        config={name}.Config(),",
            f"        hypers={name}.Hypers(),",
            f"        steps={kind.steps},",
            "    ),",
        )
    )
    fields = {**kind.fields, "family": family, "name": name}
    files = {
        path: Template((SKELETON / text).read_text("utf-8")).substitute(fields)
        for path, text in ((module, "algorithm.txt"), (test, "test.txt"))
    }
    package = module.parent / "__init__.py"
    if not package.exists():
        files[package] = f'"""{FAMILIES[family]}"""\n'
    rows, catalogue = experiments / "rows" / f"{family}.py", experiments / "catalogue.py"
    if rows.exists():
        known = rows.read_text("utf-8")
    else:
        known = Template((SKELETON / "rows.txt").read_text("utf-8")).substitute(fields)
        listed = with_import(catalogue.read_text("utf-8"), "experiments.rows", family)
        files[catalogue] = with_row(listed, f"    *{family}.ROWS,\n")
    known = with_import(known, family, name)
    if kind.common and kind.common not in names_of(ast.parse(known)):
        known = with_import(known, "experiments.rows.common", kind.common)
    files[rows] = with_row(known, row)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return list(files)


def main() -> None:
    """Reads the command line; exits with 1 where the request is refused."""
    parser = argparse.ArgumentParser(prog="scripts/new_algorithm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("family", metavar="FAMILY", help=f"one of {', '.join(FAMILIES)}")
    parser.add_argument("name", metavar="NAME", help="of the module, such as soft_q")
    args = parser.parse_args()
    try:
        written = create(ROOT, args.family, args.name)
    except RefusedError as refusal:
        sys.exit(f"new_algorithm: {refusal}")
    for path in written:
        print(path.relative_to(ROOT))
    print(f"Fill them in until `scripts/test -k {args.name}` is green.")


if __name__ == "__main__":
    main()
