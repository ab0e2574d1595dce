"""Images translated between two datasets, and images drawn for captions.

Shape legend: `K` minibatches an update, `M` examples in a minibatch, `D` examples, `H W C` image, `L` words of a
caption, `R` images of each caption.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rlgen.applied import matcher
from rlgen.applied.classifier import Examples
from rlgen.core import Array, Box, Key, Source, Spec
from rlgen.experiments import judges
from rlgen.experiments.pictures import Data, Minibatches
from rlgen.experiments.tasks import LOSS
from rlgen.parts.translators import Captioned
from rlgen.sources import pair
from rlgen.train import Report

DRAWING_SIDE, CAPTION_LENGTH, NUM_WORDS = 32, 8, 640
AMONG = 32  # captions to choose from
_CHUNK = 500  # images at a time


@dataclasses.dataclass(frozen=True)
class PairTask:
    """Images of a dataset to be translated into those of another, of which no pairs are known.

    The score is how many held-out images a classifier of the other dataset labels rightly once they are translated.

    Attributes:
        first: name of the dataset to be translated.
        second: of the other one.
        judge: name of a classifier of the other one.
        shape: of an image.
        margin: empty pixels on every side that images of another size are given, once they are resized to what is left.
    """

    first: str
    second: str
    judge: str
    shape: tuple[int, int, int]
    margin: int = 0
    metric: str = dataclasses.field(default="accuracy of the judge on translated images", init=False)
    online: bool = dataclasses.field(default=False, init=False)
    higher_is_better: bool = dataclasses.field(default=True, init=False)

    @property
    def watched(self) -> str | None:
        """The loss."""
        return LOSS

    @property
    def datasets(self) -> tuple[str, ...]:
        """Both."""
        return (self.first, self.second)

    @property
    def spec(self) -> Spec:
        """An image as input and as output."""
        image = Box(self.shape, 0, 255, "uint8")
        return Spec(image, image)

    def prepare(self, loaded: Sequence[Any], judge: Any) -> Data:
        """Resizes images to `[D, H, W, C]` uint8: a `Pair` to train on, and labelled ones of the first to test on."""
        resized = functools.partial(resize, shape=self.shape, margin=self.margin)
        train = pair.Pair(*(resized(each.train.images) for each in loaded))
        test: Any = loaded[0].test
        return Data(train, Examples(resized(test.images), test.labels), judge)

    def make_data(self, num_examples: int) -> Data:
        """Draws images at random."""
        keys = jax.random.split(jax.random.key(0), 4)
        first, second, test = (jax.random.bits(key, (num_examples, *self.shape), "uint8") for key in keys[:3])
        labels = jax.random.randint(keys[3], (num_examples,), 0, 10)
        return Data(pair.Pair(first, second), Examples(test, labels), judges.random_params(self.judge))

    def steps_per_update(self, config: Any) -> int:
        """Images of either dataset, `M`."""
        return config.batch_size

    def source(self, config: Any, data: Data) -> Source:
        """Shuffled minibatches `[1, M, ...]` of both."""
        return pair.build(data.train, batch_size=config.batch_size)

    def score(self, algorithm: ModuleType, config: Any, data: Data) -> Callable[[Key, Array, Any, Any], Array]:
        """The judge's accuracy on translations of held-out images."""
        policy_of = algorithm.build(self.spec, config).policy

        def accuracy(key: Key, step: Array, state: Any, hypers: Any) -> Array:
            policy = policy_of(step, state, hypers, explore=False)
            return self.accuracy(data, lambda image: policy.apply(key, image, policy.memory(()))[0])

        return accuracy

    def accuracy(self, data: Data, translate: Callable[[Array], Array] = lambda image: image) -> Array:
        """The judge's accuracy on held-out images, scalar: as they are, or translated one at a time."""
        images = lax.map(translate, jnp.asarray(data.test.image), batch_size=_CHUNK)
        return (judges.labels(self.judge, data.judge, images) == data.test.label).mean(dtype=jnp.float32)

    def shown(self, data: Data, num: int) -> Array:
        """Held-out images to translate for a picture, `[num, H, W, C]` uint8."""
        return jnp.asarray(data.test.image[:num])

    def curve(self, report: Report) -> Any:
        """What the translators pay."""
        return report.metrics.loss


def resize(images: Any, shape: tuple[int, int, int], margin: int = 0) -> Any:
    """Gives images another size.

    Args:
        images: `[D, *, *, C]` uint8.
        shape: wanted, `(H, W, C)`; images that have it are left alone.
        margin: of zeros on every side, within that shape.

    Returns:
        `[D, H, W, C]` uint8, by bilinear interpolation.
    """
    if images.shape[1:] == shape:
        return images
    height, width, channels = shape
    inner = (len(images), height - 2 * margin, width - 2 * margin, channels)
    grown = np.asarray(jax.image.resize(jnp.asarray(images, jnp.float32), inner, "linear"))
    edges = (margin, margin)
    return np.pad(np.round(grown).astype(np.uint8), ((0, 0), edges, edges, (0, 0)))


@dataclasses.dataclass(frozen=True)
class Captions(Minibatches):
    """What the tasks over captioned drawings share."""

    datasets: tuple[str, ...] = dataclasses.field(default=("captions",), init=False)
    online: bool = dataclasses.field(default=False, init=False)
    higher_is_better: bool = dataclasses.field(default=True, init=False)

    @property
    def judge(self) -> str | None:
        """None."""
        return None

    @property
    def image(self) -> Box:
        """A coloured drawing."""
        return Box((DRAWING_SIDE, DRAWING_SIDE, 3), 0, 255, "uint8")

    def prepare(self, loaded: Sequence[Any], judge: Any) -> Data:
        """Takes both parts as `Captioned`; of held-out drawings with one caption the first, for retrieval."""
        (drawings,) = loaded
        _, first = np.unique(drawings.test.captions, axis=0, return_index=True)
        test = Captioned(drawings.test.images[first], drawings.test.captions[first])
        return Data(Captioned(*drawings.train), test, judge)

    def make_data(self, num_examples: int) -> Data:
        """Draws both parts at random."""

        def part(key: Key) -> Captioned:
            image_key, caption_key = jax.random.split(key)
            images = jax.random.bits(image_key, (num_examples, *self.image.shape), "uint8")
            return Captioned(images, jax.random.randint(caption_key, (num_examples, CAPTION_LENGTH), 0, NUM_WORDS))

        train, test = map(part, jax.random.split(jax.random.key(0)))
        return Data(train, test, judges.random_params(self.judge))


@dataclasses.dataclass(frozen=True)
class CaptionTask(Captions):
    """Drawings to be made for captions.

    The score is how often a judge, shown a drawing for a held-out caption, takes that caption for the right one among
    32 held-out ones that are all different.

    Attributes:
        num_draws: `R`, drawings of each caption.
    """

    num_draws: int = 8
    metric: str = dataclasses.field(default=f"retrieval of the right caption among {AMONG}", init=False)

    @property
    def judge(self) -> str:
        """The matcher that was trained on the same drawings."""
        return "captions"

    @property
    def spec(self) -> Spec:
        """A caption as input, a drawing as output."""
        return Spec(Box((CAPTION_LENGTH,), 0, NUM_WORDS - 1, "int32"), self.image)

    def score(self, algorithm: ModuleType, config: Any, data: Data) -> Callable[[Key, Array, Any, Any], Array]:
        """Retrieval for drawings that the policy makes."""
        policy_of = algorithm.build(self.spec, config).policy

        def retrieval(key: Key, step: Array, state: Any, hypers: Any) -> Array:
            policy, captions = policy_of(step, state, hypers, explore=False), jnp.asarray(data.test.caption)

            def similarity(key: Key) -> Array:
                images = policy.apply(key, captions, policy.memory((len(captions),)))[0]
                return judges.similarity(self.judge, data.judge, images, captions)

            return matcher.retrieval(lax.map(similarity, jax.random.split(key, self.num_draws)), AMONG)

        return retrieval

    def shown(self, data: Data, num: int) -> Array:
        """Held-out captions to draw for a picture, `[num, L]`, spread over all."""
        return jnp.asarray(data.test.caption)[jnp.linspace(0, len(data.test.caption) - 1, num).astype(jnp.int32)]


@dataclasses.dataclass(frozen=True)
class MatchTask(Captions):
    """Drawings and captions to be matched.

    Attributes:
        size: of the space in which they meet.
    """

    size: int = 64
    metric: str = dataclasses.field(default=f"retrieval of the right caption among {AMONG}", init=False)

    def steps_per_update(self, config: Any) -> int:
        """Drawings and their captions, `K * M`.

        Raises:
            ValueError: if the config knows fewer words than the captions have.
        """
        if config.num_words < NUM_WORDS:
            raise ValueError(f"config.num_words={config.num_words} is less than the {NUM_WORDS} of the captions")
        return super().steps_per_update(config)

    @property
    def spec(self) -> Spec:
        """A drawing as input, its place among captions as output."""
        return Spec(self.image, Box((self.size,), -1.0, 1.0))

    def score(self, algorithm: ModuleType, config: Any, data: Data) -> Callable[[Key, Array, Any, Any], Array]:
        """The algorithm's own held-out score."""
        held_out = algorithm.build_score(self.spec, config)
        return lambda key, step, state, hypers: held_out(key, state, data.test, hypers)
