"""Tasks over images: what a curve may be called."""

import pytest

from rlgen.experiments import catalogue
from rlgen.experiments.pictures import ImageTask
from rlgen.experiments.tasks import LOSS
from rlgen.generative import vae

VAES = [row for row in catalogue.EXPERIMENTS.values() if row.algorithm is vae]


@pytest.mark.parametrize("row", VAES, ids=lambda row: row.name)
def test_a_curve_has_the_name_of_the_score_only_where_the_bound_is_the_same(row):
    same = row.config.num_samples == row.config.score_samples and row.hypers.beta == 1
    assert row.task.watched == (None if same else LOSS)


def test_samples_and_restored_images_are_not_what_is_descended():
    assert ImageTask("digits", (8, 8, 1), measure=lambda key, sample, data: 0.0).watched == LOSS
    assert ImageTask("digits", (8, 8, 1), conditional=True).watched == LOSS
