"""Distributions over the plane, to be modelled.

Shape legend: `K` minibatches an update, `M` points in a minibatch, `D` held-out points.
"""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax

from rlgen.core import NOTHING, Array, Box, Key, Source, Spec
from rlgen.experiments.pictures import Data, Measure, measured
from rlgen.experiments.tasks import LOSS, Drawn
from rlgen.sources import plane
from rlgen.train import Report

_HELD_OUT = 2_147_483_629  # seed of the held-out points; runs count theirs from 0


@dataclasses.dataclass(frozen=True)
class PlaneTask(Drawn):
    """A distribution over the plane.

    Attributes:
        draw: from it.
        num_held_out: `D`, which are the same in every run.
        metric: what the score measures.
        measure: of samples; None for the algorithm's own `build_score` on the held-out points.
    """

    draw: plane.Draw
    num_held_out: int = 10_000
    metric: str = "negative log-likelihood (nats)"
    measure: Measure | None = None
    online: bool = False
    higher_is_better: bool = False

    @property
    def watched(self) -> str | None:
        """The loss, where samples are measured."""
        return None if self.measure is None else LOSS

    @property
    def spec(self) -> Spec:
        """No input; points as output."""
        return Spec(NOTHING, Box((2,)))

    @property
    def held_out(self) -> Array:
        """Points that no run trains on, `[D, 2]`."""
        return self.draw(jax.random.key(_HELD_OUT), (self.num_held_out,))

    def steps_per_update(self, config: Any) -> int:
        """Points, `K * M`."""
        return config.num_steps * config.batch_size

    def source(self, config: Any, data: Any) -> Source:
        """Minibatches `[K, M, 2]`, drawn anew."""
        del data
        return plane.build(self.draw, batch_size=config.batch_size, num_batches=config.num_steps)

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """The algorithm's own held-out score, or the measure of its samples."""
        del data
        if self.measure is not None:
            return measured(self.measure, algorithm.build(self.spec, config).policy, Data((), self.held_out))
        measure = algorithm.build_score(self.spec, config)
        return lambda key, step, state, hypers: measure(key, state, self.held_out, hypers)

    def curve(self, report: Report) -> Any:
        """The training loss."""
        return report.metrics.loss
