"""The type of a row in the table of formats, `deepem.io.formats`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from deepem.io.stored import Stored
from deepem.io.volume import Array

MAIN = "main"
"""The default array inside a file."""

Open = Callable[[str, str | None], AbstractContextManager[Stored]]
Write = Callable[[str, str | None, Array, bool, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Format:
    """A storage format.

    Attributes:
        name: The name of the format in errors.
        suffixes: File suffixes, lower case, with the dot.
        open: ``open(file, key)`` opens an array for reading, lazily; `key` names it inside the file, or is None.
        write: ``write(file, key, array, compress, attributes)`` writes a new file.
        inside: Whether a path may name an array inside the file: ``file.h5:volumes/raw``.
        folder: Whether a volume of this format is a folder.
        remote: Whether paths are addresses, ``protocol://...``, and have no suffix.
        exists: Tells whether a path exists.
        forks: Whether a forked process can read volumes after its parent has read some.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Open
    write: Write
    inside: bool = False
    folder: bool = False
    remote: bool = False
    exists: Callable[[str], bool] = os.path.exists
    forks: bool = True
