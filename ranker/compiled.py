"""What numba compiles, where it is installed: the extra `fast`."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType


class NoCompiler(RuntimeError):
    """numba is not installed, or does not work here."""


@cache
def compiled_module(name: str) -> ModuleType:
    """A module that is compiled when it is imported: some seconds the first time on a machine, then it is read from numba's cache.

    Raises NoCompiler.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise NoCompiler(f"{name} needs numba ({error}): pip install 'rankloop-server[fast]'") from error
