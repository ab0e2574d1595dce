"""Measures what prioritised replay gains on the blind cliff walk of arXiv:1511.05952, and draws it.

A memory holds what every sequence of actions came to, one success among `2^n` of them.  Tabular Q-learning draws one
transition at a time until the mean square error of its values is below `TOLERANCE`.  As in the paper the step size is a
quarter, the discount `1 - 1 / n`, and no importance weight corrects what is certain anyway.  The exponents are those of
its games.  Values begin at zero, so that nothing but the one reward can teach them.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import figures, measure
from rlgen.core import Array, Key
from rlgen.envs import tables
from rlgen.lab import grids, plots, statistics
from rlgen.parts import priorities

FIGURE, TITLE = "cliffwalk", "Blind cliff walk: updates a transition until values are known"
KINDS = ("uniform", *priorities.KINDS)
ALPHA = {"uniform": 0.0, "proportional": 0.6, "rank": 0.7}
STEP_SIZE, TOLERANCE = 0.25, 1e-3
SORTS = 8  # of a ranking while as many transitions are drawn as are stored
MOST = 1_000  # updates for each stored transition after which a run ends anyway


class Memory(NamedTuple):
    """Transitions, `[N]` each."""

    state: Array
    action: Array
    reward: Array
    successor: Array


def memory(num_states: int) -> Memory:
    """Stores what all sequences of actions came to: a state that needs `i` right actions lies in `2^-i` of them."""
    outcomes = tables.blind_cliff(num_states).outcomes
    visits = 2 ** np.arange(num_states - 1, -1, -1)  # with either action
    state = np.repeat(np.arange(num_states), 2 * visits)
    action = np.concatenate([np.repeat([0, 1], count) for count in visits])
    reward, successor = outcomes.reward[state, action, 0], outcomes.successor[state, action, 0]
    return Memory(*map(jnp.asarray, (state, action, jnp.float32(reward), successor)))


def truth(num_states: int) -> Array:
    """The optimal values, `[n + 1, 2]`: the reward from as many steps ahead as it lies, and zero for a fall."""
    inner = np.arange(num_states)
    values = np.zeros((num_states + 1, 2), np.float32)
    values[inner, inner % 2] = (1 - 1 / num_states) ** (num_states - 1.0 - inner)
    return jnp.asarray(values)


def count(key: Key, *, num_states: int, kind: str) -> Array:
    """Learns until the values are known and counts the updates, an int32 scalar.

    Args:
        key: consumed.
        num_states: `n`.
        kind: of `KINDS`.

    Returns:
        How many updates it took, `MOST * N` if they did not suffice.
    """
    stored, known, discount = memory(num_states), truth(num_states), 1 - 1 / num_states
    size, alpha = stored.state.size, ALPHA[kind]
    start: Any = ()
    if kind in priorities.KINDS:
        start = priorities.add(priorities.init(size, kind=kind), jnp.int32(0), size=size, num=size)

    def learn(carry: Any) -> Any:
        key, done, values, held = carry
        key, draw_key = jax.random.split(key)
        if isinstance(held, priorities.Ranking):
            held = _sorted(held, done % max(size // SORTS, 1) == 0)
        if kind == "uniform":
            index = jax.random.randint(draw_key, (1,), 0, size)
        else:
            index, _ = priorities.sample(draw_key, held, 1, alpha)
        state, action, reward, successor = (leaf[index] for leaf in stored)
        error = reward + discount * values[successor].max(-1) - values[state, action]
        values = values.at[state, action].add(STEP_SIZE * error)
        if kind != "uniform":
            held = priorities.update(held, index, error, alpha, priorities.LEAST)
        return key, done + 1, values, held

    def unknown(carry: Any) -> Array:
        _, done, values, _ = carry
        return (jnp.square(values - known)[:-1].mean() > TOLERANCE) & (done < MOST * size)

    return lax.while_loop(unknown, learn, (key, jnp.int32(0), jnp.zeros_like(known), start))[1]


def _sorted(ranking: priorities.Ranking, due: Array) -> priorities.Ranking:
    """Sorts a ranking if that is due."""
    order, rank = lax.cond(due, priorities.ranks, lambda _: (ranking.order, ranking.rank), ranking.error)
    return ranking._replace(order=order, rank=rank)


def run(seeds: int, most: int) -> None:
    """Counts updates on cliffs of 2, 4, … states and keeps them.

    Args:
        seeds: of each.
        most: states of the longest.
    """
    measure.check_counts(seeds=seeds, most=most)
    points = []
    keys = jax.random.split(jax.random.key(0), seeds)
    for kind in KINDS:
        for num_states in range(2, most + 1, 2):
            # One seed after another: a loop under `vmap` would copy what every seed holds until the last one ends.
            one = functools.partial(count, num_states=num_states, kind=kind)
            counted = jax.jit(functools.partial(lax.map, one))(keys)
            size = 2 ** (num_states + 1) - 2
            points.append({"kind": kind, "num_states": num_states, "updates": np.asarray(counted).tolist()})
            print(f"{kind}, {num_states} states: {statistics.iqm(counted / size):.3g} × {size:,}", flush=True)
    work = f"blind cliff walk, tabular Q-learning from all sequences of actions, {seeds} seeds"
    content = {"work": work, "points": points, "machine": measure.machine()}
    print(measure.save("cliffwalk", "replay", content))


def draw() -> list[Path]:
    """Draws updates for each stored transition, where they were counted, and says where."""
    kept = measure.RESULTS / "cliffwalk" / "replay.json"
    if not kept.exists():
        return []
    points = json.loads(kept.read_text())["points"]
    x = np.array([point["num_states"] for point in points], float)
    kinds = list(dict.fromkeys(point["kind"] for point in points))
    lines = [grids.Line(kind, np.flatnonzero([point["kind"] == kind for point in points])) for kind in kinds]
    shares = np.array([point["updates"] for point in points]) / (2 ** (x + 1) - 2)[:, None]
    chart = grids.Chart("states n; 2ⁿ⁺¹ − 2 transitions are stored", x, lines, len(lines), ordered=False)
    path = figures.FIGURES / f"{FIGURE}.png"
    scores = statistics.estimates(shares, higher_is_better=False)
    plots.response(path, chart, scores, ylabel="updates / transitions", title=TITLE, higher_is_better=False)
    return [path]
