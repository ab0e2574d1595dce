"""What tabular methods are tried on: bandits, values of a fixed policy, known action values and known processes.

Shape legend: `S` states, `A` actions, `T` time, `B` environments.
"""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp

from rlgen.core import Array, Key, Policy, Source
from rlgen.envs import mdp, tables
from rlgen.experiments.tasks import Rollouts
from rlgen.sources import constant, rollout
from rlgen.train import Report


class BanditStats(NamedTuple):
    """Sums over steps."""

    steps: Array  # float32 scalar, how many
    total_reward: Array  # float32 scalar
    total_optimal: Array  # float32 scalar, how many took the best arm


@dataclasses.dataclass(frozen=True)
class BanditTask(Rollouts):
    """One run of a bandit problem, whose arms are drawn anew for every seed.

    How often the best arm was taken is kept among the statistics of a run.  It is known before an update's first step
    and may be another after it, so that an update is one step.  Several environments have arms of their own each, and
    one table for all.
    """

    metric: str = "reward a step"
    online: bool = True
    higher_is_better: bool = True

    @property
    def most_updates(self) -> int:
        """Those of a problem, after which arms are drawn anew."""
        return self.env.max_steps

    def steps_per_update(self, config: Any) -> int:
        """One step of each environment.

        Raises:
            ValueError: if it is several.
        """
        length = config.rollout_length
        if length != 1:
            raise ValueError(f"config.rollout_length={length} is impossible: a bandit's best arm is known for one step")
        return config.num_envs

    def source(self, config: Any, data: Any) -> Source:
        """Rollouts `[1, B]`, with statistics of their steps."""
        num = self.steps_per_update(config)
        steps = super().source(config, data)

        def next_batch(key: Key, step: Array, state: rollout.RolloutState, policy: Policy):
            best = state.env.values.argmax(-1)
            state, batch, _ = steps.next(key, step, state, policy)
            optimal = (batch.action == best).sum(dtype=jnp.float32)
            return state, batch, BanditStats(jnp.float32(num), batch.reward.sum(), optimal)

        return Source(steps.init, next_batch)

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """Never asked for: the run itself is scored."""
        raise NotImplementedError("a bandit's score is its curve")

    def curve(self, report: Report) -> Any:
        """Mean over the steps of the window."""
        return report.stats.total_reward / report.stats.steps


@dataclasses.dataclass(frozen=True)
class PredictionTask(Rollouts):
    """Values of a fixed policy in an environment, from its rollouts.

    The algorithm has `target_policy(config, num_actions)`, the probabilities `[A]` of the policy whose values it
    learns, and `values(state)`, `[S]`.

    Attributes:
        online: whether the score is the error that the algorithm itself reports, over the whole run.
    """

    online: bool = False
    metric: str = "RMS error of the values"
    higher_is_better: bool = False

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """Root mean square error over the states that do not end an episode, against a linear solve."""
        del data
        process = tables.process(self.env.native)
        going_on = ~process.terminal
        policy = jnp.asarray(algorithm.target_policy(config, self.spec.action.num))

        def error(key: Key, step: Array, state: Any, hypers: Any) -> Array:
            del key, step
            transition = jnp.einsum("a,sat->st", policy, process.transition) * going_on
            truth = jnp.linalg.solve(jnp.eye(len(going_on)) - hypers.discount * transition, process.reward @ policy)
            squares = jnp.square(algorithm.values(state) - truth)
            return jnp.sqrt(jnp.where(going_on, squares, 0.0).sum() / going_on.sum())

        return error

    def curve(self, report: Report) -> Any:
        """The error that the algorithm reports; nan where it reports none."""
        return report.metrics.error


@dataclasses.dataclass(frozen=True)
class ActionValueTask(Rollouts):
    """Known action values, to be learned from rollouts.

    An algorithm's state has `q_values`, `[S, A]`, and its metrics have `error`.

    Attributes:
        reference: `[S, A]` values to be found, nan where there is none.
    """

    reference: tuple[tuple[float, ...], ...] = ()
    metric: str = "largest error of the values"
    online: bool = False
    higher_is_better: bool = False

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """Largest difference from the reference."""
        del algorithm, config, data
        return lambda key, step, state, hypers: largest_error(state, self.reference)

    def curve(self, report: Report) -> Any:
        """The error that the algorithm reports."""
        return report.metrics.error


@dataclasses.dataclass(frozen=True)
class PlanningTask(Rollouts):
    """A known process, to be solved.

    An algorithm's state has `values`, `[S]`.

    Attributes:
        reference: values to be found, `[S]`, or `[S, A]` of actions; nan where there is none to be found.  Without it
            the difference from one more backup counts.
    """

    reference: tuple[Any, ...] = ()
    online: bool = False
    higher_is_better: bool = False

    @property
    def metric(self) -> str:
        """What the score and the curve measure."""
        return "largest error of the values" if self.reference else "Bellman residual"

    def steps_per_update(self, config: Any) -> int:
        """One iteration."""
        del config
        return 1

    def source(self, config: Any, data: Any) -> Source:
        """The process, over and over."""
        del config, data
        return constant.build(tables.process(self.env.native))

    def score(self, algorithm: ModuleType, config: Any, data: Any) -> Callable[[Key, Array, Any, Any], Array]:
        """Largest difference from the reference, or from one more backup."""
        del algorithm, data
        of_random_policy = getattr(config, "method", None) == "policy_evaluation"
        process = tables.process(self.env.native)

        def error(key: Key, step: Array, state: Any, hypers: Any) -> Array:
            del key, step
            if self.reference:
                return largest_error(state, self.reference)
            q_values = process.reward + hypers.discount * mdp.expected(process, state.values)
            backup = q_values.mean(-1) if of_random_policy else q_values.max(-1)
            return jnp.abs(backup - state.values).max()

        return error

    def curve(self, report: Report) -> Any:
        """The largest change of a value."""
        return report.metrics.residual


def largest_error(state: Any, reference: tuple[Any, ...]) -> Array:
    """Largest difference between a state's values and known ones.

    Args:
        state: with `values` `[S]`, or `q_values` `[S, A]`.
        reference: `[S]` or `[S, A]`, nan where nothing is known.

    Returns:
        A scalar; nan where a value that is known was learned as nan.
    """
    known = jnp.asarray(reference)
    error = jnp.abs((state.values if known.ndim == 1 else state.q_values) - known)
    return jnp.where(jnp.isnan(known), 0.0, error).max()
