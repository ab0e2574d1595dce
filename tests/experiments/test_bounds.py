"""Which numbers are refused: the ends of intervals, infinity and what is no number."""

import dataclasses
import math
from typing import Any, NamedTuple

import pytest

from rlgen.experiments import bounds


class Hypers(NamedTuple):
    learning_rate: float = 0.1
    first_moment_decay: float = 0.9
    horizon: float = math.inf
    clip: float = math.inf
    c_bar: float = 1.0
    rho_bar: float = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    num_envs: int = 1
    num_blocks: int = 0
    noise_scale: float = 0.5
    target: tuple[float, ...] = (0.0, -1.0)
    prioritised: bool = False


@pytest.mark.parametrize(
    ("change", "interval"),
    [
        ({"learning_rate": -0.1}, r"\[0, inf\)"),
        ({"learning_rate": math.inf}, r"\[0, inf\)"),
        ({"learning_rate": math.nan}, r"\[0, inf\)"),
        ({"learning_rate": 1e60}, r"\[0, inf\)"),
        ({"first_moment_decay": 1.0}, r"\[0, 1\)"),
        ({"first_moment_decay": 0.99999999999}, r"\[0, 1\)"),
        ({"horizon": 1e-60}, r"\(0, inf\]"),
        ({"horizon": 0.0}, r"\(0, inf\]"),
        ({"horizon": -math.inf}, r"\(0, inf\]"),
        ({"clip": math.nan}, r"\(0, inf\]"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_interval(change: dict[str, Any], interval: str):
    (name,) = change
    with pytest.raises(ValueError, match=rf"hypers\.{name}=.* is impossible: it must lie in {interval}"):
        bounds.check_hypers(Hypers(**change))


def test_one_number_must_not_be_above_another():
    with pytest.raises(ValueError, match=r"hypers\.c_bar=2 is impossible: it must not be above hypers\.rho_bar=1"):
        bounds.check_hypers(Hypers(c_bar=2.0))
    bounds.check_hypers(Hypers(c_bar=1.0))


def test_ends_and_infinity_are_allowed_where_they_make_sense():
    bounds.check_hypers(Hypers(learning_rate=0.0, first_moment_decay=0.0))


def test_the_real_line_has_no_ends():
    assert str(bounds.REAL) == "(-inf, inf)"
    assert 0.0 in bounds.REAL and math.inf not in bounds.REAL and -math.inf not in bounds.REAL


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_envs": 0}, "at least 1 is needed"),
        ({"num_blocks": -1}, "at least 0 is needed"),
        ({"noise_scale": -1.0}, r"it must lie in \[0, inf\)"),
        ({"noise_scale": -1}, r"it must lie in \[0, inf\)"),
        ({"noise_scale": math.nan}, r"it must lie in \[0, inf\)"),
        ({"target": (0.5, math.inf)}, r"it must lie in \(-inf, inf\)"),
        ({"target": (math.nan,)}, r"it must lie in \(-inf, inf\)"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_with_the_reason(change: dict[str, Any], reason: str):
    (name,) = change
    with pytest.raises(ValueError, match=rf"config\.{name}=.* is impossible: {reason}"):
        bounds.check_config(Config(**change))


def test_real_numbers_and_switches_of_a_config_are_no_counts():
    bounds.check_config(Config(noise_scale=0, target=(0.0, -0.5), prioritised=False))
