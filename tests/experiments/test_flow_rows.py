"""What rows of flows ask for, against the densities that their points are drawn from."""

import jax
import numpy as np
import pytest
from scipy import spatial, special

from rlgen.experiments import catalogue

NUM, NEIGHBOUR = 50_000, 4


@pytest.mark.parametrize("task", ["eight-gaussians", "25-gaussians", "pinwheel", "checkerboard"])
def test_targets_lie_a_tenth_of_a_nat_above_the_entropy(task):
    row = catalogue.find(f"generative/flow/{task}")
    points = np.asarray(row.task.draw(jax.random.key(0), (NUM,)))
    # By the distance to near neighbours, doi.org/10.1103/PhysRevE.69.066138, which knows nothing of the density.
    distance = spatial.cKDTree(points).query(points, NEIGHBOUR + 1)[0][:, -1]
    entropy = special.digamma(NUM) - special.digamma(NEIGHBOUR) + np.log(np.pi * distance**2).mean()
    assert row.target is not None and row.target.direction == "min"
    np.testing.assert_allclose(row.target.value, entropy + 0.1, atol=0.03)
