"""The one place that steps a gymnax environment.

gymnax ≥ 1.0 says `terminated` and `truncated` apart and gives the observation before the reset as
`info["final_observation"]`.  The adapter turns an environment into pure functions over a batch of copies, with strong,
stable dtypes, and its spaces into those of `rlgen.core`.

An environment of several agents names them in `agents`.  Its spaces are tuples with an entry for each, and so are
observations, actions and rewards.

Shape legend: `B` copies of the environment.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment as GymnaxEnvironment

from rlgen.core import Array, Box, Discrete, Key, MultiDiscrete, Space, Spec, Tree


class TimeStep(NamedTuple):
    """What a step of `B` environments gives."""

    obs: Tree  # [B, *observation], after the reset where an episode ended
    reward: Tree  # [B] float32, for each agent where there are several
    next_obs: Tree  # [B, *observation], before any reset
    terminated: Array  # [B] bool
    truncated: Array  # [B] bool: cut by the time limit and not terminated at the same step


class Environment(NamedTuple):
    """A batch of environments as pure functions.

    Attributes:
        name: the environment's own name.
        spec: what a policy reads and writes here.
        max_steps: the time limit of an episode, in steps.
        reset: `(key, num_envs) -> (state, obs)`.
        step: `(key, state, action) -> (state, TimeStep)`; episodes that end start anew at once.
        native: the gymnax environment, for its drawings and its `P, R` arrays.
        params: its parameters.
    """

    name: str
    spec: Spec
    max_steps: int
    reset: Callable[[Key, int], tuple[Any, Tree]]
    step: Callable[[Key, Any, Tree], tuple[Any, TimeStep]]
    native: GymnaxEnvironment
    params: Any


def space_of(space: spaces.Space) -> Space:
    """Turns a gymnax space into one of `rlgen.core`.

    Raises:
        TypeError: if it is neither discrete, nor a tuple of discrete spaces, nor a box.
    """
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Tuple):
        parts = [part for part in map(space_of, space.spaces) if isinstance(part, Discrete)]
        if len(parts) == len(space.spaces):
            return MultiDiscrete(tuple(part.num for part in parts))
    if isinstance(space, spaces.Box):
        low, high = (_bound(value, space.shape) for value in (space.low, space.high))
        return Box(tuple(space.shape), low, high, np.dtype(space.dtype).name)
    raise TypeError(f"space {space!r} is neither Discrete, nor a Tuple of them, nor Box")


def _spaces_of(space: spaces.Space) -> tuple[Space, ...]:
    """Turns the spaces of several agents into those of `rlgen.core`."""
    if not isinstance(space, spaces.Tuple):
        raise TypeError(f"space {space!r} of several agents is no Tuple")
    return tuple(map(space_of, space.spaces))


def _bound(value: Any, shape: tuple[int, ...]) -> Any:
    """A bound as a hashable value: one number where all elements share it, and infinity for the largest float."""
    values = np.broadcast_to(np.asarray(value, np.float64), shape)
    values = np.where(np.abs(values) >= np.finfo(np.float32).max, np.copysign(math.inf, values), values)
    if values.size == 0 or (values == values.flat[0]).all():
        return float(values.flat[0]) if values.size else math.inf
    return tuple(map(_as_tuple, values))


def _as_tuple(values: np.ndarray) -> Any:
    return float(values) if np.ndim(values) == 0 else tuple(map(_as_tuple, values))


def make(environment: str | GymnaxEnvironment, **overrides: Any) -> Environment:
    """Makes a batched environment.

    Args:
        environment: the name of a registered gymnax environment, or an instance.
        **overrides: fields of the environment's parameters, such as `max_steps_in_episode=200`, or, where the
            environment is registered, what it is made with, such as DeepSea's `size=10`.

    Returns:
        The environment as pure functions.

    Raises:
        ValueError: if gymnax does not know the name.
        TypeError: if the environment knows nothing of an override, or has other spaces than are known.
    """
    # gymnax computes some of these with jax; inside a trace they must still be numbers.
    with jax.ensure_compile_time_eval():
        native = gymnax.make(environment)[0] if isinstance(environment, str) else environment
        fields = {field.name for field in dataclasses.fields(native.default_params)}
        arguments = {name: overrides.pop(name) for name in overrides.keys() - fields}
        if arguments and isinstance(environment, str):
            native = gymnax.make(environment, **arguments)[0]
        elif arguments:
            raise TypeError(f"{native.name} has no parameter {', '.join(sorted(arguments))}")
        params = dataclasses.replace(native.default_params, **_typed(overrides, native.default_params))
        agents: tuple[str, ...] = getattr(native, "agents", ())
        convert = _spaces_of if agents else space_of
        spec = Spec(convert(native.observation_space(params)), convert(native.action_space(params)))
        if agents and {len(spec.observation), len(spec.action)} != {len(agents)}:
            raise TypeError(f"{native.name} has {len(agents)} agents, and not as many spaces")
    return Environment(
        name=native.name,
        spec=spec,
        max_steps=int(params.max_steps_in_episode),
        reset=functools.partial(_reset, native=native, params=params),
        step=functools.partial(_step, native=native, params=params, action_space=spec.action),
        native=native,
        params=params,
    )


def _typed(overrides: dict[str, Any], params: Any) -> dict[str, Any]:
    """Makes whole numbers floats where the environment's own are: its state keeps the types it begins with."""
    return {
        name: float(value) if isinstance(getattr(params, name), float) else value for name, value in overrides.items()
    }


def _reset(key: Key, num_envs: int, *, native: GymnaxEnvironment, params: Any):
    obs, state = jax.vmap(native.reset, in_axes=(0, None))(jax.random.split(key, num_envs), params)
    return jax.tree.map(_strong, state), jax.tree.map(_strong, obs)


def _admissible(space: Any, action: Tree) -> Tree:
    """An action, or a tuple of one for each agent, as the environment takes it."""
    if isinstance(space, tuple):
        return tuple(map(_admissible, space, action))
    if isinstance(space, Box):
        return jnp.clip(action, jnp.asarray(space.low), jnp.asarray(space.high))
    if isinstance(space, MultiDiscrete):
        return tuple(jnp.moveaxis(action, -1, 0))
    return action


def _step(key: Key, state: Any, action: Tree, *, native: GymnaxEnvironment, params: Any, action_space: Any):
    action = _admissible(action_space, action)
    keys = jax.random.split(key, jax.tree.leaves(action)[0].shape[0])
    step = jax.vmap(native.step, in_axes=(0, 0, 0, None))
    obs, new_state, reward, terminated, truncated, info = step(keys, state, action, params)
    # Some environments write other dtypes in `step` than in `reset`: a scan's carry needs one.
    new_state = jax.tree.map(lambda new, old: new.astype(old.dtype), new_state, state)
    return new_state, TimeStep(
        obs=jax.tree.map(_strong, obs),
        reward=jax.tree.map(lambda leaf: leaf.astype(jnp.float32), reward),
        next_obs=jax.tree.map(_strong, info["final_observation"]),
        terminated=terminated,
        truncated=truncated & ~terminated,
    )


def _strong(leaf: Any) -> Array:
    """Removes the weak type of a Python number, which would compile a second time."""
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)
