"""The command line: what it prints, what it refuses and how it ends."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from PIL import Image

from rlgen.experiments import catalogue
from rlgen.experiments.experiment import Experiment
from rlgen.lab import cli, commands, devices, folders, processes, request, runner
from rlgen.lab.checkpoints import CheckpointError
from rlgen.lab.errors import UsageError
from rlgen.lab.training import Interrupted
from rlgen.tabular import q_learning

PROGRAM = [sys.executable, "-c", "import sys; from rlgen.lab import cli; sys.exit(cli.main())"]


def size_of(path) -> tuple[int, int]:
    """Width and number of frames."""
    with Image.open(path) as picture:
        return picture.width, getattr(picture, "n_frames", 1)


def errors_of(capsys, *words: str) -> tuple[int, str]:
    code = cli.main(words)
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two points and three seeds, made by the command itself."""
    folder = tmp_path_factory.mktemp("runs") / "cliff"
    words = "sweep q_learning/Cliff --seeds 3 --steps 3000 --windows 3 --devices 1 --seed 5"
    words += " --grid hypers.learning_rate=0.0,0.5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "configure", lambda count: None)  # JAX has its devices already
        assert cli.main([*words.split(), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def _devices_as_they_are(monkeypatch):
    monkeypatch.setattr(devices, "configure", lambda count: None)


def test_help_does_not_wait_for_jax():
    check = "import sys; from rlgen.lab import cli; assert cli.main(['--help']) == 0; assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("list", "show", "sweep", "resume", "evaluate", "report", "play"))


def test_the_catalogue_as_json_in_a_process_of_its_own():
    done = subprocess.run([*PROGRAM, "list", "--json"], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout, parse_constant=pytest.fail)
    assert [row["name"] for row in rows] == list(catalogue.EXPERIMENTS)
    row = next(row for row in rows if row["name"] == "policy/ppo/CartPole-v1")
    assert set(row) == {"name", "config", "hypers", "grid", "steps", "seeds", "target"}
    assert row["config"]["hidden_sizes"] == [64, 64]
    assert row["hypers"]["horizon"] is None  # the whole run
    assert row["hypers"]["clip"] == 0.2
    assert row["target"]["value"] == 490.0
    assert row["target"]["direction"] == "max"
    assert row["target"]["source"]


def test_the_catalogue_as_a_table(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in catalogue.EXPERIMENTS)
    (line,) = (line for line in printed.splitlines() if line.startswith("generative/vae/mnist "))
    assert "600,000" in line
    assert "≤ 104" in line


def test_show_takes_a_short_name_and_keeps_brackets(capsys, monkeypatch):
    monkeypatch.setattr(q_learning, "__doc__", f"{q_learning.__doc__}\nBatches are `[T, B]` [bold]here[/bold].")
    assert cli.main(["show", "q_learning/Cliff"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "tabular/q_learning/CliffWalking" in printed
    assert "hypers.learning_rate" in printed
    assert "50,000 environment steps" in printed
    assert "Sutton and Barto 2018, example 6.6" in printed
    assert "Watkins 1989" in printed
    assert "Batches are `[T, B]` [bold]here[/bold]." in printed
    # Rows whose names go on where this one ends are not meant.
    assert cli.main(["show", "ppo/CartPole"]) == 0
    printed = capsys.readouterr().out
    assert "64,64" in printed and printed.startswith("policy/ppo/CartPole-v1\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Expected one of {list, show, sweep, resume, evaluate, report, play}"),
        (("swep", "ppo"), "Unrecognized options: swep, ppo. Perhaps you meant sweep\n"),
        (("sweep",), "NAME"),
        (("sweep", "--bogus"), "Unrecognized options: --bogus\n"),
        (("sweep", "--sede", "3", "ppo"), "Unrecognized options: --sede. Perhaps you meant --seed\n"),
        (("sweep", "--seed"), "Missing value for argument '--seed'"),
        (("sweep", "ppo/CartPole", "--sede", "3"), "--seed"),
        (("sweep", "ppo/CartPole", "--seeds", "x"), "--seeds: 'x' is no whole number"),
        (("sweep", "ppo/CartPole", "--seeds", "1.5"), "'1.5' is no whole number"),
        (("sweep", "ppo/CartPole", "--seeds", "inf"), "'inf' is no whole number"),
        (("sweep", "ppo/CartPole", "--seeds", "0"), "--seeds: '0' is no whole number from 1 on"),
        (("sweep", "ppo/CartPole", "--seeds", "1e8"), "seeds=1e+08 is impossible: 16,777,216 are the most"),
        (("sweep", "ppo/CartPole", "--seeds", "1e300"), "seeds=1e+300 is impossible"),
        (("sweep", "ppo/CartPole", "--seeds", "1e7", "--grid", "hypers.clip=1,2"), "20,000,000 seeds × grid points"),
        (("sweep", "ppo/CartPole", "--windows", "0"), "--windows: '0' is no whole number from 1 on"),
        (("sweep", "ppo/CartPole", "--chunk", "0"), "--chunk: '0' is neither 'auto' nor a whole number from 1 on"),
        (("sweep", "ppo/CartPole", "--processes", "0"), "--processes: '0' is no whole number from 1 on"),
        (("sweep", "ppo/CartPole", "--coordinator", "foo"), "--coordinator: 'foo' is neither 'auto' nor an address"),
        (("sweep", "ppo/CartPole", "--coordinator", "foo:"), "'foo:' is neither 'auto' nor an address and a port"),
        (("sweep", "ppo/CartPole", "--coordinator", "foo:70000"), "'foo:70000' is neither 'auto' nor an address"),
        (("sweep", "ppo/CartPole", "--devices", "3", "--seeds", "2"), "3 devices asked for, which is more than the 2"),
        (
            ("sweep", "ppo/CartPole", "--devices", "2", "--chunk", "1"),
            "2 devices asked for, which is more than the 1 lanes",
        ),
        (("sweep", "ppo/CartPole", "--devices", "some"), "--devices: 'some' is neither 'auto' nor a whole number"),
        (("sweep", "ppo/CartPole", "--stall-seconds", "-1"), "'-1' is no number above 0"),
        (("sweep", "ppo/CartPole", "--stall-seconds", "inf"), "--stall-seconds: 'inf' is no number above 0 and up to"),
        (("sweep", "ppo/CartPole", "--stall-seconds", "1e300"), "'1e300' is no number above 0 and up to 9"),
        (("sweep", "ppo/CartPole", "--checkpoint-seconds", "inf"), "--checkpoint-seconds: 'inf' is no number above 0"),
        (("sweep", "ppo/CartPole", "--set", "hypers.clip=-inf"), "hypers.clip=-inf is impossible"),
        (("sweep", "ppo/CartPole", "--set", "hypers.learning_rat=1"), "did you mean hypers.learning_rate"),
        (("sweep", "ppo/CartPole", "--set", "config.num_envs=no"), "config.num_envs=no is impossible"),
        (("sweep", "ppo/CartPole", "--grid", "hypers.discount=2"), "hypers.discount=2 is impossible"),
        (("sweep", "ppo/CartPole", "--steps", "1"), "1 steps are fewer than one update's 512"),
        (
            ("sweep", "ddpg/Pendulum-v1-td3", "--steps", "99"),
            "config.warm_up=100 leaves nothing of 99 steps to learn in",
        ),
        (("sweep", "ppo/CartPole", "--steps", "1e18"), "1e+18 steps are more than the 1,099,511,626,752 of"),
        (("sweep", "ppo/CartPole", "--set", "config.core=rnn"), "config.core='rnn' is not one of none, lstm, gru"),
        (("sweep", "ppo/CartPole", "--set", "config.activation=rlu"), "activation 'rlu' is not one of relu, tanh"),
        (
            ("sweep", "ppo/CartPole", "--set", "config.network=cnn"),
            "network 'cnn' cannot read observations of shape (4,)",
        ),
        (("sweep", "policy/ppo/CartPol-v1"), "did you mean policy/ppo/CartPole-v1"),
        (("sweep", "gan/mnst"), "did you mean generative/gan/mnist"),
        (("show", "CartPole"), "could be any of: value/dqn/CartPole-v1, value/dqn/CartPole-v1-double"),
        (("report",), "a report needs a run folder"),
        (("resume", "nowhere"), "nowhere holds no run"),
        (("evaluate", "nowhere"), "nowhere holds no run"),
        (("play", "nowhere"), "nowhere holds no run"),
        (("report", "nowhere"), "nowhere/summary.json is missing"),
    ],
)
def test_what_is_impossible_is_refused_in_one_line(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, printed = errors_of(capsys, *words)
    assert code == 2
    assert said in printed
    assert printed.startswith("rlgen: ")
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())  # no folder is left of a sweep that never began


@pytest.mark.parametrize("name", ["value/dqn/CartPole-v1-duelling", "qqqq"])
def test_a_wrong_name_is_not_answered_with_the_whole_catalogue(capsys, name):
    code, printed = errors_of(capsys, "sweep", name)
    assert code == 2
    assert name in printed
    assert "`rlgen list` names all" in printed
    assert len(printed) < 300


@pytest.mark.parametrize(("flag", "library"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_logger_is_refused_before_a_folder_is_made(monkeypatch, capsys, tmp_path, flag, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.chdir(tmp_path)
    code, printed = errors_of(capsys, "sweep", "q_learning/Cliff", f"--{flag}")
    assert code == 2
    assert printed == f"rlgen: {library} is not installed: .venv/bin/pip install -e '.[{flag}]'\n"
    assert not list(tmp_path.iterdir())


def test_a_sweep_asks_for_what_was_typed(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(runner, "run", lambda *wanted: asked.append(wanted))
    words = "sweep dqn/CartPole --seeds 3 --steps 1e4 --seed 7 --set hypers.discount=0.9 --set config.num_envs=8"
    words += " --grid hypers.learning_rate=1e-3,1e-4 --devices 2 --chunk 4 --checkpoint-seconds 5 --stall-seconds 6.5"
    assert cli.main([*words.split(), "--quiet", "--tensorboard", "--out", str(tmp_path)]) == 0
    ((wanted, folder, _, together),) = asked
    assert folder == tmp_path
    assert together == processes.ALONE
    assert (wanted.experiment, wanted.seeds, wanted.seed, wanted.steps) == ("value/dqn/CartPole-v1", 3, 7, 10_000)
    assert wanted.settings == ("hypers.discount=0.9", "config.num_envs=8")
    assert wanted.grid == ("hypers.learning_rate=1e-3,1e-4",)
    assert (wanted.devices, wanted.chunk) == (2, 4)
    assert (wanted.checkpoint_seconds, wanted.stall_seconds) == (5.0, 6.5)
    assert (wanted.quiet, wanted.tensorboard, wanted.wandb) == (True, True, False)


def test_a_sweep_fills_in_what_was_not_typed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(runner, "run", lambda *wanted: asked.append(wanted))
    assert cli.main(["sweep", "ppo/Breakout-MinAtar-1M"]) == 0
    ((wanted, folder, _, _),) = asked
    assert (wanted.seeds, wanted.steps, wanted.devices, wanted.grid) == (8, None, "auto", ())
    assert folder.is_dir()
    assert folder.parts[:2] == ("runs", "policy_ppo_Breakout-MinAtar-1M")


@pytest.fixture
def gridded(monkeypatch) -> Experiment:
    """A row of the catalogue with a grid of its own, scored while it learns."""
    row = catalogue.find("q_learning/CliffWalking")
    grid = {"learning_rate": (0.1, 0.30000000000000004), "epsilon_start": (0.05, 0.1)}
    task = dataclasses.replace(row.task, online=True)
    row = dataclasses.replace(row, name="tabular/q_learning/Gridded", task=task, grid=grid, target=None, chunk=3)
    monkeypatch.setitem(catalogue.EXPERIMENTS, row.name, row)
    return row


@pytest.mark.parametrize(
    ("words", "grid"),
    [
        ("", ("hypers.learning_rate=0.1,0.30000000000000004", "hypers.epsilon_start=0.05,0.1")),
        ("--set hypers.epsilon_start=0.2", ("hypers.learning_rate=0.1,0.30000000000000004",)),
        ("--set hypers.epsilon_start=0.2 --set hypers.learning_rate=1", ()),
        ("--grid hypers.discount=0.9,1", ("hypers.discount=0.9,1",)),
        ("--grid hypers.learning_rate=1", ("hypers.learning_rate=1",)),
    ],
)
def test_a_sweep_runs_over_the_grid_of_its_row_unless_told(gridded, monkeypatch, tmp_path, words, grid):
    asked = []
    monkeypatch.setattr(runner, "run", lambda *wanted: asked.append(wanted))
    assert cli.main(["sweep", "Gridded", *words.split(), "--out", str(tmp_path)]) == 0
    assert asked[0][0].grid == grid


@pytest.mark.parametrize(("words", "chunk"), [([], 3), (["--chunk", "5"], 5)])
def test_a_sweep_is_cut_as_its_row_says_unless_told(gridded, monkeypatch, tmp_path, words, chunk):
    asked = []
    monkeypatch.setattr(runner, "run", lambda *wanted: asked.append(wanted))
    assert cli.main(["sweep", "Gridded", *words, "--out", str(tmp_path)]) == 0
    assert asked[0][0].chunk == chunk


def test_an_impossible_grid_of_a_row_is_refused(gridded, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(
        catalogue.EXPERIMENTS, gridded.name, dataclasses.replace(gridded, grid={"epsilon_start": (0.5, 2.0)})
    )
    code, printed = errors_of(capsys, "sweep", "Gridded", "--out", str(tmp_path / "run"))
    assert code == 2 and "hypers.epsilon_start=2 is impossible" in printed
    assert not (tmp_path / "run").exists()


def test_show_lists_the_grid(gridded, capsys, monkeypatch):
    assert cli.main(["show", "Gridded"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "grid 4 points hypers.learning_rate=0.1,0.3 hypers.epsilon_start=0.05,0.1" in printed
    assert "metric episode return, while it learns" in printed
    row = dataclasses.replace(gridded, grid={"learning_rate": tuple(value / 20 for value in range(1, 21))})
    monkeypatch.setitem(catalogue.EXPERIMENTS, row.name, row)
    assert cli.main(["show", "Gridded"]) == 0
    assert "hypers.learning_rate=0.05,0.1,0.15,…,1 (20 values)" in capsys.readouterr().out
    assert cli.main(["show", "ppo/CartPole"]) == 0
    assert "grid none" in " ".join(capsys.readouterr().out.split())


def test_a_gridded_run_that_is_scored_while_it_learns(gridded, capsys, monkeypatch, tmp_path):
    """From the sweep to the report; the grid that was recorded outlives that of the row."""
    folder = tmp_path / "run"
    words = "sweep Gridded --seeds 2 --steps 400 --windows 3 --devices 1 --set hypers.epsilon_start=0.2"
    assert cli.main([*words.split(), "--out", str(folder)]) == 0
    recorded = json.loads((folder / folders.CONFIG).read_text())
    assert recorded["request"]["grid"] == ["hypers.learning_rate=0.1,0.30000000000000004"]
    monkeypatch.setitem(catalogue.EXPERIMENTS, gridded.name, dataclasses.replace(gridded, grid={}))
    assert len(request.read(folder).points) == 2
    code, printed = errors_of(capsys, "evaluate", str(folder))
    assert code == 2 and "tabular/q_learning/Gridded is scored while it learns" in printed
    assert cli.main(["report", str(folder), str(folder), "--out", str(tmp_path / "report")]) == 0
    assert "learning_rate=0.1" in capsys.readouterr().out
    assert cli.main(["play", str(folder)]) == 0
    assert (folder / "play-values.png").is_file()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (Interrupted("saved"), 130),
        (UsageError("no such thing"), 2),
        (folders.FolderError("no run"), 2),
        (CheckpointError("damaged"), 1),
        (OSError(28, "No space left on device"), 1),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: 8 GiB are too many"), 1),
        (MemoryError("Unable to allocate 8 GiB"), 1),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code):
    monkeypatch.setitem(commands.HANDLERS, cli.List, lambda command: (_ for _ in ()).throw(error))
    found, printed = errors_of(capsys, "list")
    assert found == code
    assert (str(error) or "interrupted") in printed
    assert printed.count("\n") == 1
    assert ("--chunk N" in printed) == isinstance(error, JaxRuntimeError | MemoryError)


def test_an_interrupt_while_the_program_starts_is_one_line():
    # numpy and jax do not bear an interrupt while they are imported: they crash, or say something else.
    check = """if True:
        import os, signal, sys
        from importlib import abc
        signal.signal(signal.SIGINT, signal.default_int_handler)
        class Interrupting(abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == sys.argv[1]:
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupting())
        from rlgen.lab import cli
        sys.exit(cli.main(["list"]))
    """
    for module in ("tyro", "numpy.exceptions", "jaxlib.cpu_feature_guard", "gymnax"):
        done = subprocess.run([sys.executable, "-c", check, module], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (130, "rlgen: interrupted\n"), module


def test_a_terminal_that_knows_no_such_letter_gets_another():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = [
        subprocess.run([*PROGRAM, *words], env=environment, capture_output=True, text=True, check=False)
        for words in (("show", "ppo/CartPole"), ("sweep", "ppo", "--sede", "3"))
    ]
    assert done[0].returncode == 0, done[0].stderr
    assert "? 490" in done[0].stdout
    assert done[1].stderr == "rlgen: Unrecognized options: --sede, 3. Perhaps you meant --seed\n"


def test_a_stalled_device_does_not_keep_the_process(monkeypatch, capsys):
    error = devices.StalledDevice("the window did not\nfinish")
    monkeypatch.setitem(commands.HANDLERS, cli.List, lambda command: (_ for _ in ()).throw(error))
    left = []
    monkeypatch.setattr("os._exit", left.append)
    _, printed = errors_of(capsys, "list")
    assert left == [1]
    assert printed == "rlgen: the window did not finish\n"


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(commands.HANDLERS, cli.List, lambda command: {}["missing"])
    with pytest.raises(KeyError):
        cli.main(["list"])


def test_evaluate_scores_every_point_with_fresh_keys(finished, capsys):
    assert cli.main(["evaluate", str(finished), "--episodes", "3"]) == 0
    printed = capsys.readouterr().out
    assert "tabular/q_learning/CliffWalking: episode return, 3 episodes a seed, 3 seeds, target ≥ -13" in printed
    lines = [line.split() for line in printed.splitlines()]
    # Without learning the greedy policy walks into the wall above for the whole time limit.
    assert ["0", "learning_rate=0", "-1000", "[-1000,", "-1000]", "0"] in lines
    assert ["1", "learning_rate=0.5", "-13", "[-13,", "-13]", "0"] in lines
    assert errors_of(capsys, "evaluate", str(finished), "--episodes", "0")[0] == 2


def test_play_shows_the_best_lane_unless_told(finished, capsys):
    assert cli.main(["play", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate=0.5: " in printed
    assert size_of(finished / "play.gif")[1] == 14  # 13 steps and the start
    assert size_of(finished / "play-values.png")[0] > 400
    out = finished / "films" / "worst.gif"
    assert cli.main(["play", str(finished), "--point", "0", "--seed", "2", "--out", str(out)]) == 0
    assert "seed 2, learning_rate=0: " in capsys.readouterr().out
    assert size_of(out)[1] > 14


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seed", "3"), "the run has seeds 0 to 2"),
        (("--point", "2"), "the run has points 0 to 1"),
        (("--episodes", "0"), "episodes=0 is impossible"),
    ],
)
def test_play_refuses_lanes_that_are_not_there(finished, capsys, words, said):
    code, printed = errors_of(capsys, "play", str(finished), *words)
    assert code == 2
    assert said in printed


def test_report_writes_and_prints_its_table(finished, capsys, tmp_path):
    assert cli.main(["report", str(finished), "--out", str(tmp_path / "report")]) == 0
    assert "| run | experiment |" in capsys.readouterr().out
    assert (tmp_path / "report" / "report.md").is_file()
    assert (tmp_path / "report" / "comparison.png").is_file()


def test_resuming_a_finished_run_changes_nothing(finished, capsys):
    before = (finished / folders.SUMMARY).read_bytes()
    assert cli.main(["resume", str(finished)]) == 0
    assert "finished" in capsys.readouterr().out
    assert (finished / folders.SUMMARY).read_bytes() == before


def test_resuming_may_change_how_but_not_what(finished, capsys, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = json.loads((folder / folders.CONFIG).read_text())
    words = ["--stall-seconds", "900", "--checkpoint-seconds", "5", "--devices", "2"]
    assert cli.main(["resume", str(folder), *words]) == 0  # finished: nothing to change
    assert json.loads((folder / folders.CONFIG).read_text()) == before
    (folder / folders.SUMMARY).unlink()
    code, printed = errors_of(capsys, "resume", str(folder), "--devices", "7")
    assert code == 2 and "7 devices asked for, which is more than the 6 lanes" in printed
    assert json.loads((folder / folders.CONFIG).read_text()) == before
    assert cli.main(["resume", str(folder), *words]) == 0
    changes = {"stall_seconds": 900.0, "checkpoint_seconds": 5.0, "devices": 2}
    assert json.loads((folder / folders.CONFIG).read_text()) == before | {"request": before["request"] | changes}
    scores = [json.loads((run / folders.SUMMARY).read_text())["points"] for run in (finished, folder)]
    assert scores[0] == scores[1]


def test_a_run_without_limits_is_read_back(capsys, tmp_path):
    folder = tmp_path / "run"
    words = "sweep ppo/CartPole --seeds 1 --devices 1 --steps 64 --windows 1 --set config.num_envs=4"
    words += " --set config.rollout_length=8 --set config.num_minibatches=1 --set config.hidden_sizes=4"
    words += " --set hypers.max_grad_norm=inf --grid hypers.clip=0.2,inf --grid hypers.horizon=inf,9"
    assert cli.main([*words.split(), "--out", str(folder)]) == 0
    points = request.read(folder).points
    assert [(point.clip, point.horizon) for point in points] == [(0.2, 2), (0.2, 9), (math.inf, 2), (math.inf, 9)]
    assert all(point.max_grad_norm == math.inf for point in points)
    assert cli.main(["evaluate", str(folder), "--episodes", "1"]) == 0
    assert "clip=inf, horizon=2" in capsys.readouterr().out
    (folder / folders.SUMMARY).unlink()
    assert cli.main(["resume", str(folder)]) == 0


def test_the_best_lane(finished, monkeypatch):
    scores = np.array([[3.0, math.nan, 1.0], [5.0, 2.0, math.inf]])
    points = [type("Point", (), {"scores": row}) for row in scores]
    monkeypatch.setattr("rlgen.lab.finished.load", lambda folder: type("Run", (), {"points": points}))
    choose = commands._best
    assert choose(cli.Play(finished), True) == (1, 0)
    assert choose(cli.Play(finished), False) == (0, 2)
    assert choose(cli.Play(finished, point=0), True) == (0, 0)
    assert choose(cli.Play(finished, seed=1), True) == (1, 1)
    assert choose(cli.Play(finished, point=0, seed=1), True) == (0, 1)
