"""What a config refuses, and in which words."""

import types

import pytest

from rlgen.parts import checks

CONFIG = types.SimpleNamespace(rule="q", num_envs=6, rollout_length=2, num_minibatches=5, num_workers=4)


def test_what_fits_passes():
    checks.one_of(CONFIG, rule=("q", "sarsa"))
    checks.divides(CONFIG, "num_workers", 8, "8 environments")
    checks.rollouts_divided(types.SimpleNamespace(num_envs=6, rollout_length=2, num_minibatches=4), "num_minibatches")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"config\.rule='q' is not one of sarsa, expected"):
        checks.one_of(CONFIG, rule=("sarsa", "expected"))
    with pytest.raises(ValueError, match=r"config\.num_workers=4 does not divide 6 environments"):
        checks.divides(CONFIG, "num_workers", 6, "6 environments")
    with pytest.raises(ValueError, match=r"config\.num_minibatches=5 does not divide 6 environments × 2 steps"):
        checks.rollouts_divided(CONFIG, "num_minibatches")
