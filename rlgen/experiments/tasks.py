"""What an algorithm is tried on: an environment or a dataset.

A task gives an algorithm its spec, its source of batches, the score that its experiment is judged by, and the curve
that is watched meanwhile.  Where what counts is how well it does while it learns, the score is that curve over the
whole run.

Shape legend: `T` time, `B` environments.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

import jax.numpy as jnp

from rlgen import evaluate
from rlgen.core import Array, Key, Source, Spec
from rlgen.envs.adapter import Environment
from rlgen.sources import rollout
from rlgen.train import Report


class Task(Protocol):
    """What every task offers.

    Attributes:
        metric: what the score measures, and the curve as well unless `watched` says otherwise.
        watched: what the curve shows, the less of it the better, where that is not the metric; else None.
        higher_is_better: whether a larger score is the better one.
        datasets: names of the datasets that it needs.
        judge: name of the trained model that its score reads, or None.
        online: whether the score is the curve over the whole run, instead of what `score` makes of its end.
    """

    @property
    def metric(self) -> str: ...
    @property
    def watched(self) -> str | None: ...
    @property
    def higher_is_better(self) -> bool: ...
    @property
    def datasets(self) -> tuple[str, ...]: ...
    @property
    def judge(self) -> str | None: ...
    @property
    def online(self) -> bool: ...
    @property
    def spec(self) -> Spec: ...

    def prepare(self, loaded: Sequence[Any], judge: Any) -> Any:
        """Makes what source and score read from the loaded datasets, in the order of `datasets`, and the judge."""
        ...

    def make_data(self, num_examples: int) -> Any:
        """Makes data of the same shapes at random: for tests and for tracing without the files."""
        ...

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


LOSS = "training loss"


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What all tasks share that need no dataset."""

    datasets: tuple[()] = dataclasses.field(default=(), init=False)
    judge: None = dataclasses.field(default=None, init=False)

    @property
    def watched(self) -> str | None:
        """Nothing but the metric."""
        return None

    def prepare(self, loaded: Sequence[Any], judge: Any) -> tuple[()]:
        """Nothing."""
        del loaded, judge
        return ()

    def make_data(self, num_examples: int) -> tuple[()]:
        """Nothing."""
        del num_examples
        return ()


@dataclasses.dataclass(frozen=True)
class Rollouts(Drawn):
    """What all tasks in an environment share; a task of its own adds what is measured.

    Attributes:
        make: builds the environment.
    """

    make: Callable[[], Environment]

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

    Returns of several agents are added up.

    Attributes:
        episodes: how many whole episodes score a frozen policy.
        explore: whether the policy is scored as it explores, for figures published so.
        measure: `"return"` or `"length"` of an episode.
        online: whether the episodes of training make the score, instead of the frozen policy's.
        higher_is_better: whether a larger score is the better one.
        counted: places of the agents whose returns count, where there are several; all of them if left out.
        whose: who they are, for the name of the metric.
    """

    episodes: int = 64
    explore: bool = False
    measure: str = "return"
    online: bool = False
    higher_is_better: bool = True
    counted: tuple[int, ...] = ()
    whose: str = ""

    @property
    def metric(self) -> str:
        """What the score and the curve measure."""
        return f"episode {self.measure}{f' of {self.whose}' if self.whose else ''}"

    def _of_counted(self, measured: Any) -> Any:
        """Adds up what the agents that count have."""
        if not isinstance(measured, tuple):
            return measured
        return sum(measured[place] for place in self.counted or range(len(measured)))

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """Mean measure of whole episodes under the frozen policy."""
        del data
        policy_of = algorithm.build(self.spec, config).policy

        def mean(key: Key, step: Array, state: Any, hypers: Any) -> Array:
            policy = policy_of(step, state, hypers, explore=self.explore)
            played = evaluate.episodes(key, policy, self.env, self.episodes)
            measured = played.length if self.measure == "length" else self._of_counted(played.total_return)
            return measured.mean(dtype=jnp.float32)

        return mean

    def curve(self, report: Report) -> Any:
        """Mean measure of the episodes that finished in the window; nan where none did."""
        return self._of_counted(getattr(report.stats, f"total_{self.measure}")) / report.stats.episodes
