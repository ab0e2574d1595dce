"""Settings and grids: what they come to, and what is refused by name before anything is compiled."""

import dataclasses
import math
import re
from typing import Literal

import pytest

from rlgen.experiments import catalogue
from rlgen.lab import overrides
from rlgen.lab.overrides import UsageError

PPO, DQN = catalogue.find("ppo/CartPole"), catalogue.find("dqn/CartPole")


def test_settings_are_typed_by_their_field():
    settings = ["config.num_envs=8", "config.hidden_sizes=32,16", "config.clip_values=False", "config.activation=relu"]
    changed, axes = overrides.apply(PPO, [*settings, " hypers.learning_rate = 1e-3 "], [])
    expected = dataclasses.replace(PPO.config, num_envs=8, hidden_sizes=(32, 16), clip_values=False, activation="relu")
    assert changed.config == expected
    assert changed.hypers == PPO.hypers._replace(learning_rate=1e-3)
    assert axes == {}
    assert dataclasses.replace(changed, config=PPO.config, hypers=PPO.hypers) == PPO


def test_what_can_be_unlimited_may_be_infinite():
    changed, axes = overrides.apply(PPO, ["hypers.max_grad_norm=inf"], ["hypers.clip=0.2,inf"])
    assert (changed.hypers.max_grad_norm, axes) == (math.inf, {"clip": [0.2, math.inf]})


def test_one_value_makes_a_tuple():
    assert overrides.apply(DQN, ["config.hidden_sizes=7"], [])[0].config.hidden_sizes == (7,)


def test_choices_and_optional_values():
    @dataclasses.dataclass(frozen=True)
    class Config:
        width: int | None = 3
        mode: Literal["near", "far"] = "near"

    row = dataclasses.replace(PPO, config=Config())
    assert overrides.apply(row, ["config.width=none", "config.mode=far"], [])[0].config == Config(None, "far")
    assert overrides.apply(row, ["config.width=5"], [])[0].config == Config(5)
    with pytest.raises(UsageError, match="one of near, far"):
        overrides.apply(row, ["config.mode=off"], [])


def test_grid_keeps_the_order_of_axes_and_values():
    _, axes = overrides.apply(PPO, [], ["hypers.learning_rate=1e-3,1e-4", "hypers.discount=0.9, 0.99"])
    assert list(axes.items()) == [("learning_rate", [1e-3, 1e-4]), ("discount", [0.9, 0.99])]


def test_the_grid_of_a_row_is_text_without_what_is_set():
    row = dataclasses.replace(PPO, grid={"learning_rate": (1e-3, 0.1 + 0.2), "discount": (0.9, 1)})
    texts = overrides.default_grid(row, ["config.num_envs=8"])
    assert texts == ("hypers.learning_rate=0.001,0.30000000000000004", "hypers.discount=0.9,1.0")
    assert overrides.apply(row, [], texts)[1] == {"learning_rate": [1e-3, 0.1 + 0.2], "discount": [0.9, 1.0]}
    assert overrides.default_grid(row, [" hypers.learning_rate = 1"]) == ("hypers.discount=0.9,1.0",)
    assert overrides.default_grid(PPO, []) == ()
    with pytest.raises(UsageError, match="did you mean"):
        overrides.default_grid(row, ["hypers.learning_rat=1"])


@pytest.mark.parametrize("row", catalogue.EXPERIMENTS.values(), ids=lambda row: row.name)
def test_the_grid_of_every_row_is_possible(row):
    _, axes = overrides.apply(row, [], overrides.default_grid(row, []))
    assert axes == {name: list(map(float, values)) for name, values in row.grid.items()}


@pytest.mark.parametrize(
    ("settings", "grid", "message"),
    [
        (["hypers.lerning_rate=1"], [], "no setting 'hypers.lerning_rate': did you mean hypers.learning_rate"),
        (["learning_rate=1"], [], "did you mean hypers.learning_rate?"),
        (["hypers.num_envs=1"], [], "did you mean config.num_envs?"),
        (["zzz=1"], [], "there are config.num_envs, "),
        (["config.num_envs"], [], "'config.num_envs' has no '='"),
        (["config.num_envs="], [], "config.num_envs has no value"),
        (["config.num_envs=2.5"], [], "config.num_envs=2.5 is impossible: a whole number is needed"),
        (["config.clip_values=yes"], [], "config.clip_values=yes is impossible: true or false is needed"),
        (["config.hidden_sizes=8,,8"], [], "config.hidden_sizes= is impossible"),
        (["config.hidden_sizes=8,a"], [], "config.hidden_sizes=a is impossible"),
        (["config.num_envs=0"], [], "config.num_envs=0 is impossible: at least 1"),
        (["config.num_minibatches=7"], [], "config.num_minibatches=7 does not divide"),
        (["config.num_minibatches=0"], [], "config.num_minibatches=0 is impossible: at least 1"),
        (["config.num_envs=8", "config.num_envs=8"], [], "config.num_envs is set twice"),
        (["hypers.discount=much"], [], "a number is needed"),
        (["hypers.discount=1.5"], [], "hypers.discount=1.5 is impossible: it must lie in [0, 1]"),
        (["hypers.learning_rate=nan"], [], "a finite number (float32) is needed"),
        (["hypers.learning_rate=inf"], [], "a finite number (float32) is needed"),
        (["hypers.clip=-inf"], [], "a finite number (float32) is needed"),
        (["hypers.clip=1e39"], [], "a finite number (float32) is needed"),
        ([], ["hypers.clip=inf,inf"], "holds a value twice"),
        (["hypers.learning_rate=1e39"], [], "a finite number (float32) is needed"),
        (["hypers.learning_rate=1e-50"], [], "it is so small that float32 takes it for 0"),
        (["config.hidden_sizes=99999999999999999999"], [], "is impossible: 2,147,483,647 is the most"),
        ([], ["config.num_envs=4,8"], "config.num_envs is static: it shapes the program"),
        ([], ["hypers.discount=0.9,1.5"], "hypers.discount=1.5 is impossible"),
        ([], ["hypers.discount=0.9,"], "hypers.discount=0.9, holds an empty value"),
        ([], ["hypers.discount=0.9,0.90"], "holds a value twice"),
        ([], ["hypers.discount=0.9", "hypers.discount=0.8"], "hypers.discount is given twice"),
        (["hypers.discount=0.9"], ["hypers.discount=0.8"], "hypers.discount is given twice"),
        ([], ["hypers.discont=0.9"], "did you mean hypers.discount"),
    ],
)
def test_refuses(settings, grid, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        overrides.apply(PPO, settings, grid)


@pytest.mark.parametrize(
    ("settings", "grid", "message"),
    [
        (["hypers.priority_exponent=0.6"], [], "hypers.priority_exponent has no effect with config.replay='uniform'"),
        ([], ["hypers.lowest_return=-1,-2"], "hypers.lowest_return has no effect with config.head='expected'"),
        (["config.num_envs=0"], [], "config.num_envs=0 is impossible: at least 1"),
        (["config.head=categorical", "config.num_atoms=1"], [], "config.num_atoms=1: a categorical distribution needs"),
        (
            ["config.head=categorical", "hypers.lowest_return=10"],
            [],
            "hypers.lowest_return=10 is impossible: it must be below hypers.highest_return=10",
        ),
    ],
)
def test_refuses_what_a_switch_leaves_out(settings, grid, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        overrides.apply(DQN, settings, grid)
    changed, _ = overrides.apply(DQN, ["config.head=categorical", "hypers.lowest_return=-1"], [])
    assert changed.hypers.lowest_return == -1


def test_pairs_are_checked_over_the_grid():
    """Two axes may each be impossible beside the other's default, and possible together."""
    row = catalogue.find("value/dqn/CartPole-v1-c51")
    high = ["hypers.lowest_return=200,300", "hypers.highest_return=400,500"]
    assert len(overrides.apply(row, [], high)[1]) == 2
    with pytest.raises(UsageError, match=r"hypers\.lowest_return=50 is impossible: it must be below .*=0"):
        overrides.apply(row, [], ["hypers.lowest_return=-100,50", "hypers.highest_return=0,100"])
    with pytest.raises(UsageError, match=r"hypers\.lowest_return=1e\+06 is impossible"):
        overrides.apply(row, [], ["hypers.lowest_return=-1,1e6"])


def test_a_list_of_nothing_can_be_set():
    assert overrides.apply(PPO, ["config.hidden_sizes=()"], [])[0].config.hidden_sizes == ()
