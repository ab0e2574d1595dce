"""Classifiers, trained once, whose features and labels measure generated images.

Each is the network of an experiment on a labelled dataset; its parameters are kept with the package, and stand for what
the Inception network is to photographs.

Shape legend: `N` images, `H W C` image, `A` classes, `F` features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.applied import classifier
from rlgen.core import Array, Box, Discrete, Key, Spec, Tree
from rlgen.parts import networks

_CHUNK = 500  # images at a time


class Judge(NamedTuple):
    """A classifier.

    Attributes:
        spec: images that it reads and classes that it tells apart.
        config: of its network.
    """

    spec: Spec
    config: classifier.Config

    @property
    def network(self) -> classifier.Classifier:
        """What its parameters belong to."""
        return classifier.assemble(self.spec, self.config)


def _digits(side: int) -> Judge:
    """A judge of grey digits."""
    return Judge(Spec(Box((side, side, 1), 0, 255, "uint8"), Discrete(10)), classifier.Config())


JUDGES = {"mnist": _digits(28)}


def start(name: str, key: Key) -> Tree:
    """Makes a judge's parameters at random, in place of the trained ones.  The key is consumed."""
    judge = JUDGES[name]
    return judge.network.init(key, jnp.zeros((1, *judge.spec.observation.shape), jnp.uint8))


def features(name: str, params: Tree, images: Array) -> Array:
    """Maps uint8 images `[N, H, W, C]` to `[N, F]`."""
    return _read(name, params, images, "features")


def labels(name: str, params: Tree, images: Array) -> Array:
    """Maps uint8 images `[N, H, W, C]` to classes `[N]`."""
    return _read(name, params, images, "__call__").argmax(-1)


def _read(name: str, params: Tree, images: Array, method: str) -> Array:
    network = JUDGES[name].network
    apply = lambda image: networks.apply(network, params, image[None], method=method)[0]  # noqa: E731
    return lax.map(apply, images, batch_size=_CHUNK)


def random_params(name: str | None) -> Tree:
    """A judge's parameters for tests, or `()` where there is no judge."""
    return () if name is None else start(name, jax.random.key(1))
