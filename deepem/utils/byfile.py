"""Modules that are named by a file path, importable under a name that holds the path.

``import_name("/lab/my dataset.py")`` is ``deepem.utils.byfile.<the path in hex>``. Importing that name works in any
process, so what such a module defines can be pickled into spawned workers, which know nothing of the command line.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__path__: list[str] = []  # makes this module a package, whose submodules the finder below provides


def import_name(path: Path) -> str:
    """The module name under which the file can be imported."""
    return f"{__name__}.{str(path.resolve()).encode().hex()}"


class _Finder:
    """Finds submodules of this module: files whose path is their name."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        return importlib.util.spec_from_file_location(name, bytes.fromhex(name.rpartition(".")[2]).decode())


if not any(finder is _Finder for finder in sys.meta_path):
    sys.meta_path.append(_Finder)
