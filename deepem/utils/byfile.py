"""Import modules by file path, under a module name that encodes the path.

``import_name("/lab/code/cortex.py")`` is ``deepem.utils.byfile.<the folder in hex>.cortex``. That name can be imported
in any process, so objects defined in the module can be pickled and sent to spawned workers, which do not know the
command line. The folder acts as a package: the module can import its neighbours with ``import helpers`` or
``from . import helpers``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__path__: list[str] = []  # makes this module a package, whose submodules the finder below provides

CODED = "file_"
"""Prefix of the module name of a file whose own name is not a Python identifier; the path in hex follows."""


def import_name(path: Path) -> str:
    """Return the module name under which the file can be imported."""
    path = path.resolve()
    stem = path.stem if path.stem.isidentifier() else CODED + os.fsencode(path).hex()
    return f"{__name__}.{os.fsencode(path.parent).hex()}.{stem}"


class _Finder:
    """Finds folders as sub-packages of this module, and files whose name is not a Python identifier."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        above, _, last = name.rpartition(".")
        if above == __name__:
            return _package(name, last)
        if above.startswith(f"{__name__}.") and last.startswith(CODED):
            return importlib.util.spec_from_file_location(name, _path(last.removeprefix(CODED)))
        return None


def _package(name: str, coded: str) -> ModuleSpec | None:
    """Return the folder as a package.

    Its own ``__init__.py`` is not run, since it may need its real package name or imports that are missing here.
    """
    try:
        folder = str(_path(coded))
    except ValueError:
        return None
    if folder not in sys.path:
        sys.path.append(folder)  # at the end, so that its files do not hide other modules
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [folder]
    return spec


def _path(coded: str) -> Path:
    return Path(os.fsdecode(bytes.fromhex(coded)))


if not any(finder is _Finder for finder in sys.meta_path):
    sys.meta_path.append(_Finder)
