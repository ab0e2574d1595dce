"""Images of a dataset, to be modelled, restored or labelled.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `D` examples, `H W C` image, `A` classes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen.applied import classifier
from rlgen.core import NOTHING, Array, Box, Discrete, Key, Source, Spec, Tree
from rlgen.experiments import judges
from rlgen.experiments.tasks import LOSS
from rlgen.sources import dataset
from rlgen.train import Report

Sample = Callable[[Key, int], Array]  # `(key, N) -> [N, H, W, C]`
Measure = Callable[[Key, Sample, "Data"], Array]  # how good samples are, a scalar


class Data(NamedTuple):
    """The two parts of a dataset, and the parameters of the judge."""

    train: Tree  # leaves [D, ...]
    test: Tree
    judge: Tree = ()


class Minibatches:
    """What all tasks over shuffled examples share."""

    @property
    def watched(self) -> str | None:
        """The loss."""
        return LOSS

    def steps_per_update(self, config: Any) -> int:
        """Examples, `K * M`."""
        return config.num_steps * config.batch_size

    def source(self, config: Any, data: Data) -> Source:
        """Shuffled minibatches `[K, M, ...]`."""
        return dataset.build(data.train, batch_size=config.batch_size, num_batches=config.num_steps)

    def curve(self, report: Report) -> Any:
        """The training loss."""
        return report.metrics.loss


@dataclasses.dataclass(frozen=True)
class Pictures(Minibatches):
    """What all tasks over one dataset of images share.

    Attributes:
        dataset: its name.
        shape: of an image, `(height, width, channels)`.
    """

    dataset: str
    shape: tuple[int, int, int]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The one dataset."""
        return (self.dataset,)


@dataclasses.dataclass(frozen=True)
class ImageTask(Pictures):
    """Images of a dataset, to be modelled.

    Attributes:
        metric: what the score measures.
        measure: of samples; None for the algorithm's own `build_score` on the held-out images.
        judge: name of the trained model that `measure` reads, or None.
        conditional: whether an image is given, such as a damaged one to restore, instead of nothing.
        scores_loss: whether the algorithm's own score is the loss that it descends, of other images.
    """

    metric: str = "negative ELBO (nats)"
    measure: Measure | None = None
    judge: str | None = None
    conditional: bool = False
    scores_loss: bool = True
    online: bool = False
    higher_is_better: bool = False

    @property
    def watched(self) -> str | None:
        """The loss, where it is not what is scored."""
        return None if self.scores_loss and self.measure is None and not self.conditional else LOSS

    @property
    def spec(self) -> Spec:
        """No input, or an image; images as output."""
        image = Box(self.shape, 0, 255, "uint8")
        return Spec(image if self.conditional else NOTHING, image)

    def prepare(self, loaded: Sequence[Any], judge: Any) -> Data:
        """Takes the images of both parts, `[D, H, W, C]` uint8."""
        (pictures,) = loaded
        return Data(pictures.train.images, pictures.test.images, judge)

    def make_data(self, num_examples: int) -> Data:
        """Draws both parts at random."""
        keys = jax.random.split(jax.random.key(0))
        parts = (jax.random.bits(key, (num_examples, *self.shape), "uint8") for key in keys)
        train, test = parts
        return Data(train, test, judges.random_params(self.judge))

    def score(self, algorithm: ModuleType, config: Any, data: Data) -> Callable[[Key, Array, Any, Any], Array]:
        """The algorithm's own held-out score, or the measure of its samples."""
        if self.measure is None:
            held_out = algorithm.build_score(self.spec, config)
            return lambda key, step, state, hypers: held_out(key, state, data.test, hypers)
        return measured(self.measure, algorithm.build(self.spec, config).policy, data)


def measured(measure: Measure, policy_of: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
    """Gives `(key, step, state, hypers) -> score` of what a policy without an input draws."""

    def score(key: Key, step: Array, state: Any, hypers: Any) -> Array:
        policy = policy_of(step, state, hypers, explore=False)

        def sample(key: Key, num: int) -> Array:
            return policy.apply(key, jnp.zeros((num, *NOTHING.shape)), policy.memory((num,)))[0]

        return measure(key, sample, data)

    return score


@dataclasses.dataclass(frozen=True)
class LabelTask(Pictures):
    """Labelled images of a dataset, to be told apart.

    Attributes:
        num_classes: `A`.
    """

    num_classes: int = 10
    metric: str = dataclasses.field(default="held-out accuracy", init=False)
    judge: None = dataclasses.field(default=None, init=False)
    online: bool = dataclasses.field(default=False, init=False)
    higher_is_better: bool = dataclasses.field(default=True, init=False)

    @property
    def spec(self) -> Spec:
        """An image as input, its class as output."""
        return Spec(Box(self.shape, 0, 255, "uint8"), Discrete(self.num_classes))

    def prepare(self, loaded: Sequence[Any], judge: Any) -> Data:
        """Takes images and labels of both parts, `classifier.Examples` `[D]`."""
        del judge
        (pictures,) = loaded
        return Data(*(classifier.Examples(part.images, part.labels) for part in pictures))

    def make_data(self, num_examples: int) -> Data:
        """Draws both parts at random."""

        def part(key: Key) -> classifier.Examples:
            image_key, label_key = jax.random.split(key)
            images = jax.random.bits(image_key, (num_examples, *self.shape), "uint8")
            return classifier.Examples(images, jax.random.randint(label_key, (num_examples,), 0, self.num_classes))

        return Data(*map(part, jax.random.split(jax.random.key(0))))

    def score(self, algorithm: ModuleType, config: Any, data: Data) -> Callable[[Key, Array, Any, Any], Array]:
        """The algorithm's own held-out score."""
        held_out = algorithm.build_score(self.spec, config)
        return lambda key, step, state, hypers: held_out(key, state, data.test, hypers)
