"""Checkpoints: the same bits back, whole or not at all, and damage named."""

import errno
import os
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from rlgen import sweep
from rlgen.lab import checkpoints
from rlgen.lab.checkpoints import CheckpointError


class State(NamedTuple):
    params: Any
    optimiser: Any
    flags: Any
    nothing: Any
    empty: Any


class History(NamedTuple):
    loss: Any


def make(scale: float = 1.0) -> tuple[State, History]:
    random = np.random.default_rng(0)
    params = {"params": {"Dense_0": {"kernel": random.normal(size=(3, 4, 2)).astype(np.float32) * scale}}}
    params["params"]["Dense_0"]["kernel"][0, 0] = [np.nan, -0.0]
    optimiser = jax.tree.map(np.asarray, jax.vmap(optax.adam(1e-3).init)(params))
    flags = {"on": np.array([True, False, True]), "count": np.arange(3, dtype=np.int32), "byte": np.uint8([1, 2, 255])}
    return State(params, optimiser, flags, (), np.zeros((3, 0), np.float32)), History(np.ones((3, 2), np.float32))


def like(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def same(first: Any, second: Any) -> bool:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.fixture
def saved(tmp_path):
    path = checkpoints.save(tmp_path, 0, 7, *make(), seconds={"run": 1.5})
    return tmp_path, path


def test_the_same_bits_and_structure_come_back(saved):
    folder, path = saved
    assert checkpoints.latest(folder, 0) == path
    assert (path.name, path.parent.name, path.parent.parent.name) == ("7", "0", "checkpoint")
    found = checkpoints.restore(path, like(make()))
    assert same((found.state, found.history), make())
    assert found.about.seconds == {"run": 1.5}


def test_placed_on_devices_it_is_still_the_same(saved):
    found = checkpoints.restore(saved[1], like(make())).state
    placed = sweep.place(found, sweep.mesh())
    assert same(jax.tree.map(lambda leaf: np.asarray(leaf)[:3], placed), found)
    donated = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), donate_argnums=0)(placed)
    assert same(jax.tree.map(lambda leaf: np.asarray(leaf)[:3], donated), make()[0])


def test_the_one_before_goes_when_the_new_one_is_there(saved):
    folder, path = saved
    other = checkpoints.save(folder, 1, 3, *make())
    newer = checkpoints.save(folder, 0, 10, *make(2.0))
    assert checkpoints.latest(folder, 0) == newer
    assert checkpoints.latest(folder, 1) == other
    assert [child.name for child in path.parent.iterdir()] == ["10"]


def test_steps_are_ordered_as_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_prune", lambda home, keep: None)
    for step in (9, 10):
        checkpoints.save(tmp_path, 0, step, *make())
    path = checkpoints.latest(tmp_path, 0)
    assert path is not None
    assert path.name == "10"


def test_there_may_be_none(tmp_path):
    assert checkpoints.latest(tmp_path, 0) is None


def test_a_half_written_one_is_passed_over(saved):
    folder, path = saved
    partial = path.parent / "9.partial"
    partial.mkdir()
    (partial / "manifest.json").write_text("{")
    assert checkpoints.latest(folder, 0) == path
    checkpoints.save(folder, 0, 9, *make())
    assert not partial.exists()


def files(path):
    return sorted(child for child in path.rglob("*") if child.is_file() and child.stat().st_size)


@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_damage_is_named_wherever_it_is(saved, harm):
    _, path = saved
    for child in files(path):
        whole = child.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :]
        child.write_bytes({"cut": whole[:middle], "flip": flipped, "remove": b""}[harm])
        if harm == "remove":
            child.unlink()
        with pytest.raises(CheckpointError, match=rf"{path} is damaged: .*{child.name}"):
            checkpoints.restore(path, like(make()))
        child.write_bytes(whole)
    assert same(checkpoints.restore(path, like(make()))[:2], make())


def test_a_whole_folder_gone_is_named(saved):
    _, path = saved
    shutil.rmtree(path / "arrays")
    with pytest.raises(CheckpointError, match=rf"{path} is damaged: arrays/.* is missing"):
        checkpoints.restore(path, like(make()))


def test_another_structure_is_refused(saved):
    state, history = make()
    others = [
        state._replace(flags={"on": state.flags["on"]}),
        state._replace(flags=state.flags | {"more": np.zeros(3)}),
        state._replace(flags=state.flags | {"count": np.zeros(3, np.float32)}),
        state._replace(params=np.zeros((3, 2))),
    ]
    for other in others:
        with pytest.raises(CheckpointError, match=rf"{saved[1]} is of another program: .* differ"):
            checkpoints.restore(saved[1], like((other, history)))


@pytest.mark.parametrize("name", ["br[a]ck", "st*r", "why?", "back\\slash"])
def test_a_path_is_no_pattern(tmp_path, name):
    path = checkpoints.save(tmp_path / name, 0, 7, *make())
    assert same(checkpoints.restore(path, like(make()))[:2], make())


def test_another_run_is_refused(tmp_path):
    path = checkpoints.save(tmp_path, 0, 7, *make(), run="first", devices=3)
    assert checkpoints.restore(path, like(make()), "first").about.devices == 3
    for other in ("second", ""):
        with pytest.raises(CheckpointError, match="is of another run"):
            checkpoints.restore(path, like(make()), other)


def test_what_orbax_left_unfinished_does_not_replace_the_good_one(saved, monkeypatch):
    folder, path = saved
    monkeypatch.setattr(checkpoints, "_MERGED", "what.is.not.there")
    with pytest.raises(CheckpointError, match=r"could not be written: .*7 is kept"):
        checkpoints.save(folder, 0, 9, *make())
    assert checkpoints.latest(folder, 0) == path


def test_a_full_disk_leaves_the_good_one(saved, monkeypatch):
    folder, path = saved

    def full(self, directory, *args, **kwargs):
        (directory.parent / f"{directory.name}.orbax-checkpoint-tmp").mkdir()
        assert len(list(path.parent.iterdir())) == 2  # the good one is still there
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    with pytest.raises(CheckpointError, match=r"checkpoint/0/9 could not be written: the disk is full; .*0/7 is kept"):
        checkpoints.save(folder, 0, 9, *make())
    assert [child.name for child in path.parent.iterdir()] == ["7"]
    assert same(checkpoints.restore(path, like(make()))[:2], make())
