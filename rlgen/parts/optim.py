"""The one optax loop: a gradient step, and named players who take turns at it.

`descend` is the only gradient step in the project.  `play` stands on it: autoencoders and flows are one player, a GAN
is two, and CycleGAN two pairs; each has a share of the parameters, a loss and an optimiser.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from rlgen.core import Algorithm, Array, Key, PolicyFn, Tree
from rlgen.parts import chunks, exploration

SMALL = 2**15  # numbers that are worth joining into one vector: an eighth of a megabyte


def flattened(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Lets a transformation see one vector instead of many small leaves.

    A program for each leaf of a small network would take longer than the arithmetic.  Parameters of more than `SMALL`
    numbers stay as they are, because there it is joining and parting that takes longer.

    Args:
        inner: a transformation that treats all numbers alike, or by the norm of all.

    Returns:
        The same transformation.
    """

    def is_small(tree: Tree) -> bool:
        return sum(leaf.size for leaf in jax.tree.leaves(tree)) <= SMALL

    def init(params: Tree) -> Any:
        return inner.init(ravel_pytree(params)[0] if is_small(params) else params)

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        if not is_small(updates):
            return inner.update(updates, state, params)
        joined, part = ravel_pytree(updates)
        changes, state = inner.update(joined, state, None if params is None else ravel_pytree(params)[0])
        return part(cast(Array, changes)), state

    return optax.GradientTransformation(init, update)


def adam(
    learning_rate: Array | float, *, max_grad_norm: Array | float | None = None, b1: float = 0.9, eps: float = 1e-8
) -> Any:
    """Adam (arXiv:1412.6980) behind an optional clip of the gradient's global norm, `flattened`."""
    step = optax.adam(learning_rate, b1=b1, eps=eps)
    if max_grad_norm is not None:
        # optax says float and takes tracers.
        step = optax.chain(optax.clip_by_global_norm(max_grad_norm), step)  # pyright: ignore[reportArgumentType]
    return flattened(step)


def rmsprop(learning_rate: Array | float, *, max_grad_norm: Array | float) -> Any:
    """RMSProp as asynchronous methods use it (arXiv:1602.01783), its epsilon under the root, behind a clip of the norm.

    It is `flattened`.
    """
    # optax says float and takes tracers.
    clip = optax.clip_by_global_norm(max_grad_norm)  # pyright: ignore[reportArgumentType]
    step = optax.rmsprop(learning_rate, decay=0.99, eps=1e-5, eps_in_sqrt=True, initial_scale=1.0)
    return flattened(optax.chain(clip, step))


def descend(
    loss: Callable[..., tuple[Array, Any]],
    optimiser: optax.GradientTransformation,
    params: Tree,
    opt_state: Tree,
    *args: Any,
    by_rows: bool = False,
) -> tuple[Tree, Tree, Any]:
    """Takes one gradient step.

    Args:
        loss: `(params, *args) -> (scalar, aux)`.
        optimiser: an optax transformation.
        params: what to change.
        opt_state: the optimiser's state.
        *args: what else the loss reads.
        by_rows: whether loss and `aux` are means over the rows of the first of these, which may be many.

    Returns:
        `(params, opt_state, aux)`.
    """
    gradient = functools.partial(chunks.gradient, loss) if by_rows else jax.grad(loss, has_aux=True)
    grads, aux = gradient(params, *args)
    updates, opt_state = optimiser.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, aux


def annealed(step: Array, hypers: Any) -> Any:
    """The hypers after `step` updates: `learning_rate` on its way to `learning_rate_end` over `horizon` of them."""
    rate = exploration.linear(hypers.learning_rate, hypers.learning_rate_end, step / hypers.horizon)
    return hypers._replace(learning_rate=rate)


def slowed(step: Array, hypers: Any, *, names: tuple[str, ...]) -> Any:
    """The hypers after `step` updates: those named on their way to their `annealed_share` over `horizon` of them."""
    share = exploration.linear(1.0, hypers.annealed_share, step / hypers.horizon)
    return hypers._replace(**{name: share * getattr(hypers, name) for name in names})


def steady(step: Array, hypers: Any) -> Any:
    """The hypers, at any time."""
    del step
    return hypers


class Player(NamedTuple):
    """One who descends a loss over a share of the parameters.

    Attributes:
        loss: `(own, params, key, batch, hypers) -> (scalar, metrics)`, where `own` is the share that is descended and
            `params` the shares of all, by name.
        optimiser: `hypers -> optax.GradientTransformation`.
        steps: gradient steps an update, each on a minibatch of its own.
    """

    loss: Callable[..., tuple[Array, Any]]
    optimiser: Callable[[Any], optax.GradientTransformation]
    steps: int = 1


class Game(NamedTuple):
    """The state of `play`, by name of the player."""

    params: dict[str, Tree]
    opt_state: dict[str, Tree]


def start(params: Mapping[str, Tree], players: Mapping[str, Player], hypers: Any) -> Game:
    """Makes the state in which every player's optimiser is new."""
    opt_state = {name: player.optimiser(hypers).init(params[name]) for name, player in players.items()}
    return Game(dict(params), opt_state)


def turn(key: Key, game: Game, batch: Tree, hypers: Any, *, name: str, player: Player) -> tuple[Game, Any]:
    """Lets one player take one gradient step on one minibatch.  The key is consumed.

    Args:
        key: consumed.
        game: the state.
        batch: one minibatch.
        hypers: the algorithm's.
        name: whose turn it is.
        player: who that is.

    Returns:
        `(game, metrics)`.
    """
    own, opt_state, metrics = descend(
        player.loss, player.optimiser(hypers), game.params[name], game.opt_state[name], game.params, key, batch, hypers
    )
    return Game({**game.params, name: own}, {**game.opt_state, name: opt_state}), metrics


def rounds(
    key: Key,
    step: Array,
    state: Game,
    batch: Tree,
    hypers: Any,
    *,
    players: Mapping[str, Player],
    report: Callable[[dict[str, Any]], Any],
    schedule: Callable[[Array, Any], Any],
) -> tuple[Game, Any]:
    """Lets every player take its steps, in the order of `players`: the update of `play`.  The key is consumed.

    Args:
        key: consumed.
        step: updates done.
        state: of the game.
        batch: leaves `[K, B, ...]`, `K` minibatches; a player takes as many as it has steps.
        hypers: the algorithm's.
        players: by name, in the order of play.
        report: `{name: metrics} -> metrics`.
        schedule: `(step, hypers) -> hypers`.

    Returns:
        `(state, metrics)`; metrics are averaged over a player's steps.
    """
    hypers, said = schedule(step, hypers), {}
    for name, player in players.items():
        key, turn_key = jax.random.split(key)

        def body(game, inputs, name=name, player=player):
            step_key, minibatch = inputs
            return turn(step_key, game, minibatch, hypers, name=name, player=player)

        minibatches = jax.tree.map(lambda leaf, steps=player.steps: leaf[:steps], batch)
        state, metrics = lax.scan(body, state, (jax.random.split(turn_key, player.steps), minibatches))
        said[name] = jax.tree.map(lambda leaf: leaf.mean(axis=0), metrics)
    return state, report(said)


def play(
    players: Mapping[str, Player],
    *,
    init: Callable[[Key, Any], Mapping[str, Tree]],
    policy: PolicyFn,
    report: Callable[[dict[str, Any]], Any],
    schedule: Callable[[Array, Any], Any] = steady,
) -> Algorithm:
    """Builds an algorithm in which named players descend in turn.

    Args:
        players: by name, in the order of play.
        init: `(key, hypers) -> {name: parameters}`.
        policy: as in the contract, over a `Game`.
        report: `{name: metrics} -> metrics`, a NamedTuple with fixed fields.
        schedule: `(step, hypers) -> hypers` of an update, such as `annealed`.

    Returns:
        The algorithm; its batches have leaves `[K, B, ...]`.
    """

    def first(key, hypers):
        return start(init(key, hypers), players, hypers)

    return Algorithm(first, functools.partial(rounds, players=players, report=report, schedule=schedule), policy)
