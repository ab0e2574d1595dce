"""The README keeps its word: its Python runs, and its commands, options, experiments, files and links exist."""

import json
import os
import re
import runpy
import shlex
from pathlib import Path

import jax
import pytest

from rlgen.experiments import catalogue
from rlgen.lab import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
README = (ROOT / "README.md").read_text("utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


SNIPPETS = blocks(README, "python")
COMMANDS = [
    shlex.split(line, comments=True)
    for page in PAGES
    for block in blocks((ROOT / page).read_text("utf-8"), "sh")
    for line in block.splitlines()
]
CALLS = [words[1:] for words in COMMANDS if words[0] == "scripts/rlgen"]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["learn", "run", "sweep"])
def test_python_runs(snippet, tmp_path, capsys):
    path = tmp_path / "snippet.py"
    path.write_text(snippet, "utf-8")
    results = runpy.run_path(str(path))
    assert "nan" not in capsys.readouterr().out
    assert any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(list(results.values())))


def test_scripts_exist_and_can_be_run():
    named = {word for words in COMMANDS for word in words if word.startswith("scripts/")}
    assert {"scripts/rlgen", "scripts/test", "scripts/soak", "scripts/new_algorithm"} <= named
    assert [name for name in named if not os.access(ROOT / name, os.X_OK)] == []


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_commands_are_understood(words, monkeypatch):
    understood = []
    monkeypatch.setattr(cli, "_run", lambda command: understood.append(command) or 0)
    assert cli.main(words) == 0
    assert [type(command).__name__.lower() for command in understood] == words[:1]


@pytest.mark.parametrize("name", [words[1] for words in CALLS if words[0] in ("sweep", "show")])
def test_experiments_are_in_the_catalogue(name):
    catalogue.find(name)


@pytest.mark.parametrize("words", [words for words in CALLS if "--set" in words or "--grid" in words], ids=" ".join)
def test_what_is_set_can_be_set(words):
    row = catalogue.find(words[1])
    for kind, name in re.findall(r"(hypers|config)\.(\w+)=", " ".join(words)):
        assert hasattr(getattr(row, kind), name)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_files_named_exist():
    house = README.split("## The house\n\n```\n")[1].split("```")[0]
    for line in house.splitlines():
        assert (ROOT / line.split()[0]).exists(), line
    for path in re.findall(r"`((?:rlgen|tests|scripts)/[\w/.]+)`", README):
        assert (ROOT / path).exists() or "soft_q" in path, path


def test_speeds_are_those_that_were_measured():
    words = " ".join(README.split())
    ratios = []
    for name in ("ppo_cartpole_1_seed", "ppo_cartpole_16_seeds", "dqn_cartpole_1_seed", "dqn_cartpole_16_seeds"):
        result = json.loads((ROOT / "benchmarks" / "results" / "speed" / f"{name}.json").read_text())
        ratios.append(f"{result['ratio']:.2f}")
    ppo, dqn = ratios[:2], ratios[2:]
    assert f"runs {ppo[0]} times as fast as purejaxrl with one seed and {ppo[1]} times with sixteen" in words
    assert f"DQN {dqn[0]} and {dqn[1]} times." in words
