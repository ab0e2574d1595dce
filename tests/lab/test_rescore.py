"""Scoring a run again: how many episodes there may be, and groups of lanes that share a program."""

import numpy as np
import pytest
from rich.console import Console

from rlgen.lab import memory, request, rescore, runner
from rlgen.lab.errors import UsageError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same three lanes trained at once, and two at a time."""
    found = []
    for chunk in (None, 2):
        found.append(tmp_path_factory.mktemp("runs") / "run")
        asked = request.Request(
            "tabular/q_learning/CliffWalking", seeds=3, steps=2_000, windows=2, devices=1, chunk=chunk, quiet=True
        )
        runner.run(asked, found[-1], Console(quiet=True))
    return found


@pytest.mark.parametrize("count", [0, rescore.MAX_EPISODES + 1, 10**8, 10**12])
def test_too_many_episodes_and_none_are_refused_before_anything_is_restored(folders, monkeypatch, count):
    monkeypatch.setattr(runner, "restore", pytest.fail)
    with pytest.raises(UsageError, match=rf"^episodes={count} is impossible: it must lie in \[1, 1000000\]$"):
        rescore.scores(folders[0], count)


def test_episodes_that_memory_does_not_hold_are_refused(folders, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 512)
    with pytest.raises(UsageError, match=r"^episodes=64 is .* for 2 lanes at a time, and 512 B are free$"):
        rescore.scores(folders[1], 64)
    monkeypatch.setattr(memory, "free", lambda: None)  # nobody says
    assert rescore.scores(folders[1], 64)[1].shape == (1, 3)


def test_groups_of_lanes_score_as_all_at_once(folders):
    (whole, scores), (_, parts) = (rescore.scores(folder, 4) for folder in folders)
    assert whole.experiment.task.episodes == 4
    np.testing.assert_array_equal(scores, parts)
    assert np.isfinite(scores).all()
