"""What tests of pictures share."""

import matplotlib as mpl
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image


@pytest.fixture
def figures(monkeypatch):
    """Collects the figures that are saved, and checks that pyplot knows nothing of them."""
    saved, save = [], Figure.savefig
    before = dict(mpl.rcParams)

    def keep(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    yield saved
    assert pyplot.get_fignums() == [] and dict(mpl.rcParams) == before


@pytest.fixture
def size():
    """Opens a picture and gives its width and height."""

    def measure(path):
        with Image.open(path) as image:
            image.load()
            return image.size

    return measure
