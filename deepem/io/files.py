"""Open, read and write volumes of any format by path.

A path may name a dataset inside an HDF5 or zarr file after a colon: ``sample_B.hdf:volumes/raw``. The default dataset
is ``main`` in HDF5 and, in zarr, the array itself or ``main`` of a group. Arrays are returned as stored,
(Z, Y, X) or (C, Z, Y, X); nothing is transposed. ``file://``, ``gs://`` and ``s3://`` paths are precomputed volumes.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.faults import readable, refuse_special
from deepem.io.format import Format
from deepem.io.formats import format_of, split_path
from deepem.io.stored import Image, Stored
from deepem.io.volume import Array
from deepem.utils.errors import InputError
from deepem.utils.files import replacing


@contextmanager
def opened(path: str | os.PathLike[str], *, sparse: bool = False) -> Iterator[Stored]:
    """Open a volume for reading. TIFF is read in whole pages, other formats in boxes.

    A missing chunk holds the fill value, as zarr and precomputed define. When the volume is closed, one warning says
    how many of the chunks that were read are missing, unless the volume is `sparse`, as masks are.

    Raises:
        InputError: the file does not exist or cannot be read.
    """
    form, (file, key) = format_of(path), split_path(path)
    if not form.exists(file):
        raise InputError(path, "no such file", "a volume")
    _refuse_special(form, file)
    with form.open(file, key) as stored:
        yield stored
        if not sparse:
            stored.warn_of_absent()


@contextmanager
def opened_image(path: str | os.PathLike[str], *, as_stored: bool = False) -> Iterator[Image]:
    """Open an image for reading: uint8, or floats whose range is checked during reading; with `as_stored`, any type.

    Raises:
        InputError: the file does not exist, cannot be read, or is not an image.
    """
    with opened(path) as stored:
        yield Image(stored.name, stored.data, stored.attributes, as_stored=as_stored)


def imread(path: str | os.PathLike[str], *, sparse: bool = False) -> Array:
    """Read a whole volume into memory.

    Missing chunks hold the fill value; one warning says how many, unless the volume is `sparse`, as masks are.

    Raises:
        FileNotFoundError: the path does not exist.
        InputError: no format has that suffix, the file cannot be read (truncated, or of another format), or it lacks
            the requested dataset; the message lists the existing ones.
    """
    form, (file, key) = format_of(path), split_path(path)
    if not form.exists(file):
        raise FileNotFoundError(errno.ENOENT, "no such volume", file)
    _refuse_special(form, file)
    with form.open(file, key) as stored, readable(file, form.name):
        array = np.ascontiguousarray(stored.whole())
        if not sparse:
            stored.warn_of_absent()
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def imsave(
    array: Array,
    path: str | os.PathLike[str],
    *,
    compress: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a volume atomically: an existing file is replaced once the new one is complete.

    Args:
        array: An array of any shape; booleans are stored as uint8.
        path: As for `imread`. A named dataset is only written into a new file, never into an existing one.
        compress: Use gzip in HDF5 and TIFF (zarr always compresses). Recommended for labels and masks, not for images.
        attributes: Attributes of the array, such as ``voxel_size_nm``; only HDF5 and zarr can store them.

    Raises:
        InputError: no format has that suffix, or a named dataset would go into an existing file.
    """
    form, (file, key) = format_of(path), split_path(path)
    if key is not None and form.exists(file):
        raise InputError(path, "a file that exists", "a new file: a dataset is not added to one")
    array = np.asarray(array)
    array = array.astype(np.uint8) if array.dtype == bool else array
    if form.remote:
        form.write(file, key, array, compress, attributes or {})
        return
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with _replacing_folder(Path(file)) if form.folder else replacing(Path(file)) as beside:
        form.write(str(beside), key, array, compress, attributes or {})


def _refuse_special(form: Format, file: str) -> None:
    if not form.remote:
        refuse_special(file)


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Like `replacing`, for a folder. The old folder is moved aside first: a rename cannot replace a folder."""
    beside, aside = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("part", "old"))
    try:
        yield beside
        if folder.exists():
            folder.rename(aside)
        beside.rename(folder)
    finally:
        for left in (beside, aside):
            shutil.rmtree(left, ignore_errors=True)
