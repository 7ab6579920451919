"""Write label volumes block by block: ids (Z, Y, X) uint64 in HDF5, zarr or precomputed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepem.io.chunks import get, put
from deepem.io.cloud_sink import Layout, fits, make_volume
from deepem.io.faults import readable, unwritable
from deepem.io.format import MAIN
from deepem.io.formats import format_of, split_path
from deepem.io.hdf5 import open_hdf5
from deepem.io.pyramid import downsample
from deepem.utils.errors import InputError
from deepem.utils.files import replacing
from deepem.utils.geometry import Box, Vec3, vec3

Ids = NDArray[np.uint64]

CHUNK: Vec3 = (32, 64, 64)
"""Chunk size of a label volume, about what neuroglancer and similar viewers read at a time."""


class LabelVolume(Protocol):
    """A label volume that is being written. Boxes are relative to its first voxel and consist of whole chunks."""

    def write(self, box: Box, ids: Ids) -> None:
        """Write the ids of a box."""

    def read(self, box: Box) -> Ids:
        """Read the ids of a box."""


@dataclass(frozen=True)
class LabelLayout:
    """The layout of a new label volume.

    Attributes:
        size: (z, y, x) voxels.
        chunk: Size of a stored chunk.
        attributes: Attributes of the volume: `axes`, `offset`, `source` and, if known, `voxel_size_nm`.
    """

    size: Vec3
    chunk: Vec3
    attributes: Mapping[str, Any]


def chunk_within(block: Vec3) -> tuple[Vec3, Vec3]:
    """Return the chunk size of a label volume for a given block size, and the block size rounded up to whole chunks."""
    chunk = vec3(min(c, b) for c, b in zip(CHUNK, block, strict=True))
    return chunk, vec3(-(-b // c) * c for b, c in zip(block, chunk, strict=True))


def label_volume(path: str, layout: LabelLayout) -> AbstractContextManager[LabelVolume]:
    """Open a label volume for writing. An HDF5 file appears, atomically, when the block ends; other formats at once.

    Raises:
        InputError: label volumes cannot be written in this format, or a different volume exists at the path.
    """
    return _writer(path).open(path, layout)


def shared(path: str) -> bool:
    """Return whether several processes may write the volume at a path.

    Raises:
        InputError: label volumes cannot be written in this format.
    """
    return _writer(path).shared


def add_levels(path: str) -> None:
    """Add levels of lower resolution, if the format supports them."""
    _writer(path).levels(path)


def require_place(path: str, layout: LabelLayout) -> None:
    """Check that the volume can be written to a path, without creating it.

    Raises:
        InputError: as for `label_volume`, or the folder does not exist.
    """
    _writer(path).check(path, layout)


@dataclass(frozen=True)
class _Hdf5Labels:
    data: Any
    path: str
    lock: Lock

    def write(self, box: Box, ids: Ids) -> None:
        try:
            with self.lock:
                self.data[box.slices()] = ids
        except OSError as error:
            raise unwritable(self.path, error) from error

    def read(self, box: Box) -> Ids:
        with self.lock:
            found: Ids = self.data[box.slices()]
        return found


@contextmanager
def _open_hdf5(path: str, layout: LabelLayout) -> Iterator[LabelVolume]:
    file, key = split_path(path)
    with replacing(Path(file)) as beside:
        try:
            top = open_hdf5(beside, "w")
        except OSError as error:
            raise unwritable(path, error) from error
        with top:
            packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            chunk = tuple(min(c, n) for c, n in zip(layout.chunk, layout.size, strict=True))
            data = top.create_dataset(key or MAIN, layout.size, np.uint64, chunks=chunk, **packed)
            data.attrs.update(layout.attributes)
            yield _Hdf5Labels(data, path, Lock())


def _check_hdf5(path: str, layout: LabelLayout) -> None:
    file = Path(split_path(path)[0])
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(path, "a folder" if file.is_dir() else "a folder that is not there", "a file in a folder")


@dataclass(frozen=True)
class _ZarrLabels:
    data: Any
    path: str

    def write(self, box: Box, ids: Ids) -> None:
        try:
            self.data[box.slices()] = ids
        except OSError as error:
            raise unwritable(self.path, error) from error

    def read(self, box: Box) -> Ids:
        with readable(self.path, "zarr"):
            return np.asarray(self.data[box.slices()])


@contextmanager
def _open_zarr(path: str, layout: LabelLayout) -> Iterator[LabelVolume]:
    data = _zarr_there(path, layout)
    if data is None:
        import zarr

        file, key = split_path(path)
        told = {name: _plain(value) for name, value in layout.attributes.items()}
        try:
            data = zarr.create_array(
                file, name=key, shape=layout.size, chunks=layout.chunk, dtype=np.uint64, attributes=told
            )
        except OSError as error:
            raise unwritable(path, error) from error
    yield _ZarrLabels(data, path)


def _zarr_there(path: str, layout: LabelLayout) -> Any:
    """Return the array at a path; None if there is none.

    Raises:
        InputError: a different array exists there.
    """
    with readable(path, "zarr"):
        import zarr

        file, key = split_path(path)
        if not Path(file).exists():
            return None
        top = zarr.open(file, mode="r+")
        data = top if key is None else top.get(key) if isinstance(top, zarr.Group) else None
    if data is None:
        return None
    wanted = layout.size, layout.chunk, "uint64"
    held = getattr(data, "shape", None), getattr(data, "chunks", None), str(getattr(data, "dtype", "a group"))
    if held != wanted:
        raise InputError(path, f"a volume there: {held}", f"{wanted} (size, chunk, type), or another path")
    return data


def _check_zarr(path: str, layout: LabelLayout) -> None:
    _zarr_there(path, layout)


@dataclass(frozen=True)
class _CloudLabels:
    volume: Any
    begin: Vec3

    def write(self, box: Box, ids: Ids) -> None:
        put(self.volume, box.shift(self.begin), ids[None])

    def read(self, box: Box) -> Ids:
        found: Ids = get(self.volume, box.shift(self.begin))[0]
        return found


@contextmanager
def _open_cloud(path: str, layout: LabelLayout) -> Iterator[LabelVolume]:
    told, where = _cloud_layout(layout)
    made = json.loads(told.pop("provenance", "{}"))
    volume = make_volume(path, 1, where, {"method": "deepem segment", **made}, told)
    yield _CloudLabels(volume, where.bounds.begin)


def _check_cloud(path: str, layout: LabelLayout) -> None:
    fits(path, 1, _cloud_layout(layout)[1])


def _cloud_layout(layout: LabelLayout) -> tuple[dict[str, Any], Layout]:
    told = dict(layout.attributes)
    z, y, x = (float(v) for v in told.pop("voxel_size_nm", (1, 1, 1)))
    bounds = Box.of_size(vec3(told.pop("offset", (0, 0, 0))), layout.size)
    return told, Layout(bounds, (z, y, x), layout.chunk, "uint64", True, "compressed_segmentation")


def _nothing(path: str) -> None:
    """Add nothing: the format has no levels."""


def _levels(path: str) -> None:
    downsample(path)


@dataclass(frozen=True)
class _Writer:
    open: Callable[[str, LabelLayout], AbstractContextManager[LabelVolume]]
    check: Callable[[str, LabelLayout], None]
    shared: bool
    levels: Callable[[str], None] = _nothing


_WRITERS = {
    "HDF5": _Writer(_open_hdf5, _check_hdf5, shared=False),
    "zarr": _Writer(_open_zarr, _check_zarr, shared=True),
    "precomputed": _Writer(_open_cloud, _check_cloud, shared=True, levels=_levels),
}
"""Format name -> how label volumes are written in it."""


def _writer(path: str) -> _Writer:
    name = format_of(path).name
    if name not in _WRITERS:
        raise InputError(path, f"a {name} file", f"a label volume in {', '.join(_WRITERS)}")
    return _WRITERS[name]


def _plain(value: Any) -> Any:
    """Convert an attribute to JSON types."""
    return np.asarray(value).tolist()
