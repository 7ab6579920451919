"""Folders of images and label volumes, as light-sheet labs keep them: list their ids and read their files.

Two layouts, in any format that `deepem.io` reads::

    DIR/ID/img.tif   DIR/ID/seg.tif   DIR/ID/seg.classes.json       a folder per volume
    DIR/img/ID.tif   DIR/seg/ID.tif   DIR/seg/ID.classes.json       a folder per kind of volume
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.emio import imread
from deepem.io.files import opened
from deepem.io.formats import FORMATS
from deepem.io.volume import VoxelSize
from deepem.utils.errors import InputError

Array = NDArray[Any]

SUFFIXES = tuple(suffix for row in FORMATS if not row.remote for suffix in row.suffixes)
IMAGE, LABEL = "img", "seg"


@dataclass(frozen=True)
class Entry:
    """A volume of a folder.

    Attributes:
        folder: The folder.
        name: The volume's id.
    """

    folder: Path
    name: str

    def file(self, key: str) -> Path | None:
        """Return the file of an image or a label volume; None if it does not exist."""
        stems = (self.folder / self.name / key, self.folder / key / self.name)
        there = (stem.with_name(stem.name + suffix) for stem in stems for suffix in SUFFIXES)
        return next((path for path in there if path.exists()), None)

    def need(self, key: str) -> Path:
        """Return the file of an image or a label volume, which must exist.

        Raises:
            InputError: It does not exist.
        """
        found = self.file(key)
        if found is None:
            wants = f"{self.name}/{key} or {key}/{self.name} in it, as {', '.join(SUFFIXES)}"
            raise InputError(self.folder, f"no {key} of {self.name}", wants)
        return found

    def classes(self) -> dict[int, int] | None:
        """Read the table id -> class beside the label volume; return None if there is none.

        Raises:
            InputError: The file is not such a table.
        """
        stems = (self.folder / self.name / LABEL, self.folder / LABEL / self.name)
        path = next((p for p in (s.with_name(f"{s.name}.classes.json") for s in stems) if p.is_file()), None)
        if path is None:
            return None
        try:
            return {int(name): int(number) for name, number in json.loads(path.read_text()).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(path, error, 'a JSON table id -> class such as {"7": 1, "8": 2}') from error

    def voxel_size_nm(self) -> VoxelSize | None:
        """Return the voxel size (z, y, x) given in the files of image and labels.

        Raises:
            InputError: The files disagree.
        """
        sizes = {}
        for path in filter(None, (self.file(IMAGE), self.file(LABEL))):
            with opened(path, sparse=True) as stored:
                sizes[path] = stored.voxel_size_nm
        known = {path: size for path, size in sizes.items() if size is not None}
        found = list(known.values())
        if len(found) == 2 and not np.allclose(found[0], found[1]):
            label = list(known)[1]
            raise InputError(label, f"voxels of {found[1]} nm", f"those of the image, {found[0]} nm")
        return found[0] if found else None


def entries(folder: str | Path) -> Iterator[Entry]:
    """Return the volumes of a folder that have an image, by name."""
    folder = Path(folder)
    try:
        names = {path.name for path in folder.iterdir() if path.is_dir() and path.name not in (IMAGE, LABEL)}
        flat = folder / IMAGE
        names |= {_stem(path) for path in flat.iterdir()} if flat.is_dir() else set()
    except OSError as error:
        raise InputError(folder, error, "a folder of volumes") from error
    for name in sorted(names):
        if name and Entry(folder, name).file(IMAGE) is not None:
            yield Entry(folder, name)


def _stem(path: Path) -> str:
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else ""


def image_of(entry: Entry, channels: Sequence[int] | None, low: float | None, high: float | None) -> Array:
    """Read an image (C, Z, Y, X): uint8 unchanged, other dtypes as float32 with `low` mapped to 0 and `high` to 1.

    Args:
        entry: The volume.
        channels: The channels to use, in this order; by default all.
        low: Grey values up to this become 0; the default is 0.
        high: Grey values from this on become 1; the default is the maximum of the dtype.

    Raises:
        InputError: A channel does not exist, or the image is float and `high` is missing.
    """
    path = entry.need(IMAGE)
    return scaled(path, chosen_channels(path, imread(path), channels), low, high)


def chosen_channels(where: Path, array: Array, channels: Sequence[int] | None) -> Array:
    """Select channels of an image (Z, Y, X) or (C, Z, Y, X); return (C, Z, Y, X)."""
    array = array[None] if array.ndim == 3 else array
    if wrong := [c for c in channels or () if not 0 <= c < len(array)]:
        raise InputError(where, f"no channel {wrong[0]}", f"one of 0 to {len(array) - 1}")
    return array if channels is None else array[list(channels)]


def scaled(where: Path, array: Array, low: float | None, high: float | None) -> Array:
    """Map grey values from `low` to `high` to floats from 0 to 1; uint8 is unchanged if neither is given."""
    if low is None and high is None and array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uif":
        raise InputError(where, f"an image of {array.dtype}", "grey values")
    bottom = 0.0 if low is None else low
    top = high if high is not None else 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
    if not top > bottom:
        raise InputError("intensity_low, intensity_high", f"{bottom:g} and {top:g}", "the lower one first")
    found = array.astype(np.float32)  # a copy; float32 holds even 65535 exactly
    found -= np.float32(bottom)
    found /= np.float32(top - bottom)
    return found.clip(0, 1, out=found)


def labels_of(entry: Entry, names: Sequence[str] | None, classes: int) -> dict[str, Array]:
    """Read the labels of a volume: `seg`, with one channel of ids per class, and `seg_msk` if some classes are unknown.

    Args:
        entry: The volume.
        names: One label volume per class; by default `seg`, with the table beside it.
        classes: Number of classes; with one class, all objects belong to it.

    Raises:
        InputError: A file is missing, or the table has a class above the last one.
    """
    if names is not None:
        if len(names) != classes:
            raise InputError("inst_labels", f"{len(names)} label volumes", f"{classes}, one for each class")
        return {LABEL: stacked([_one(entry.need(name)) for name in names])}
    path = entry.need(LABEL)
    ids, table = _one(path), entry.classes()
    if classes == 1 or table is None:
        return {LABEL: ids}
    return by_class(path, ids, table, classes)


def _one(path: Path) -> Array:
    array = imread(path)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3 or array.dtype.kind not in "iu":
        raise InputError(path, f"{array.dtype} of shape {array.shape}", "ids, whole numbers (Z, Y, X)")
    return array


def stacked(volumes: Sequence[Array]) -> Array:
    """Stack label volumes as channels, (C, Z, Y, X) int64; renumber ids that occur in two of them."""
    found = np.zeros((len(volumes), *volumes[0].shape), np.int64)
    first = 0
    for into, volume in zip(found, volumes, strict=True):
        if volume.shape != volumes[0].shape:
            raise InputError("inst_labels", f"sizes {volumes[0].shape} and {volume.shape}", "one size")
        into[...] = volume
        into[into > 0] += first
        first = max(first, int(into.max()))
    return found


def by_class(where: Path, ids: Array, table: Mapping[int, int], classes: int) -> dict[str, Array]:
    """Split ids (Z, Y, X) into one channel per class; objects without a known class are masked out."""
    names, number = np.unique(ids, return_inverse=True)
    of_name = np.array([table.get(int(name), 0) if name else -1 for name in names])
    if (most := int(of_name.max())) > classes:
        raise InputError(where, f"the class {most} in the table beside it", f"inst_classes {most}")
    of_voxel = of_name[number].reshape(ids.shape)
    split = np.stack([np.where(of_voxel == c, ids, ids.dtype.type(0)) for c in range(1, classes + 1)])
    return {LABEL: split, f"{LABEL}_msk": (of_voxel != 0).astype(np.uint8)}
