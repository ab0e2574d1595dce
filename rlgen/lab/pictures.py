"""Pictures of other places: digits from envelopes, faces, and drawings with captions.

No public home of these files is known that would outlast this code, so none is downloaded: whoever has a file puts it
into the folder that `RLGEN_DATA` names.  Checksums come before parsers.

Sources:

* USPS, Hull 1994 (doi:10.1109/34.291440), in the published split; no licence is stated.
* SMILEs, github.com/hromi/SMILEsmileD at 6afac66f50061948eed7da5a351cecd9c4a99fe3: crops of faces, smiling or not; no
  licence is stated, and rights to pass the pictures on are not to be taken for granted.
* Olivetti faces, AT&T Laboratories Cambridge, to whom credit is due; no licence is stated.
* OpenMoji 17.0.0, CC BY-SA 4.0, credit OpenMoji: drawings, of which each has a caption.

The zips hold unchanged files, stored in the order of their names with time stamps of 1980-01-01.

Shape legend: `D` examples, `L` words of a caption.
"""

import gzip
import io
import json
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from rlgen.experiments.translation_tasks import CAPTION_LENGTH, DRAWING_SIDE, NUM_WORDS
from rlgen.lab import data
from rlgen.lab.data import DataError, Dataset, Examples, Published

USPS = Published("usps.mat", "4c62a66012efa5fdd571d35bdb0810d837c87e698304027978e88c68f7ea9e78")
SMILES = Published("smiles64.zip", "b6281dea8d54f8c1b3f6da2001183b8c8c8f69635e2db8e963bef5ece7c531c4")
OLIVETTI = Published("olivettifaces.mat", "b1988d02c72fe5b8ee82b5ef3bb7982eafc74f1e1ff0ae0ade35061ad0af534d")
DRAWINGS = Published("openmoji_png128.zip", "6c4a68b4e48bafe5e380c49c283308c9863b8f33282f65c5ce20e8386fb2e15c")
ANNOTATIONS = Published("openmoji.json.gz", "138f99391baa76e6c15345e0f9b2ac479277dcdeb1ccdba8b327a3cf91aa8f92")

PADDING, UNKNOWN = 0, 1  # ids of what is no word, and of words that training seldom saw
HELD_OUT = 10  # one picture in so many, or one caption
PICTURES_A_PERSON, TEST_PEOPLE = 10, 5
DROPPED_GROUP = "extras-openmoji"  # brands among them
MAX_MEMBER = 1 << 20  # bytes of one file in a zip: a header that promises more is not believed
NUMBERS = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


class Captioned(NamedTuple):
    """Coloured drawings and what they show.

    Attributes:
        images: `[D, 32, 32, 3]` uint8.
        captions: `[D, L]` int32, ids of words and then `PADDING`.
    """

    images: NDArray[np.uint8]
    captions: NDArray[np.int32]


def usps() -> Dataset:
    """Loads USPS: 7,291 and 2,007 digits of 16 by 16 pixels from envelopes, in the published split.

    Raises:
        DataError: if the file is missing, is not the known one, or does not hold what it should.
    """
    path = find(USPS, "usps", "github.com/glsjsu/rprr2018 at 0541642aec1f00c7d3990a74a4286c63fab07023")
    arrays = read_mat(path, ("Xtr", "ytr", "Xtst", "ytst"))

    def part(pixels: NDArray, labels: NDArray) -> Examples:
        if pixels.shape[1] != 256 or not (np.abs(pixels) <= 1).all():
            raise DataError(f"{path} is mislabelled: pixels are 16 × 16 numbers from −1 to 1")
        if labels.shape != (len(pixels), 1) or not np.isin(labels, np.arange(data.NUM_CLASSES)).all():
            raise DataError(f"{path} is mislabelled: each picture has one label from 0 to 9")
        images = np.round((pixels + 1) * 127.5).astype(np.uint8).reshape(-1, 16, 16, 1)
        return Examples(images, labels[:, 0].astype(np.int32))

    return Dataset(part(arrays["Xtr"], arrays["ytr"]), part(arrays["Xtst"], arrays["ytst"]))


def smiles() -> Dataset:
    """Loads 13,165 grey faces of 64 by 64 pixels, labelled 1 where they smile and 0 where not.

    Every tenth picture in the order of names is held out; the same person may be in both parts.

    Raises:
        DataError: if the file is missing, is not the known one, or does not hold what it should.
    """
    path = find(SMILES, "faces", "github.com/hromi/SMILEsmileD, whose pictures it packs")
    members = read_zip(path, ".jpg")
    images = np.stack([_pixels(path, name, content, "JPEG", "L", 64) for name, content in members.items()])
    labels = np.array(["positives" in name for name in members], np.int32)
    return _split(Examples(images[..., None], labels), np.arange(len(images)) % HELD_OUT == HELD_OUT - 1)


def olivetti() -> Dataset:
    """Loads 400 grey faces of 64 by 64 pixels, ten of each of 40 people, whose numbers are the labels.

    The last five people are held out.

    Raises:
        DataError: if the file is missing, is not the known one, or does not hold what it should.
    """
    path = find(OLIVETTI, "faces", "github.com/sjgershm/DBM at a30d9abb523aab874a299b8b1aa21e7df2023f60")
    columns = read_mat(path, ("faces",))["faces"]
    wrong = columns.dtype != np.uint8 or columns.shape[0] != 64 * 64
    if wrong or columns.shape[1] % PICTURES_A_PERSON or columns.shape[1] <= TEST_PEOPLE * PICTURES_A_PERSON:
        raise DataError(f"{path} is mislabelled: it should hold columns of 4096 bytes, ten of each person")
    images = np.ascontiguousarray(columns.T.reshape(-1, 64, 64).transpose(0, 2, 1)[..., None])
    labels = np.arange(len(images), dtype=np.int32) // PICTURES_A_PERSON
    last = len(images) - TEST_PEOPLE * PICTURES_A_PERSON
    return Dataset(Examples(images[:last], labels[:last]), Examples(images[last:], labels[last:]))


def captions() -> Dataset:
    """Loads 1,975 drawings with captions, as `Captioned`; about a twentieth of them is held out.

    Drawings that share a caption, such as one hand in five tones of skin, are held out together; the caption's own
    checksum says which they are.  Of those held out, drawings are dropped whose caption reads like one of training once
    rare words are unknown, such as flags: no held-out caption, as networks see it, is known from training.

    A drawing lies on white, reduced to 32 by 32 pixels.  Its caption is its annotation and the words of its subgroup
    that the annotation lacks, in lower case: "green apple food fruit".  Words are numbered from 2 on by how often the
    captions of training have them, then by the alphabet; those that they have once only are unknown.

    Raises:
        DataError: if a file is missing, is not the known one, or does not hold what it should.
    """
    archive = find(DRAWINGS, "captions", "github.com/nataliakeniganti/openmoji-bitmaps, whose 128x128_png8 it packs")
    annotations = find(ANNOTATIONS, "captions", "github.com/hfg-gmuend/openmoji.org, docs/data")
    written = read_captions(annotations)
    members = {name: content for name, content in read_zip(archive, ".png").items() if name[:-4] in written}
    if not members:
        raise DataError(f"{archive} holds no drawing that {annotations} has a caption for")
    images = np.stack([_pixels(archive, name, content, "PNG", "P", 128) for name, content in members.items()])
    words = [written[name[:-4]] for name in members]
    test = np.array([zlib.crc32(" ".join(line).encode()) % HELD_OUT == 0 for line in words])
    ids = vocabulary([line for line, held_out in zip(words, test, strict=True) if not held_out])
    train, held_out = _split(Captioned(images, np.array([encode(line, ids) for line in words], np.int32)), test)
    known = set(map(bytes, train.captions))
    new = np.array([bytes(caption) not in known for caption in held_out.captions], bool)
    return Dataset(train, Captioned(held_out.images[new], held_out.captions[new]))


LOADERS: dict[str, Callable[[], Dataset]] = {
    "usps": usps,
    "smiles": smiles,
    "olivetti": olivetti,
    "captions": captions,
}


def find(file: Published, folder: str, origin: str) -> Path:
    """Finds a file and checks that it is the known one.

    Args:
        file: what to find.
        folder: where it may lie, under `RLGEN_DATA`.
        origin: where it comes from, for the message.

    Returns:
        The path of the file.

    Raises:
        DataError: if it is nowhere or another one.
    """
    try:
        path = data.locate(file, folder, ())
        data.verify(path, file)
    except DataError as error:
        raise DataError(f"{error}.  It comes from {origin}") from error
    return path


def read_mat(path: Path, names: Sequence[str]) -> dict[str, NDArray]:
    """Reads arrays of numbers from a Matlab file of version 5; whatever else it holds is left unread.

    Args:
        path: of the file.
        names: of the arrays.

    Returns:
        Matrices by name.

    Raises:
        DataError: if the file is none, is damaged, lacks an array, or holds something else than numbers there.
    """
    kinds = {name: (shape, kind) for name, shape, kind in _scipy(scipy.io.whosmat, path)}
    wrong = [name for name in names if name not in kinds or kinds[name][1] not in NUMBERS]
    if wrong:
        raise DataError(f"{path} is mislabelled: {', '.join(wrong)} should be there as matrices of numbers")
    if any(math.prod(kinds[name][0]) > data.MAX_BYTES // 8 for name in names):
        raise DataError(f"{path} is mislabelled: its header promises too many numbers")
    arrays = _scipy(scipy.io.loadmat, path, variable_names=list(names))
    return {name: arrays[name] for name in names}


def _scipy(read: Callable[..., Any], path: Path, **how: Any) -> Any:
    try:
        return read(path, **how)
    except Exception as error:  # of a dozen types, according to which byte is damaged
        raise DataError(f"{path} is damaged or no Matlab file of version 5: {error}") from error


def read_zip(path: Path, suffix: str) -> dict[str, bytes]:
    """Reads the files in a zip whose names end in a certain way.

    Args:
        path: of the zip.
        suffix: how the names end.

    Returns:
        Contents by name, in the order of names.

    Raises:
        DataError: if it is no zip, is damaged, holds a file of more than a megabyte, or none of that name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = sorted((info for info in archive.infolist() if info.filename.endswith(suffix)), key=_name)
            large = [info.filename for info in infos if info.file_size > MAX_MEMBER]
            if large or not infos:
                wrong = f"{large[0]} is too large" if large else f"it holds no file *{suffix}"
                raise DataError(f"{path} is mislabelled: {wrong}")
            return {info.filename: archive.read(info) for info in infos}
    except DataError:
        raise
    except Exception as error:  # of a dozen types, according to which byte is damaged
        raise DataError(f"{path} is damaged or no zip: {error}") from error


def read_captions(path: Path) -> dict[str, list[str]]:
    """Reads the words of captions from OpenMoji's records.

    Args:
        path: of the gzipped JSON.

    Returns:
        Words by name of the drawing; the group of brands is left out.

    Raises:
        DataError: if the file is no such JSON.
    """
    try:
        with gzip.open(path) as stream:
            records = json.loads(stream.read(data.MAX_BYTES))
        kept = [record for record in records if record["group"] != DROPPED_GROUP]
        return {
            record["hexcode"]: list(dict.fromkeys(_words(f"{record['annotation']} {record['subgroups']}")))
            for record in kept
        }
    except (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error) as error:
        raise DataError(f"{path} is damaged or no list of annotations: {error!r}") from error


def vocabulary(captions: Sequence[Sequence[str]]) -> dict[str, int]:
    """Numbers the words that captions have more than once, by falling frequency and then by the alphabet.

    Args:
        captions: words of each.

    Returns:
        Ids from 2 on, below `NUM_WORDS`; the rarest words have none where there are too many.
    """
    counts = Counter(word for words in captions for word in words)
    ranked = sorted((word for word in counts if counts[word] > 1), key=lambda word: (-counts[word], word))
    return {word: index for index, word in enumerate(ranked[: NUM_WORDS - 2], start=2)}


def encode(words: Sequence[str], ids: dict[str, int]) -> list[int]:
    """Turns words into `L` ids: what is too long is cut, what is too short is padded."""
    known = [ids.get(word, UNKNOWN) for word in words[:CAPTION_LENGTH]]
    return known + [PADDING] * (CAPTION_LENGTH - len(known))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename


def _split(examples: Any, test: NDArray[np.bool_]) -> Dataset:
    """Holds out some examples."""
    return Dataset(*(type(examples)(*(leaf[part] for leaf in examples)) for part in (~test, test)))


def _pixels(path: Path, name: str, content: bytes, kind: str, mode: str, side: int) -> NDArray[np.uint8]:
    """Decodes a square picture in a zip; what has a palette is laid on white and reduced to drawings' size."""
    try:
        with Image.open(io.BytesIO(content), formats=(kind,)) as image:
            if image.size != (side, side) or image.mode != mode:
                raise DataError(f"{path} is mislabelled: {name} is not {side} × {side} of mode {mode}")
            if mode == "L":
                return np.asarray(image)
            clear = image.convert("RGBA")
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {name} is no {kind}: {error}") from error
    white = Image.new("RGBA", clear.size, "white")
    white.alpha_composite(clear)
    return np.asarray(white.convert("RGB").resize((DRAWING_SIDE, DRAWING_SIDE), Image.Resampling.BOX))
