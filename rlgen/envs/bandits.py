"""Bandits with many arms, drawn anew for every episode.

Sources: the test bed of Gaussian arms is section 2.3 of Sutton and Barto, "Reinforcement Learning: An Introduction"
(2018), the one whose mean is 4 section 2.8 and the one whose arms drift exercise 2.5; Bernoulli arms with uniform
means are the standard example of Thompson sampling, Russo et al. 2018, arXiv:1707.02038.

There is one observation, 0, and no step terminates: an episode is one run of the problem, cut by its time limit
`params.max_steps_in_episode`.

Shape legend: `A` arms, which are the actions.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from rlgen.core import Array, Key

KINDS = ("gaussian", "bernoulli")


@struct.dataclass
class BanditState(environment.EnvState):
    """What the arms are worth."""

    time: Any  # int32 steps since the start of the episode
    values: Any  # [A] float32, expected reward of each arm


class Bandit(environment.Environment[BanditState, environment.EnvParams]):
    """Arms of unknown value, of which a step pulls one.

    Gaussian arms are worth `N(mean, deviation²)` at the start of an episode and pay `N(value, 1)`.  Bernoulli arms are
    worth `U(0, 1)` and pay 1 with that probability, else 0.
    """

    def __init__(
        self,
        num_arms: int = 10,
        *,
        kind: str = "gaussian",
        mean: float = 0.0,
        deviation: float | None = None,
        drift: float = 0.0,
        max_steps: int = 1000,
    ):
        """Says how arms are drawn.

        Args:
            num_arms: `A`.
            kind: `"gaussian"` or `"bernoulli"`.
            mean: of a Gaussian arm's value at the start.
            deviation: standard deviation of a Gaussian arm's value at the start; by default 1, or 0 where values drift.
            drift: standard deviation of the step that the value of each Gaussian arm takes after every pull.
            max_steps: time limit by default.

        Raises:
            ValueError: if the kind is unknown, a number is impossible, or Bernoulli arms are told a number of Gaussian
                ones.
        """
        super().__init__()
        if deviation is None:
            deviation = 1.0 if drift == 0 else 0.0
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is not among {KINDS}")
        if num_arms < 1 or deviation < 0 or drift < 0:
            raise ValueError(f"num_arms={num_arms}, deviation={deviation} or drift={drift} is impossible")
        if kind == "bernoulli" and (mean, deviation, drift) != (0.0, 1.0, 0.0):
            raise ValueError("mean, deviation and drift are of Gaussian arms; Bernoulli arms are drawn uniformly")
        self.kind = kind
        self.mean = mean
        self.deviation = deviation
        self.drift = drift
        self._num_arms = num_arms
        self._max_steps = max_steps

    def step_env(
        self, key: Key, state: BanditState, action: int | float | Array, params: environment.EnvParams
    ) -> tuple[Array, BanditState, Array, Array, dict[str, Any]]:
        """Pays for the arm at its value before it drifts; the key is consumed."""
        reward_key, drift_key = jax.random.split(key)
        value = state.values[jnp.asarray(action, jnp.int32)]
        if self.kind == "bernoulli":
            reward = jax.random.bernoulli(reward_key, value).astype(jnp.float32)
        else:
            reward = value + jax.random.normal(reward_key)
        values = state.values
        if self.drift > 0:
            values += self.drift * jax.random.normal(drift_key, values.shape)
        state = BanditState(time=state.time + 1, values=values)
        return jnp.int32(0), state, reward, self.is_terminated(state, params), {}

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, BanditState]:
        """Draws the arms; the key is consumed."""
        del params
        if self.kind == "bernoulli":
            values = jax.random.uniform(key, (self._num_arms,))
        else:
            values = self.mean + self.deviation * jax.random.normal(key, (self._num_arms,))
        return jnp.int32(0), BanditState(time=jnp.int32(0), values=values)

    def observe(self, key: Key, state: BanditState, action: Any, params: environment.EnvParams) -> Array:
        """The only observation there is, an int32 scalar."""
        del key, state, action, params
        return jnp.int32(0)

    def is_terminated(self, state: BanditState, params: environment.EnvParams) -> Array:
        """Never."""
        del state, params
        return jnp.bool_(False)

    @property
    def default_params(self) -> environment.EnvParams:
        """The time limit."""
        return environment.EnvParams(max_steps_in_episode=self._max_steps)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "Bandit"

    @property
    def num_actions(self) -> int:
        """`A`."""
        return self._num_arms

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Discrete:
        """Indices of arms."""
        del params
        return spaces.Discrete(self._num_arms)

    def observation_space(self, params: environment.EnvParams) -> spaces.Discrete:
        """One observation."""
        del params
        return spaces.Discrete(1)

    def state_space(self, params: environment.EnvParams) -> spaces.Dict:
        """Time and values."""
        time = spaces.Discrete(params.max_steps_in_episode + 1)
        return spaces.Dict({"time": time, "values": spaces.Box(-jnp.inf, jnp.inf, (self._num_arms,))})
