"""zarr arrays, formats 2 and 3. In a group, the default array is ``main`` unless the path names another.

An OME-NGFF image is a group of levels; the default is the first level unless the path names another (``em.zarr:1``).
Leading axes of length 1, such as time and channel, are dropped from arrays with more than four axes. The package zarr
3 needs Python 3.11; zarr 2, which Python 3.10 has, reads and writes format 2 alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.chunk_files import ChunkFiles
from deepem.io.faults import missing_array, readable
from deepem.io.format import MAIN, Format
from deepem.io.ngff import described, first_level
from deepem.io.stored import Stored
from deepem.io.volume import Array
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3


class Zarr:
    """A zarr array that checks chunks before zarr decodes them.

    Without this check, zarr decodes a truncated blosc chunk to noise, and treats every chunk file that it does not find
    as never written.
    """

    def __init__(self, array: Any, folder: Path) -> None:
        self.array = array
        self.lead = (0,) * self._leading(array.shape)
        self.shape, self.dtype = array.shape[len(self.lead) :], array.dtype
        shards = getattr(array, "shards", None)  # zarr 2 has no shards
        self.stored_chunks = tuple(shards or array.chunks)  # the unit with its own file
        self.chunks = self.stored_chunks[len(self.lead) :]
        self.read_chunks = tuple(array.chunks)[len(self.lead) :]  # the inner chunks of a shard can be read separately
        compressors = array.compressors if hasattr(array, "compressors") else (array.compressor,)
        self.blosc = bool(compressors) and "Blosc" in type(compressors[-1]).__name__ and not shards
        self.files = ChunkFiles(folder, self.shape, self.chunks, self._name, str(array.path))
        named = hasattr(array, "metadata") or hasattr(array, "_chunk_key")
        self._local = folder.is_dir() and named and len(self.shape) in (3, 4)

    @staticmethod
    def _leading(shape: tuple[int, ...]) -> int:
        """Number of axes of length 1 in front of the last four."""
        lead = max(len(shape) - 4, 0)
        return lead if all(n == 1 for n in shape[:lead]) else 0

    def __getitem__(self, where: Any) -> Array:
        if self._local:
            for file in self.files.there(where):
                if self.blosc:
                    self._measure(file)
        return np.asarray(self.array[self.lead + ((...,) if where is ... else tuple(where))])

    @property
    def absent(self) -> set[str]:
        """Files of chunks that were read and do not exist; such chunks hold the fill value."""
        return self.files.absent

    def file_of(self, begin: Vec3) -> str:
        """Return the file, relative to the folder, of the chunk that begins at a voxel."""
        return self.files.file_of(begin)

    def _name(self, index: tuple[int, ...]) -> str:
        index = (*self.lead, *index)
        if not hasattr(self.array, "metadata"):  # zarr 2
            return str(self.array._chunk_key(index))
        return f"{self.array.path}/{self.array.metadata.encode_chunk_key(index)}".lstrip("/")

    @staticmethod
    def _measure(file: Path) -> None:
        """Compare a chunk's length with the length in its header, bytes 12 to 15."""
        with open(file, "rb") as chunk:
            header, size = chunk.read(16), file.stat().st_size
        if len(header) < 16 or int.from_bytes(header[12:], "little") != size:
            raise OSError(f"{size} bytes, which is not what its header says")


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    with readable(file, "zarr"):
        import zarr

        if zarr.__version__.startswith("2.") and Path(file, "zarr.json").is_file():
            raise InputError(file, f"zarr format 3, and zarr {zarr.__version__}", "zarr 3 (Python 3.11), or format 2")
        top = zarr.open(file, mode="r")
        group = isinstance(top, zarr.Group)
        if key is not None and not group:
            raise missing_array(file, key, [])
        key = key or (first_level(file, top.attrs) if group else None) or MAIN
        item = top.get(key) if group else top
        if not isinstance(item, zarr.Array):
            raise missing_array(file, key, sorted(_arrays(top)))
        attributes = {**(described(file, top.attrs, key) if group else {}), **dict(item.attrs)}
        stored = Stored(f"{file}:{item.path}" if group else file, Zarr(item, Path(file)), attributes)
    yield stored


def _arrays(group: Any, prefix: str = "") -> list[str]:
    found = [prefix + name for name in group.array_keys()]
    for name, inner in group.groups():
        found += _arrays(inner, f"{prefix}{name}/")
    return found


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    with readable(file, "zarr"):
        import zarr

    if key is None:
        zarr.save_array(file, array)
        written = zarr.open_array(file, mode="r+")
    else:
        group = zarr.open_group(file, mode="w")
        create = group.create_array if hasattr(group, "create_array") else group.create_dataset  # zarr 3, zarr 2
        written = create(key, data=array)
    written.attrs.update({name: np.asarray(value).tolist() for name, value in attributes.items()})


ZARR = Format("zarr", (".zarr",), _open, _write, inside=True, folder=True)
