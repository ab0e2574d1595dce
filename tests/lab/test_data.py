"""Datasets: the parser on small files made on the spot, the search path, and what is refused."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pooch
import pytest
import requests

from rlgen.lab import data

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([0, 9, 4], np.uint8)


def idx(array, magic=None, shape=None):
    """Encodes bytes as an idx file, with a header that may lie."""
    shape = array.shape if shape is None else shape
    magic = 0x800 + len(shape) if magic is None else magic
    return struct.pack(f">I{len(shape)}I", magic, *shape) + array.tobytes()


def write(path, content):
    """Writes gzipped content and gives the path back."""
    path.write_bytes(gzip.compress(content))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of four small files that stand for the published ones, named by the environment; there is no network."""
    contents = [idx(IMAGES), idx(LABELS), idx(IMAGES[:2]), idx(LABELS[:2])]
    paths = [write(tmp_path / file.name, content) for file, content in zip(data.MNIST_FILES, contents, strict=True)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    published = [data.Published(path.name, digest) for path, digest in zip(paths, digests, strict=True)]
    monkeypatch.setattr(data, "MNIST_FILES", tuple(published))
    monkeypatch.setenv("RLGEN_DATA", str(tmp_path))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")

    def offline(url, *args):
        raise requests.exceptions.ConnectionError("a long story")

    monkeypatch.setattr(pooch, "retrieve", offline)
    return tmp_path


def test_digits():
    train, test = data.load("digits")
    assert train.images.shape == (1415, 8, 8, 1) and test.images.shape == (382, 8, 8, 1)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert len(train.labels) == 1415 and len(test.labels) == 382
    # Every class is in both parts, about equally often.
    for part in (train, test):
        counts = np.bincount(part.labels, minlength=10) / len(part.labels)
        assert counts.min() > 0.08 and counts.max() < 0.12
    # The first picture is the nought that the package shows in its own examples.
    assert train.labels[0] == 0 and train.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_unknown_names_are_told_their_neighbour():
    with pytest.raises(data.DataError, match=r"'mnits'.*digits, mnist.*did you mean 'mnist'"):
        data.load("mnits")


@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_mnist_is_read_from_the_named_folder(folder, subfolder):
    (folder / subfolder).mkdir(exist_ok=True)
    for file in data.MNIST_FILES:
        (folder / file.name).rename(folder / subfolder / file.name)
    train, test = data.load("mnist")
    np.testing.assert_array_equal(train.images, IMAGES[..., None])
    np.testing.assert_array_equal(test.labels, LABELS[:2])
    assert test.images.shape == (2, 4, 5, 1) and test.images.dtype == np.uint8 and test.labels.dtype == np.int32


def test_published_checksums_are_the_known_ones():
    assert [file.name for file in data.MNIST_FILES] == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]
    assert [len(bytes.fromhex(file.sha256)) for file in data.MNIST_FILES] == [32] * 4


def test_files_that_are_not_the_published_ones_are_refused(folder):
    path = folder / data.MNIST_FILES[0].name
    write(path, idx(IMAGES + 1))
    with pytest.raises(data.DataError, match=rf"{path} has the sha256 .*published files are at https://ossci"):
        data.load("mnist")


def test_files_under_each_others_names_are_refused(folder):
    train, test = (folder / data.MNIST_FILES[place].name for place in (0, 2))
    train_bytes = train.read_bytes()
    for place in (1, 3):  # the labels too, so that the counts agree
        write(folder / data.MNIST_FILES[place].name, idx(LABELS[: 2 if place == 1 else 3]))
    train.write_bytes(test.read_bytes())
    test.write_bytes(train_bytes)
    with pytest.raises(data.DataError, match=rf"{train} is t10k-images-idx3-ubyte.gz under another name"):
        data.load("mnist")


def test_missing_files_offline_name_the_variable_and_the_homes(folder, monkeypatch):
    (folder / data.MNIST_FILES[2].name).unlink()
    message = r"t10k-images-idx3-ubyte.gz of mnist .*\$RLGEN_DATA.*cache.*https://storage.*ConnectionError"
    with pytest.raises(data.DataError, match=message):
        data.load("mnist")
    monkeypatch.delenv("RLGEN_DATA")
    with pytest.raises(data.DataError, match=r"train-images.*\$RLGEN_DATA \(not set\)"):
        data.load("mnist")
    monkeypatch.setenv("RLGEN_DATA", str(folder / "nowhere"))
    with pytest.raises(data.DataError, match=r"nowhere', which is no folder"):
        data.load("mnist")


def test_files_that_are_nowhere_are_downloaded_from_the_next_home(folder, monkeypatch):
    published = {file.name: file for file in data.MNIST_FILES}
    home = folder / "home"
    home.mkdir()
    for name in published:
        (folder / name).rename(home / name)

    def retrieve(url, known_hash, name, path):
        if url.startswith(data.MNIST_HOMES[0]):
            raise requests.exceptions.ConnectionError("this home is down")
        assert url == data.MNIST_HOMES[1] + name and known_hash == f"sha256:{published[name].sha256}"
        assert path == folder / "cache" / "mnist"
        return str(home / name)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    np.testing.assert_array_equal(data.load("mnist").train.labels, LABELS)


def test_the_user_cache_is_used_without_network(folder, monkeypatch):
    monkeypatch.undo()
    cache = folder / "cache" / "mnist"
    cache.mkdir(parents=True)
    file = data.MNIST_FILES[1]
    content = (folder / file.name).read_bytes()
    (cache / file.name).write_bytes(content)
    monkeypatch.delenv("RLGEN_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / "cache")
    mine = data.Published(file.name, hashlib.sha256(content).hexdigest())
    assert data.locate(mine, "mnist", ("https://nowhere.invalid/",)) == cache / file.name


TRUNCATED = gzip.compress(idx(np.random.default_rng(0).integers(0, 255, (9, 8, 8), np.uint8)))
FLIPPED = TRUNCATED[:100] + bytes([TRUNCATED[100] ^ 255]) + TRUNCATED[101:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TRUNCATED[:-40], "is truncated: its compressed data"),
        (FLIPPED, "is damaged"),
        (b"", "is mislabelled|is truncated"),
        (idx(IMAGES), "is damaged: Not a gzipped file"),
        (pickle.dumps(IMAGES), "is a pickle"),
        (gzip.compress(pickle.dumps(IMAGES)), "holds a pickle"),
        (gzip.compress(idx(IMAGES, magic=0x0D03)), "magic number is 0x00000d03, not 0x00000803"),
        (gzip.compress(idx(LABELS)), "magic number is 0x00000801"),
        (gzip.compress(idx(IMAGES)[:9]), "ends within its header"),
        (gzip.compress(idx(IMAGES)[:-1]), "is truncated: 59 bytes follow its header, which promises 60"),
        (gzip.compress(idx(IMAGES) + b"\0"), "more bytes follow its header than the 60"),
        (gzip.compress(idx(IMAGES, shape=(2**31, 2**31, 9))), "header promises 41505174165846491136 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # bytes of gzip hold the time
)
def test_damaged_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=rf"images\.gz .*({message})"):
        data.read_idx(path, 3)


def test_unreadable_paths_are_named(tmp_path):
    with pytest.raises(data.DataError, match=r"none\.gz cannot be read: No such file"):
        data.read_idx(tmp_path / "none.gz", 1)


def test_labels_must_fit_their_images(tmp_path):
    images = write(tmp_path / "images.gz", idx(IMAGES))
    with pytest.raises(data.DataError, match=r"two\.gz holds 2 labels, but .*images\.gz 3 images"):
        data.read_examples(images, write(tmp_path / "two.gz", idx(LABELS[:2])))
    with pytest.raises(data.DataError, match=r"ten\.gz holds the label 10: labels are 0 to 9"):
        data.read_examples(images, write(tmp_path / "ten.gz", idx(LABELS + 1)))
