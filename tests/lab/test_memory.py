"""What a sweep holds: counted before compiling, refused where it cannot fit, cut into groups that do."""

import jax.numpy as jnp
import pytest
from rich.console import Console

from rlgen.lab import lanes, memory, request, runner
from rlgen.lab.errors import UsageError

NEED = memory.Need(state=100, replay=60, history=10, shared=1_000, copies=2)
SETTINGS = ("config.capacity=500", "config.warm_up=500")
DQN = request.Request("value/dqn/CartPole-v1", seeds=6, steps=2_000, windows=5, settings=SETTINGS)


@pytest.fixture(scope="module")
def made():
    return request.plan(DQN)


def test_arrays_are_counted():
    assert memory.size({"a": jnp.zeros((2, 3)), "b": jnp.zeros(5, jnp.uint8)}) == 29


def test_lanes_add_up():
    assert NEED.total(3) == 1_000 + 3 * 210
    assert [NEED.most(free) for free in (1_209, 1_210, 1_420, 900)] == [0, 1, 2, 0]


def test_what_a_plan_holds_is_what_its_state_weighs(made):
    spread = lanes.spread(made, runner.devices.choose(1, 6))
    need = memory.count(made, spread.data)
    state, history = spread.like(0, len(made.bounds) - 1)
    assert 6 * need.state == memory.size(state)
    assert 6 * need.history == memory.size(history)
    assert 6 * need.replay == memory.size(state.algorithm.replay)
    # Observation, next observation, action, reward and two flags of 500 steps at least.
    assert need.replay >= 500 * (4 * 4 + 4 + 4 + 2)


def test_what_cannot_fit_is_refused_before_the_folder_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free", lambda: 900_000)
    with pytest.raises(UsageError, match=r"6 lanes at a time hold .* free: train at most 2 at a time with --chunk 2"):
        runner.run(DQN, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run" / "config.json").exists()


def test_lanes_are_cut_into_equal_groups_that_fit(made, monkeypatch):
    need = memory.count(made, ())
    for most, chunk in ((6, None), (5, 3), (2, 2), (1, 1)):
        free = int(need.total(most) / memory.ROOM) + 10
        monkeypatch.setattr(memory, "free", lambda free=free: free)
        assert memory.fit(made, ()) == chunk
    monkeypatch.setattr(memory, "free", lambda: need.total(1) - 1)
    with pytest.raises(UsageError, match="not one fits"):
        memory.fit(made, ())
    monkeypatch.setattr(memory, "free", lambda: None)
    assert memory.fit(made, ()) is None


def test_the_free_memory_is_known_here():
    free = memory.free()
    assert free is None or free > 2**20


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_a_container_or_a_batch_system_count(version, tmp_path):
    """What is left of the tightest limit on the way up, by the files of either version of control groups."""
    limit, used = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}[version]
    top = tmp_path / "memory" if version == 1 else tmp_path
    for group, values in ((top, ("max", "900")), (top / "job", ("1000", "400")), (top / "job/step", ("5000", "100"))):
        group.mkdir(parents=True, exist_ok=True)
        for name, value in zip((limit, used), values, strict=True):
            (group / name).write_text(f"{value}\n")
    groups = tmp_path / "groups"
    groups.write_text({1: "3:cpuset:/\n2:cpu,memory:/job/step\n", 2: "0::/job/step\n"}[version])
    assert memory._allowed(groups, tmp_path) == [4900, 600]
    groups.write_text("0::/elsewhere\n")  # as seen from inside a container
    assert memory._allowed(groups, top if version == 2 else tmp_path / "nowhere") == []


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1.02e+03 B"), (1536, "1.5 KiB"), (3 * 2**30, "3 GiB")])
def test_bytes_are_readable(size, text):
    assert memory.human(size) == text
