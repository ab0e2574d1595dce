"""Experiments on translating between images, and from words to images."""

from rlgen.experiments.experiment import Experiment

ROWS: tuple[Experiment, ...] = ()
