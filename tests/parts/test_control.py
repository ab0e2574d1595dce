"""What actor-critics share: actions in a box and between −1 and 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.core import Box, Discrete
from rlgen.parts import control

BOX = Box((2,), (-2.0, 0.0), (2.0, 1.0))


def test_actions_go_into_the_box_and_back():
    inner = jnp.array([[-1.0, -1.0], [0.0, 0.5], [1.0, 1.0]])
    outer = control.to_box(inner, BOX)
    np.testing.assert_allclose(outer, [[-2.0, 0.0], [0.0, 0.75], [2.0, 1.0]])
    np.testing.assert_allclose(control.from_box(outer, BOX), inner)
    index = jnp.arange(3)
    assert control.to_box(index, Discrete(3)) is index and control.from_box(index, Discrete(3)) is None


@pytest.mark.parametrize("space", [Discrete(2), Box((2, 2), -1.0, 1.0), Box((2,)), Box((2,), (-1.0, 1.0), 1.0)])
def test_other_actions_are_refused(space):
    with pytest.raises(ValueError, match="the actor"):
        control.check_actions(space)
    control.check_actions(Discrete(2), discrete=True)


def test_actions_are_random_until_there_is_enough():
    action = jnp.full((1000, 2), 9.0)
    for step, random in ((0, True), (4, True), (5, False)):
        taken = control.warming(jax.random.key(0), jnp.int32(step), action, BOX, 5)
        assert np.all(taken == 9.0) != random
        if random:
            np.testing.assert_allclose(taken.min(0), [-2.0, 0.0], atol=0.02)
            np.testing.assert_allclose(taken.max(0), [2.0, 1.0], atol=0.02)
