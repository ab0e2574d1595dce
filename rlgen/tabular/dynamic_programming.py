"""Dynamic programming as an algorithm: one update is one iteration over a known process.

Sources: Sutton and Barto, "Reinforcement Learning: An Introduction", 2nd edition, chapter 4; modified policy iteration
is Puterman and Shin 1978, doi:10.1287/mnsc.24.11.1127.  The steps, and what departs from the book in them, are those of
`rlgen.parts.backups`; `rlgen.parts.planning` repeats them until they converge, without an algorithm around them.

Shape legend: `S` states, `A` actions.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rlgen.core import Algorithm, Array, Key, Spec
from rlgen.parts import backups, checks, tabular
from rlgen.parts.backups import Process
from rlgen.parts.tabular import greedy_policy as policy

METHODS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "value_iteration": backups.value_step,
    "gauss_seidel": backups.gauss_seidel_step,
    "policy_evaluation": backups.uniform_step,
    "policy_iteration": backups.policy_step,
    "modified_policy_iteration": backups.modified_step,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        method: one of `METHODS`.  `"gauss_seidel"` is value iteration in place; `"policy_evaluation"` is that of the
            uniformly random policy; `"policy_iteration"` solves for the values of each policy, and takes a dense
            process only.
        num_sweeps: under each policy of modified policy iteration; 1 is value iteration.
    """

    method: str = "value_iteration"
    num_sweeps: int = 8

    def __post_init__(self):
        """Refuses a method that there is not.

        Raises:
            ValueError: if so.
        """
        checks.one_of(self, method=METHODS)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    discount: float = 1.0
    initial_value: float = 0.0  # of every state that is no end; the first policy is greedy in these


class State(NamedTuple):
    """What is known of the process."""

    values: Array  # [S] float32
    q_values: Array  # [S, A] float32, the look-ahead that `values` come from


class Metrics(NamedTuple):
    """What an iteration did."""

    residual: Array  # largest change of a value
    start_value: Array  # mean value of the states in which episodes start


def learn(state: State, process: Process, hypers: Hypers, *, step: backups.Step) -> tuple[State, Metrics]:
    """Iterates once.

    Args:
        state: what is known.
        process: dense or sparse, of `S` states and `A` actions.
        hypers: numbers.
        step: `(process, values, discount) -> (values, q_values)`, of `rlgen.parts.backups`.

    Returns:
        `(state, metrics)`.
    """
    # Which states are ends is the process's to say, so the first values give them one too.
    before = backups.start(process, state.values)
    values, q_values = step(process, before, hypers.discount)
    return State(values, q_values), Metrics(jnp.abs(values - before).max(), (process.start * values).sum())


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int]) -> State:
    """Gives all states one value; the key is not needed, since nothing here is random."""
    del key
    q_values = jnp.full(shape, hypers.initial_value, jnp.float32)
    return State(q_values[:, 0], q_values)


def update(
    key: Key, step: Array, state: State, batch: Process, hypers: Hypers, *, iteration: backups.Step
) -> tuple[State, Metrics]:
    """Iterates once over the process that is the batch."""
    del key, step
    return learn(state, batch, hypers, step=iteration)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds dynamic programming to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: method.

    Returns:
        The algorithm; its batches are a process, of which an observation is the index of a state.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    iteration = METHODS[config.method]
    if config.method == "modified_policy_iteration":
        iteration = functools.partial(iteration, num_sweeps=config.num_sweeps)
    return Algorithm(
        init=functools.partial(init, shape=tabular.shape(spec)),
        update=functools.partial(update, iteration=iteration),
        policy=policy,
    )
