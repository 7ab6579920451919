"""Modules that are named by a file path, importable under a name that holds the path.

``import_name("/lab/code/cortex.py")`` is ``deepem.utils.byfile.<the folder in hex>.cortex``. Importing that name works
in any process, so what such a module defines can be pickled into spawned workers, which know nothing of the command
line. The folder is a package: the module may import the files beside it, ``import helpers`` or ``from . import
helpers``.
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
"""Begins the name of a file whose own is no name in Python; the rest is the path in hex."""


def import_name(path: Path) -> str:
    """The module name under which the file can be imported."""
    path = path.resolve()
    stem = path.stem if path.stem.isidentifier() else CODED + os.fsencode(path).hex()
    return f"{__name__}.{os.fsencode(path.parent).hex()}.{stem}"


class _Finder:
    """Finds folders as packages of this module, whose name is their path, and files whose name is none."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        above, _, last = name.rpartition(".")
        if above == __name__:
            return _package(name, last)
        if above.startswith(f"{__name__}.") and last.startswith(CODED):
            return importlib.util.spec_from_file_location(name, _path(last.removeprefix(CODED)))
        return None


def _package(name: str, coded: str) -> ModuleSpec | None:
    """The folder as a package, its own ``__init__.py`` left alone: it may need another name, or more than is there."""
    try:
        folder = str(_path(coded))
    except ValueError:
        return None
    if folder not in sys.path:
        sys.path.append(folder)  # at the end: what lies there hides no other module
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [folder]
    return spec


def _path(coded: str) -> Path:
    return Path(os.fsdecode(bytes.fromhex(coded)))


if not any(finder is _Finder for finder in sys.meta_path):
    sys.meta_path.append(_Finder)
