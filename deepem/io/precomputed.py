"""Volumes behind cloud-volume: ``file://``, ``gs://`` and ``s3://`` with the same code.

`deepem.io.chunks` converts from cloud-volume's (x, y, z, c); everything here is (z, y, x) and (C, Z, Y, X).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from deepem.io.addresses import refuse_unknown_protocol
from deepem.io.chunks import bounds_of, get, put, voxel_size_of, zyx
from deepem.io.cloud_sink import Layout, make_volume
from deepem.io.faults import store_fault
from deepem.io.format import Format
from deepem.io.stored import Stored, grey, refuse_unusual
from deepem.io.volume import Array, VolumeInfo
from deepem.utils.errors import InputError, reason
from deepem.utils.geometry import Box, vec3


def open_volume(path: str, mip: int = 0, **options: Any) -> Any:
    """Open a CloudVolume.

    Raises:
        InputError: the path has no volume, or the volume lacks that mip.
    """
    from cloudvolume import CloudVolume

    refuse_unknown_protocol(path)
    try:
        volume = CloudVolume(path, mip=0, progress=False, **options)
    except Exception as error:  # each protocol raises its own errors
        if (told := store_fault(path, error)) is not None:
            raise told from error
        wants = "a path such as file:///dir/volume"
        raise InputError(path, f"no volume that can be opened ({reason(error)})", wants) from error
    mips = len(volume.info["scales"])
    if not 0 <= mip < mips:
        raise InputError("mip", mip, f"0 to {mips - 1}, the levels of {path}")
    volume.mip = mip
    return volume


class CloudSource:
    """A level of a volume behind cloud-volume, or a box of it, read as (C, Z, Y, X).

    Missing chunks are zeros, as the format defines.

    Args:
        path: ``file://``, ``gs://``, ``s3://``, ...
        mip: Level to read.
        cache: Cache chunks on the local disk.
        as_stored: Return grey values of any type and range, for a view that maps them.

    Attributes:
        bounds: Bounds of the level, in its voxels.
        whole: Bounds of mip 0, in voxels of mip 0.
        ratio: (z, y, x) voxels of mip 0 per voxel of the level.
        absent: Chunks that were read and do not exist.
        origin: (z, y, x) of the first voxel of the box, in voxels of the level.
        size: (z, y, x) voxels of the box.
    """

    def __init__(self, path: str, mip: int = 0, cache: bool = False, as_stored: bool = False) -> None:
        self.name, self.mip, self.as_stored = path, mip, as_stored
        self.volume = open_volume(path, mip, fill_missing=True, bounded=True, cache=cache)
        refuse_unusual(path, np.dtype(self.volume.dtype), as_stored=as_stored)
        whole = self.volume.mip_bounds(0)
        self.whole, self.bounds = Box(zyx(whole.minpt), zyx(whole.maxpt)), bounds_of(self.volume)
        self.ratio = vec3(round(float(r)) for r in tuple(self.volume.downsample_ratio)[::-1])
        self.origin, self.size = self.bounds.begin, self.bounds.size
        self.channels = int(self.volume.num_channels)
        self.voxel_size_nm = voxel_size_of(self.volume)
        self.absent: set[str] = set()

    def within(self, box: Box) -> CloudSource:
        """Return a box of the volume, given in voxels of the level.

        Raises:
            InputError: the box is not entirely inside the volume.
        """
        if not self.bounds.contains(box):
            raise InputError(self.name, f"the box {box.begin} to {box.end}", f"one within {self.bounds}")
        found = copy.copy(self)
        found.origin, found.size = box.begin, box.size
        return found

    @property
    def info(self) -> VolumeInfo:
        """Metadata of the box."""
        dtype = np.dtype(self.volume.dtype)
        return VolumeInfo(self.name, self.size, dtype, self.channels, "czyx", self.voxel_size_nm, self.origin)

    def read(self, box: Box) -> Array:
        """Read a box, relative to the origin, as (C, Z, Y, X) uint8 or float32.

        Raises:
            InputError: a chunk cannot be read; the error names the box.
        """
        array = get(self.volume, box.shift(self.origin), self.absent)
        return grey(self.name, box, array, as_stored=self.as_stored)


class Level:
    """The voxels of a volume's level as an array: (Z, Y, X) if it has one channel, otherwise (C, Z, Y, X)."""

    def __init__(self, volume: Any) -> None:
        self.volume, self.bounds = volume, bounds_of(volume)
        self.dtype = np.dtype(volume.dtype)
        channels = int(volume.num_channels)
        self.shape = self.bounds.size if channels == 1 else (channels, *self.bounds.size)
        self.absent: set[str] = set()

    def __getitem__(self, where: Any) -> Array:
        z, y, x = Box((0, 0, 0), self.bounds.size).slices() if where is ... else where[1:]
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        array = get(self.volume, box.shift(self.bounds.begin), self.absent)
        return array.reshape(array.shape[-len(self.shape) :])


@contextmanager
def _open(path: str, key: str | None) -> Iterator[Stored]:
    volume = open_volume(path, fill_missing=True, bounded=True)
    told = volume.info.get("attributes")
    place = {"voxel_size_nm": voxel_size_of(volume), "offset": bounds_of(volume).begin}
    known = {**place, "type": volume.info.get("type")}
    yield Stored(path, Level(volume), {**(told if isinstance(told, Mapping) else {}), **known})


def _write(path: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    array = array if array.ndim == 4 else array[None]
    told = dict(attributes)
    z, y, x = (float(v) for v in told.pop("voxel_size_nm", (1, 1, 1)))
    box = Box.of_size(vec3(told.pop("offset", (0, 0, 0))), vec3(array.shape[1:]))
    layout = Layout(box, (z, y, x), dtype=str(array.dtype))
    put(make_volume(path, array.shape[0], layout, {"method": "deepem imsave"}, told), box, array)


def _anything(path: str) -> bool:
    """Return True: only opening a volume shows whether it exists."""
    return True


PRECOMPUTED = Format("precomputed", (), _open, _write, remote=True, exists=_anything)
