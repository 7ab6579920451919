"""Tables of ground truth: the file of each array of a volume, and how to interpret its numbers.

A dataset module consists of such a table and one call of `deepem.data.readers.reader`. A row lists the files::

    {"dir": "vol1", "img": "img.h5", "seg": "seg.h5", "mit": NOTHING, "msk": "msk.h5", "loc": True}
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.io.formats import format_of, split_path
from deepem.utils.errors import InputError

Array = NDArray[Any]
Row = Mapping[str, Any]
Read = Callable[..., Any]

ALWAYS = ("img", "msk", "msk_train", "msk_val")
"""Keys of a volume that are always read, whichever labels are wanted."""

SAID = ("dir", "loc", "soft", "label_factor")
"""Keys of a row that are not files."""


@dataclass(frozen=True)
class Objects:
    """A selection of the objects in a file.

    Attributes:
        file: The file.
        ids: Ids of the objects; if empty, all non-zero voxels.
    """

    file: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Made:
    """An array converted from the numbers of a file.

    Attributes:
        file: The file.
        keep: Set these classes to 1 and all others to 0; if empty, keep all numbers unchanged.
        without: Set voxels of these objects to 0, in labels and in masks.
        inverted: Set 1 where the file is 0, and 0 elsewhere, as for boundaries in a file of ids or dark membranes.
    """

    file: str
    keep: tuple[int, ...] = ()
    without: tuple[Objects, ...] = ()
    inverted: bool = False

    def files(self) -> list[str]:
        """All files from which the array is made."""
        return list(dict.fromkeys([self.file, *(objects.file for objects in self.without)]))

    def array(self, read: Callable[[str], Any]) -> Any:
        """Make the array, with a function that reads a file."""
        array = read(self.file)
        if self.inverted or self.keep or self.without:  # converting needs the array in memory
            array = np.asarray(array)
        if self.inverted:
            array = (array == 0).astype(np.uint8)
        elif self.keep:
            array = np.isin(array, self.keep).astype(np.uint8)
        for objects in self.without:
            other = read(objects.file)
            gone = np.isin(other, objects.ids) if objects.ids else other > 0
            array = np.where(gone, array.dtype.type(0), array)
        return array


NOTHING = Made("")
"""A label that is 0 throughout, because annotators looked for it in the volume and found none."""


def rows(
    base: str, volumes: Mapping[str, str], inside: str = "", *, negative: Iterable[str] = (), **more: Any
) -> dict[str, Row]:
    """Make the rows of a table from words, such as ``{"vol001": "seg psd msk=msk.d128.h5"}``.

    Args:
        base: The folder with one folder per volume, named by id. A letter ``a`` after the number is dropped:
            ``vol001a`` is the volume ``vol001`` with another mask.
        volumes: Id -> the volume's arrays in addition to ``img`` and ``msk``. ``seg`` is in ``seg.h5``;
            ``msk=msk.d128.h5`` names another file. A volume with ``msk_train`` and ``msk_val`` has no ``msk``.
        inside: Subfolder of the volume's folder that holds the files.
        negative: Labels that are 0 throughout in volumes that do not list them. For all other labels that a volume
            does not list, its task is masked out.
        **more: Further entries of every row.
    """
    table: dict[str, Row] = {}
    for id, words in volumes.items():
        named = dict(word.split("=", 1) if "=" in word else [word, f"{word}.h5"] for word in words.split())
        mask = {} if any(key.startswith("msk") for key in named) else {"msk": "msk.h5"}
        none = {label: NOTHING for label in negative if label not in named}
        folder = f"{base}/{re.sub(r'(?<=[0-9])a$', '', id)}"
        table[id] = {
            "dir": f"{folder}/{inside}" if inside else folder,
            "img": "img.h5",
            **named,
            **mask,
            **none,
            "loc": True,
            **more,
        }
    return table


def plus(volumes: Mapping[str, str], words: str, but: Iterable[str] = ()) -> dict[str, str]:
    """Add words to the `volumes` of `rows`, except to some volumes."""
    spared = set(but)
    return {id: old if id in spared else f"{old} {words}" for id, old in volumes.items()}


def load_row(
    row: Row, data_dir: str | os.PathLike[str], labels: set[str], optional: set[str], remedy: str, read: Read
) -> dict[str, Any]:
    """Load the arrays of one row; see `deepem.data.emio.load_files`.

    Args:
        row: The row.
        data_dir: The folder that contains the row's ``dir``.
        labels: The labels to read.
        optional: Keys whose file may be missing.
        remedy: Advice in the error for users who lack files.
        read: Reads a file; its argument ``sparse`` says that missing chunks are expected, as in masks.

    Raises:
        InputError: Required files are missing.
    """
    folder = folder_of(row, data_dir)
    wanted = {k: v for k, v in row.items() if k not in SAID and (k in ALWAYS or k.removesuffix("_msk") in labels)}
    made = {key: value if isinstance(value, Made) else Made(value) for key, value in wanted.items() if value != NOTHING}
    lacking = {key: [name for name in how.files() if not _exists(_path(folder, name))] for key, how in made.items()}
    absent = {key for key, names in lacking.items() if names}
    if required := list(dict.fromkeys(name for key in absent - optional for name in lacking[key])):
        ordered = [name for how in made.values() for name in how.files() if name in required]
        raise InputError(folder, f"no {', '.join(dict.fromkeys(ordered))}", remedy or "these files")

    def array(key: str, how: Made) -> Any:
        return how.array(lambda name: read(_path(folder, name), sparse="msk" in key))

    volume: dict[str, Any] = {key: array(key, how) for key, how in made.items() if key not in absent}
    shape = volume["img"].shape[-3:] if "img" in volume else ()
    volume |= {key: np.zeros(shape, np.uint8) for key, value in wanted.items() if value == NOTHING}
    volume |= {"soft": row["soft"]} if row.get("soft") else {}
    return {**volume, "loc": bool(row.get("loc", False))}


def folder_of(row: Row, data_dir: str | os.PathLike[str]) -> Path:
    """Return the folder of a row's files: its ``dir`` or, if it lists several, the first that exists."""
    named = row.get("dir", "")
    folders = [Path(data_dir, name) for name in ([named] if isinstance(named, str) else named)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def present(members: Mapping[str, Row], data_dir: str | os.PathLike[str]) -> dict[str, Row]:
    """Return the rows whose folder exists."""
    return {id: row for id, row in members.items() if folder_of(row, data_dir).is_dir()}


def _path(folder: Path, name: str) -> str:
    return name if "://" in name else os.path.join(folder, name)


def _exists(file: str) -> bool:
    return format_of(file).exists(split_path(file)[0])
