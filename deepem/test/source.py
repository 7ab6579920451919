"""Input volumes, read box by box: HDF5, zarr, TIFF and numpy files, and arrays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from deepem.data import emio
from deepem.utils.errors import InputError, reason
from deepem.utils.geometry import Box, Vec3, touched, vec3

Array = NDArray[Any]

SLACK = 1e-3
"""What a resampled image may lie outside 0 to 1."""


@dataclass
class Source:
    """An image volume whose boxes can be read.

    Attributes:
        name: What an error names: the file.
        data: Anything with ``shape``, ``dtype`` and slices: (Z, Y, X) or (C, Z, Y, X).
        attributes: What the file says about itself.
        origin: Where its first voxel lies: at zero.
        any_range: Whether floats may lie outside 0 to 1: what a caller of `predict` hands over is his own affair.
    """

    name: str
    data: Any
    attributes: Mapping[str, Any] = field(default_factory=dict)
    origin: Vec3 = (0, 0, 0)
    any_range: bool = False

    def __post_init__(self) -> None:
        if len(self.data.shape) not in (3, 4):
            raise InputError(self.name, f"an array of shape {tuple(self.data.shape)}", "(Z, Y, X) or (C, Z, Y, X)")
        dtype = np.dtype(self.data.dtype)
        if dtype != np.uint8 and dtype.kind != "f":
            raise InputError(self.name, f"an image of {dtype}", "uint8, or floats from 0 to 1")

    @property
    def size(self) -> Vec3:
        """(z, y, x) voxels."""
        return vec3(self.data.shape[-3:])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0]) if len(self.data.shape) == 4 else 1

    def read(self, box: Box) -> Array:
        """The box as (C, Z, Y, X) uint8 or float32.

        Raises:
            InputError: the file cannot be read there, or holds a value that is not a finite number.
        """
        z, y, x = box.slices()
        try:
            array = np.asarray(self.data[..., z, y, x])
        except Exception as error:  # each format and compression raises errors of its own
            part, where = self._unreadable(box)
            got = f"unreadable voxels {part.begin} to {part.end}{where} ({reason(error)})"
            raise InputError(self.name, got, "a whole volume") from error
        array = array if array.ndim == 4 else array[None]
        if array.dtype == np.uint8:
            return array
        return floats(self.name, box, array, any_range=self.any_range)

    def _unreadable(self, box: Box) -> tuple[Box, str]:
        """The first chunk in a box that cannot be read, and its file where it has one; the box if all of them can."""
        chunk = getattr(self.data, "chunks", None)
        if chunk is None:
            return box, ""
        for part in touched(box, vec3(chunk[-3:]), Box((0, 0, 0), self.size)):
            z, y, x = part.slices()
            try:
                self.data[..., z, y, x]
            except Exception:  # noqa: BLE001 any failure is told
                return part, f", file {self.data.file_of(part.begin)}" if isinstance(self.data, Zarr) else ""
        return box, ""

    @property
    def voxel_size_nm(self) -> tuple[float, float, float] | None:
        """(z, y, x) nanometres, if the file says so."""
        for key in ("voxel_size_nm", "resolution"):
            value = np.ravel(self.attributes.get(key, ()))
            if value.size == 3:
                return float(value[0]), float(value[1]), float(value[2])
        return None


def floats(name: str, box: Box, array: Array, any_range: bool = False) -> NDArray[np.float32]:
    """Grey values as float32.

    Raises:
        InputError: some are no finite numbers, or lie outside 0 to 1, where training has never been.
    """
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise InputError(name, f"values that are no numbers within {box.begin} to {box.end}", "finite values")
    if not any_range and (low < -SLACK or high > 1 + SLACK):
        values = f"values from {low:g} to {high:g} within {box.begin} to {box.end}"
        raise InputError(name, values, "uint8, or floats from 0 to 1")
    return array.astype(np.float32, copy=False)


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """A volume on disk, opened for reading; TIFF is read by pages, the others in boxes.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    file, key = emio.split_path(path)
    form = emio.format_of(file)
    if not file.exists():
        raise InputError(path, "no such file", "an image volume")
    with ExitStack() as stack:
        if form == "hdf5":
            yield _hdf5(stack, file, key)
        elif form == "zarr":
            yield _zarr(file, key)
        elif form == "npy":
            yield Source(str(file), _checked(file, lambda: np.load(file, mmap_mode="r", allow_pickle=False)))
        else:
            yield Source(str(file), _checked(file, lambda: Pages(stack, file)))


def _checked(file: Path, read: Any) -> Any:
    try:
        return read()
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise InputError(file, f"a file that cannot be read ({reason(error)})", "a whole file") from error


def _hdf5(stack: ExitStack, file: Path, key: str | None) -> Source:
    top = stack.enter_context(_checked(file, lambda: h5py.File(file, "r")))
    item = top.get(key or emio.MAIN)
    if not isinstance(item, h5py.Dataset):
        held: list[str] = []
        top.visititems(lambda name, what: held.append(name) if isinstance(what, h5py.Dataset) else None)
        there = ", ".join(held) or "none"
        raise InputError(
            file, f"no dataset '{key or emio.MAIN}'", f"FILE:DATASET with a dataset that is there: {there}"
        )
    return Source(f"{file}:{item.name.strip('/')}", item, {**top.attrs, **item.attrs})


def _zarr(file: Path, key: str | None) -> Source:
    import zarr

    top = _checked(file, lambda: zarr.open(str(file), mode="r"))
    item = top.get(key or emio.MAIN) if isinstance(top, zarr.Group) else top
    if not isinstance(item, zarr.Array):
        raise InputError(file, f"no array '{key or emio.MAIN}'", "FILE:ARRAY with one that is there")
    name = f"{file}:{item.path}" if isinstance(top, zarr.Group) else str(file)
    return Source(name, Zarr(item, file), dict(item.attrs))


class Zarr:
    """A zarr array; a blosc chunk that was cut short, which is decoded into noise without a word, is an error."""

    def __init__(self, array: Any, folder: Path) -> None:
        self.array, self.folder = array, folder
        self.shape, self.dtype = array.shape, array.dtype
        self.chunks = array.shards or array.chunks  # what has a file of its own
        last = type(array.compressors[-1]).__name__ if array.compressors else ""
        self.blosc = "Blosc" in last and not array.shards

    def __getitem__(self, where: tuple[Any, ...]) -> Array:
        if self.blosc:
            (_, z, y, x) = where
            box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
            for chunk in touched(box, vec3(self.chunks[-3:]), Box((0, 0, 0), vec3(self.shape[-3:]))):
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


class Pages:
    """A TIFF stack as an array: the pages along z are read as they are asked for."""

    def __init__(self, stack: ExitStack, file: Path) -> None:
        import tifffile

        self.file = stack.enter_context(_checked(file, lambda: tifffile.TiffFile(file)))
        self.series = self.file.series[0]
        self.shape, self.dtype = self.series.shape, self.series.dtype
        self.chunks = (1, *self.shape[-2:])  # what a read error is narrowed down to

    def __getitem__(self, where: tuple[Any, ...]) -> Array:
        _, z, y, x = where
        planes = self.shape[-3]
        volumes = self.shape[0] if len(self.shape) == 4 else 1
        if len(self.series.pages) != volumes * planes:  # one page holds several planes
            return np.asarray(self.series.asarray()[where])
        pages = [c * planes + k for c in range(volumes) for k in range(z.start, z.stop)]
        read = [self.series.pages[p].asarray()[y, x] for p in pages]
        return np.asarray(np.reshape(read, (*self.shape[:-3], z.stop - z.start, *read[0].shape)))
