"""Runs seeds × hyperparameters in one compiled program, over every device of a mesh.

A sweep is a flat axis of lanes: lane `point * num_seeds + seed` trains one seed at one point of the grid.  A run is
vmapped over lanes with `step` left outside the batch, and the lane axis is sharded over a mesh of devices: GPUs, or
one XLA host device a CPU core, because XLA's CPU backend does not use a second core well for small networks.

Shape legend: `L` lanes, `G` grid points, `S` seeds, `E` lanes after padding to a multiple of the devices.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rlgen import train
from rlgen.core import Array, Key, Tree
from rlgen.parts import random

LANE = "lane"
_REPLICATED, _LANES = PartitionSpec(), PartitionSpec(LANE)


class Sweep(NamedTuple):
    """A run over lanes.  `data` is what every lane shares, such as a dataset; `()` where there is none.

    Attributes:
        init: `(data, keys [E], hypers [E]) -> state [E]`.
        advance: `(data, keys, start, stop, state, hypers) -> (state, report [E])`: updates `start … stop - 1`.  The
            given state is donated: its buffers are reused and must not be read again.
    """

    init: jax.stages.Wrapped
    advance: jax.stages.Wrapped


def points(hypers: Any, grid: Mapping[str, Sequence[float]]) -> list[Any]:
    """Lists the grid's points: the product of its axes, the last axis fastest.

    Args:
        hypers: NamedTuple of numbers that holds wherever the grid does not.
        grid: values by name of a leaf.

    Returns:
        One NamedTuple a point; `[hypers]` for an empty grid.
    """
    return [hypers._replace(**dict(zip(grid, values, strict=True))) for values in itertools.product(*grid.values())]


def stack(grid_points: Sequence[Any], num_seeds: int) -> Any:
    """Stacks points into a NamedTuple of float32 `[G * S]`, every point repeated for each seed."""
    return jax.tree.map(lambda *leaves: jnp.repeat(jnp.array(leaves, jnp.float32), num_seeds), *grid_points)


def keys(seed: int, num_seeds: int, num_points: int = 1) -> Key:
    """Makes the keys of all lanes, `[G * S]`: each grid point sees the same seeds."""
    seeds = jax.vmap(lambda i: jax.random.fold_in(random.key(seed), i))(jnp.arange(num_seeds))
    return jnp.tile(seeds, num_points)


def mesh(num_devices: int | None = None) -> Mesh:
    """Makes a one-dimensional mesh over the first devices of this process.

    Args:
        num_devices: how many; None for all.

    Returns:
        A mesh with one automatic axis named `lane`.

    Raises:
        ValueError: if there are fewer devices than asked for.
    """
    devices = jax.local_devices()[:num_devices]
    if num_devices is not None and len(devices) < num_devices:
        raise ValueError(f"{num_devices} devices asked for, {len(devices)} found")
    return Mesh(np.array(devices), (LANE,), axis_types=(AxisType.Auto,))


def pad(tree: Tree, num_lanes: int) -> Tree:
    """Repeats the first lanes until there are `num_lanes`, so that every device holds equally many."""

    def extend(leaf):
        return leaf[jnp.arange(num_lanes) % leaf.shape[0]] if leaf.shape[0] < num_lanes else leaf

    return jax.tree.map(extend, tree)


def place(tree: Tree, devices: Mesh) -> Tree:
    """Pads every leaf to a multiple of the devices and puts its lanes on them.

    Args:
        tree: leaves `[L, ...]`.
        devices: the mesh.

    Returns:
        The same tree with leaves `[E, ...]`.
    """
    lanes = jax.tree.leaves(tree)[0].shape[0]
    padded = -(-lanes // devices.size) * devices.size
    return jax.device_put(pad(tree, padded), NamedSharding(devices, _LANES))


def spread(function: Callable[..., Any], devices: Mesh, batched: Sequence[bool]) -> Callable[..., Any]:
    """Vmaps a function over lanes and shards the lanes over a mesh.

    Args:
        function: what to do for one lane.
        devices: the mesh.
        batched: for each argument, whether it has a lane axis.

    Returns:
        A function of the same arguments, not jitted, whose results have a lane axis.
    """
    vmapped = jax.vmap(function, in_axes=tuple(0 if axis else None for axis in batched))

    def on_device(*args):
        lanes = next(jax.tree.leaves(arg)[0].shape[0] for arg, axis in zip(args, batched, strict=True) if axis)
        if lanes > 1:
            return vmapped(*args)
        # A batch of one is slower than no batch: XLA's CPU backend has faster products for plain matrices.
        alone = [
            jax.tree.map(lambda leaf: leaf[0], arg) if axis else arg for arg, axis in zip(args, batched, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], function(*alone))

    specs = tuple(_LANES if axis else _REPLICATED for axis in batched)
    return jax.shard_map(on_device, mesh=devices, in_specs=specs, out_specs=_LANES, check_vma=False)


def build(make_run: Callable[[Any], train.Run], devices: Mesh) -> Sweep:
    """Builds the two compiled functions of a sweep.

    Args:
        make_run: `data -> Run`, called inside the trace, so that shared data is an argument of the program and
            neither a constant in it nor a copy in every lane.
        devices: the mesh.

    Returns:
        A `Sweep` of jitted functions.
    """

    def init(data: Any, key: Key, hypers: Any):
        return make_run(data).init(key, hypers)

    def advance(data: Any, key: Key, start: Array, stop: Array, state: Any, hypers: Any):
        return train.window(make_run(data))(key, start, stop, state, hypers)

    return Sweep(
        init=jax.jit(spread(init, devices, (False, True, True))),
        advance=jax.jit(spread(advance, devices, (False, True, False, False, True, True)), donate_argnums=4),
    )


def groups(num_lanes: int, chunk: int | None) -> list[range]:
    """Cuts the lanes into groups that are trained one after another, to bound memory.

    Every group but the last has the same size, and the last is padded to it by the caller, so that all share one
    program.

    Args:
        num_lanes: `L`.
        chunk: most lanes at a time; None for all.

    Returns:
        Ranges that cover `0 … L - 1`.
    """
    size = num_lanes if chunk is None else min(chunk, num_lanes)
    return [range(start, min(start + size, num_lanes)) for start in range(0, num_lanes, size)]


def finite(tree: Tree) -> Array:
    """Tells for each lane whether all its numbers are finite, `[L]` bool."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    checks = [jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1) for leaf in leaves]
    return lax.reduce_and(jnp.stack(checks), axes=(0,))
