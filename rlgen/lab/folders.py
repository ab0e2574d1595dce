"""Run folders: where they lie, who holds them, and files that are either whole or not there."""

import contextlib
import datetime
import errno
import fcntl
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlgen.lab.errors import UsageError

CONFIG, SUMMARY, METRICS, LOCK = "config.json", "summary.json", "metrics.npz", "lock"
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what some network file systems answer
CURVES, RESPONSE, VALUES = "curves.png", "response.png", "values.png"


class FolderError(UsageError):
    """A run folder that cannot be used.  The message names it."""


class WriteError(FolderError):
    """A file that could not be written, which may go better another time.  The message names it."""


def default(experiment: str, root: Path = Path("runs")) -> Path:
    """Makes a new folder named by an experiment and the time.

    Args:
        experiment: its full name.
        root: where.

    Returns:
        The path of an empty folder that nobody else got.
    """
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        folder = root / experiment.replace("/", "_") / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


@contextlib.contextmanager
def hold(folder: Path, *, new: bool) -> Iterator[None]:
    """Holds a run folder for this process alone.

    The lock is the operating system's, on a file that names the holder: it ends with the process, however that ends, so
    that a killed run leaves nothing to clear away.

    Args:
        folder: the run folder; made if it is new.
        new: whether a run starts, and not goes on.

    Raises:
        FolderError: if another process holds it, a new run finds anything in it, or an old run is not there.
    """
    if not new and not (folder / CONFIG).is_file():
        raise FolderError(f"{folder} holds no run: it has no {CONFIG}")
    if new and not (folder / CONFIG).exists():
        _check_empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise FolderError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            raise FolderError(f"{folder} is in use by process {holder or 'unknown'}") from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise FolderError(f"{folder} cannot be held: {error.strerror}") from error
            warnings.warn(f"{folder} is on a file system without locks: use it from one process only", stacklevel=2)
        if new and (folder / CONFIG).exists():
            raise FolderError(f"{folder} already holds a run: resume it, or choose another folder")
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            if new and not (folder / CONFIG).exists():  # it never began
                with contextlib.suppress(OSError):
                    (folder / LOCK).unlink()
                    folder.rmdir()
    finally:
        os.close(lock)


def _check_empty(folder: Path) -> None:
    """Refuses to begin a run where something is that it could overwrite, but for the lock of one that never began."""
    try:
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if LOCK in found and (folder / LOCK).read_text(errors="replace").strip().isdecimal():
            found.remove(LOCK)
    except OSError as error:
        raise FolderError(f"{folder} cannot be read: {error.strerror}") from error
    if found:
        raise FolderError(f"{folder} is no run folder and not empty ({', '.join(found[:3])}): choose another one")


def write(path: Path, make: Callable[[Path], Any]) -> None:
    """Writes a file whole or not at all.

    Args:
        path: of the file.
        make: writes it to the path that it is given, in the same folder and with the same suffix.

    Raises:
        WriteError: if it cannot be written; what was there before is left as it was.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        make(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())  # a loss of power may not leave an empty file under the name
        os.replace(partial, path)
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes strict JSON, where what is no finite number is null."""
    text = json.dumps(strict(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays by name as an `.npz` file without pickles."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write(path, lambda partial: partial.write_bytes(stream.getbuffer()))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: of the file.

    Returns:
        The object.

    Raises:
        FolderError: if the file cannot be read, or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8, or nested a thousand deep
        raise FolderError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise FolderError(f"{path} is damaged: it holds no object")
    return content


def strict(value: Any) -> Any:
    """Replaces what JSON cannot hold.

    Args:
        value: of mappings, sequences and numbers.

    Returns:
        The same, with null for numbers that are not finite, lists for tuples, and Python's numbers for NumPy's.
    """
    if isinstance(value, Mapping):
        return {str(key): strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict(entry) for entry in value]
    if isinstance(value, np.generic):
        return strict(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
