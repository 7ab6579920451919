"""zarr arrays, versions 2 and 3; a group holds several, ``main`` unless the path names one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.faults import missing_array, readable
from deepem.io.format import MAIN, Format
from deepem.io.stored import Stored
from deepem.io.volume import Array
from deepem.utils.geometry import Box, Vec3, touched, vec3


class Zarr:
    """A zarr array; a blosc chunk that was cut short, which is decoded into noise without a word, is an error."""

    def __init__(self, array: Any, folder: Path) -> None:
        self.array, self.folder = array, folder
        self.shape, self.dtype = array.shape, array.dtype
        self.chunks = array.shards or array.chunks  # what has a file of its own
        last = type(array.compressors[-1]).__name__ if array.compressors else ""
        self.blosc = "Blosc" in last and not array.shards

    def __getitem__(self, where: Any) -> Array:
        if self.blosc and len(self.shape) in (3, 4):
            whole = Box((0, 0, 0), vec3(self.shape[-3:]))
            z, y, x = whole.slices() if where is ... else where[1:]
            box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
            for chunk in touched(box, vec3(self.chunks[-3:]), whole):
                self._measure(self.folder / self.file_of(chunk.begin))
        return np.asarray(self.array[where])

    def file_of(self, begin: Vec3) -> str:
        """The file of the chunk that begins there, of the first channel, within the folder."""
        index = tuple(b // n for b, n in zip(begin, self.chunks[-3:], strict=True))
        key = self.array.metadata.encode_chunk_key((0,) * (len(self.chunks) - 3) + index)
        return f"{self.array.path}/{key}".lstrip("/")

    @staticmethod
    def _measure(file: Path) -> None:
        """Compare a chunk's length with that in its header: bytes 12 to 15."""
        if file.exists():
            with open(file, "rb") as chunk:
                header, size = chunk.read(16), file.stat().st_size
            if len(header) < 16 or int.from_bytes(header[12:], "little") != size:
                raise OSError(f"{size} bytes, which is not what its header says")


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    import zarr

    with readable(file, "zarr"):
        top = zarr.open(file, mode="r")
        group = isinstance(top, zarr.Group)
        if key is not None and not group:
            raise missing_array(file, key, [])
        item = top.get(key or MAIN) if isinstance(top, zarr.Group) else top
        if not isinstance(item, zarr.Array):
            raise missing_array(file, key or MAIN, sorted(_arrays(top)))
        stored = Stored(f"{file}:{item.path}" if group else file, Zarr(item, Path(file)), dict(item.attrs))
    yield stored


def _arrays(group: Any, prefix: str = "") -> list[str]:
    found = [prefix + name for name in group.array_keys()]
    for name, inner in group.groups():
        found += _arrays(inner, f"{prefix}{name}/")
    return found


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    import zarr

    if key is None:
        zarr.save_array(file, array)
        written = zarr.open_array(file, mode="r+")
    else:
        written = zarr.open_group(file, mode="w").create_array(key, data=array)
    written.attrs.update({name: np.asarray(value).tolist() for name, value in attributes.items()})


ZARR = Format("zarr", (".zarr",), _open, _write, inside=True, folder=True)
