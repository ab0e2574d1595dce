"""Experiments on generative models."""

from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.pictures import ImageTask
from rlgen.generative import vae

ROWS = (
    Experiment(
        name="generative/vae/mnist",
        algorithm=vae,
        task=ImageTask("mnist", (28, 28, 1)),
        config=vae.Config(hidden_sizes=(500, 500)),
        hypers=vae.Hypers(),
        steps=600_000,
        target=Target(104.0, "set by this project for ten epochs; the bound is that of arXiv:1312.6114", "min"),
        tiny={"batch_size": 4, "latent_size": 2, "hidden_sizes": (8,)},
    ),
    Experiment(
        name="generative/vae/digits",
        algorithm=vae,
        task=ImageTask("digits", (8, 8, 1)),
        config=vae.Config(batch_size=64, latent_size=10, network="convolutional", hidden_sizes=(16, 32)),
        hypers=vae.Hypers(),
        steps=60_000,
        tiny={"batch_size": 4, "latent_size": 2, "hidden_sizes": (4, 4)},
    ),
)
