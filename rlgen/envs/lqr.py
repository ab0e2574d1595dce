"""A linear system with quadratic cost, whose best policy and value are known in closed form.

The state moves as `x' = A x + B u + w`, `w ~ N(0, σ² I)`, and a step earns `−(xᵀ Q x + uᵀ R u)`.  Nothing ever
terminates; episodes are cut by the time limit.  With a discount `γ` the best action is linear in the state, by the
discrete Riccati equation (Bertsekas, "Dynamic Programming and Optimal Control", 4th edition, section 3.1).

Shape legend: `S` numbers of the state, `D` of the action.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flax import struct
from gymnax.environments import environment, spaces

from rlgen.core import Array, Key

_REACH = 10.0  # of actions, far beyond any that is useful


@struct.dataclass
class LinearQuadraticState(environment.EnvState):
    """Where the system is."""

    time: Any  # int32 steps since the start of the episode
    place: Any  # [S]


class LinearQuadratic(environment.Environment[LinearQuadraticState, environment.EnvParams]):
    """A linear system drawn from a seed, which does not run away by itself.

    Attributes:
        transition: `A`, `[S, S]`.
        control: `B`, `[S, D]`.
        state_cost: `Q`, `[S, S]`.
        action_cost: `R`, `[D, D]`.
        noise: `σ`.
        max_steps: length of an episode.
    """

    def __init__(self, seed: int = 0, size: int = 2, num_controls: int = 1, noise: float = 0.1, max_steps: int = 20):
        """Draws the system.

        Args:
            seed: of the system, which is the same in every episode.
            size: `S`.
            num_controls: `D`.
            noise: deviation of what disturbs each number of the state at each step.
            max_steps: length of an episode.
        """
        super().__init__()
        rng = np.random.default_rng(seed)
        transition = rng.normal(size=(size, size))
        self.transition = 0.9 * transition / np.abs(np.linalg.eigvals(transition)).max()
        self.control = rng.normal(size=(size, num_controls))
        self.state_cost, self.action_cost = np.eye(size), 0.1 * np.eye(num_controls)
        self.noise, self.max_steps = noise, max_steps

    def gain(self, discount: float) -> np.ndarray:
        """Best policy, `u = θᵀ x`: `[S, D]`.

        Args:
            discount: `γ`, below 1 or 1.

        Returns:
            `θ`.
        """
        root = np.sqrt(discount)
        transition, control = root * self.transition, root * self.control
        worth = scipy.linalg.solve_discrete_are(transition, control, self.state_cost, self.action_cost)
        inner = self.action_cost + control.T @ worth @ control
        return -np.linalg.solve(inner, control.T @ worth @ transition).T

    def worth(self, gain: np.ndarray, discount: float) -> np.ndarray:
        """What a linear policy costs: `[S, S]`, of which `−xᵀ P x` is the value but for a constant.

        Args:
            gain: `θ`, `[S, D]`.
            discount: `γ`.

        Returns:
            `P`.
        """
        closed = np.sqrt(discount) * (self.transition + self.control @ gain.T)
        return scipy.linalg.solve_discrete_lyapunov(closed.T, self.state_cost + gain @ self.action_cost @ gain.T)

    def expected_return(self, gain: np.ndarray) -> float:
        """What a linear policy earns in an episode on average.

        Args:
            gain: `θ`, `[S, D]`.

        Returns:
            The sum of rewards, without a discount.
        """
        closed = self.transition + self.control @ gain.T
        cost = self.state_cost + gain @ self.action_cost @ gain.T
        spread, total = np.eye(len(closed)), 0.0  # E[x xᵀ], step after step
        for _ in range(self.max_steps):
            total -= float(np.trace(cost @ spread))
            spread = closed @ spread @ closed.T + self.noise**2 * np.eye(len(closed))
        return total

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, LinearQuadraticState]:
        """Starts anywhere, `x ~ N(0, I)`; the key is consumed."""
        del params
        place = jax.random.normal(key, (len(self.transition),))
        return place, LinearQuadraticState(time=jnp.int32(0), place=place)

    def step_env(
        self, key: Key, state: LinearQuadraticState, action: int | float | Array, params: environment.EnvParams
    ) -> tuple[Array, LinearQuadraticState, Array, Array, dict[str, Any]]:
        """Moves the system; the key is consumed."""
        action = jnp.asarray(action, jnp.float32).reshape(self.control.shape[1])
        cost = state.place @ self.state_cost @ state.place + action @ self.action_cost @ action
        moved = (
            jnp.asarray(self.transition, jnp.float32) @ state.place + jnp.asarray(self.control, jnp.float32) @ action
        )
        place = moved + self.noise * jax.random.normal(key, moved.shape)
        state = LinearQuadraticState(time=state.time + 1, place=place)
        return place, state, -cost.astype(jnp.float32), self.is_terminated(state, params), {}

    def observe(self, key: Key, state: LinearQuadraticState, action: Any, params: environment.EnvParams) -> Array:
        """The state itself, `[S]`."""
        del key, action, params
        return state.place

    def is_terminated(self, state: LinearQuadraticState, params: environment.EnvParams) -> Array:
        """Never."""
        del state, params
        return jnp.bool_(False)

    @property
    def default_params(self) -> environment.EnvParams:
        """The time limit."""
        return environment.EnvParams(max_steps_in_episode=self.max_steps)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "LinearQuadratic"

    @property
    def num_actions(self) -> int:
        """Numbers of an action."""
        return self.control.shape[1]

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Box:
        """Vectors."""
        del params
        return spaces.Box(-_REACH, _REACH, (self.control.shape[1],))

    def observation_space(self, params: environment.EnvParams) -> spaces.Box:
        """Vectors."""
        del params
        return spaces.Box(-jnp.inf, jnp.inf, (len(self.transition),))

    def state_space(self, params: environment.EnvParams) -> spaces.Dict:
        """Time and place."""
        time = spaces.Discrete(params.max_steps_in_episode + 1)
        return spaces.Dict({"time": time, "place": self.observation_space(params)})
