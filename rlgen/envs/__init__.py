"""Environments, all of them gymnax environments; `adapter` alone steps them."""

import importlib
import sys
import types


class _Later(types.ModuleType):
    """Stands in for a module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self.__name__), name)


def _import_gymnax() -> None:
    """Imports gymnax without the libraries that only its drawings need, which take longer than gymnax and jax."""
    stand_ins = {name: _Later(name) for name in ("matplotlib.pyplot", "seaborn") if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("gymnax")
    finally:
        for name in stand_ins:
            del sys.modules[name]


_import_gymnax()
