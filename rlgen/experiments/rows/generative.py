"""Experiments on variational autoencoders."""

import functools

from rlgen.experiments.experiment import Experiment, Target
from rlgen.experiments.pictures import ImageTask
from rlgen.generative import vae

TINY = {"batch_size": 4, "latent_size": 2, "hidden_sizes": (8,), "score_samples": 1}
TINY_FILTERS = TINY | {"hidden_sizes": (4, 4), "dense_sizes": ()}
DENSE = functools.partial(vae.Config, hidden_sizes=(500, 500))
IWAE = "negative IWAE bound of 50 samples (nats)"


def on_mnist(
    task: str,
    config: vae.Config,
    metric: str = "negative ELBO (nats)",
    target: Target | None = None,
    **hypers: float,
) -> Experiment:
    """An experiment on MNIST, of ten epochs.

    Args:
        task: last part of its name.
        config: of the algorithm.
        metric: what the score measures.
        target: of the experiment.
        **hypers: those that are not as usual.

    Returns:
        The row.
    """
    tiny = TINY if config.network == "dense" else TINY_FILTERS
    scores_loss = config.score_samples == config.num_samples and "beta" not in hypers
    return Experiment(
        name=f"generative/vae/{task}",
        algorithm=vae,
        task=ImageTask("mnist", (28, 28, 1), metric, scores_loss=scores_loss),
        config=config,
        hypers=vae.Hypers(**hypers),
        steps=600_000,
        target=target,
        tiny=tiny | {"num_samples": min(config.num_samples, 2)},
    )


ROWS = (
    Experiment(
        name="generative/vae/digits",
        algorithm=vae,
        task=ImageTask("digits", (8, 8, 1)),
        config=vae.Config(batch_size=64, latent_size=10, network="convolutional", hidden_sizes=(16, 32)),
        hypers=vae.Hypers(),
        steps=60_000,
        tiny=TINY_FILTERS,
    ),
    on_mnist(
        "mnist",
        DENSE(),
        target=Target(104.0, "set by this project for ten epochs; the bound is that of arXiv:1312.6114", "min"),
    ),
    on_mnist("mnist-iwae-bound", DENSE(score_samples=50), metric=IWAE),
    on_mnist("mnist-iwae", DENSE(num_samples=5, score_samples=50), metric=IWAE),
    on_mnist("mnist-beta-4", DENSE(), beta=4.0),
    on_mnist("mnist-gaussian", DENSE(likelihood="gaussian")),
    on_mnist("mnist-latent-10", DENSE(batch_size=512, latent_size=10)),
    on_mnist(
        "mnist-convolutional",
        vae.Config(network="convolutional", hidden_sizes=(16, 32), dense_sizes=(256,)),
        learning_rate=2e-3,
    ),
)
