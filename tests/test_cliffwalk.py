"""What prioritised replay gains on the blind cliff walk: what is stored, what is learned, and how soon."""

import itertools

import jax
import numpy as np
import pytest

from benchmarks import cliffwalk
from rlgen.envs import tables
from rlgen.parts import planning

KEYS = jax.random.split(jax.random.key(0), 3)


def test_the_memory_holds_what_every_sequence_of_actions_came_to():
    outcomes, found = tables.blind_cliff(4).outcomes, []
    for actions in itertools.product([0, 1], repeat=4):
        state = 0
        while state != 4:
            at = state, actions[state], 0
            found.append((*at[:2], float(outcomes.reward[at]), int(outcomes.successor[at])))
            state = found[-1][-1]
    stored = zip(*(leaf.tolist() for leaf in cliffwalk.memory(4)), strict=True)
    assert sorted(stored) == sorted(found) and len(found) == 2**5 - 2


@pytest.mark.parametrize("num_states", [2, 5])
def test_values_are_those_of_planning(num_states):
    process = tables.process(tables.blind_cliff(num_states))
    solution = planning.value_iteration(process, 1 - 1 / num_states)
    np.testing.assert_allclose(cliffwalk.truth(num_states), solution.q_values, atol=1e-6)


def test_priorities_save_updates():
    def counted(kind):
        return sum(int(cliffwalk.count(key, num_states=6, kind=kind)) for key in KEYS)

    uniform = counted("uniform")
    assert uniform > 3 * counted("proportional")
    assert uniform > 1.5 * counted("rank")


def test_learning_ends_when_the_values_are_known(monkeypatch):
    monkeypatch.setattr(cliffwalk, "TOLERANCE", 1.0)  # no value is further off to begin with
    assert int(cliffwalk.count(KEYS[0], num_states=2, kind="uniform")) == 0
    monkeypatch.setattr(cliffwalk, "TOLERANCE", 0.0)
    monkeypatch.setattr(cliffwalk, "MOST", 3)
    assert int(cliffwalk.count(KEYS[0], num_states=2, kind="uniform")) == 3 * 6
