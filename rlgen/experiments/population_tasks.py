"""What black-box search is tried on: whole episodes of a population."""

import dataclasses
from typing import Any

from rlgen.core import Source
from rlgen.experiments.tasks import EnvTask
from rlgen.sources import population


@dataclasses.dataclass(frozen=True)
class PopulationTask(EnvTask):
    """Episodes in an environment, learned from by generations.

    An algorithm's config has `num_candidates`, `num_evaluations`, `max_steps`, `common_starts` and
    `normalise_observations`.
    """

    def steps_per_update(self, config: Any) -> int:
        """The most environment steps that a generation can take; fewer are taken where episodes end early."""
        limit = min(config.max_steps, self.env.max_steps)
        return config.num_candidates * config.num_evaluations * limit

    def source(self, config: Any, data: Any) -> Source:
        """Whole episodes of every candidate."""
        del data
        return population.build(
            self.env,
            num_candidates=config.num_candidates,
            num_episodes=config.num_evaluations,
            max_steps=config.max_steps,
            common_starts=config.common_starts,
            observe=config.normalise_observations,
        )
