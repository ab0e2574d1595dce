"""Experiments on telling images apart."""

from rlgen.applied import classifier
from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.pictures import LabelTask

TINY = {"batch_size": 4, "filters": (4,), "hidden_sizes": (4,)}
TINY_DENSE = {**TINY, "filters": ()}

ROWS = (
    Experiment(
        name="applied/classifier/mnist",
        algorithm=classifier,
        task=LabelTask("mnist", (28, 28, 1)),
        config=classifier.Config(),
        hypers=classifier.Hypers(),
        steps=600_000,
        target=Target(0.9879, "1.21 % error of a convolutional network, arXiv:1406.6247, table 1"),
        tiny=TINY,
    ),
    Experiment(
        name="applied/classifier/mnist-dense",
        algorithm=classifier,
        task=LabelTask("mnist", (28, 28, 1)),
        config=classifier.Config(filters=(), hidden_sizes=(256, 256)),
        hypers=classifier.Hypers(),
        steps=1_200_000,
        target=Target(0.9831, "1.69 % error of two dense layers of 256, arXiv:1406.6247, table 1"),
        tiny=TINY_DENSE,
    ),
    Experiment(
        name="applied/classifier/digits",
        algorithm=classifier,
        task=LabelTask("digits", (8, 8, 1)),
        config=classifier.Config(batch_size=64, filters=(16, 32), hidden_sizes=(64,)),
        hypers=classifier.Hypers(),
        steps=60_000,
        tiny=TINY,
    ),
)
