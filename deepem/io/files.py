"""Open, read and write volumes by path, whatever their format.

A path may name a dataset inside an HDF5 or zarr file after a colon: ``sample_B.hdf:volumes/raw``. Without one
it is ``main`` in HDF5 and, in zarr, the array itself or ``main`` of a group. Arrays are returned as stored,
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
    """A volume, opened for reading; of TIFF whole pages are read, of the others boxes.

    A chunk that is absent holds the fill value, as zarr and precomputed volumes say. How many of those that were read
    are absent is told when the volume is closed, in one warning, unless it is `sparse`, as masks are.

    Raises:
        InputError: there is no such file, or it cannot be read.
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
    """An image, opened for reading: uint8, or floats whose range is checked as they are read; or any, `as_stored`.

    Raises:
        InputError: there is no such file, it cannot be read, or it is no image.
    """
    with opened(path) as stored:
        yield Image(stored.name, stored.data, stored.attributes, as_stored=as_stored)


def imread(path: str | os.PathLike[str], *, sparse: bool = False) -> Array:
    """The volume stored at a path, whole and in memory.

    Chunks that are absent hold the fill value; one warning says how many, unless the volume is `sparse`, as masks are.

    Raises:
        FileNotFoundError: nothing is there.
        InputError: no format has that suffix, the file cannot be read (truncated, of another format), or it lacks the
            dataset asked for; the message lists those it has.
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
    """Write a volume, whole or not at all: a file of the same name is replaced once the new one is complete.

    Args:
        array: Any shape; booleans are stored as uint8.
        path: As for `imread`. A dataset inside a file is written into a new file only, never into one that is
            there.
        compress: gzip for HDF5 and TIFF (zarr compresses by itself): wanted for labels and masks, not images.
        attributes: What the file says about itself, such as ``voxel_size_nm``; HDF5 and zarr alone have room for them.

    Raises:
        InputError: no format has that suffix, or the dataset would be written into a file that exists.
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
    """As `replacing`, for a folder. It cannot be renamed over another, so that one steps aside at the last moment."""
    beside, aside = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("part", "old"))
    try:
        yield beside
        if folder.exists():
            folder.rename(aside)
        beside.rename(folder)
    finally:
        for left in (beside, aside):
            shutil.rmtree(left, ignore_errors=True)
