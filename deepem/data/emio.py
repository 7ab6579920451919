"""Read and write volumes in dataset modules: HDF5, TIFF, zarr, numpy, precomputed.

The suffix or protocol of a path names the format. A path may name a dataset inside an HDF5 or zarr file after a
colon: ``sample_B.hdf:volumes/raw``. Arrays are returned as stored, (Z, Y, X) or (C, Z, Y, X); nothing is transposed.
`lazily` opens a volume without reading it; a dataset module may return the result for a volume larger than memory. The
formats themselves are in `deepem.io`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from deepem.data.table import ALWAYS, folder_of, load_row, present
from deepem.io.files import imread, imsave
from deepem.io.format import MAIN
from deepem.io.formats import FORMATS, split_path
from deepem.io.lazy import Lazy, lazily
from deepem.utils.errors import InputError

__all__ = ["ALWAYS", "MAIN", "SUFFIXES", "Lazy", "imread", "imsave", "lazily", "load_files", "split_path"]

SUFFIXES = {row.name.lower(): row.suffixes for row in FORMATS if row.suffixes}


def load_files(
    table: Mapping[str, Mapping[str, Any]],
    data_dir: str | os.PathLike[str],
    data_ids: Iterable[str] | None = None,
    labels: Iterable[str] = (),
    *,
    optional: Iterable[str] = (),
    remedy: str = "",
    lazy: bool = False,
) -> dict[str, dict[str, Any]]:
    """Read volumes by id as a table of files describes. `deepem.data.readers` makes a `load_data` of a table with this.

    Args:
        table: Id -> row. A row gives the file of each array, by the array's key (``img``, labels, ``msk`` or
            ``msk_train`` and ``msk_val``, ``<label>_msk``), and ``loc``. File names are relative to the row's ``dir``
            (if it lists several, the first that exists), which is relative to `data_dir`; a row without ``dir`` uses
            `data_dir` itself. Instead of a file name, a row may use the classes of `deepem.data.table`, for files
            whose numbers need to be converted. ``soft`` names the labels that are targets in [0, 1]. A row
            ``{"members": table}`` is a superset of the members whose folders exist. ``label_factor`` is (z, y, x)
            voxels of the labels per voxel of the image.
        data_dir: The folder of the datasets.
        data_ids: The ids to read, by default all.
        labels: The labels to read; other labels and their masks are skipped.
        optional: Keys whose file may be missing; the volume then lacks that array. All other files must exist.
        remedy: Advice in the error for users who lack files.
        lazy: Leave the arrays on disk and read them box by box (`deepem.io.lazy.Lazy`), for large volumes.

    Raises:
        InputError: Required files are missing; the error names all of them.
    """
    labels, optional = set(labels), set(optional)
    volumes: dict[str, dict[str, Any]] = {}
    for id in table if data_ids is None else data_ids:
        members = table[id].get("members")
        if members is None:
            volumes[id] = load_row(table[id], data_dir, labels, optional, remedy, lazily if lazy else imread)
            continue
        there = present(members, data_dir)
        if not there:
            folders = [folder_of(row, "") for row in members.values()]
            raise InputError(data_dir, f"none of the folders {folders[0]} to {folders[-1]}", remedy or "one of them")
        volumes[id] = load_files(there, data_dir, None, labels, optional=optional, remedy=remedy, lazy=lazy)
    return volumes
