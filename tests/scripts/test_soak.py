"""`scripts/soak`, with sweeps that are only acted."""

import importlib.util
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "scripts" / "soak.py"
ACT = """
import faulthandler, json, time
faulthandler.enable()
say = lambda steps: print(json.dumps({"steps": steps, "seconds": 0.0}), flush=True)
def the_one_that_waits(): time.sleep(1000)
"""


@pytest.fixture
def soak():
    spec = importlib.util.spec_from_file_location("soak", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def act(soak, monkeypatch):
    """Makes every process run the given code; gives the list of cases launched."""
    launched = []

    def set_up(code, compiled=True):
        def launch(case):
            launched.append(case)
            text = ACT + "say(0)\n" * compiled + code
            return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)

        monkeypatch.setattr(soak, "launch", launch)
        monkeypatch.setattr(soak, "TICK", 0.05)
        return launched

    return set_up


def test_a_stall_is_named_and_shows_its_stacks(soak, act, capfd):
    act("say(8)\nthe_one_that_waits()")
    with pytest.raises(soak.StallError, match=r"policy/ppo/CartPole-v1, 16 seeds on 1 device: no window .* 1 s"):
        soak.soak(minutes=1, limit=1, turn=60)
    assert "the_one_that_waits" in capfd.readouterr().err


def test_a_process_that_dies_is_named(soak, act):
    act("raise SystemExit(3)")
    with pytest.raises(soak.StallError, match=r"CartPole-v1.*status 3"):
        soak.soak(minutes=1, limit=1, turn=60)


def test_compiling_has_more_patience_but_not_without_end(soak, act, monkeypatch):
    monkeypatch.setattr(soak, "START_UP", 2)
    act("the_one_that_waits()", compiled=False)
    began = time.monotonic()
    with pytest.raises(soak.StallError, match="no window"):
        soak.soak(minutes=1, limit=1, turn=0)
    assert time.monotonic() - began > 2


def test_every_case_has_its_turn_and_all_windows_count(soak, act, capfd):
    launched = act("while True: say(8); time.sleep(0.01)")
    soak.soak(minutes=4 / 60, limit=10, turn=0.1)
    assert tuple(itertools.islice(launched, 3)) == soak.CASES
    assert capfd.readouterr().out.startswith("no stall: ")


def test_a_line_a_minute(soak, act, capfd, monkeypatch):
    act("while True: say(8); time.sleep(0.01)")
    clock = time.monotonic
    monkeypatch.setattr(soak.time, "monotonic", lambda: 60 * clock())
    soak.soak(minutes=2.5, limit=1000, turn=1000)
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["1.0", "2.0", "no"]


def test_exit_status_is_one_after_a_stall(soak, act, monkeypatch):
    act("raise SystemExit(3)")
    monkeypatch.setattr(sys, "argv", ["soak", "--minutes", "1"])
    with pytest.raises(SystemExit, match="STALL: ") as left:
        soak.main()
    assert isinstance(left.value.code, str)  # which Python prints and turns into status 1


def test_a_real_sweep_passes(soak):
    case = soak.Case("value/dqn/CartPole-v1", 2)
    steps = [steps for steps, _ in soak.windows(case, limit=60, turn=0) if steps]
    assert len(steps) == 1
