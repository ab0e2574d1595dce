"""Sequences from a ring of rollouts: which can be drawn, by enumeration, and what each holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.parts import experience, replay, sequences
from rlgen.value import r2d2

HYPERS = r2d2.Hypers(horizon=10.0)


@pytest.mark.parametrize(
    ("length", "burn_in", "learned", "rollouts", "kind"),
    [
        (1, 0, 1, 3, "uniform"),
        (2, 0, 4, 3, "uniform"),
        (2, 1, 3, 2, "proportional"),
        (2, 3, 4, 6, "rank"),
        (3, 1, 4, 5, "proportional"),
        (4, 9, 5, 7, "uniform"),
    ],
)
def test_what_can_be_drawn_is_every_whole_sequence_and_nothing_else(length, burn_in, learned, rollouts, kind):
    config = r2d2.Config(
        num_envs=2, rollout_length=length, burn_in=burn_in, sequence_length=learned, capacity=2 * length * rollouts,
        batch_size=256, replay=kind,
    )  # fmt: skip
    whole, slots = burn_in + learned, 2 * sequences.num_starts(config)
    ring = sequences.Ring(*({"id": jnp.zeros((rows, 2), jnp.int32)} for rows in (length * rollouts, rollouts)))
    ranks = experience.ranks(slots, config=config)

    @jax.jit
    def live(ring, ranks):
        def one(carry, step):
            ring, ranks = carry
            ids = 2 * (step * length + jnp.arange(length)[:, None]) + jnp.arange(2)
            written = replay.add(ring.steps, step, {"id": ids}), replay.add(ring.memory, step, {"id": ids[:1]})
            ring = sequences.Ring(*written)
            last = sequences.newest(step, config=config)
            ranks = experience.admit(ranks, last, num_slots=slots, num=2, config=config)
            filled = 2 * jnp.minimum(last + 1, sequences.num_starts(config))
            index, _ = experience.drawn(jax.random.key(step), step, ranks, filled, HYPERS, config=config)
            found = sequences.take(step, ring, index, config=config)
            return (ring, ranks), (index, found.steps["id"], found.memory["id"])

        return jax.lax.scan(one, (ring, ranks), jnp.arange(2 * rollouts + 3, dtype=jnp.int32))[1]

    for step, (index, ids, remembered) in enumerate(zip(*map(np.asarray, live(ring, ranks)), strict=True)):
        written = (step + 1) * length
        oldest = max(written - rollouts * length, 0)
        starts = {row for row in range(oldest, written - whole + 1) if row % length == 0}
        if starts:
            np.testing.assert_array_equal(ids, ids[:, :1] + 2 * np.arange(whole))  # one environment's, row after row
            np.testing.assert_array_equal(remembered, ids[:, 0])
            assert set(ids[:, 0].tolist()) == {2 * row + env for row in starts for env in range(2)}
            assert len(set(index.tolist())) == 2 * len(starts) <= slots
    assert len(starts) == sequences.num_starts(config)


def test_a_ring_may_hold_a_single_sequence():
    config = r2d2.Config(num_envs=2, rollout_length=2, burn_in=3, sequence_length=4, capacity=16)
    assert (sequences.span(config), sequences.num_starts(config)) == (4, 1)
