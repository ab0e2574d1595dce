"""Experiments on autoencoders."""

from rlgen.experiments.experiment import Experiment

ROWS: tuple[Experiment, ...] = ()
