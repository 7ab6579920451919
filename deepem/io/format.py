"""What a format offers: a row of the table in `deepem.io.formats`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from deepem.io.stored import Stored
from deepem.io.volume import Array

MAIN = "main"
"""The array that is meant where a path names none inside a file."""

Open = Callable[[str, str | None], AbstractContextManager[Stored]]
Write = Callable[[str, str | None, Array, bool, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Format:
    """How arrays of one kind are stored.

    Attributes:
        name: As the errors call it.
        suffixes: Of its files, lower case, with the dot.
        open: ``open(file, key)`` opens an array for reading, lazily; `key` names it inside the file, or is None.
        write: ``write(file, key, array, compress, attributes)`` writes a new file.
        inside: Whether a path may name an array inside the file: ``file.h5:volumes/raw``.
        folder: Whether a file of this kind is a folder.
        remote: Whether it is named by an address, ``protocol://...``, instead of a suffix.
        exists: Whether there is a file at a path.
        forks: Whether a process may go on reading that was forked from one which has read.
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
