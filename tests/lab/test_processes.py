"""Several processes that share a sweep: who trains what, the same bits as one process, and what if one is lost."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from rlgen.lab import cli, devices, processes, results
from rlgen.lab.checkpoints import About
from rlgen.lab.errors import UsageError
from rlgen.lab.processes import ALONE, Processes

PROGRAM = """
import sys
from rlgen.lab import cli, processes
processes.HEARTBEAT_SECONDS = 4
sys.exit(cli.main(sys.argv[1:]))
"""
SWEEP = (
    *("sweep", "q_learning/CliffWalking", "--seeds", "3", "--devices", "1", "--windows", "30"),
    *("--checkpoint-seconds", "0.2"),
)


def spawn(*words):
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def spawn_two(*words):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = ("--coordinator", f"127.0.0.1:{port}", "--processes", 2)
    return [spawn(*words, *together, "--process-id", index) for index in range(2)]


def finish(process):
    return process.communicate(timeout=300)[0], process.returncode


def wait_for(folder, pattern):
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)) and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def alone(monkeypatch):
    """Runs a command in this process, which has its devices already."""
    monkeypatch.setattr(devices, "configure", lambda count: None)

    def run(*words):
        assert cli.main([str(word) for word in words]) == 0

    return run


def metrics(folder):
    with np.load(folder / "metrics.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[name])


def test_groups_are_dealt_out():
    assert [list(Processes(3, index).share(5)) for index in range(3)] == [[0, 3], [1, 4], [2]]
    assert list(ALONE.share(2)) == [0, 1]


def test_the_slowest_process_counts_whoever_asks():
    groups = [About({"run": seconds}, 1, process) for seconds, process in ((1.0, 0), (2.0, 1), (4.0, 0))]
    assert results._slowest(groups) == 5.0


def test_nobody_has_more_than_an_equal_share():
    assert Processes(2).chunk(5, None) == 3
    assert Processes(2).chunk(5, 2) == 2
    assert ALONE.chunk(5, None) is None
    with pytest.raises(UsageError, match="4 processes cannot share 3 seeds"):
        Processes(4).chunk(3, None)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((None, 2, 0), "--processes and --process-id without --coordinator"),
        (("127.0.0.1:1", 2, None), "needs --processes and --process-id"),
        (("127.0.0.1:1", 2, 2), "process-id=2 is impossible"),
        (("auto", 2, None), "--processes beside --coordinator auto"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, match):
    with pytest.raises(UsageError, match=match):
        processes.join(*arguments)


def test_a_cluster_says_who_they_are(monkeypatch):
    """As SLURM does: JAX finds address, number and place in the environment, and is told nothing of them."""
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **settings: told.append(settings))
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert processes.join("auto", None, None) == Processes(3, 2)
    assert told[0].keys() == {"heartbeat_timeout_seconds", "shutdown_timeout_seconds"}
    assert processes.join("first:1", 3, 2) == Processes(3, 2)
    assert told[1].items() >= {"coordinator_address": "first:1", "num_processes": 3, "process_id": 2}.items()


def test_one_process_meets_nobody():
    assert processes.join(None, None, None) == ALONE
    ALONE.meet("here")


class Store:
    """What the coordination service keeps."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self.changed:
            assert self.changed.wait_for(lambda: key in self.values, 60)
            return self.values[key]


@pytest.mark.parametrize(
    ("runs", "refused"),
    [("aaa", None), ("aba", "process 1 and process 0 were"), ("abc", "processes 1, 2 and process 0 were")],
)
def test_processes_begin_the_same_run_or_none(monkeypatch, runs, refused):
    store, begun, raised = Store(), [], []
    monkeypatch.setattr(processes, "_client", lambda: store)

    def begin(index):
        try:
            Processes(3, index).agree(runs[index], begin=lambda: begun.append(index))
        except UsageError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=begin, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun == ([0] if refused is None else [])
    assert len(raised) == (0 if refused is None else 3)
    assert all(f"{refused} asked for different runs" in each for each in raised)


def test_no_process_touches_a_run_that_the_first_may_not(alone, tmp_path):
    folder = tmp_path / "run"
    alone(*SWEEP, "--steps", 2_000, "--out", folder)
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    both = [finish(each) for each in spawn_two(*SWEEP, "--steps", 4_000, "--out", folder)]
    assert all(code == 2 for _, code in both), both
    assert all("already holds a run" in said for said, _ in both)
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == files


def test_two_processes_are_the_same_run_as_one(alone, tmp_path):
    together = [finish(process) for process in spawn_two(*SWEEP, "--steps", 2_000, "--out", tmp_path / "two")]
    assert [code for _, code in together] == [0, 0], together
    assert "IQM of the episode return" in together[0][0]
    assert "process 1 of 2 has trained its share" in together[1][0]
    alone(*SWEEP, "--steps", 2_000, "--out", tmp_path / "one", "--chunk", 2)
    assert_same(metrics(tmp_path / "two"), metrics(tmp_path / "one"))


def test_a_run_of_one_process_goes_on_with_two(alone, tmp_path):
    """In as many groups as one had, which two share."""
    folder, words = tmp_path / "run", (*SWEEP, "--steps", 300_000, "--chunk", 1)
    process = spawn(*words, "--out", folder)
    wait_for(folder, "checkpoint/0/[0-9]*")
    process.send_signal(signal.SIGINT)
    said, code = finish(process)
    assert code == 130, said
    together = [finish(each) for each in spawn_two("resume", folder)]
    assert [code for _, code in together] == [0, 0], together
    alone(*words, "--out", tmp_path / "never-stopped")
    assert_same(metrics(folder), metrics(tmp_path / "never-stopped"))


def test_one_that_stops_saves_what_it_had_and_does_not_wait_for_the_other(alone, tmp_path):
    folder = tmp_path / "run"
    first, second = spawn_two(*SWEEP, "--steps", 3_000_000, "--out", folder)
    wait_for(folder, "checkpoint/1/[0-9]*")
    second.send_signal(signal.SIGINT)
    said, code = finish(second)
    assert (code, "what was done is saved" in said) == (130, True), said
    assert finish(first)[1] not in (0, None)
    assert not (folder / "summary.json").exists()


def test_all_that_stop_together_save_what_they_had(alone, tmp_path):
    folder = tmp_path / "run"
    both = spawn_two(*SWEEP, "--steps", 3_000_000, "--out", folder)
    wait_for(folder, "checkpoint/1/[0-9]*")
    for each in both:
        each.send_signal(signal.SIGINT)
    for said, code in map(finish, both):
        assert (code, "what was done is saved" in said) == (130, True), said


def test_a_lost_process_ends_the_other_and_one_process_goes_on(alone, tmp_path):
    folder, steps = tmp_path / "run", 600_000
    first, second = spawn_two(*SWEEP, "--steps", steps, "--out", folder)
    wait_for(folder, "checkpoint/1/[0-9]*")
    os.kill(second.pid, signal.SIGTERM)  # as schedulers do
    said, code = finish(first)
    assert finish(second)[1] == -signal.SIGTERM
    assert code not in (0, None)
    assert "rlgen resume" in said
    assert "another task died" in said
    assert not (folder / "summary.json").exists()
    alone("resume", folder)
    assert (folder / "summary.json").exists()
    assert metrics(folder)["score"].shape == (1, 3)
