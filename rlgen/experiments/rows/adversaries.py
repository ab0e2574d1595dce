"""Experiments on generative adversarial networks."""

from rlgen.experiments.experiment import Experiment

ROWS: tuple[Experiment, ...] = ()
