"""Models, trained once, that measure generated images.

Each is the network of an experiment; its parameters are kept with the package.  A classifier's features and labels
stand for what the Inception network is to photographs; a matcher tells how well images fit captions.

Shape legend: `N` images, `D` captions of `L` words, `H W C` image, `A` classes, `F` features.
"""

from types import ModuleType
from typing import Any, NamedTuple

import jax
from jax import lax

from rlgen.applied import classifier, matcher
from rlgen.core import Array, Box, Discrete, Key, Spec, Tree
from rlgen.parts import networks

_CHUNK = 500  # images at a time


class Judge(NamedTuple):
    """A trained model.

    Attributes:
        algorithm: that trains it, a module with `assemble`, `build` and the name `PLAYER` of its parameters.
        spec: what it reads and says.
        config: of its network.
    """

    algorithm: ModuleType
    spec: Spec
    config: Any

    @property
    def network(self) -> Any:
        """What its parameters belong to."""
        return self.algorithm.assemble(self.spec, self.config)


def _digits(side: int) -> Judge:
    """A judge of grey digits."""
    return Judge(classifier, Spec(Box((side, side, 1), 0, 255, "uint8"), Discrete(10)), classifier.Config())


CAPTIONS = Judge(matcher, Spec(Box((32, 32, 3), 0, 255, "uint8"), Box((64,), -1.0, 1.0)), matcher.Config())
JUDGES = {"mnist": _digits(28), "captions": CAPTIONS}


def start(name: str, key: Key) -> Tree:
    """Makes a judge's parameters at random, in place of the trained ones.  The key is consumed."""
    algorithm, spec, config = JUDGES[name]
    return algorithm.build(spec, config).init(key, algorithm.Hypers()).params[algorithm.PLAYER]


def features(name: str, params: Tree, images: Array) -> Array:
    """Maps uint8 images `[N, H, W, C]` to `[N, F]`."""
    return _read(name, params, images, "features")


def labels(name: str, params: Tree, images: Array) -> Array:
    """Maps uint8 images `[N, H, W, C]` to classes `[N]`."""
    return _read(name, params, images, "__call__").argmax(-1)


def similarity(name: str, params: Tree, images: Array, captions: Array) -> Array:
    """Gives cosines between uint8 images `[N, H, W, C]` and captions `[D, L]`, `[N, D]`."""
    return matcher.similarity(params, images, captions, network=JUDGES[name].network)


def _read(name: str, params: Tree, images: Array, method: str) -> Array:
    network = JUDGES[name].network
    apply = lambda image: networks.apply(network, params, image[None], method=method)[0]  # noqa: E731
    return lax.map(apply, images, batch_size=_CHUNK)


def random_params(name: str | None) -> Tree:
    """A judge's parameters for tests, or `()` where there is no judge."""
    return () if name is None else start(name, jax.random.key(1))
