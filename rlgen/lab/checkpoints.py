"""Checkpoints: the state of a group of lanes and its history so far, in one, written whole or not at all.

`checkpoint/<group>/<updates done>/` holds an orbax checkpoint of NumPy arrays by name, without pickles, and a manifest
of what they are, of the run that they are of, and of every file's checksum.  It is written under another name and
renamed, so that a folder with a plain number as its name is complete, and the one before is removed only then.  The
checksums are compared before orbax reads anything, because orbax notices little damage, and says little of what it
notices.

Shape legend: `L` lanes of the group, `W` windows of updates done.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from rlgen.core import Tree

FOLDER, ARRAYS, MANIFEST = "checkpoint", "arrays", "manifest.json"
PARTIAL = ".partial"  # the end of a name while it is being written
_MERGED = "manifest.ocdbt"  # of the arrays, which orbax writes last
_PATTERN = set("*?[]\\")  # characters that orbax would take for a pattern in a path


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written.  The message names it."""


class About(NamedTuple):
    """What a checkpoint says of itself.

    Attributes:
        seconds: clocks by name.
        devices: over which the lanes were spread.
        process: number of the one that trained them last.
    """

    seconds: dict[str, float]
    devices: int
    process: int


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: leaves `[L, ...]`, NumPy arrays.
        history: reports of the windows so far, leaves `[L, W]`.
        about: who trained it.
    """

    state: Tree
    history: Tree
    about: About


def save(
    folder: Path,
    group: int,
    step: int,
    state: Tree,
    history: Tree,
    seconds: dict[str, float] | None = None,
    *,
    run: str = "",
    devices: int = 1,
    process: int = 0,
) -> Path:
    """Saves a checkpoint, and then removes the older ones of its group.

    Args:
        folder: the run folder.
        group: number of the group of lanes.
        step: updates done.
        state: leaves `[L, ...]`.
        history: leaves `[L, W]`.
        seconds: clocks by name.
        run: what tells this run from others.
        devices: over which the lanes are spread.
        process: number of this one.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: if it cannot be written; the checkpoint before is left as it was.
    """
    home = (folder / FOLDER / str(group)).absolute()
    path = home / str(step)
    partial = path.with_name(path.name + PARTIAL)
    _prune(home, keep=None)
    try:
        partial.mkdir(parents=True)
        about = {"run": run, **About(seconds or {}, devices, process)._asdict()}
        _write(partial, _leaves(_tree((state, history))), about)
        partial.rename(path)
    except Exception as error:  # orbax and tensorstore raise what they like
        _prune(home, keep=None)
        before = latest(folder, group)
        kept = f"{before} is kept" if before else "there is none before it"
        raise CheckpointError(f"the checkpoint {path} could not be written: {_reason(error)}; {kept}") from error
    _prune(home, keep=path)
    return path


def latest(folder: Path, group: int) -> Path | None:
    """Finds the newest complete checkpoint of a group; None where there is none.

    Args:
        folder: the run folder.
        group: number of the group of lanes.

    Returns:
        Its path, whose name is the number of updates done.
    """
    home = (folder / FOLDER / str(group)).absolute()
    complete = [path for path in home.iterdir() if path.name.isdecimal()] if home.is_dir() else []
    return max(complete, key=lambda path: int(path.name), default=None)


def check(path: Path, like: tuple[Tree, Tree], run: str = "") -> About:
    """Does all that `restore` does, with its errors, but reads no arrays."""
    return _about(_checked(path, _wanted(like), run))


def restore(path: Path, like: tuple[Tree, Tree], run: str = "") -> Saved:
    """Reads a checkpoint.

    Args:
        path: as `latest` gives it.
        like: `(state, history)` of the same structure, shapes and dtypes.
        run: what tells the run from others, as it was saved.

    Returns:
        What was saved, to the last bit.

    Raises:
        CheckpointError: if it is damaged or incomplete, of another run, or of another structure.
    """
    wanted = _wanted(like)
    manifest = _checked(path, wanted, run)
    try:
        found = _read(path, wanted)
    except Exception as error:  # orbax and tensorstore raise what they like
        raise CheckpointError(f"the checkpoint {path} is damaged: {_reason(error)}") from error
    leaves = [found[name] if name in found else np.zeros(leaf.shape, leaf.dtype) for name, leaf in wanted.items()]
    restored = jax.tree.unflatten(jax.tree.structure(_tree(like)), leaves)
    return Saved(restored["state"], restored["history"], _about(manifest))


def _about(manifest: dict[str, Any]) -> About:
    # What was saved before processes were told of had one.
    return About(manifest["seconds"], manifest["devices"], manifest.get("process", 0))


def _tree(like: tuple[Tree, Tree]) -> dict[str, Tree]:
    """What is written of a state and a history."""
    return dict(zip(("state", "history"), like, strict=True))


def _wanted(like: tuple[Tree, Tree]) -> dict[str, Any]:
    """Lists the descriptions of arrays by name."""
    return {_name(place): leaf for place, leaf in jax.tree.leaves_with_path(_tree(like))}


def _checked(path: Path, wanted: dict[str, Any], run: str) -> dict[str, Any]:
    """Reads a manifest, and compares it with the files, with the run and with the arrays that are wanted.

    Raises:
        CheckpointError: if something differs.
    """
    manifest = _verified(path)
    if manifest.get("run") != run:
        raise CheckpointError(f"the checkpoint {path} is of another run: it was not asked for as this one is")
    described = _described(wanted)
    if manifest["arrays"] != described:
        odd = sorted(name for name in manifest["arrays"] | described if not _agree(manifest["arrays"], described, name))
        raise CheckpointError(f"the checkpoint {path} is of another program: {', '.join(odd[:5])} differ")
    return manifest


def _write(home: Path, leaves: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Writes arrays and manifest; orbax refuses arrays without elements, which the manifest describes as well."""
    import orbax.checkpoint as ocp  # an import of a second

    with _silent(), _plain(home) as place, _checkpointer() as checkpointer:
        arguments = ocp.args.StandardSave({name: leaf for name, leaf in leaves.items() if leaf.size})
        checkpointer.save(place / ARRAYS, args=arguments)
    if not (home / ARRAYS / _MERGED).is_file():
        raise OSError(errno.EIO, f"orbax wrote no {_MERGED}")
    files = {str(path.relative_to(home)): _sha256(path) for path in _files(home)}
    content = {**about, "arrays": _described(leaves), "files": files}
    (home / MANIFEST).write_text(json.dumps({**content, "sha256": _seal(content)}, indent=1) + "\n", encoding="utf-8")
    for path in (*_files(home), home / MANIFEST):
        _to_disk(path)


def _read(path: Path, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    """Reads the arrays that have elements."""
    import orbax.checkpoint as ocp

    template = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in wanted.items() if leaf.size}
    with _silent(), _plain(path) as place, _checkpointer() as checkpointer:
        found = checkpointer.restore(place / ARRAYS, args=ocp.args.StandardRestore(template))
    return {name: np.asarray(leaf) for name, leaf in found.items()}


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """Gives a path to a folder that orbax takes for no pattern: its own, or that of a link to it."""
    if not _PATTERN & set(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rlgen-") as home:
        link = Path(home, "checkpoint")
        link.symlink_to(path.absolute(), target_is_directory=True)
        yield link


def _to_disk(path: Path) -> None:
    """Waits until a file would outlast a loss of power: the one before it is about to be removed."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    """Makes an orbax checkpointer that knows of no other process.

    Each process of a sweep saves lanes of its own at times of its own.  Orbax would wait for the others, and writes
    NumPy arrays in the first process only, whatever its options say: it must not see that there are several.
    """
    import orbax.checkpoint as ocp  # an import of a second

    with (
        mock.patch.multiple(jax, process_index=lambda: 0, process_count=lambda: 1),
        ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer,
    ):
        yield checkpointer


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps orbax's threads from logging the stack of an error that is raised as well."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _verified(path: Path) -> dict[str, Any]:
    """Reads a manifest and compares all checksums.

    Raises:
        CheckpointError: naming what is damaged or missing.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        seal = manifest.pop("sha256")
        found = {str(file.relative_to(path)): _sha256(file) for file in _files(path)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {MANIFEST}: {_reason(error)}") from error
    if seal != _seal(manifest):
        raise CheckpointError(f"the checkpoint {path} is damaged: the checksum of {MANIFEST} is wrong")
    for name, sha256 in manifest["files"].items():
        if found.get(name) != sha256:
            wrong = "its checksum is wrong" if name in found else "it is missing"
            raise CheckpointError(f"the checkpoint {path} is damaged: {name}: {wrong}")
    return manifest


def _files(home: Path) -> list[Path]:
    """Lists the files of the arrays."""
    return sorted(path for path in (home / ARRAYS).rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    """Hashes a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal(content: dict[str, Any]) -> str:
    """Hashes a manifest."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _described(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Describes arrays by dtype and shape."""
    return {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in leaves.items()}


def _agree(first: Mapping[str, Any], second: Mapping[str, Any], name: str) -> bool:
    """Tells whether two mappings have the same under a name."""
    return name in first and name in second and first[name] == second[name]


def _name(path: Any) -> str:
    """Names a leaf by its place in the tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _leaves(tree: Tree) -> dict[str, np.ndarray]:
    """Lists the arrays of a tree by name, in its order."""
    return {_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def _prune(home: Path, keep: Path | None) -> None:
    """Removes half-written checkpoints, and the complete ones but one where that one is given."""
    for path in home.iterdir() if home.is_dir() else ():
        if path != keep and (keep is not None or not path.name.isdecimal()):
            shutil.rmtree(path, ignore_errors=True)


def _reason(error: Exception) -> str:
    """Says in one line why something failed."""
    full = "No space left on device"
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or full in str(error):
        return "the disk is full"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
