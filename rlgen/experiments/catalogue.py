"""The catalogue: every experiment as one row.

The command line, the tests and the benchmarks all read this table.  A target is what the interquartile mean over seeds
must reach within the budget; its source says where the figure comes from.
"""

import difflib
import itertools

from rlgen.experiments.experiment import Experiment
from rlgen.experiments.rows import (
    adversaries,
    autoencoders,
    control,
    evolution,
    flows,
    generative,
    labels,
    multiagent,
    policy,
    tabular,
    translation,
    value,
)

_ROWS = (
    *tabular.ROWS,
    *value.ROWS,
    *policy.ROWS,
    *control.ROWS,
    *multiagent.ROWS,
    *evolution.ROWS,
    *generative.ROWS,
    *autoencoders.ROWS,
    *flows.ROWS,
    *adversaries.ROWS,
    *translation.ROWS,
    *labels.ROWS,
)

EXPERIMENTS: dict[str, Experiment] = {row.name: row for row in _ROWS}


def find(name: str) -> Experiment:
    """Finds an experiment by its name, which may be shortened to any part of it that no other row has.

    A part that begins where a word of the name does goes before others: `dqn/CartPole` is not `distributed_dqn`'s.
    Rows whose names only go on where that name ends, such as `CartPole-v1-100k` after `CartPole-v1`, do not count.

    Args:
        name: such as `policy/ppo/CartPole-v1`, `ppo/CartPole` or `q_learning`.

    Returns:
        The row.

    Raises:
        LookupError: if no row, or more than one, has that name; the message says which are near.
    """
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    matches = [full for full in EXPERIMENTS if f"/{name.lower()}" in f"/{full.lower()}"]
    matches = matches or [full for full in EXPERIMENTS if name.lower() in full.lower()]
    shortest = min(matches, key=len, default="")
    if matches and all(match.startswith(shortest) for match in matches):
        return EXPERIMENTS[shortest]
    if matches:
        raise LookupError(f"{name!r} could be any of: {', '.join(matches)}")
    # A wrong name may be meant for a whole one or for parts, such as `ppoo` for `ppo` or `gan/mnst` for `gan/mnist`.
    spellings = {}
    for full in EXPERIMENTS:
        parts = full.lower().split("/")
        for first, last in itertools.combinations(range(len(parts) + 1), 2):
            spellings.setdefault("/".join(parts[first:last]), []).append(full)
    close = difflib.get_close_matches(name.lower(), spellings, n=3, cutoff=0.5)
    near = list(dict.fromkeys(full for spelling in close for full in spellings[spelling]))[:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise LookupError(f"no experiment is called {name!r}{hint} `rlgen list` names all {len(EXPERIMENTS)}")
