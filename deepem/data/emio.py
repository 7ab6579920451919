"""Volumes on disk as dataset modules read and write them: HDF5, TIFF, zarr, numpy, precomputed.

The suffix or protocol of a path names the format. A path may name a dataset inside an HDF5 or zarr file after a
colon: ``sample_B.hdf:volumes/raw``. Arrays are returned as stored, (Z, Y, X) or (C, Z, Y, X); nothing is transposed.
`lazily` opens a volume in place of reading it; a dataset module may hand out what it gives for a volume larger than
memory. The formats themselves are in `deepem.io`.
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
    """Volumes by id, read as a table of files says: what the `load_data` of most dataset modules comes to.

    Args:
        table: Id -> row. A row gives the file of each array, under the key that `load_data` gives it (``img``,
            labels, ``msk`` or ``msk_train`` and ``msk_val``, ``<label>_msk``), and ``loc``. Files are relative to the
            row's ``dir`` (of several, the first that is there), and that to `data_dir`; a row without it lies in
            `data_dir` itself. In place of a file may stand what `deepem.data.table` has for files whose numbers mean
            something else. ``soft`` names the labels that are targets in [0, 1]. A row ``{"members": table}`` is a
            superset of the members whose folders exist. ``label_factor`` is (z, y, x) voxels of the labels per voxel of
            the image.
        data_dir: The folder of the datasets.
        data_ids: The ids to read, by default all.
        labels: The labels that are wanted: of the others and their masks nothing is read.
        optional: Keys whose file may be absent: the volume then comes without. Every other one must be there.
        remedy: What a user who lacks files is told to do.
        lazy: Leave the arrays on disk, to be read box by box (`deepem.io.lazy.Lazy`), for volumes larger than memory.

    Raises:
        InputError: files that must be there are not; all of them are named.
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
