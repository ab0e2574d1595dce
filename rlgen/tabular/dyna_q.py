"""Dyna-Q and prioritised sweeping; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 8.2.

Every real step teaches a model what followed, and the model then teaches the values.  Dyna-Q learns from the real step
as Q-learning does, and again from the model at `num_planning` pairs: a state drawn from those seen, an action drawn
from those taken there.  Prioritised sweeping (same book, section 8.4) learns from the model alone, each time at the
pair that waits with the largest error, whose predecessors then wait with theirs.

The model is a table of what happened last, so it suits worlds without chance.  What it says includes Dyna-Q+'s bonus
`κ √τ` (same book, section 8.3) for a pair not tried for `τ` steps, wherever it is consulted; the book's Dyna-Q+ plans
with `untried` actions too.

Departure: the book's queue of pairs is a table of priorities, zero where a pair does not wait.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition
from rlgen.parts import tabular
from rlgen.parts.tabular import policy
from rlgen.tabular import q_learning


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`; with 1 the values are new at every step, as in the book.
        num_planning: times that the model is learned from after each real step; 0 is Q-learning.
        prioritised: whether the pair with the largest error is planned at, instead of a random one.
        threshold: error above which a pair waits for prioritised sweeping.
        untried: whether actions never taken in a state that was seen are planned with too, as if they led back there
            without reward.
    """

    num_envs: int = 1
    rollout_length: int = 1
    num_planning: int = 5
    prioritised: bool = False
    threshold: float = 1e-4
    untried: bool = False

    def __post_init__(self):
        if self.prioritised and self.num_planning < 1:
            raise ValueError(f"config.prioritised learns by planning alone: config.num_planning={self.num_planning}")
        if not self.threshold >= 0:
            raise ValueError(f"config.threshold={self.threshold} is no bound of an absolute error")

    @property
    def idle(self) -> dict[str, str]:
        """Hyperparameters that a switch leaves without effect, and which switch."""
        return {} if self.num_planning else {"bonus": "config.num_planning=0"}


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.1
    discount: float = 0.95
    bonus: float = 0.0  # κ
    initial_value: float = 0.0  # optimistic where it is above the true values
    epsilon_start: float = 0.1
    epsilon_end: float = 0.1
    horizon: float = float("inf")  # updates over which epsilon falls


class Model(NamedTuple):
    """What followed each pair when it was last tried; a pair never tried leads back without reward."""

    successor: Array  # [S, A] int32
    reward: Array  # [S, A] float32
    terminated: Array  # [S, A] bool
    tried: Array  # [S, A] bool
    time: Array  # [S, A] int32, real steps done before it was last tried


class Seen(NamedTuple):
    """The states in which actions were taken, in the order of their first visit."""

    obs: Array  # [S] int32, of which the first `num` count
    num: Array  # int32 scalar


class State(NamedTuple):
    """The values, the model, and what planning picks from."""

    q_values: Array  # [S, A] float32
    model: Model
    picks: Array | Seen  # priorities [S, A] float32 of prioritised sweeping, or the states seen


class Metrics(NamedTuple):
    """Means over an update's real transitions."""

    error: Array  # absolute temporal-difference error
    q_value: Array  # of the actions taken


def record(model: Model, transition: Transition, time: Array) -> Model:
    """Takes down what followed a pair.

    Args:
        model: tables `[S, A]`.
        transition: scalars, no batch axis.
        time: real steps done before the present one, int32 scalar.

    Returns:
        The model.
    """
    news = Model(transition.next_obs, transition.reward, transition.terminated, jnp.bool_(True), time)
    return jax.tree.map(lambda table, new: table.at[transition.obs, transition.action].set(new), model, news)


def recall(model: Model, obs: Array, action: Array, time: Array, hypers: Any) -> Transition:
    """What the model says of pairs, with the bonus of those not tried for long.

    Args:
        model: tables `[S, A]`.
        obs: `[*N]` int32.
        action: `[*N]` int32.
        time: real steps done before the present one, int32 scalar.
        hypers: with `bonus`.

    Returns:
        Transitions, `[*N]`.
    """
    successor, reward, terminated, _, last = (table[obs, action] for table in model)
    reward = reward + hypers.bonus * jnp.sqrt((time - last).astype(jnp.float32))
    return Transition(obs, action, reward, successor, terminated, jnp.zeros_like(terminated), {})


def plan(
    key: Key, q_values: Array, model: Model, seen: Seen, time: Array, hypers: Any, *, num_planning: int, untried: bool
) -> Array:
    """Learns from the model at random pairs that are known.

    Args:
        key: consumed.
        q_values: `[S, A]`.
        model: tables `[S, A]`.
        seen: at least one state.
        time: real steps done before the present one, int32 scalar.
        hypers: with `learning_rate`, `discount` and `bonus`.
        num_planning: how many pairs.
        untried: as in `Config`.

    Returns:
        The table.
    """
    obs_key, action_key = jax.random.split(key)
    obs = seen.obs[jax.random.randint(obs_key, (num_planning,), 0, seen.num)]
    noise = jax.random.uniform(action_key, (num_planning, q_values.shape[1]))
    action = jnp.argmax(noise if untried else jnp.where(model.tried[obs], noise, -1.0), axis=-1)

    def one(state: q_learning.State, transition: Transition):
        return q_learning.learn(state, transition, hypers)[0], None

    dreamt = recall(model, obs, action.astype(jnp.int32), time, hypers)
    return lax.scan(one, q_learning.State(q_values), dreamt)[0].q_values


def sweep(
    q_values: Array, model: Model, priority: Array, time: Array, hypers: Any, *, config: Config
) -> tuple[Array, Array]:
    """Learns from the model at the pair that waits with the largest priority; its predecessors then wait.

    Args:
        q_values: `[S, A]`.
        model: tables `[S, A]`.
        priority: `[S, A]`, absolute errors of the pairs that wait, else zero.
        time: real steps done before the present one, int32 scalar.
        hypers: with `learning_rate`, `discount` and `bonus`.
        config: its `threshold` and `untried` are read.

    Returns:
        The table and the priorities.
    """
    num_states, num_actions = q_values.shape
    obs, action = jnp.divmod(jnp.argmax(priority).astype(jnp.int32), num_actions)
    learned, _ = q_learning.learn(q_learning.State(q_values), recall(model, obs, action, time, hypers), hypers)
    q_values = jnp.where(priority[obs, action] > 0, learned.q_values, q_values)
    everywhere = jnp.indices((num_states, num_actions), dtype=jnp.int32)
    leading = recall(model, everywhere[0], everywhere[1], time, hypers)
    known = model.tried.any(-1, keepdims=True) if config.untried else model.tried
    change = jnp.abs(leading.reward + hypers.discount * q_values[obs].max() - q_values)
    waits = known & (model.successor == obs) & ~model.terminated & (change > config.threshold)
    waits &= priority[obs, action] > 0
    priority = priority.at[obs, action].set(0.0)
    return q_values, jnp.where(waits, jnp.maximum(priority, change), priority)


def learn(
    key: Key, state: State, transition: Transition, time: Array, hypers: Any, *, config: Config
) -> tuple[State, Metrics]:
    """Learns from one real transition and then from the model.

    Args:
        key: consumed.
        state: values, model and what planning picks from.
        transition: scalars, no batch axis.
        time: real steps done before the present one, int32 scalar.
        hypers: with `learning_rate`, `discount` and `bonus`.
        config: shapes and switches.

    Returns:
        `(state, metrics)`.
    """
    q_values, model, picks = state.q_values, state.model, state.picks
    at = transition.obs, transition.action
    is_new = ~model.tried[transition.obs].any()
    model = record(model, transition, time)
    direct, (error, value) = q_learning.learn(q_learning.State(q_values), transition, hypers)
    if isinstance(picks, Seen):
        picks = _see(picks, transition.obs, is_new)
        planning = functools.partial(plan, num_planning=config.num_planning, untried=config.untried)
        q_values = planning(key, direct.q_values, model, picks, time, hypers)
    else:
        waiting = jnp.where(error > config.threshold, error, 0.0)
        picks = picks.at[at].max(waiting)

        def one(_, carry):
            return sweep(carry[0], model, carry[1], time, hypers, config=config)

        q_values, picks = lax.fori_loop(0, config.num_planning, one, (q_values, picks))
    return State(q_values, model, picks), Metrics(error, value)


def _see(seen: Seen, obs: Array, is_new: Array) -> Seen:
    """Adds a state to the list if it is new; otherwise it is written where it does not count, or nowhere."""
    return Seen(seen.obs.at[seen.num].set(obs, mode="drop"), seen.num + is_new)


def init(key: Key, hypers: Hypers, *, shape: tuple[int, int], prioritised: bool) -> State:
    """Fills the table with one value and knows nothing; the key is not needed, since all seeds start alike."""
    del key
    zeros = jnp.zeros(shape, jnp.int32)
    obs = jnp.arange(shape[0], dtype=jnp.int32)
    model = Model(
        successor=jnp.broadcast_to(obs[:, None], shape),
        reward=zeros.astype(jnp.float32),
        terminated=zeros.astype(bool),
        tried=zeros.astype(bool),
        time=zeros,
    )
    picks = jnp.zeros(shape) if prioritised else Seen(jnp.zeros_like(obs), jnp.int32(0))
    return State(jnp.full(shape, hypers.initial_value, jnp.float32), model, picks)


def update(
    key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, config: Config
) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions in time order, each followed by planning; the key is consumed."""
    _, transitions = tabular.in_time_order(batch)
    num = len(transitions.reward)

    def body(state: State, inputs: tuple[Key, Transition, Array]):
        step_key, transition, time = inputs
        return learn(step_key, state, transition, time, hypers, config=config)

    times = step * num + jnp.arange(num, dtype=jnp.int32)
    state, metrics = lax.scan(body, state, (jax.random.split(key, num), transitions, times))
    return state, jax.tree.map(jnp.mean, metrics)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds Dyna-Q to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: shapes and switches.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete.
    """
    shape = tabular.shape(spec)
    return Algorithm(
        init=functools.partial(init, shape=shape, prioritised=config.prioritised),
        update=functools.partial(update, config=config),
        policy=policy,
    )
