"""Volumes on disk as dataset modules read and write them: HDF5, TIFF, zarr, numpy, precomputed.

The suffix or protocol of a path names the format. A path may name a dataset inside an HDF5 or zarr file after a
colon: ``sample_B.hdf:volumes/raw``. Arrays are returned as stored, (Z, Y, X) or (C, Z, Y, X); nothing is transposed.
`lazily` opens a volume in place of reading it; a dataset module may hand out what it gives for a volume larger than
memory. The formats themselves are in `deepem.io`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deepem.io.files import imread, imsave
from deepem.io.format import MAIN
from deepem.io.formats import FORMATS, format_of, split_path
from deepem.io.lazy import Lazy, lazily
from deepem.utils.errors import InputError

__all__ = ["ALWAYS", "MAIN", "SUFFIXES", "Lazy", "imread", "imsave", "lazily", "load_files", "split_path"]

SUFFIXES = {row.name.lower(): row.suffixes for row in FORMATS if row.suffixes}

ALWAYS = ("img", "msk", "msk_train", "msk_val")
"""Keys of a volume that are read whatever the labels wanted."""


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
            row's ``dir``, and that to `data_dir`; a row without it lies in `data_dir` itself.
        data_dir: The folder of the datasets.
        data_ids: The ids to read, by default all.
        labels: The labels that are wanted: of the others and their masks nothing is read.
        optional: Keys whose file may be absent: the volume then comes without. Every other one must be there.
        remedy: What a user who lacks files is told to do.
        lazy: Leave the arrays on disk, to be read box by box (`deepem.io.lazy.Lazy`), what ``--lazy`` asks for.

    Raises:
        InputError: files that must be there are not; all of them are named.
    """
    labels, optional = set(labels), set(optional)
    volumes: dict[str, dict[str, Any]] = {}
    for id in table if data_ids is None else data_ids:
        row = {key: value for key, value in table[id].items() if key not in ("dir", "loc")}
        folder = Path(data_dir, table[id].get("dir", ""))
        files = {
            key: name if "://" in name else os.path.join(folder, name)
            for key, name in row.items()
            if key in ALWAYS or key.removesuffix("_msk") in labels
        }
        absent = {key for key, file in files.items() if not format_of(file).exists(split_path(file)[0])}
        if lacking := [row[key] for key in files if key in absent - optional]:
            raise InputError(folder, f"no {', '.join(lacking)}", remedy or "these files")
        read = lazily if lazy else imread
        volumes[id] = {key: read(file, sparse="msk" in key) for key, file in files.items() if key not in absent}
        volumes[id]["loc"] = bool(table[id].get("loc", False))
    return volumes
