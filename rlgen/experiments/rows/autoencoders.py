"""Experiments on autoencoders."""

from rlgen.experiments.experiment import Experiment
from rlgen.experiments.pictures import ImageTask
from rlgen.generative import autoencoder

METRIC = "squared error a pixel (white is 1)"
TASKS = {
    "digits": ImageTask("digits", (8, 8, 1), METRIC, conditional=True),
    "mnist": ImageTask("mnist", (28, 28, 1), METRIC, conditional=True),
}
BUDGETS = {"digits": 200_000, "mnist": 600_000}


def restoring(task: str, config: autoencoder.Config, **hypers: float) -> Experiment:
    """An experiment on a dataset's images.

    Args:
        task: last part of its name, which begins with that of the dataset.
        config: of the algorithm.
        **hypers: those that are not as usual.

    Returns:
        The row.
    """
    dataset = task.split("-")[0]
    is_dense = config.network == "dense"
    return Experiment(
        name=f"generative/autoencoder/{task}",
        algorithm=autoencoder,
        task=TASKS[dataset],
        config=config,
        hypers=autoencoder.Hypers(**hypers),
        steps=BUDGETS[dataset],
        tiny={
            "batch_size": 4,
            "code_size": 3,
            "hidden_sizes": (6,)[: len(config.hidden_sizes)] if is_dense else (4, 4),
        },
    )


def denoising(
    task: str, level: float, corruption: str = "masking", *, code_size: int = 1024, batch_size: int = 128
) -> Experiment:
    """An experiment on damaged images: one hidden layer, larger than the image.

    Args:
        task: last part of its name.
        level: how much is damaged.
        corruption: what is done to an image.
        code_size: of the layer.
        batch_size: of the config.

    Returns:
        The row.
    """
    config = autoencoder.Config(
        batch_size=batch_size,
        code_size=code_size,
        hidden_sizes=(),
        activation="sigmoid",
        tied=True,
        error="cross_entropy",
        corruption=corruption,
    )
    return restoring(task, config, corruption_level=level)


ROWS = (
    restoring("digits", autoencoder.Config(batch_size=64, code_size=10, hidden_sizes=(64,))),
    denoising("digits-denoising", 0.25, batch_size=32, code_size=128),
    restoring("mnist", autoencoder.Config()),
    restoring(
        "mnist-convolutional",
        autoencoder.Config(network="convolutional", hidden_sizes=(16, 32)),
    ),
    restoring(
        "mnist-sparse",
        autoencoder.Config(code_size=1024, hidden_sizes=(), activation="sigmoid", sparsity="divergence"),
    ),
    restoring(
        "mnist-sparse-absolute",
        autoencoder.Config(code_size=1024, hidden_sizes=(), activation="relu", sparsity="absolute", tied=True),
    ),
    denoising("mnist-denoising-gaussian", 0.5, "gaussian"),
    denoising("mnist-denoising-salt-and-pepper", 0.25, "salt_and_pepper"),
    denoising("mnist-denoising-25", 0.25),
    denoising("mnist-denoising-50", 0.5),
)
