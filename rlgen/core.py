"""The contract: what an algorithm, a source of data and a policy are.

A policy is a conditional generative model, and a generative model is a policy with a trivial input.  One contract
therefore covers control and generation alike: an `Algorithm` is three pure functions, a `Source` is two pure functions
that turn a policy into batches, and `rlgen.train` joins them.

Laws that every implementation obeys:

* `key` comes first, is a typed key (`jax.random.key`) and is consumed.  State never holds keys: the driver derives the
  key of update `i` from the run's key and `i`, so a run does not depend on how it was cut into pieces.
* `step` is the number of updates done, an int32 scalar that stays *outside* the batched state.  Under a sweep every
  branch, ring-buffer index and period that depends on `step` alone stays a scalar.
* `state` is a pytree of arrays and the minimum that the next update needs; `metrics` is a NamedTuple of scalars.
* What shapes the program is a frozen dataclass `Config`, bound once by `build(spec, config)`; what is only a number
  is a leaf of the NamedTuple `Hypers`, which may be traced or carry a grid axis.

Shape legend: `T` time, `B` environments or examples, `N` any batch shape.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Key = jax.Array  # a typed key, `jax.random.key(seed)`
Tree = Any  # a pytree of arrays


class InitFn(Protocol):
    """`(key, hypers) -> state`: the state before the first update.  The key is consumed."""

    def __call__(self, key: Key, hypers: Any) -> Any: ...


class UpdateFn(Protocol):
    """`(key, step, state, batch, hypers) -> (state, metrics)`: one update.  The key is consumed.

    The new state has the structure, shapes and dtypes of the old one; metrics are float32 scalars.
    """

    def __call__(self, key: Key, step: Array, state: Any, batch: Any, hypers: Any) -> tuple[Any, Any]: ...


class PolicyFn(Protocol):
    """`(step, state, hypers, *, explore) -> Policy`: what the state has learned, as a conditional model.

    `explore` is a Python bool: True for the behaviour that gathers data, False for the behaviour that is evaluated.
    """

    def __call__(self, step: Array, state: Any, hypers: Any, *, explore: bool) -> "Policy": ...


class Algorithm(NamedTuple):
    """A learning rule as three pure functions."""

    init: InitFn
    update: UpdateFn
    policy: PolicyFn


class Policy(NamedTuple):
    """`p(output | input)`, recurrent or not.

    Attributes:
        memory: `(batch_shape) -> memory`, the memory at the start of an episode; `()` where there is none.
        apply: `(key, inputs, memory) -> (output, extras, memory)` over inputs of any leading batch shape.  `extras`
            is a dict of arrays with that batch shape in front, such as `log_prob`, or `memory` where learning needs
            it.
    """

    memory: Callable[[tuple[int, ...]], Tree]
    apply: Callable[[Key, Tree, Tree], tuple[Tree, dict[str, Tree], Tree]]


def memoryless(apply: Callable[[Key, Tree, Tree], tuple[Tree, dict[str, Tree], Tree]]) -> Policy:
    """A policy that carries nothing from one step to the next."""
    return Policy(memory=lambda batch_shape: (), apply=apply)


class Source(NamedTuple):
    """Where batches come from: environments under a policy, a dataset, a population.

    Attributes:
        init: `(key, policy) -> source_state`.
        next: `(key, step, source_state, policy) -> (source_state, batch, stats)`.  `stats` is a NamedTuple of scalars
            that are *sums*, so that the stats of several updates add up.
    """

    init: Callable[[Key, Policy], Any]
    next: Callable[[Key, Array, Any, Policy], tuple[Any, Any, Any]]


class Transition(NamedTuple):
    """One step of experience; a rollout is one with leading `[T, B]`."""

    obs: Tree  # [*N, *observation]
    action: Tree  # [*N, *action]
    reward: Tree  # [*N] float32
    next_obs: Tree  # [*N, *observation], before any reset
    terminated: Array  # [*N] bool: the bootstrap stops
    truncated: Array  # [*N] bool: the trace stops, the bootstrap does not
    extras: dict[str, Tree]  # what the policy said beside its action


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Integers `0 … num - 1`, as an int32 scalar."""

    num: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element: a scalar."""
        return ()

    @property
    def dtype(self) -> str:
        """Name of the dtype of an element."""
        return "int32"


@dataclasses.dataclass(frozen=True)
class Box:
    """Real arrays of one shape between two bounds.

    Attributes:
        shape: shape of one element; `(0,)` is the trivial input of an unconditional model.
        low: smallest value, one number for all elements or a nested tuple of the element's shape.
        high: largest value, likewise.  Bounds may be infinite.
        dtype: name of the dtype of an element.
    """

    shape: tuple[int, ...]
    low: Any = -math.inf
    high: Any = math.inf
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """Several integers at once, as an int32 vector.

    Attributes:
        sizes: how many values each of them has, from 0 on.
    """

    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element: a vector."""
        return (len(self.sizes),)

    @property
    def dtype(self) -> str:
        """Name of the dtype of an element."""
        return "int32"


Space = Discrete | MultiDiscrete | Box
NOTHING = Box((0,))


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a policy reads and writes; all that an algorithm's `build` knows of its task.

    A generative model reads `NOTHING` (or its condition) and writes data.  Tasks with several agents hold tuples of
    spaces.

    Attributes:
        observation: space of the policy's inputs.
        action: space of the policy's outputs.
    """

    observation: Any
    action: Any
