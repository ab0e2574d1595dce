"""Judges: what is saved comes back, and what is no judge's file is refused by name."""

import io
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rlgen.applied import classifier, matcher
from rlgen.core import Box, Discrete, Spec
from rlgen.experiments import judges as experiments
from rlgen.lab import judges
from rlgen.lab.data import DataError

IMAGE = Box((8, 8, 1), 0, 255, "uint8")
SMALL = experiments.Judge(classifier, Spec(IMAGE, Discrete(3)), classifier.Config(filters=(4,), hidden_sizes=(5,)))
PAIRS = experiments.Judge(matcher, Spec(IMAGE, Box((6,))), matcher.Config(num_words=7, word_size=4, hidden_sizes=(4,)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of the package's, and two small judges."""
    monkeypatch.setattr(judges, "FOLDER", tmp_path / "judges")
    monkeypatch.setattr(experiments, "JUDGES", {"small": SMALL, "pairs": PAIRS})
    return tmp_path / "judges"


@pytest.fixture(scope="module")
def images():
    return jax.random.bits(jax.random.key(0), (4, 8, 8, 1), "uint8")


@pytest.mark.parametrize("name", ["small", "pairs"])
def test_what_is_saved_comes_back(folder, name):
    params = experiments.start(name, jax.random.key(0))
    judges.save(name, params)
    assert [path.name for path in folder.iterdir()] == [f"{name}.npz"]
    loaded = judges.load(name)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}


def test_a_judge_reads_as_its_network_does(folder, images):
    params = experiments.start("small", jax.random.key(0))
    network = SMALL.network
    np.testing.assert_allclose(
        experiments.features("small", params, images), network.apply(params, images, method="features"), rtol=1e-5
    )
    np.testing.assert_array_equal(experiments.labels("small", params, images), network.apply(params, images).argmax(-1))
    assert experiments.features("small", params, images).shape == (4, 5)


def test_a_matcher_compares_images_and_captions(folder, images):
    params = experiments.start("pairs", jax.random.key(0))
    captions = jnp.array([[2, 3], [4, 0], [6, 1]])
    similarity = experiments.similarity("pairs", params, images, captions)
    look, read = (PAIRS.network.apply(params, each, method=how) for each, how in ((images, "look"), (captions, "read")))
    np.testing.assert_allclose(similarity, look @ read.T, atol=1e-5)


def test_parameters_for_tests_are_always_the_same(folder):
    assert experiments.random_params(None) == ()
    once, twice = experiments.random_params("small"), experiments.random_params("small")
    jax.tree.map(np.testing.assert_array_equal, once, twice)


def archive(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def test_damaged_files_are_refused_by_name(folder):
    judges.save("small", experiments.start("small", jax.random.key(0)))
    path = judges.path("small")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    lone = io.BytesIO()
    np.save(lone, np.zeros(3))
    entry = whole.index(b"PK\1\2")  # of the zip's list of contents; it has flags at 8 and the compression at 10
    locked, packed = (
        whole[: entry + at] + bytes([value]) + whole[entry + at + 1 :] for at, value in ((8, 1), (10, 99))
    )
    for content in (whole[:-40], whole[:100], flipped, locked, packed, b"", b"no archive", lone.getvalue()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"small\.npz is no archive of a judge's parameters"):
            judges.load("small")
    path.unlink()
    with pytest.raises(DataError, match=r"small\.npz is no archive of a judge's parameters"):
        judges.load("small")


def test_parameters_of_another_network_are_refused(folder):
    other = classifier.assemble(SMALL.spec, classifier.Config(filters=(4,), hidden_sizes=(6,)))
    judges.save("small", other.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1), jnp.uint8)))
    with pytest.raises(DataError, match=r"small\.npz holds the parameters of another network than .* 'small'"):
        judges.load("small")
    judges.save("small", {"params": {"kernel": np.zeros((2, 2))}})
    with pytest.raises(DataError, match="another network"):
        judges.load("small")


def test_parameters_that_are_no_numbers_are_refused(folder):
    params = experiments.start("small", jax.random.key(0))
    judges.save("small", jax.tree.map(lambda leaf: leaf * jnp.nan, params))
    with pytest.raises(DataError, match=r"small\.npz holds parameters that are no finite float32 numbers"):
        judges.load("small")
    flat = traverse_util.flatten_dict(params, sep="/")
    np.savez(judges.path("small"), **{name: np.asarray(leaf, np.int8) for name, leaf in flat.items()})
    with pytest.raises(DataError, match="no finite float32 numbers"):
        judges.load("small")
    np.savez(judges.path("small"), **{"params": np.zeros(2), "params/kernel": np.zeros(2)})
    with pytest.raises(DataError, match="no archive of a judge's parameters"):
        judges.load("small")


class Trap:
    """Unpickling it would set a mark."""

    sprung = False

    def __reduce__(self):
        return _spring, ()


def _spring():
    Trap.sprung = True


def test_nothing_is_unpickled(folder):
    folder.mkdir()
    objects = np.empty(1, object)
    objects[0] = Trap()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file, file.open("params.npy", "w") as member:
        np.lib.format.write_array(member, objects, allow_pickle=True)
    for content in (stream.getvalue(), pickle.dumps(Trap())):
        judges.path("small").write_bytes(content)
        with pytest.raises(DataError, match=r"small\.npz is no archive"):
            judges.load("small")
    assert not Trap.sprung


def test_the_package_holds_every_judge():
    for name in experiments.JUDGES:
        params = judges.load(name)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
