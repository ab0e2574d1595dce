"""The trained parameters of judges, kept with the package.

Files are NumPy archives of float32 arrays, one a parameter, read without unpickling.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from rlgen.experiments import judges
from rlgen.lab.data import DataError

FOLDER = Path(__file__).parent / "judges_data"
_SEPARATOR = "/"


def path(name: str) -> Path:
    """Where a judge's parameters lie."""
    return FOLDER / f"{name}.npz"


def load(name: str) -> Any:
    """Loads a judge's parameters.

    Args:
        name: a key of `judges.JUDGES`.

    Returns:
        The parameters, NumPy arrays.

    Raises:
        DataError: if the file is missing or damaged, or holds the parameters of another network.
    """
    file = path(name)
    try:
        # Opened here: NumPy leaves a file open that it cannot read.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            params = traverse_util.unflatten_dict({key: archive[key] for key in archive.files}, sep=_SEPARATOR)
            found = _shapes(params)
            whole = all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    except Exception as error:  # of a dozen types, according to which byte is damaged
        raise DataError(f"{file} is no archive of a judge's parameters: {error}") from error
    expected = jax.eval_shape(lambda: judges.start(name, jax.random.key(0)))
    if found != _shapes(expected):
        raise DataError(f"{file} holds the parameters of another network than that of the judge {name!r}")
    if not whole:
        raise DataError(f"{file} holds parameters that are no finite float32 numbers")
    return params


def save(name: str, params: Any) -> None:
    """Keeps a judge's parameters with the package."""
    FOLDER.mkdir(exist_ok=True)
    flat = traverse_util.flatten_dict(params, sep=_SEPARATOR)
    arrays: dict[str, Any] = {key: np.asarray(leaf, np.float32) for key, leaf in flat.items()}
    np.savez_compressed(path(name), **arrays)


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
    flat: Any = traverse_util.flatten_dict(params, sep=_SEPARATOR)
    return {key: leaf.shape for key, leaf in flat.items()}
