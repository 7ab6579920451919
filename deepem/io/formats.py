"""The table of storage formats, used by training and inference. A new format needs a module here and a table line."""

from __future__ import annotations

import os

from deepem.io.format import Format
from deepem.io.hdf5 import HDF5
from deepem.io.n5 import N5
from deepem.io.npy import NPY
from deepem.io.precomputed import PRECOMPUTED
from deepem.io.tiff import TIFF
from deepem.io.zarr import ZARR
from deepem.utils.errors import InputError

FORMATS: tuple[Format, ...] = (
    HDF5,
    TIFF,
    ZARR,
    N5,
    NPY,
    PRECOMPUTED,
)


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format of a path, from its suffix or protocol.

    Raises:
        InputError: no format has that suffix or protocol.
    """
    file = split_path(path)[0]
    remote, suffix = "://" in file, os.path.splitext(file)[1].lower()
    for row in FORMATS:
        if row.remote if remote else suffix in row.suffixes:
            return row
    known = ", ".join(suffix for row in FORMATS for suffix in row.suffixes)
    raise InputError(file, f"the suffix '{os.path.splitext(file)[1]}'", f"one of {known}")


def split_path(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Split ``file.h5:volumes/raw`` into the file and the array inside it, None if the path names no array."""
    text = os.fspath(path)
    file, colon, key = text.rpartition(":")
    suffix = os.path.splitext(file)[1].lower()
    if colon and key and "://" not in text and any(row.inside and suffix in row.suffixes for row in FORMATS):
        return file, key.strip("/")
    return text, None
