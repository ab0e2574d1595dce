"""Off-policy TD(0) with linear features: semi-gradient, TDC and GTD2.

Sutton and Barto, "Reinforcement Learning", 2nd edition, sections 11.2 and 11.7; Sutton et al. 2009,
doi:10.1145/1553374.1553501.  With `V(s) = wᵀx(s)`, importance ratio `ρ` and error `δ = r + γ wᵀx' − wᵀx`,

    w += α ρ (m x − κ γ (vᵀx) x'),  v += β ρ (δ − vᵀx) x,

where `m` is `δ` in TDC and `vᵀx` in GTD2.  `κ` is `Hypers.correction`: 1 is the published rule, and TDC with 0 is
semi-gradient TD(0), which may diverge off-policy; what lies between shows how much of the correction it takes.

Departures: `κ` itself.  Environments are learned from one after another.

Shape legend: `T` steps, `B` environments, `S` states, `A` actions, `D` features, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from rlgen.core import Algorithm, Array, Key, Spec, Transition
from rlgen.parts import prediction
from rlgen.parts.prediction import policy

target_policy, values = prediction.target_policy, prediction.values


# Baird's star: six states `2 wᵢ + w₈` and a seventh `w₇ + 2 w₈`, and the weights from which semi-gradients diverge.
BAIRD_FEATURES = (
    (2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    (0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    (0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    (0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0),
    (0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0),
    (0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0),
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0),
)
BAIRD_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`.
        method: which gradient is followed.
        features: `x`, `[S, D]`; empty for one feature a state.
        initial_weights: `w` before the first update, `[D]`; empty for zeros.
        behaviour: probability of each action while data is gathered; empty for a uniform policy.
        target: probability of each action under the policy whose values are learned; empty for the behaviour.
        reference: known values of the first states, against which `Metrics.error` is measured at the ends of episodes.
        num_episodes: how many ends, from each batch's first on, `Metrics.error` averages; 0 for all.
    """

    num_envs: int = 1
    rollout_length: int = 10
    method: Literal["tdc", "gtd2"] = "tdc"
    features: tuple[tuple[float, ...], ...] = ()
    initial_weights: tuple[float, ...] = ()
    behaviour: tuple[float, ...] = ()
    target: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    num_episodes: int = 0


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 0.005  # α
    correction_rate: float = 0.05  # β
    correction: float = 1.0  # κ
    discount: float = 0.99


class Learner(NamedTuple):
    """Two vectors of weights."""

    weights: Array  # [D] float32, w
    expected_errors: Array  # [D] float32, v: `vᵀx` estimates δ


class State(NamedTuple):
    """The weights and what they say of each state."""

    learner: Learner
    values: Array  # [S] float32; those who read a state alone know no features


class Metrics(NamedTuple):
    """Of an update."""

    error: Array  # RMS error at the ends of episodes, or without a reference the mean size of δ
    weight: Array  # largest size of a weight, by which divergence shows


def directions(
    learner: Learner, features: Array, next_features: Array, reward: Array, hypers: Hypers, *, method: str
) -> tuple[Array, Array, Array]:
    """Which way each step pulls the weights.

    Args:
        learner: weights.
        features: `x`, `[*N, D]`.
        next_features: `x'`, `[*N, D]`; zero where the episode terminated.
        reward: `[*N]`.
        hypers: numbers.
        method: as in `Config`.

    Returns:
        `(Δw, Δv, δ)`, `[*N, D]`, `[*N, D]` and `[*N]`, before step sizes and importance ratios.
    """
    difference = reward + (hypers.discount * next_features - features) @ learner.weights
    expected = features @ learner.expected_errors
    main = difference if method == "tdc" else expected
    correction = hypers.correction * hypers.discount * expected[..., None] * next_features
    return main[..., None] * features - correction, (difference - expected)[..., None] * features, difference


def learn(
    learner: Learner,
    transition: Transition,
    hypers: Hypers,
    *,
    features: Array,
    method: str,
    policies: prediction.Policies,
) -> tuple[Learner, Array]:
    """Learns from one step.

    Args:
        learner: weights.
        transition: scalars.
        hypers: numbers.
        features: `[S, D]`.
        method: as in `Config`.
        policies: of the steps and of the values.

    Returns:
        `(learner, δ)`.
    """
    following = jnp.where(transition.terminated, 0.0, features[transition.next_obs])
    pulls = directions(learner, features[transition.obs], following, transition.reward, hypers, method=method)
    ratio = jnp.asarray(policies.ratios)[transition.action]
    return _step(learner, ratio * pulls[0], ratio * pulls[1], hypers), pulls[2]


def sweep(
    learner: Learner, features: Array, transition: Array, reward: Array, hypers: Hypers, *, method: str
) -> Learner:
    """Makes the update that is expected where all states are visited equally often; needs the process, not samples.

    Args:
        learner: weights.
        features: `[S, D]`.
        transition: `[S, S]` probability of each next state under the target; a row's missing share ends the episode.
        reward: `[S]` expected under the target.
        hypers: numbers.
        method: as in `Config`.

    Returns:
        The next weights.
    """
    pulls = directions(learner, features, transition @ features, reward, hypers, method=method)
    return _step(learner, pulls[0].mean(0), pulls[1].mean(0), hypers)


def _step(learner: Learner, weights: Array, expected_errors: Array, hypers: Hypers) -> Learner:
    """Moves both vectors, each at its own rate."""
    return Learner(
        learner.weights + hypers.learning_rate * weights,
        learner.expected_errors + hypers.correction_rate * expected_errors,
    )


def init(key: Key, hypers: Hypers, *, features: np.ndarray, initial_weights: np.ndarray) -> State:
    """Starts from the given weights; neither the key nor the numbers are needed."""
    del key, hypers
    weights = jnp.asarray(initial_weights)
    return State(Learner(weights, jnp.zeros_like(weights)), jnp.asarray(features) @ weights)


def update(
    key: Key,
    step: Array,
    state: State,
    batch: Transition,
    hypers: Hypers,
    *,
    config: Config,
    features: np.ndarray,
    policies: prediction.Policies,
) -> tuple[State, Metrics]:
    """Learns from `[T, B]` transitions, one environment after the other."""
    del key, step
    table = jnp.asarray(features)
    rule = functools.partial(learn, features=table, method=config.method, policies=policies)

    def one_step(learner, transition):
        learner, difference = rule(learner, transition, hypers)
        return learner, prediction.step_error(table @ learner.weights, difference, config.reference)

    streams = prediction.streams(batch)
    learner, errors = lax.scan(lambda learner, stream: lax.scan(one_step, learner, stream), state.learner, streams)
    error = prediction.report(errors, streams, config.reference, config.num_episodes)
    return State(learner, table @ learner.weights), Metrics(error, jnp.abs(learner.weights).max())


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds gradient TD to a task.

    Args:
        spec: `Discrete` observations and actions.
        config: method, features, policies and what the error is measured against.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if observations or actions are not discrete, if the policies do not fit them or each other, if
            features or weights have the wrong shape, or if there is no such method.
    """
    num_states, policies = prediction.bind(spec, config)
    if config.method not in ("tdc", "gtd2"):
        raise ValueError(f"method={config.method!r} is neither tdc nor gtd2")
    if len({len(row) for row in config.features}) > 1:
        raise ValueError("all states need equally many features")
    features = np.asarray(config.features or np.eye(num_states), np.float32)
    initial_weights = np.asarray(config.initial_weights or np.zeros(features.shape[1]), np.float32)
    if len(features) != num_states or initial_weights.shape != features.shape[1:]:
        raise ValueError(
            f"features {features.shape} and weights {initial_weights.shape} do not fit {num_states} states"
        )
    return Algorithm(
        init=functools.partial(init, features=features, initial_weights=initial_weights),
        update=functools.partial(update, config=config, features=features, policies=policies),
        policy=functools.partial(policy, policies=policies),
    )
