"""What values make sense, by name.

A name means the same in every algorithm, so one table says which numbers are impossible, and they are refused before
anything is compiled.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """Numbers from `low` to `high`, ends included that are finite and not said to be open.

    Attributes:
        low: the smallest.
        high: the largest.
        open_low: whether `low` itself is left out.
        open_high: whether `high` itself is left out.
        endless: whether infinity is one of them.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    endless: bool = False

    def __contains__(self, value: Any) -> bool:
        with np.errstate(over="ignore"):
            value = float(
                np.float32(value)
            )  # as which it will be computed with: small ones are none, large ones endless
        if math.isinf(value):
            return self.endless and value > 0
        return self.low <= value <= self.high and value not in self.left_out

    @property
    def left_out(self) -> tuple[float, ...]:
        """The ends that are not in it."""
        return (self.low,) * self.open_low + (self.high,) * self.open_high

    def __str__(self) -> str:
        starts = self.open_low or math.isinf(self.low)
        ends = self.open_high or (math.isinf(self.high) and not self.endless)
        return f"{'(' if starts else '['}{self.low:g}, {self.high:g}{')' if ends else ']'}"


POSITIVE, NOT_NEGATIVE, SHARE, REAL = Interval(0, open_low=True), Interval(0), Interval(0, 1), Interval()
LIMIT = Interval(0, open_low=True, endless=True)  # of what is unlimited at infinity

HYPERS: dict[str, Interval] = {
    "adam_epsilon": POSITIVE,
    "annealed_share": SHARE,
    "augmentation_weight": NOT_NEGATIVE,
    "averaging": SHARE,
    "backtrack": SHARE,
    "beta": NOT_NEGATIVE,
    "bonus": NOT_NEGATIVE,
    "c_bar": Interval(0, endless=True),
    "clip": LIMIT,
    "clone_coefficient": NOT_NEGATIVE,
    "correction": SHARE,
    "correction_rate": NOT_NEGATIVE,
    "corruption_level": SHARE,
    "critic_learning_rate": NOT_NEGATIVE,
    "cycle_weight": NOT_NEGATIVE,
    "damping": NOT_NEGATIVE,
    "discount": SHARE,
    "discriminator_learning_rate": NOT_NEGATIVE,
    "dropped_share": SHARE,
    "entropy_coefficient": REAL,
    "entropy_share": REAL,
    "epsilon": SHARE,
    "epsilon_end": SHARE,
    "epsilon_spread": NOT_NEGATIVE,
    "epsilon_start": SHARE,
    "exploration": NOT_NEGATIVE,
    "exploration_fraction": Interval(0, 1, open_low=True),
    "first_moment_decay": Interval(0, 1, open_high=True),
    "gae_lambda": SHARE,
    "generator_learning_rate": NOT_NEGATIVE,
    "highest_return": REAL,
    "horizon": LIMIT,
    "identity_weight": NOT_NEGATIVE,
    "importance_start": SHARE,
    "initial_value": REAL,
    "interpolation_weight": NOT_NEGATIVE,
    "learning_rate": NOT_NEGATIVE,
    "learning_rate_end": NOT_NEGATIVE,
    "lowest_return": REAL,
    "mask_probability": Interval(0, 1, open_low=True),
    "max_grad_norm": LIMIT,
    "max_kl": POSITIVE,
    "mean_age": NOT_NEGATIVE,
    "mismatch_weight": SHARE,
    "noise": NOT_NEGATIVE,
    "noise_end": NOT_NEGATIVE,
    "noise_return": Interval(0, 1, open_low=True),
    "noise_start": NOT_NEGATIVE,
    "num_steps": Interval(1),
    "penalty": NOT_NEGATIVE,
    "pixel_scale": POSITIVE,
    "prior_mean": REAL,
    "prior_scale": NOT_NEGATIVE,
    "prior_weight": POSITIVE,
    "priority_exponent": NOT_NEGATIVE,
    "priority_mix": SHARE,
    "rescaling_epsilon": POSITIVE,
    "reward_scale": POSITIVE,
    "rho_bar": LIMIT,
    "sigma": POSITIVE,
    "sparsity_target": SHARE,
    "sparsity_weight": NOT_NEGATIVE,
    "step_exponent": NOT_NEGATIVE,
    "step_size": SHARE,
    "target_kl": POSITIVE,
    "target_noise": NOT_NEGATIVE,
    "target_noise_clip": Interval(0, endless=True),
    "tau": SHARE,
    "temperature": POSITIVE,
    "temperature_learning_rate": NOT_NEGATIVE,
    "trace_decay": SHARE,
    "value_coefficient": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
}

ASCENDING = (("lowest_return", "highest_return"),)
NOT_ABOVE = (("c_bar", "rho_bar"),)

REALS: dict[str, Interval] = {
    "actor_bound": NOT_NEGATIVE,
    "critic_bound": NOT_NEGATIVE,
    "noise_scale": NOT_NEGATIVE,
}  # of real numbers in a Config; any that is finite where a name is absent

SMALLEST: dict[str, int] = {
    "burn_in": 0,
    "max_shift": 0,
    "num_blocks": 0,
    "num_dropped": 0,
    "num_episodes": 0,
    "num_frames": 0,
    "num_planning": 0,
    "pool_size": 0,
    "renorm_warm_up": 0,
    "warm_up": 0,
}  # of whole numbers in a Config; 1 where a name is absent

LARGEST = 2**31 - 1  # whole number in a Config, which indices hold


def check_hypers(hypers: Any) -> None:
    """Refuses impossible hyperparameters.

    Args:
        hypers: NamedTuple of numbers.

    Raises:
        ValueError: naming the leaf, its value and the interval that it must lie in, or two that must not meet.
    """
    for name, value in hypers._asdict().items():
        check_hyper(name, value)
    check_pairs(hypers)


def check_hyper(name: str, value: float) -> None:
    """Refuses a value that is impossible by itself.

    Args:
        name: of the leaf.
        value: of it.

    Raises:
        ValueError: naming both, and the interval that the value must lie in.
    """
    if value not in HYPERS[name]:
        raise ValueError(f"hypers.{name}={value:g} is impossible: it must lie in {HYPERS[name]}")


def check_pairs(hypers: Any) -> None:
    """Refuses two values that must not meet.

    Args:
        hypers: NamedTuple of numbers.

    Raises:
        ValueError: naming both.
    """
    for low, high in ASCENDING:
        if low in hypers._fields and getattr(hypers, low) >= getattr(hypers, high):
            lower, higher = getattr(hypers, low), getattr(hypers, high)
            raise ValueError(f"hypers.{low}={lower:g} is impossible: it must be below hypers.{high}={higher:g}")
    for low, high in NOT_ABOVE:
        if low in hypers._fields and getattr(hypers, low) > getattr(hypers, high):
            lower, higher = getattr(hypers, low), getattr(hypers, high)
            raise ValueError(f"hypers.{low}={lower:g} is impossible: it must not be above hypers.{high}={higher:g}")


def check_config(config: Any) -> None:
    """Refuses impossible numbers of what is static.

    Args:
        config: frozen dataclass.

    Raises:
        ValueError: naming the field, its value and the smallest or largest count or the interval that it must lie in.
    """
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if name in REALS or isinstance(number, float):
                interval = REALS.get(name, REAL)
                if number not in interval:
                    raise ValueError(f"config.{name}={value} is impossible: it must lie in {interval}")
            elif isinstance(number, int) and not isinstance(number, bool) and number < SMALLEST.get(name, 1):
                raise ValueError(f"config.{name}={value} is impossible: at least {SMALLEST.get(name, 1)} is needed")
            elif isinstance(number, int) and number > LARGEST:
                raise ValueError(f"config.{name}={value} is impossible: {LARGEST:,} is the most")
