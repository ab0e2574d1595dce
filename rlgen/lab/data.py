"""Datasets as arrays in memory, read from checked files or from an installed package.

`digits` comes with scikit-learn and needs no file.  The files of others are looked for in the folder that the
environment variable `RLGEN_DATA` names, then in the user's cache; those of `mnist` are then downloaded from their
public homes.  Files are read with parsers that execute nothing: a file that is truncated, mislabelled, pickled or not
the published one is refused by name.  `rlgen.lab.pictures` has digits from envelopes, faces, and captioned drawings.

Sources: MNIST, LeCun, Cortes and Burges 1998, CC BY-SA 3.0.  Digits, Alpaydin and Kaynak 1998, UCI machine learning
repository (its test part, as shipped by scikit-learn).

Shape legend: `D` examples, `H` rows and `W` columns of pixels.
"""

import difflib
import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pooch
from numpy.typing import NDArray

ENVIRONMENT = "RLGEN_DATA"
NUM_CLASSES = 10
MAX_BYTES = 1 << 31  # of one array: a header that promises more is not believed
UNSIGNED_BYTE = 0x08  # the type code of idx files
PICKLE = b"\x80"  # how every pickle since protocol 2 starts
# The digits come in fourteen stretches, each by one writer (scikit-learn MOOC of Inria, "Sample grouping").  The last
# three start here: handwriting that training never saw.
DIGITS_TEST_START = 1415
MNIST_HOMES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


class DataError(ValueError):
    """Data that is missing or not what it says it is.  The message names the file and where a good one comes from."""


class Examples(NamedTuple):
    """Labelled grey images.

    Attributes:
        images: `[D, H, W, 1]` uint8.
        labels: `[D]` int32.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]


class Dataset(NamedTuple):
    """The two fixed parts of a dataset: `Examples`, or what its loader says."""

    train: Any
    test: Any


class Published(NamedTuple):
    """A file as its authors published it."""

    name: str
    sha256: str  # of the compressed bytes


MNIST_FILES = (
    Published("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    Published("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    Published("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    Published("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)


def load(name: str) -> Dataset:
    """Loads a dataset.

    Args:
        name: a key of `LOADERS`, here or in `rlgen.lab.pictures`.

    Returns:
        Its training and test examples.

    Raises:
        DataError: if there is no such dataset, or a file of it is missing or not what it should be.
    """
    from rlgen.lab import pictures  # which reads its files with what is here

    loaders = LOADERS | pictures.LOADERS
    if name not in loaders:
        near = difflib.get_close_matches(name, loaders, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"there is no dataset {name!r}: the datasets are {', '.join(loaders)}{hint}")
    return loaders[name]()


def digits() -> Dataset:
    """Loads 1,797 handwritten digits of 8 by 8 pixels, split into 1,415 and 382 by different writers."""
    from sklearn.datasets import load_digits  # an import of a second, for this dataset alone

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    examples = Examples(images, np.asarray(labels, np.int32))
    start = DIGITS_TEST_START
    return Dataset(
        Examples(examples.images[:start], examples.labels[:start]),
        Examples(examples.images[start:], examples.labels[start:]),
    )


def mnist() -> Dataset:
    """Loads MNIST: 60,000 and 10,000 handwritten digits of 28 by 28 pixels.

    Returns:
        The published split.

    Raises:
        DataError: if a file is found nowhere, or is not the published one.
    """
    paths = [locate(file, "mnist", MNIST_HOMES) for file in MNIST_FILES]
    try:
        dataset = Dataset(read_examples(*paths[:2]), read_examples(*paths[2:]))
        for path, file in zip(paths, MNIST_FILES, strict=True):
            verify(path, file, MNIST_FILES)
    except DataError as error:
        raise DataError(f"{error}.  The published files are at {' and '.join(MNIST_HOMES)}") from error
    return dataset


LOADERS: dict[str, Callable[[], Dataset]] = {"digits": digits, "mnist": mnist}


def locate(file: Published, dataset: str, homes: Sequence[str]) -> Path:
    """Finds a published file, and downloads it if it is nowhere on this machine.

    A file in the folder that `RLGEN_DATA` names is taken as it is, for the caller to verify; one in the user's cache is
    fetched again if its checksum is wrong.

    Args:
        file: what to find.
        dataset: its folder, under `RLGEN_DATA` (where it may be left out) and in the user's cache.
        homes: addresses of the folders that it was published in, tried in turn; none where no public one is known.

    Returns:
        The path of the file.

    Raises:
        DataError: if `RLGEN_DATA` names no folder, or the file can neither be found nor downloaded.
    """
    named = os.environ.get(ENVIRONMENT)
    if named and not Path(named).is_dir():
        raise DataError(f"${ENVIRONMENT} is {named!r}, which is no folder")
    for folder in (Path(named), Path(named, dataset)) if named else ():
        if (folder / file.name).is_file():
            return folder / file.name
    cache = Path(pooch.os_cache("rlgen"), dataset)
    if (cache / file.name).is_file() and not homes:
        return cache / file.name
    failures = []
    for home in homes:
        try:
            return Path(pooch.retrieve(home + file.name, f"sha256:{file.sha256}", file.name, cache))
        # A refused connection, a full disk, a wrong checksum: the next home may do better.
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or (type(error).__name__ if isinstance(error, OSError) else error)
            failures.append(f"{home}{file.name} ({reason})")
    looked = f"the folder {named!r} of ${ENVIRONMENT}" if named else f"${ENVIRONMENT} (not set)"
    tried = f".  Tried {'; '.join(failures)}" if failures else ""
    raise DataError(
        f"{file.name} of {dataset} is neither in {looked} nor in the cache {str(cache)!r}, and could not be "
        f"downloaded: put it into a folder and name that folder in ${ENVIRONMENT}{tried}"
    )


def verify(path: Path, file: Published, siblings: Sequence[Published] = ()) -> None:
    """Checks that a file is the published one.

    Args:
        path: of the file.
        file: what it should be.
        siblings: published files that it may have been mistaken for.

    Raises:
        DataError: if its checksum differs.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest == file.sha256:
        return
    mistaken = [sibling.name for sibling in siblings if sibling.sha256 == digest]
    wrong = f"is {mistaken[0]} under another name" if mistaken else f"has the sha256 {digest}, not {file.sha256}"
    raise DataError(f"{path} {wrong}")


def read_examples(images_path: Path, labels_path: Path) -> Examples:
    """Reads a pair of idx files.

    Args:
        images_path: of `[D, H, W]` bytes.
        labels_path: of `[D]` bytes.

    Returns:
        The examples.

    Raises:
        DataError: if either is no such file, they differ in length, or a label is above 9.
    """
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(f"{labels_path} holds {len(labels)} labels, but {images_path} {len(images)} images")
    if labels.size and labels.max() >= NUM_CLASSES:
        raise DataError(f"{labels_path} holds the label {labels.max()}: labels are 0 to {NUM_CLASSES - 1}")
    return Examples(images[..., None], labels.astype(np.int32))


def read_idx(path: Path, num_dims: int) -> NDArray[np.uint8]:
    """Reads a gzipped idx file of bytes.

    Args:
        path: of the file.
        num_dims: how many axes its array should have.

    Returns:
        The array.

    Raises:
        DataError: if the file cannot be read, is no gzip, is pickled, has another header, or is too short or too long.
    """
    try:
        with gzip.open(path) as stream:
            return _parse(path, stream, num_dims)
    except EOFError as error:
        raise DataError(f"{path} is truncated: its compressed data ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        pickled = path.read_bytes()[:1] == PICKLE
        raise DataError(f"{path} is {'a pickle, which is never loaded' if pickled else f'damaged: {error}'}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _parse(path: Path, stream: IO[bytes] | gzip.GzipFile, num_dims: int) -> NDArray[np.uint8]:
    """Parses an uncompressed idx stream; it reads no more than the header promises and one byte."""
    header = stream.read(4)
    if header[:1] == PICKLE:
        raise DataError(f"{path} holds a pickle, which is never loaded")
    if header != bytes([0, 0, UNSIGNED_BYTE, num_dims]):
        expected = f"0x{UNSIGNED_BYTE << 8 | num_dims:08x}, {num_dims}-dimensional bytes"
        raise DataError(f"{path} is mislabelled: its magic number is 0x{header.hex()}, not {expected}")
    sizes = stream.read(4 * num_dims)
    if len(sizes) < 4 * num_dims:
        raise DataError(f"{path} is truncated: it ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    size = math.prod(shape)
    if size > MAX_BYTES:
        raise DataError(f"{path} is mislabelled: its header promises {size} bytes")
    content = stream.read(size + 1)
    if len(content) < size:
        raise DataError(f"{path} is truncated: {len(content)} bytes follow its header, which promises {size}")
    if len(content) > size:
        raise DataError(f"{path} is mislabelled: more bytes follow its header than the {size} that it promises")
    return np.frombuffer(content, np.uint8).reshape(shape)
