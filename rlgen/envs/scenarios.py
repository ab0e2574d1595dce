"""Games of particles: simple spread, simple adversary and simple tag (`rlgen.envs.particles`, arXiv:1706.02275).

Agents see others and landmarks from where they are themselves; others come in their own order, oneself left out.

Shape legend: `A` agents, `L` landmarks, `E = A + L` bodies, agents first.
"""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp

from rlgen.core import Array
from rlgen.envs.particles import Particles, ParticlesState, Scenario, distances, touching

_CAUGHT = 10.0  # what a touch is worth to a pursuer


def _others(scenario: Scenario, agent: int) -> list[int]:
    """All agents but one."""
    return [other for other in range(scenario.num_agents) if other != agent]


def _around(scenario: Scenario, state: ParticlesState, agent: int) -> list[Array]:
    """Ways to the landmarks and to the other agents, `[2 L]` and `[2 (A - 1)]`."""
    ways = state.place - state.place[agent]
    others = [ways[other] for other in _others(scenario, agent)]
    return [ways[scenario.num_agents :].ravel(), jnp.concatenate(others)]


def _see_spread(scenario: Scenario, state: ParticlesState) -> tuple[Array, ...]:
    """Its velocity and place, landmarks, others, and what these say, which is nothing: `[2 + 2 + 2 L + 4 (A - 1)]`."""
    silence = jnp.zeros(2 * (scenario.num_agents - 1))
    return tuple(
        jnp.concatenate([state.velocity[agent], state.place[agent], *_around(scenario, state, agent), silence])
        for agent in range(scenario.num_agents)
    )


def _reward_spread(scenario: Scenario, state: ParticlesState, *, local_ratio: float) -> tuple[Array, ...]:
    """All lose by how far each landmark is from the agent nearest to it, and one by how many it touches itself."""
    num = scenario.num_agents
    _, length = distances(state.place, num)
    uncovered = length[:, num:].min(axis=0).sum()
    touched = touching(scenario, state).sum(axis=1)
    reward = -(local_ratio * touched + (1 - local_ratio) * uncovered)
    return tuple(reward)


def simple_spread(num_agents: int = 3, local_ratio: float = 0.5, continuous: bool = False) -> Particles:
    """Agents that are to cover as many landmarks without touching each other.

    Args:
        num_agents: `A`, and `L`.
        local_ratio: share of a reward that an agent's own touches make.
        continuous: whether actions are five numbers instead of one of five.

    Returns:
        The environment.

    Raises:
        ValueError: if there are too few agents.
    """
    scenario = Scenario(
        agents=_named("agent", num_agents, least=2),
        num_landmarks=num_agents,
        sizes=(0.15,) * num_agents,
        landmark_size=0.05,
        accelerations=(5.0,) * num_agents,
        top_speeds=(math.inf,) * num_agents,
        observe=_see_spread,
        reward=functools.partial(_reward_spread, local_ratio=local_ratio),
    )
    return Particles("SimpleSpread", scenario, continuous)


def _see_adversary(scenario: Scenario, state: ParticlesState) -> tuple[Array, ...]:
    """Landmarks and others, `[2 L + 2 (A - 1)]`; before these all but the first agent see the goal."""
    goal = state.place[scenario.num_agents + state.goal]
    return tuple(
        jnp.concatenate([*[goal - state.place[agent]] * (agent > 0), *_around(scenario, state, agent)])
        for agent in range(scenario.num_agents)
    )


def _reward_adversary(scenario: Scenario, state: ParticlesState) -> tuple[Array, ...]:
    """The first wants to be near the goal; the others want one of them to be there, and the first to be away."""
    num = scenario.num_agents
    length = jnp.linalg.norm(state.place[:num] - state.place[num + state.goal], axis=-1)
    return (-length[0], *((length[0] - length[1:].min()),) * (num - 1))


def simple_adversary(num_good: int = 2, continuous: bool = False) -> Particles:
    """Agents that know their goal among landmarks, and an adversary that has to guess it from what they do.

    Args:
        num_good: agents that know, and landmarks.
        continuous: whether actions are five numbers instead of one of five.

    Returns:
        The environment.

    Raises:
        ValueError: if there are too few agents.
    """
    num = 1 + num_good
    scenario = Scenario(
        agents=(*_named("adversary", 1), *_named("agent", num_good)),
        num_landmarks=num_good,
        sizes=(0.15,) * num,
        landmark_size=0.08,
        accelerations=(5.0,) * num,
        top_speeds=(math.inf,) * num,
        observe=_see_adversary,
        reward=_reward_adversary,
        solid_agents=False,
        has_goal=True,
    )
    return Particles("SimpleAdversary", scenario, continuous)


def _see_tag(scenario: Scenario, state: ParticlesState, *, num_evaders: int) -> tuple[Array, ...]:
    """Its velocity and place, landmarks, others, and the velocities of the evaders among these."""
    first = scenario.num_agents - num_evaders
    return tuple(
        jnp.concatenate(
            [
                state.velocity[agent],
                state.place[agent],
                *_around(scenario, state, agent),
                *(state.velocity[other] for other in _others(scenario, agent) if other >= first),
            ]
        )
        for agent in range(scenario.num_agents)
    )


def _fence(place: Array) -> Array:
    """What it costs to be where one is, `(x, y)`: nothing inside, and ever more towards and beyond the edge at 1."""
    far = jnp.abs(place)
    near_edge, beyond = 10 * (far - 0.9), jnp.minimum(jnp.exp(2 * far - 2), 10.0)
    return jnp.where(far < 0.9, 0.0, jnp.where(far < 1.0, near_edge, beyond)).sum()


def _reward_tag(scenario: Scenario, state: ParticlesState, *, num_evaders: int) -> tuple[Array, ...]:
    """Every pursuer earns whenever one of them touches an evader, who loses as much, and by leaving the field."""
    first = scenario.num_agents - num_evaders
    caught = _CAUGHT * touching(scenario, state)[first:, :first].sum(axis=1, dtype=jnp.float32)
    evaders = (-caught[k] - _fence(state.place[first + k]) for k in range(num_evaders))
    return (*((caught.sum(),) * first), *evaders)


def simple_tag(num_pursuers: int = 3, num_evaders: int = 1, continuous: bool = False) -> Particles:
    """Slow pursuers after quick evaders, between two obstacles.

    Args:
        num_pursuers: who come first.
        num_evaders: who come last.
        continuous: whether actions are five numbers instead of one of five.

    Returns:
        The environment.

    Raises:
        ValueError: if there are too few agents.
    """
    scenario = Scenario(
        agents=(*_named("adversary", num_pursuers), *_named("agent", num_evaders)),
        num_landmarks=2,
        sizes=(0.075,) * num_pursuers + (0.05,) * num_evaders,
        landmark_size=0.2,
        accelerations=(3.0,) * num_pursuers + (4.0,) * num_evaders,
        top_speeds=(1.0,) * num_pursuers + (1.3,) * num_evaders,
        observe=functools.partial(_see_tag, num_evaders=num_evaders),
        reward=functools.partial(_reward_tag, num_evaders=num_evaders),
        solid_landmarks=True,
        landmark_reach=0.9,
    )
    return Particles("SimpleTag", scenario, continuous)


def _named(name: str, num: int, least: int = 1) -> tuple[str, ...]:
    """Names of several agents of a kind.

    Raises:
        ValueError: if there are fewer than the game needs.
    """
    if num < least:
        raise ValueError(f"{num} agents of the kind {name!r} are too few: {least} or more are needed")
    return tuple(f"{name}_{k}" for k in range(num))


SCENARIOS: dict[str, Callable[..., Particles]] = {
    "SimpleSpread": simple_spread,
    "SimpleAdversary": simple_adversary,
    "SimpleTag": simple_tag,
}
