"""The run loop: run folders, resuming to the same bits, Ctrl-C, kill −9, divergence, groups, stalls."""

import contextlib
import dataclasses
import errno
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from rlgen.experiments import catalogue
from rlgen.lab import checkpoints, devices, folders, lanes, maps, plots, progress, request, results, runner, training
from rlgen.lab.checkpoints import CheckpointError
from rlgen.lab.devices import StalledDevice
from rlgen.lab.folders import FolderError
from rlgen.lab.overrides import UsageError
from rlgen.lab.request import Request
from rlgen.lab.training import Interrupted
from rlgen.train import Report

WINDOWS = 5
LEARNING = Request(
    "tabular/q_learning/CliffWalking",
    grid=("hypers.learning_rate=0.5,0.1",),
    seeds=3,
    seed=7,
    steps=403,
    windows=WINDOWS,
    checkpoint_seconds=0.0,
)
PPO = Request(
    "policy/ppo/CartPole-v1",
    settings=(
        *("config.num_envs=4", "config.rollout_length=8", "config.num_epochs=2", "config.num_minibatches=2"),
        *("config.hidden_sizes=8", "config.normalise_observations=true", "config.normalise_rewards=true"),
    ),
    seeds=3,
    steps=4 * 8 * 6,
    windows=WINDOWS,
    checkpoint_seconds=0.0,
    quiet=True,
)
SUMMARY_KEYS = (
    *("experiment", "changed", "seeds", "seed", "env_steps", "updates", "compile_seconds", "run_seconds"),
    *("steps_per_second", "peak_rss_mb", "devices", "metric", "points", "target", "reached", "config", "begun"),
    *("versions", "git"),
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Keeps compiled programs for this module alone, so that the same program is compiled once."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    folder = tmp_path_factory.mktemp("compiled")
    compilation_cache.reset_cache()
    for name, value in zip(names, (str(folder), 0.0), strict=True):
        jax.config.update(name, value)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def run(asked, folder):
    """Runs and gives `(summary, what was printed)`."""
    console = Console(file=io.StringIO(), width=200)
    summary = runner.run(asked, folder, console)
    return summary, console.file.getvalue()


def resume(folder):
    console = Console(file=io.StringIO(), width=200)
    summary = runner.resume(folder, console)
    return summary, console.file.getvalue()


def metrics(folder):
    with np.load(folder / "metrics.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def states(folder):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(runner.restore(folder).state)]


def bits(array):
    return array.dtype, array.shape, array.tobytes()


def assert_same_run(first, second):
    one, two = metrics(first), metrics(second)
    assert list(one) == list(two)
    for name in one:
        assert bits(one[name]) == bits(two[name]), name
    for a, b in zip(states(first), states(second), strict=True):
        assert bits(a) == bits(b)


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """A tabular run that was never stopped: `(folder, summary, what was printed)`."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, *run(LEARNING, folder)


@pytest.fixture(scope="module")
def whole_ppo(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    return folder, *run(PPO, folder)


@pytest.fixture
def interrupted(whole, tmp_path, monkeypatch):
    """A folder of the same run, stopped by Ctrl-C in its third window."""
    append = training.History.append

    def with_signal(self, report):
        fresh = append(self, report)
        if len(self._reports) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return fresh

    with monkeypatch.context() as patch:
        patch.setattr(training.History, "append", with_signal)
        with pytest.raises(Interrupted):
            run(LEARNING, tmp_path)
    return tmp_path


def test_the_folder_of_a_run(whole):
    folder, summary, _ = whole
    pictures = {"curves.png", "response.png", "values.png"}
    names = {"config.json", "metrics.npz", "checkpoint", "summary.json", "lock"}
    assert {path.name for path in folder.iterdir()} == names | pictures
    text = (folder / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == summary
    assert tuple(summary) == SUMMARY_KEYS
    assert (summary["env_steps"], summary["updates"], summary["seeds"], summary["seed"]) == (403, 403, 3, 7)
    assert summary["devices"] == ["cpu 0", "cpu 1"]
    assert summary["steps_per_second"] == pytest.approx(403 * 6 / summary["run_seconds"], rel=0.2)
    assert summary["compile_seconds"] > 0
    assert summary["peak_rss_mb"] > 50
    assert summary["target"]["value"] == -13
    assert summary["reached"] is False
    assert summary["changed"] == ["3 of 16 seeds", "403 of 50,000 steps"]
    assert summary["config"]["num_envs"] == 1
    assert [point["hypers"]["learning_rate"] for point in summary["points"]] == [0.5, 0.1]
    assert summary["points"][0]["hypers"]["horizon"] == 403
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_pictures_that_a_run_has_no_use_for(whole_ppo):
    names = {path.name for path in whole_ppo[0].iterdir()}
    assert "curves.png" in names and not names & {"response.png", "values.png"}


@pytest.mark.parametrize("chunk", [None, 4])
def test_values_are_those_of_the_best_lane(whole, tmp_path, monkeypatch, chunk):
    made = request.plan(dataclasses.replace(LEARNING, chunk=chunk, devices=1))
    spread = lanes.spread(made, devices.choose(1, 4))
    state = runner.restore(whole[0]).state

    def finished(self, folder, index):
        group = self.groups[index]
        return types.SimpleNamespace(state=jax.tree.map(lambda leaf: leaf[group.start : group.stop], state))

    monkeypatch.setattr(lanes.Lanes, "finished", finished)
    seen = []
    monkeypatch.setattr(maps, "draw", lambda path, where, what, title: (seen.append((what, title)), path.touch()))
    scores = np.array([-5.0, -4.0, np.nan, -3.0, -2.0, -6.0])
    work = training.Work(spread, tmp_path, None, None)
    results._draw_values(tmp_path / "values.png", work, results.Outcome(None, scores, None))
    ((what, title),) = seen
    assert title == "tabular/q_learning/CliffWalking: the best run, seed 1, learning_rate=0.1"
    np.testing.assert_allclose(what.values, state.algorithm.q_values[4].max(-1))
    assert (tmp_path / "values.png").exists()


def online(experiment):
    return dataclasses.replace(experiment, task=dataclasses.replace(experiment.task, online=True))


def test_an_online_score_is_the_curve_of_the_whole_run(tmp_path, monkeypatch):
    row = online(catalogue.find(LEARNING.experiment))
    monkeypatch.setitem(catalogue.EXPERIMENTS, row.name, row)
    monkeypatch.setattr(results, "compile_score", pytest.fail)  # nothing is compiled for it
    asked = dataclasses.replace(LEARNING, grid=("hypers.learning_rate=0.5,1e30",), steps=3000)
    summary, _ = run(asked, tmp_path)
    found = metrics(tmp_path)
    expected = found["stats/total_return"][0].sum(-1) / found["stats/episodes"][0].sum(-1)
    np.testing.assert_allclose(found["score"][0], expected, rtol=1e-6)
    assert summary["points"][0]["per_seed"] == found["score"][0].tolist()
    assert summary["points"][1]["per_seed"] == [None] * 3 and summary["points"][1]["diverged_seeds"] == [0, 1, 2]


def test_a_seed_without_an_episode_has_no_score_and_did_not_diverge(tmp_path, monkeypatch):
    row = online(catalogue.find(LEARNING.experiment))
    monkeypatch.setitem(catalogue.EXPERIMENTS, row.name, row)
    summary, printed = run(dataclasses.replace(LEARNING, grid=(), steps=5, windows=5), tmp_path)
    (point,) = summary["points"]
    assert (point["per_seed"], point["diverged_seeds"]) == ([None] * 3, [])
    assert "3 runs without an episode to score" in printed and "diverged" not in printed


def test_an_online_score_weighs_windows_by_their_length():
    class Metrics(NamedTuple):
        error: np.ndarray

    task = types.SimpleNamespace(curve=lambda report: report.metrics.error + report.stats["steps"])
    made: Any = types.SimpleNamespace(bounds=[0, 1, 4], experiment=types.SimpleNamespace(task=task))
    error, steps = np.array([[8.0, 4.0], [np.nan, 1.0]], np.float32), np.array([[1, 2], [3, 4]], np.int32)
    found = results._online(made, Report(Metrics(error), {"steps": steps}))
    np.testing.assert_array_equal(found, [(8 + 3 * 4) / 4 + 3, np.nan])
    assert found.dtype == np.float64


def test_of_many_points_the_best_curves_are_drawn(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "learning_curves", lambda path, x, curves, **rest: (path.touch(), drawn.update(rest, c=curves))
    )
    axis = ",".join(str(index / 20) for index in range(1, 13))
    made = request.plan(dataclasses.replace(LEARNING, grid=(f"hypers.learning_rate={axis}",)))
    arrays = {"update": np.arange(2), "env_steps": np.arange(2), "score": np.zeros((12, 3))}
    arrays["curve"] = np.broadcast_to(np.arange(12.0)[:, None, None], (12, 3, 2))
    outcome = results.Outcome(None, np.zeros(36), np.full(36, 2))
    iqms = np.array([np.nan, *range(11)])
    results._draw_curves(tmp_path / "curves.png", made, arrays, outcome, iqms)
    assert list(drawn["c"]) == [f"learning_rate={index / 20:g}" for index in range(12, 4, -1)]
    assert [curve[0, 0] for curve in drawn["c"].values()] == list(range(11, 3, -1))
    assert drawn["title"].endswith(": the best 8 of 12 grid points")


def test_the_curves_of_neighbours_are_both_drawn(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "learning_curves", lambda path, x, curves, **rest: (path.touch(), drawn.update(curves)))
    made = request.plan(dataclasses.replace(LEARNING, grid=("hypers.learning_rate=0.001,0.0010000002",)))
    arrays = {"update": np.arange(2), "env_steps": np.arange(2), "score": np.zeros((2, 3)), "curve": np.ones((2, 3, 2))}
    results._draw_curves(tmp_path / "curves.png", made, arrays, results.Outcome(None, None, np.full(6, 2)), np.zeros(2))
    assert list(drawn) == ["learning_rate=0.001", "learning_rate=0.0010000002"]
    point = {"iqm": 1.0, "ci95": [1.0, 1.0], "diverged_seeds": []}
    point["per_seed"] = [1.0] * 3
    summary = {"experiment": "name", "metric": "return", "seeds": 3, "steps_per_second": 1.0, "target": None}
    said = results.line(made, summary | {"points": [point | {"iqm": 0.0}, point]}, tmp_path)
    assert "at learning_rate=0.0010000002 over" in said


def test_the_metrics_of_a_run(whole):
    folder, summary, _ = whole
    found = metrics(folder)
    assert found["update"].tolist() == [81, 161, 242, 322, 403]  # the whole budget, as evenly as can be
    assert found["env_steps"].tolist() == found["update"].tolist()
    for name in ("curve", "metrics/error", "metrics/q_value", "stats/episodes", "stats/total_length"):
        assert found[name].shape == (2, 3, WINDOWS), name
    assert found["score"].tolist() == [point["per_seed"] for point in summary["points"]]
    expected = np.full((2, 3, WINDOWS), np.nan)
    ended = found["stats/episodes"] > 0
    expected[ended] = (found["stats/total_return"][ended] / found["stats/episodes"][ended]).astype(np.float64)
    np.testing.assert_allclose(found["curve"], expected, rtol=1e-6)
    assert ended.any()


def test_what_is_printed(whole, whole_ppo):
    lines = whole[2].splitlines()
    assert lines[0].startswith("memory: ") and "for 6 lanes at a time" in lines[0]
    assert lines[1] == "compiling"
    assert "training" in lines
    assert lines[-2] == "scoring"
    assert lines[-1].startswith("tabular/q_learning/CliffWalking: IQM of the episode return -")
    assert "target -13 not reached with 3 of 16 seeds, 403 of 50,000 steps; " in lines[-1]
    assert len(whole_ppo[2].splitlines()) == 1  # quiet


def test_finished_is_left_alone(whole):
    folder, summary, _ = whole
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"}
    assert resume(folder) == (summary, f"{folder} is finished: there is nothing to do\n")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"} == before


def test_restored_as_it_was(whole):
    trained = runner.restore(whole[0])
    assert trained.request == LEARNING
    assert trained.bound.num_updates == 403
    assert trained.state.algorithm.q_values.shape == (6, 48, 4)
    assert trained.hypers.learning_rate.tolist() == np.float32([0.5] * 3 + [0.1] * 3).tolist()
    assert (jax.random.key_data(trained.keys[0]) == jax.random.key_data(trained.keys[3])).all()


def test_interrupted_and_resumed_is_the_same_run(whole, interrupted):
    assert [path.name for path in (interrupted / "checkpoint" / "0").iterdir()] == ["242"]
    with pytest.raises(FolderError, match="not finished: resume it first"):
        runner.restore(interrupted)
    summary, printed = resume(interrupted)
    assert_same_run(whole[0], interrupted)
    assert [point["iqm"] for point in summary["points"]] == [point["iqm"] for point in whole[1]["points"]]
    assert "242 of" not in printed
    saved = lanes.spread(request.read(interrupted), devices.choose("auto", 6)).finished(interrupted, 0)
    assert summary["run_seconds"] == pytest.approx(saved.about.seconds["run"], abs=0.5)


def test_a_second_interrupt_aborts():
    said, before = [], signal.getsignal(signal.SIGINT)
    with training.Interrupts(said.append) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert len(said) == 1
    assert signal.getsignal(signal.SIGINT) is before


KILLED = """
import os, pathlib, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from rich.console import Console
from rlgen.lab import checkpoints, request, runner
folder = pathlib.Path(sys.argv[1])
write = checkpoints._write
def dying(home, leaves, seconds):
    write(home, leaves, seconds)
    if home.name.startswith("4"):
        (home / "manifest.json").write_text("{")
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints._write = dying
runner.run(request.Request(**eval(sys.argv[2])), folder, Console())
"""


def test_killed_and_resumed_is_the_same_run(whole_ppo, cache, tmp_path):
    folder = tmp_path / "run"
    asked = repr(dataclasses.asdict(PPO))
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), asked], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert {path.name for path in (folder / "checkpoint" / "0").iterdir()} == {"2", "4.partial"}
    assert not (folder / "summary.json").exists()
    resume(folder)
    assert_same_run(whole_ppo[0], folder)


def test_a_damaged_checkpoint_is_named(interrupted):
    path = checkpoints.latest(interrupted, 0)
    assert path is not None
    victim = max(
        (file for file in (path / "arrays").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{path} is damaged: .*{victim.name}"):
        resume(interrupted)
    path.rename(path.with_name("243"))
    with pytest.raises(CheckpointError, match="243 is of another run"):
        resume(interrupted)


def edited(**changes):
    return lambda content: {**content, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited(format=2), "has the format 2; this version reads 1"),
        (edited(request={}), "is damaged: .*missing or unknown"),
        (edited(resolved={}), "is damaged, or the catalogue has changed since: experiment, steps"),
        (lambda content: content | {"request": content["request"] | {"seeds": "3"}}, "is damaged, .*seeds=3"),
        (lambda content: content | {"request": content["request"] | {"seeds": 4, "grid": "no"}}, "is damaged, .*'no'"),
        (lambda content: content | {"request": content["request"] | {"steps": 404}}, "num_updates"),
        (lambda content: [content], "is damaged: it holds no object"),
        (None, "is damaged: Expecting"),
    ],
)
def test_a_damaged_request_is_named(whole, tmp_path, change, message):
    text = (whole[0] / "config.json").read_text()
    damaged = json.dumps(change(json.loads(text))) if change else text[: len(text) // 2]
    (tmp_path / "config.json").write_text(damaged)
    with pytest.raises(FolderError, match=rf"config\.json.*{message}"):
        resume(tmp_path)


def test_a_request_survives_its_file(tmp_path):
    devices = min(2, jax.device_count())
    settings = ("hypers.epsilon_start=0.3",)
    made = request.plan(dataclasses.replace(LEARNING, settings=settings, chunk=2, devices=devices))
    request.write(tmp_path, made)
    found = request.read(tmp_path)
    assert (found.request, found.points, found.axes) == (made.request, made.points, made.axes)
    assert json.loads((tmp_path / "config.json").read_text())["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "ppo/CartPol"}, None),
        ({"experiment": "ppo/CatPole"}, "did you mean policy/ppo/CartPole-v1"),
        ({"seeds": 0}, "seeds=0 is impossible"),
        ({"steps": 3}, "3 steps are fewer than one update's"),
        ({"devices": 99}, "99 devices asked for, which is more than the 3 lanes at a time"),
        ({"devices": 3}, r"3 devices asked for, [12] found"),
        ({"devices": 5000}, "5,000 devices asked for: 4,096 are the most"),
        ({"seeds": 2**24 + 1}, "are the most"),
        ({"steps": 10**18}, "steps are more than"),
        ({"stall_seconds": math.inf}, "stall_seconds=inf is impossible"),
        ({"stall_seconds": 1e300}, r"stall_seconds=1e\+300 is impossible"),
        ({"checkpoint_seconds": math.inf}, "checkpoint_seconds=inf is impossible"),
        ({"seed": -1}, "seed=-1 is impossible"),
        ({"stall_seconds": math.nan}, "stall_seconds=nan is impossible"),
        ({"windows": 2.5}, "windows=2.5 is impossible"),
        ({"settings": ("config.num_envs=no",)}, "a whole number is needed"),
    ],
)
def test_impossible_requests(tmp_path, changes, message):
    if message is None:
        assert request.plan(dataclasses.replace(PPO, **changes)).experiment.name == PPO.experiment
        return
    with pytest.raises(UsageError, match=message):
        run(dataclasses.replace(PPO, **changes), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_two_sweeps_into_one_folder(whole, tmp_path):
    with pytest.raises(FolderError, match="already holds a run"):
        run(LEARNING, whole[0])
    (tmp_path / "lock").write_text("999999999\n")  # of a process that is gone
    with folders.hold(tmp_path, new=True):
        for start in (lambda: run(LEARNING, tmp_path), lambda: resume(tmp_path)):
            (tmp_path / "config.json").write_text("{}")
            with pytest.raises(FolderError, match=f"in use by process {os.getpid()}"):
                start()
    with pytest.raises(FolderError, match="holds no run"):
        resume(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_run_does_not_begin_among_other_files(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model.pt").write_bytes(b"1")
    with pytest.raises(FolderError, match=r"is no run folder and not empty \(checkpoint\)"):
        run(LEARNING, tmp_path)
    assert (tmp_path / "checkpoint" / "model.pt").read_bytes() == b"1"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lock").write_text("somebody's")
    with pytest.raises(FolderError, match=r"not empty \(lock\)"):
        run(LEARNING, tmp_path / "other")
    assert (tmp_path / "other" / "lock").read_text() == "somebody's"


def test_without_locks_a_run_goes_on_and_says_so(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    code = errno.ENOSYS
    with pytest.warns(UserWarning, match="is on a file system without locks"), folders.hold(tmp_path / "run", new=True):
        (tmp_path / "run" / "config.json").touch()
    code = errno.EIO
    held = folders.hold(tmp_path / "other", new=True)
    with pytest.raises(folders.FolderError, match="other cannot be held: Input/output error"), held:
        pytest.fail("held")


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), folders.hold(tmp_path / "new", new=True):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_another_seed_is_refused(interrupted, tmp_path):
    folder = shutil.copytree(interrupted, tmp_path / "copy")
    content = json.loads((folder / "config.json").read_text())
    content["request"]["seed"] += 1
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is of another run"):
        resume(folder)


def test_other_libraries_and_revisions_are_told(interrupted, tmp_path):
    folder = shutil.copytree(interrupted, tmp_path / "copy")
    content = json.loads((folder / "config.json").read_text())
    content["versions"]["jax"], content["git"] = "0.1.0", "deadbeef"
    (folder / "config.json").write_text(json.dumps(content))
    summary, printed = resume(folder)
    assert f"begun under jax 0.1.0, now {jax.__version__}; rlgen's revision deadbeef, now " in printed
    assert "the rest may differ in its bits" in printed
    assert summary["begun"] == {"versions": content["versions"], "git": "deadbeef"}
    assert summary["versions"]["jax"] == jax.__version__


def test_other_devices_are_told(interrupted, tmp_path):
    folder = shutil.copytree(interrupted, tmp_path / "copy")
    content = json.loads((folder / "config.json").read_text())
    content["request"]["devices"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    num_before = min(6, jax.local_device_count())
    assert num_before > 1
    assert f"devices: {num_before} before, 1 now" in resume(folder)[1]


def test_new_folders_do_not_collide(tmp_path):
    made = [folders.default("a/b/c", tmp_path) for _ in range(3)]
    assert len(set(made)) == 3
    assert {folder.parent for folder in made} == {tmp_path / "a_b_c"}


def test_a_full_disk_stops_the_run_and_it_can_be_resumed(whole, tmp_path, monkeypatch):
    write, calls = checkpoints._write, []

    def full(home, leaves, seconds):
        calls.append(home)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(home, leaves, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_write", full)
        with pytest.raises(CheckpointError, match=r"242 could not be written: the disk is full; .*161 is kept"):
            run(LEARNING, tmp_path)
    resume(tmp_path)
    assert_same_run(whole[0], tmp_path)


def test_a_stalled_device_is_reported(whole, tmp_path, monkeypatch):
    wait, stop = devices.wait, threading.Event()

    def stalled(tree):
        if isinstance(tree, tuple) and isinstance(tree[-1], training.Report):
            stop.wait()
        return wait(tree)

    monkeypatch.setattr(devices, "wait", stalled)
    begun = time.monotonic()
    with pytest.raises(StalledDevice, match=r"updates 0 to 81 on cpu 0, cpu 1 .* 2 s; .*jaxlib 0\.10 is known to stop"):
        run(dataclasses.replace(LEARNING, stall_seconds=2.0), tmp_path)
    assert time.monotonic() - begun < 60
    stop.set()


def test_a_seed_that_diverges_leaves_its_neighbours_alone(whole, tmp_path):
    summary, printed = run(dataclasses.replace(LEARNING, grid=("hypers.learning_rate=0.5,1e30",)), tmp_path)
    good, bad = summary["points"]
    assert good == whole[1]["points"][0]
    assert (bad["diverged_seeds"], bad["per_seed"], bad["iqm"], bad["ci95"]) == (
        [0, 1, 2],
        [None] * 3,
        None,
        [None] * 2,
    )
    assert re.search(r"seeds? [012, ]*1[, 2]* at learning_rate=1e\+30 diverged within updates 0 to 81", printed)
    assert "3 runs diverged" in printed
    first, second = metrics(whole[0]), metrics(tmp_path)
    for name in first:
        if first[name].ndim > 1:
            assert bits(first[name][0]) == bits(second[name][0]), name
    assert np.isnan(second["curve"][1]).all()
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)


def test_groups_of_lanes_are_the_same_run(whole, tmp_path, monkeypatch):
    stopped = dataclasses.replace(LEARNING, chunk=4, tensorboard=True)
    train, asked = training._train_group, []

    def interrupting(work, *args):
        asked.append(len(work.lanes.groups))
        work.interrupts.asked = len(asked) == 2
        train(work, *args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_train_group", interrupting)
        with pytest.raises(Interrupted):
            run(stopped, tmp_path)
    assert asked == [2, 2]
    assert sorted(path.name for path in (tmp_path / "checkpoint").glob("*/*")) == ["403", "81"]
    summary, _ = resume(tmp_path)
    assert_same_run(whole[0], tmp_path)
    assert summary["points"] == whole[1]["points"]
    assert any(path.name.startswith("events") for path in (tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(("flag", "library"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_logger_names_its_extra(tmp_path, monkeypatch, flag, library):
    monkeypatch.setitem(sys.modules, library, None)
    made = request.plan(dataclasses.replace(LEARNING, **{flag: True}))
    from rlgen.lab import logging

    with contextlib.ExitStack() as stack, pytest.raises(UsageError, match=rf"pip install -e '\.\[{flag}\]'"):
        logging.start(made, tmp_path, None, 0, stack)


def test_a_missing_logger_is_told_before_compiling(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(training, "compile_training", pytest.fail)
    with pytest.raises(UsageError, match="wandb is not installed"):
        run(dataclasses.replace(LEARNING, wandb=True), tmp_path)


def test_a_terminal_gets_one_live_line():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress.Progress(console, total=10, quiet=False) as shown:
        shown.phase("compiling")
        shown.phase("training", 2)
        shown.update(5, 3000, 12.5)
        shown.say("seed 1 diverged")
        shown._bar.refresh()
    text = console.file.getvalue()
    for part in ("compiling", "training", "5/10", "12.5", "seed 1 diverged", "steps/s"):
        assert part in text
