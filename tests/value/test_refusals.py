"""Tasks that methods of action values cannot be built for."""

import pytest

from rlgen.core import Box, Spec
from rlgen.value import async_q, bootstrapped_dqn, distributed_dqn, dqn, pqn, r2d2


@pytest.mark.parametrize("module", [async_q, bootstrapped_dqn, distributed_dqn, dqn, pqn, r2d2])
def test_continuous_actions_are_refused(module):
    with pytest.raises(ValueError, match="discrete actions"):
        module.build(Spec(Box((1,)), Box((1,))), module.Config())
