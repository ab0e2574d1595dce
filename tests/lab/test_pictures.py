"""Pictures: loaders on small files made on the spot, and what is refused."""

import gzip
import hashlib
import io
import json
import pickle
import zipfile

import numpy as np
import pooch
import pytest
import scipy.io
from PIL import Image

from rlgen.experiments.translation_tasks import CAPTION_LENGTH, DRAWING_SIDE, NUM_WORDS
from rlgen.lab import data, pictures

RANDOM = np.random.default_rng(0)


def encoded(image, kind):
    """The bytes of a picture file."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def grey(side=64, value=100):
    return encoded(Image.new("L", (side, side), value), "JPEG")


def drawing(left, right=None):
    """A palette picture whose left half has one colour and whose right half another one, or is transparent."""
    pixels = np.zeros((128, 128), np.uint8)
    pixels[:, 64:] = 1
    image = Image.fromarray(pixels).convert("P")
    image.putpalette([*left, *(right or (0, 0, 0))])
    stream = io.BytesIO()
    image.save(stream, "PNG", **({} if right else {"transparency": 1}))
    return stream.getvalue()


def pack(path, members):
    """Writes a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def record(hexcode, annotation, subgroups="", group="smileys"):
    return {"hexcode": hexcode, "annotation": annotation, "subgroups": subgroups, "group": group}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Puts a file into the named folder and makes it the known one: `(constant, folder, content or writer)`."""
    monkeypatch.setenv("RLGEN_DATA", str(tmp_path))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")

    def put(constant, folder, write):
        path = tmp_path / folder / getattr(pictures, constant).name
        path.parent.mkdir(exist_ok=True)
        write(path) if callable(write) else path.write_bytes(write)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(pictures, constant, data.Published(path.name, digest))
        return path

    return put


def usps(pixels=None, labels=None, **others):
    """A writer of a small USPS."""
    pixels = np.linspace(-1, 1, 3 * 256).reshape(3, 256) if pixels is None else pixels
    labels = np.array([[0], [9], [4]], np.uint8) if labels is None else labels
    arrays = {"Xtr": pixels, "ytr": labels, "Xtst": pixels[:2], "ytst": labels[:2]} | others
    return lambda path: scipy.io.savemat(path, arrays)


def test_usps_keeps_rows_range_and_split(place):
    place("USPS", "usps", usps())
    train, test = data.load("usps")
    assert train.images.shape == (3, 16, 16, 1) and train.images.dtype == np.uint8
    expected = np.round(np.linspace(0, 255, 3 * 256)).reshape(3, 16, 16, 1)
    np.testing.assert_allclose(train.images, expected, atol=1)  # halves may go either way
    assert (train.images.min(), train.images.max()) == (0, 255)
    np.testing.assert_array_equal(train.labels, [0, 9, 4])
    assert train.labels.dtype == np.int32 and train.labels.shape == (3,)
    np.testing.assert_array_equal(test.images, train.images[:2])
    np.testing.assert_array_equal(test.labels, [0, 9])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (usps(labels=np.array([[0], [10], [1]])), "one label from 0 to 9"),
        (usps(labels=np.array([[0.0], [0.5], [1.0]])), "one label from 0 to 9"),
        (usps(ytr=np.zeros((2, 1))), "one label from 0 to 9"),
        (usps(pixels=np.full((3, 256), 1.5)), "from −1 to 1"),
        (usps(pixels=np.full((3, 256), np.nan)), "from −1 to 1"),
        (usps(pixels=np.zeros((3, 255))), "from −1 to 1"),
        (usps(ytst=np.array([["a"], ["b"]], object)), "ytst should be there as matrices of numbers"),
        (usps(Xtst={"a": 1}), "Xtst should be there as matrices of numbers"),
        (lambda path: scipy.io.savemat(path, {"Xtr": np.zeros((1, 256))}), "ytr, Xtst, ytst should be there"),
        (b"\x80\x05 a pickle", "damaged or no Matlab file"),
        (b"", "damaged or no Matlab file"),
    ],
)
def test_other_contents_of_usps_are_refused(place, write, message):
    path = place("USPS", "usps", write)
    with pytest.raises(data.DataError, match=rf"{path} .*{message}"):
        data.load("usps")


def test_damaged_matlab_files_are_refused_by_name(tmp_path):
    path = tmp_path / "cut.mat"
    pixels = RANDOM.integers(0, 255, (50, 40), np.uint8)
    for compressed in (False, True):
        scipy.io.savemat(path, {"faces": pixels}, do_compression=compressed)
        whole = path.read_bytes()
        np.testing.assert_array_equal(pictures.read_mat(path, ("faces",))["faces"], pixels)
        for length in (*range(0, 200, 9), len(whole) // 2, len(whole) - 9):
            path.write_bytes(whole[:length])
            with pytest.raises(data.DataError, match=r"cut\.mat is (damaged|mislabelled)"):
                pictures.read_mat(path, ("faces",))
    with pytest.raises(data.DataError, match=r"none\.mat is damaged or no Matlab file"):
        pictures.read_mat(tmp_path / "none.mat", ("faces",))


def test_what_else_a_matlab_file_holds_is_left_unread(tmp_path):
    path = tmp_path / "more.mat"
    scipy.io.savemat(path, {"faces": np.eye(2), "cells": np.array([[1, "a"]], object)})
    assert set(pictures.read_mat(path, ("faces",))) == {"faces"}


def test_olivetti_columns_become_pictures_and_the_last_people_are_held_out(place):
    images = RANDOM.integers(0, 255, (70, 64, 64), np.uint8)
    columns = np.stack([image.ravel(order="F") for image in images], axis=1)
    place("OLIVETTI", "faces", lambda path: scipy.io.savemat(path, {"faces": columns}))
    train, test = data.load("olivetti")
    np.testing.assert_array_equal(train.images[..., 0], images[:20])
    np.testing.assert_array_equal(test.images[..., 0], images[20:])
    np.testing.assert_array_equal(train.labels, [0] * 10 + [1] * 10)
    np.testing.assert_array_equal(np.unique(test.labels), [2, 3, 4, 5, 6])


@pytest.mark.parametrize("shape", [(4096, 65), (4095, 70), (4096, 50)])
def test_other_shapes_of_olivetti_are_refused(place, shape):
    place("OLIVETTI", "faces", lambda path: scipy.io.savemat(path, {"faces": np.zeros(shape, np.uint8)}))
    with pytest.raises(data.DataError, match=r"olivettifaces\.mat is mislabelled: .* columns of 4096 bytes"):
        data.load("olivetti")


def smiles(path, **others):
    names = [f"SMILEs/negatives/{index:02}.jpg" for index in range(15)]
    names += [f"SMILEs/positives/{index:02}.jpg" for index in range(5)]
    members = {name: grey(value=10 * index) for index, name in enumerate(names)}
    pack(path, dict(reversed(members.items())) | {"README": b"no picture"} | others)


def test_every_tenth_smile_in_the_order_of_names_is_held_out(place):
    place("SMILES", "faces", smiles)
    train, test = data.load("smiles")
    assert train.images.shape == (18, 64, 64, 1) and train.images.dtype == np.uint8
    np.testing.assert_array_equal(test.labels, [0, 1])
    np.testing.assert_array_equal(train.labels, [0] * 14 + [1] * 4)
    np.testing.assert_allclose(test.images[:, 0, 0, 0], [90, 190], atol=2)  # JPEG rounds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (grey(side=63), "is mislabelled: z.jpg is not 64 × 64 of mode L"),
        (encoded(Image.new("RGB", (64, 64)), "JPEG"), "is mislabelled: z.jpg is not 64 × 64 of mode L"),
        (encoded(Image.new("L", (64, 64)), "PNG"), "is damaged: z.jpg is no JPEG"),
        (grey()[:-40], "is damaged: z.jpg is no JPEG"),
        (pickle.dumps(1), "is damaged: z.jpg is no JPEG"),
        (bytes((1 << 20) + 1), "is mislabelled: z.jpg is too large"),
    ],
    ids=["small", "colour", "png", "truncated", "pickle", "large"],
)
def test_other_members_of_a_zip_are_refused_by_name(place, content, message):
    path = place("SMILES", "faces", lambda path: smiles(path, **{"z.jpg": content}))
    with pytest.raises(data.DataError, match=f"{path} {message}"):
        data.load("smiles")


def test_damaged_zips_are_refused_by_name(tmp_path):
    path = tmp_path / "a.zip"
    pack(path, {"a.jpg": RANDOM.bytes(1000)})
    whole = path.read_bytes()
    flipped = whole[:500] + bytes([whole[500] ^ 255]) + whole[501:]
    flags = whole.index(b"PK\1\2") + 8  # in the list of contents
    locked = whole[:flags] + b"\1" + whole[flags + 1 :]
    for content in (whole[:-30], whole[:600], flipped, locked, b"", pickle.dumps(1)):
        path.write_bytes(content)
        with pytest.raises(data.DataError, match=r"a\.zip is damaged or no zip"):
            pictures.read_zip(path, ".jpg")
    path.write_bytes(whole)
    with pytest.raises(data.DataError, match=r"a\.zip is mislabelled: it holds no file \*\.png"):
        pictures.read_zip(path, ".png")


@pytest.fixture
def drawings(place):
    """Twenty drawings of four colours, one brand, and records of which one has no drawing."""
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
    names = [f"{index:02}" for index in range(20)]
    words = [list(colours)[index % 4] for index in range(20)]
    members = {f"{name}.png": drawing(colours[word]) for name, word in zip(names, words, strict=True)}
    records = [record(name, f"{word.upper()} square", "shape-square") for name, word in zip(names, words, strict=True)]
    records += [record("19-skin", "unseen"), record("99", "brand", group=pictures.DROPPED_GROUP)]
    records[0] = record("00", "one two three four five six seven eight nine")
    place("DRAWINGS", "captions", lambda path: pack(path, members | {"99.png": drawing((1, 2, 3))}))
    return place("ANNOTATIONS", "captions", gzip.compress(json.dumps(records).encode()))


def test_drawings_lie_on_white_beside_their_captions(drawings):
    train, test = data.load("captions")
    # The checksum of "green square shape" holds all five green ones out.
    assert train.images.shape == (15, DRAWING_SIDE, DRAWING_SIDE, 3) and len(test.images) == 5
    assert train.images.dtype == np.uint8 and train.captions.dtype == np.int32
    assert (test.images[:, :, :16] == (0, 255, 0)).all() and (test.images[:, :, 16:] == 255).all()
    assert (train.images[1, :, :16] == (0, 0, 255)).all()
    # Of training, `shape` and `square` are the most frequent; then come the colours, by count and alphabet.
    ids = {"shape": 2, "square": 3, "black": 4, "blue": 5, "red": 6}
    padding = [0] * (CAPTION_LENGTH - 3)
    np.testing.assert_array_equal(train.captions[1], [ids["blue"], ids["square"], ids["shape"], *padding])
    np.testing.assert_array_equal(train.captions[2], [ids["black"], ids["square"], ids["shape"], *padding])
    for caption in test.captions:
        np.testing.assert_array_equal(caption, [pictures.UNKNOWN, ids["square"], ids["shape"], *padding])
    # What is too long is cut, and what training has once only is unknown.
    np.testing.assert_array_equal(train.captions[0], [pictures.UNKNOWN] * CAPTION_LENGTH)


def test_held_out_drawings_whose_caption_reads_like_one_of_training_are_dropped(drawings, place):
    _, before = data.load("captions")
    records = json.loads(gzip.decompress(drawings.read_bytes()))
    records[3] = record("03", "mauve square", "shape-square")  # a word as rare as the green ones' own
    place("ANNOTATIONS", "captions", gzip.compress(json.dumps(records).encode()))
    train, test = data.load("captions")
    assert len(before.captions) == 5 and len(train.captions) == 15 and len(test.captions) == 0
    assert (train.captions[2] == before.captions[0]).all()


def test_words_are_numbered_by_frequency_and_alphabet():
    captions = [["b", "a"], ["a", "b", "c"], ["c", "b"], ["once"]]
    assert pictures.vocabulary(captions) == {"b": 2, "a": 3, "c": 4}
    many = [[f"{word:04}"] * 2 for word in range(NUM_WORDS + 5)]
    ids = pictures.vocabulary(many)
    assert sorted(ids.values()) == list(range(2, NUM_WORDS))
    assert f"{NUM_WORDS - 3:04}" in ids and f"{NUM_WORDS - 2:04}" not in ids


@pytest.mark.parametrize(
    "content",
    [
        b"",
        gzip.compress(b"[{"),
        gzip.compress(b'[{"hexcode": 1}]'),
        gzip.compress(b"3"),
        gzip.compress(json.dumps([record("1", "a")] * 99).encode())[:-9],
        pickle.dumps([]),
    ],
    ids=["empty", "cut", "other", "number", "truncated", "pickle"],
)
def test_other_annotations_are_refused_by_name(drawings, place, content):
    path = place("ANNOTATIONS", "captions", content)
    with pytest.raises(data.DataError, match=rf"{path} (is damaged or no list of annotations|.*has a caption for)"):
        data.load("captions")


def test_drawings_without_captions_are_refused(drawings, place):
    place("ANNOTATIONS", "captions", gzip.compress(json.dumps([record("none", "nothing")]).encode()))
    with pytest.raises(data.DataError, match=r"openmoji_png128\.zip holds no drawing that"):
        data.load("captions")


def test_missing_and_other_files_are_told_with_their_origin(place, tmp_path, monkeypatch):
    path = place("USPS", "usps", usps())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(data.DataError, match=rf"{path} has the sha256 .*It comes from github\.com/glsjsu/rprr2018"):
        data.load("usps")
    path.rename(path.parents[1] / "cache.mat")
    with pytest.raises(data.DataError, match=r"usps\.mat of usps .*put it into a folder .*\$RLGEN_DATA\.  It comes"):
        data.load("usps")
    # Without a folder of that name there is still the user's cache.
    monkeypatch.delenv("RLGEN_DATA")
    cached = tmp_path / "cache" / "usps" / "usps.mat"
    cached.parent.mkdir(parents=True)
    usps()(cached)
    monkeypatch.setattr(pictures, "USPS", data.Published("usps.mat", hashlib.sha256(cached.read_bytes()).hexdigest()))
    assert len(data.load("usps").train.labels) == 3


def test_known_checksums_are_whole():
    known = (pictures.USPS, pictures.SMILES, pictures.OLIVETTI, pictures.DRAWINGS, pictures.ANNOTATIONS)
    assert [len(bytes.fromhex(file.sha256)) for file in known] == [32] * 5
    assert len({file.sha256 for file in known}) == 5
