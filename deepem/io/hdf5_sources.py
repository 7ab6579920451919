"""Check the other files that an HDF5 dataset is made of: HDF5 reads missing parts as the fill value, without an error.

A dataset takes its voxels from other files if it is virtual, if it lies behind an external link, or if its raw data are
in external files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from deepem.utils.errors import InputError, reason

ALL = "all the files that it is made of"
BLOCK = "%b"
"""In the file name of a virtual source: the number of the block, from 0."""


def require_link(file: object, top: h5py.File, key: str) -> None:
    """Refuse a link that leads nowhere.

    Raises:
        InputError: `key` is a soft or external link without its dataset; the error names the other file.
    """
    try:
        link = top.get(key, getlink=True)
    except (KeyError, RuntimeError):
        return
    if isinstance(link, h5py.ExternalLink):
        found = _file_of(Path(top.filename).parent, link.filename)
        got = f"a link to {link.path} in {link.filename}, which is not there"
        raise InputError(f"{file}:{key}", got, ALL if found is None else f"a link to a dataset of {found}")
    if isinstance(link, h5py.SoftLink):
        raise InputError(f"{file}:{key}", f"a link to {link.path}, which is not there", "a link to a dataset")


def require_sources(name: str, item: h5py.Dataset) -> None:
    """Refuse a dataset unless every file that it is made of holds its part.

    Raises:
        InputError: a file or a dataset is missing, unreadable, or smaller than the part taken from it.
    """
    _require_raw(name, item)
    gone = list(dict.fromkeys(_gone(item, set())))
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise InputError(name, f"a virtual dataset without its file {gone[0]}{more}", ALL)


def _require_raw(name: str, item: h5py.Dataset) -> None:
    for file, begin, size in getattr(item, "external", None) or ():
        path = Path(os.environ.get("HDF5_EXTFILE_PREFIX", ""), file)
        there = path.stat().st_size if path.is_file() else 0
        if size != h5py.h5f.UNLIMITED and there < begin + size:
            wants = f"{begin + size} bytes in it, from the working folder {Path.cwd()}"
            raise InputError(name, f"raw data in {file}, which has {there} bytes", wants)


def _gone(item: h5py.Dataset, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Yield the sources of a virtual dataset that cannot be read, and those of its sources."""
    here = (item.file.filename, item.name)
    if not item.is_virtual or here in seen:
        return
    seen.add(here)
    folder = Path(item.file.filename).parent
    for source in item.virtual_sources():
        if BLOCK in source.file_name:
            yield from _missing_blocks(folder, source.file_name)
        elif source.file_name == ".":
            yield from _unfit(item.file, source, seen)
        elif (path := _file_of(folder, source.file_name)) is None:
            yield source.file_name
        else:
            try:
                with h5py.File(path) as top:
                    yield from _unfit(top, source, seen)
            except OSError as error:
                yield f"{source.file_name} ({reason(error)})"


def _unfit(top: h5py.File, source: Any, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Yield the source if its dataset is missing or too small, else its own missing sources."""
    part = "" if source.file_name == "." else f"{source.file_name}:"
    found = top.get(source.dset_name)
    if not isinstance(found, h5py.Dataset):
        yield f"{part}{source.dset_name}"
        return
    if not _holds(found, source):
        yield f"{part}{source.dset_name} (a part of {found.shape} only)"
        return
    yield from _gone(found, seen)


def _holds(found: h5py.Dataset, source: Any) -> bool:
    """Whether a dataset is as large as the part that a virtual dataset takes from it."""
    if found.shape is None:
        return False
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:  # then its shape is not known
        return bool(found.size == source.vspace.get_select_npoints())
    _, last = source.src_space.get_select_bounds()
    return len(last) == len(found.shape) and all(end < n for end, n in zip(last, found.shape, strict=True))


def _missing_blocks(folder: Path, pattern: str) -> Iterator[str]:
    """Yield the first missing block of a numbered series of files."""
    path = folder / pattern
    shape = re.compile(re.escape(path.name).replace(re.escape(BLOCK), r"(\d+)"))
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    numbers = {int(found[1]) for found in map(shape.fullmatch, names) if found}
    lacking = min(set(range(max(numbers, default=0) + 1)) - numbers, default=None)
    if lacking is not None:
        yield pattern.replace(BLOCK, str(lacking))


def _file_of(folder: Path, name: str) -> Path | None:
    """Return the file where HDF5 looks for it: beside the dataset's file, then from the working folder."""
    places = (folder / name, Path(name), folder / Path(name).name)
    return next((place for place in places if place.is_file()), None)
