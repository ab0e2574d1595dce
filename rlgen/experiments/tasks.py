"""What an algorithm is tried on: an environment or a dataset.

A task gives an algorithm its spec, its source of batches, the score that its experiment is judged by, and the curve
that is watched meanwhile.  Where what counts is how well it does while it learns, the score is that curve over the
whole run.

Shape legend: `T` time, `B` environments.
"""

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from rlgen import evaluate
from rlgen.core import NOTHING, Array, Box, Key, Source, Spec, Tree
from rlgen.envs.adapter import Environment
from rlgen.sources import dataset, rollout
from rlgen.train import Report


class Data(NamedTuple):
    """The two parts of a dataset."""

    train: Tree  # leaves [D, ...]
    test: Tree


class Task(Protocol):
    """What every task offers.

    Attributes:
        metric: what the score and the curve measure.
        higher_is_better: whether a larger score is the better one.
        dataset: name of the dataset that it needs, or None.
        online: whether the score is the curve over the whole run, instead of what `score` makes of its end.
    """

    @property
    def metric(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...
    @property
    def dataset(self) -> str | None: ...
    @property
    def online(self) -> bool: ...
    @property
    def spec(self) -> Spec: ...

    def steps_per_update(self, config: Any) -> int:
        """Transitions or examples that an update consumes."""
        ...

    def source(self, config: Any, data: Any) -> Source:
        """The source that feeds the algorithm."""
        ...

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """Gives `(key, step, algorithm_state, hypers) -> score`, a scalar."""
        ...

    def curve(self, report: Report) -> Any:
        """The main curve, from a report of a window of updates; any leading shape."""
        ...


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """What all tasks in an environment share; a task of its own adds what is measured.

    Attributes:
        make: builds the environment.
    """

    make: Callable[[], Environment]
    dataset: None = dataclasses.field(default=None, init=False)

    @functools.cached_property
    def env(self) -> Environment:
        """The environment, built once: compiled programs are kept by instance."""
        return self.make()

    @property
    def spec(self) -> Spec:
        """What a policy reads and writes."""
        return self.env.spec

    def steps_per_update(self, config: Any) -> int:
        """Environment steps, `T * B`."""
        return config.num_envs * config.rollout_length

    def source(self, config: Any, data: Any) -> Source:
        """Rollouts `[T, B]`."""
        del data
        return rollout.build(self.env, num_envs=config.num_envs, length=config.rollout_length)


@dataclasses.dataclass(frozen=True)
class EnvTask(Rollouts):
    """Episodes in an environment.

    Attributes:
        episodes: how many whole episodes score a frozen policy.
        explore: whether the policy is scored as it explores, for figures published so.
        measure: `"return"` or `"length"` of an episode.
        online: whether the episodes of training make the score, instead of the frozen policy's.
        higher_is_better: whether a larger score is the better one.
    """

    episodes: int = 64
    explore: bool = False
    measure: str = "return"
    online: bool = False
    higher_is_better: bool = True

    @property
    def metric(self) -> str:
        """What the score and the curve measure."""
        return f"episode {self.measure}"

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """Mean measure of whole episodes under the frozen policy."""
        del data
        policy_of = algorithm.build(self.spec, config).policy

        def mean(key: Key, step: Array, state: Any, hypers: Any) -> Array:
            policy = policy_of(step, state, hypers, explore=self.explore)
            played = evaluate.episodes(key, policy, self.env, self.episodes)
            return (played.length if self.measure == "length" else played.total_return).mean(dtype=jnp.float32)

        return mean

    def curve(self, report: Report) -> Any:
        """Mean measure of the episodes that finished in the window; nan where none did."""
        return getattr(report.stats, f"total_{self.measure}") / report.stats.episodes


@dataclasses.dataclass(frozen=True)
class ImageTask:
    """Images of a dataset, to be modelled.

    Attributes:
        dataset: its name.
        shape: of an image, `(height, width, channels)`.
        metric: what the algorithm's `build_score` measures on the held-out part.
    """

    dataset: str
    shape: tuple[int, int, int]
    metric: str = "negative ELBO (nats)"
    online: bool = False
    higher_is_better: bool = False

    @property
    def spec(self) -> Spec:
        """No input; images as output."""
        return Spec(NOTHING, Box(self.shape, 0, 255, "uint8"))

    def steps_per_update(self, config: Any) -> int:
        """Examples, `K * M`."""
        return config.num_steps * config.batch_size

    def source(self, config: Any, data: Data) -> Source:
        """Shuffled minibatches `[K, M, ...]`."""
        return dataset.build(data.train, batch_size=config.batch_size, num_batches=config.num_steps)

    def score(self, algorithm: ModuleType, config: Any, data: Data) -> Callable[[Key, Array, Any, Any], Array]:
        """The algorithm's own held-out score."""
        held_out = algorithm.build_score(self.spec, config)
        return lambda key, step, state, hypers: held_out(key, state, data.test, hypers)

    def curve(self, report: Report) -> Any:
        """The training loss."""
        return report.metrics.loss


def make_data(task: Task, num_examples: int) -> Data | tuple[()]:
    """Makes data of a task's shape at random: for tests and for tracing without the files.

    Args:
        task: whose shape to follow.
        num_examples: `D`, of each part.

    Returns:
        Uniform uint8 images, or `()` for a task without a dataset.
    """
    if task.dataset is None:
        return ()
    shape = (num_examples, *task.spec.action.shape)
    train_key, test_key = jax.random.split(jax.random.key(0))
    return Data(*(jax.random.bits(key, shape, "uint8") for key in (train_key, test_key)))
