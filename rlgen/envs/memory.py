"""Environments in which what is seen now does not say what to do: a policy needs memory.

Sources: naming an earlier symbol is RepeatPrevious of POPGym (arXiv:2303.01859); CartPole without its velocities is a
usual test of recurrent policies (arXiv:2110.05038), here over gymnax's `CartPole-v1`.

Departures of `RepeatPrevious`: symbols are drawn independently of one another, not dealt from a deck, so that counting
them tells nothing; `delay` counts the steps since a symbol was shown, one less than the `k` of POPGym, whose `k = 1`
is the symbol on show; the end of an episode terminates, for nothing could be earned afterwards.

Shape legend: `D` delay.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.environments.classic_control import cartpole

from rlgen.core import Array, Key

POSITIONS = (0, 2)  # of the cart and of the pole among the numbers that CartPole shows


@struct.dataclass
class RepeatPreviousState(environment.EnvState):
    """The symbols that are still to be named."""

    time: Any  # int32 steps since the start of the episode
    symbols: Any  # [D + 1] int32, as they were shown; the last one is on show


class RepeatPrevious(environment.Environment[RepeatPreviousState, environment.EnvParams]):
    """A game of naming the symbol that was shown some steps ago.

    Attributes:
        num_symbols: how many symbols there are.
        delay: `D`, for how many steps a symbol has to be kept in mind.
        max_steps: length of an episode.
    """

    def __init__(self, num_symbols: int = 4, delay: int = 4, max_steps: int = 32):
        """Binds the sizes.

        Args:
            num_symbols: at least two.
            delay: zero or more; at zero the symbol on show is asked for, and no memory is needed.
            max_steps: more than `delay`.

        Raises:
            ValueError: if one of them is out of its range.
        """
        super().__init__()
        if num_symbols < 2 or not 0 <= delay < max_steps:
            raise ValueError(
                f"num_symbols={num_symbols}, delay={delay}, max_steps={max_steps}: there must be two symbols at least, "
                "and 0 <= delay < max_steps"
            )
        self.num_symbols = num_symbols
        self.delay = delay
        self.max_steps = max_steps

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, RepeatPreviousState]:
        """Shows the first symbol; the key is consumed."""
        del params
        symbol = self._draw(key)
        unseen = jnp.zeros(self.delay, jnp.int32)  # pushed out before anything is asked
        return symbol, RepeatPreviousState(time=jnp.int32(0), symbols=jnp.append(unseen, symbol))

    def step_env(
        self, key: Key, state: RepeatPreviousState, action: int | float | Array, params: environment.EnvParams
    ) -> tuple[Array, RepeatPreviousState, Array, Array, dict[str, Any]]:
        """Judges an answer and shows another symbol; the key is consumed."""
        worth = jnp.where(action == state.symbols[0], 1.0, -1.0) / (self.max_steps - self.delay)
        reward = jnp.where(state.time >= self.delay, worth, 0.0).astype(jnp.float32)
        symbol = self._draw(key)
        state = RepeatPreviousState(time=state.time + 1, symbols=jnp.append(state.symbols[1:], symbol))
        return symbol, state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Key, state: RepeatPreviousState, action: Any, params: environment.EnvParams) -> Array:
        """The symbol on show, an int32 scalar."""
        del key, action, params
        return state.symbols[-1]

    def is_terminated(self, state: RepeatPreviousState, params: environment.EnvParams) -> Array:
        """Whether the last answer was given."""
        del params
        return state.time >= self.max_steps

    def is_truncated(self, state: RepeatPreviousState, params: environment.EnvParams) -> Array:
        """Whether a time limit below the length of an episode cut it."""
        return (state.time >= params.max_steps_in_episode) & ~self.is_terminated(state, params)

    def _draw(self, key: Key) -> Array:
        return jax.random.randint(key, (), 0, self.num_symbols, jnp.int32)

    @property
    def default_params(self) -> environment.EnvParams:
        """A time limit at the end of an episode, which cuts none."""
        return environment.EnvParams(max_steps_in_episode=self.max_steps)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "RepeatPrevious"

    @property
    def num_actions(self) -> int:
        """Number of answers, one a symbol."""
        return self.num_symbols

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Discrete:
        """Symbols."""
        del params
        return spaces.Discrete(self.num_symbols)

    def observation_space(self, params: environment.EnvParams) -> spaces.Discrete:
        """Symbols."""
        del params
        return spaces.Discrete(self.num_symbols)

    def state_space(self, params: environment.EnvParams) -> spaces.Dict:
        """Time and symbols."""
        symbols = spaces.Box(0, self.num_symbols - 1, (self.delay + 1,), jnp.int32)
        return spaces.Dict({"time": spaces.Discrete(params.max_steps_in_episode + 1), "symbols": symbols})


class MaskedCartPole(cartpole.CartPole):
    """CartPole that shows where cart and pole are, but not how fast they move."""

    def __init__(self, max_steps: int = 500):
        """Binds the time limit.

        Args:
            max_steps: after which an episode is truncated.
        """
        super().__init__()
        self.obs_shape = (len(POSITIONS),)
        self._max_steps = max_steps

    def get_obs(self, state: cartpole.EnvState, params: Any = None, key: Key | None = None) -> Array:
        """Position of the cart and angle of the pole, `[2]`."""
        return super().get_obs(state, params, key)[jnp.asarray(POSITIONS)]

    def observation_space(self, params: cartpole.EnvParams) -> spaces.Box:
        """Those of CartPole's bounds that belong to what is shown."""
        whole = super().observation_space(params)
        low, high = (jnp.asarray(bound)[jnp.asarray(POSITIONS)] for bound in (whole.low, whole.high))
        return spaces.Box(low, high, self.obs_shape, whole.dtype)

    @property
    def default_params(self) -> cartpole.EnvParams:
        """CartPole's, with this time limit."""
        return cartpole.EnvParams(max_steps_in_episode=self._max_steps)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "MaskedCartPole"


def repeat_previous(num_symbols: int = 4, delay: int = 4, max_steps: int = 32) -> RepeatPrevious:
    """Makes the game of naming the symbol that was shown `delay` steps ago.

    Symbols are drawn uniformly.  A right answer earns `1 / (max_steps - delay)` and a wrong one loses as much; the
    first `delay` answers, to which there is nothing to name, earn nothing.  The best return is 1, and the answer to
    each question is right for certain.  To a policy without memory every symbol is as likely, whatever is on show:
    it is right once in `num_symbols` times, and whichever it is, its expected return is `2 / num_symbols - 1`.  The
    lowest return is -1.

    Args:
        num_symbols: how many symbols there are.
        delay: for how many steps a symbol has to be kept in mind; zero asks for the one on show.
        max_steps: length of an episode, at whose end it terminates.

    Returns:
        The environment.
    """
    return RepeatPrevious(num_symbols, delay, max_steps)


def masked_cartpole(max_steps: int = 500) -> MaskedCartPole:
    """Makes CartPole without velocities: `[position of the cart, angle of the pole]`.

    Dynamics, rewards and ends are CartPole's, of which the best return is `max_steps`.

    Args:
        max_steps: after which an episode is truncated.

    Returns:
        The environment.
    """
    return MaskedCartPole(max_steps)
