"""Read and write boxes (C, Z, Y, X) and chunks of cloud-volume volumes.

cloud-volume uses coordinates (x, y, z) and arrays (x, y, z, c); this package uses (z, y, x) and (C, Z, Y, X). Only this
module converts between the two.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.faults import store_fault, unwritable
from deepem.io.volume import Array, VoxelSize
from deepem.utils.errors import InputError, reason
from deepem.utils.geometry import Box, Vec3, touched

LOOKED_AT = 1000
"""Maximum number of files of a level to check for a chunk's name."""

CHUNK = re.compile(r"(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)(?:\.\w+)?$")


def zyx(values: Any) -> Vec3:
    """Convert (x, y, z) of cloud-volume to (z, y, x)."""
    x, y, z = (int(v) for v in values)
    return z, y, x


def voxel_size_of(volume: Any) -> VoxelSize:
    """Return the voxel size of a volume's level in (z, y, x) nanometres, not always integers, as in its info file."""
    x, y, z = (float(v) for v in volume.scale["resolution"])
    return z, y, x


def bounds_of(volume: Any) -> Box:
    """Return the bounds of a volume's level."""
    return Box(zyx(volume.bounds.minpt), zyx(volume.bounds.maxpt))


def stored_in(volume: Any, box: Box) -> Iterator[tuple[str, Box]]:
    """Yield the chunks that a box touches: the key of each in the volume, ``level/x-x_y-y_z-z``, and its box."""
    for chunk in touched(box, zyx(volume.chunk_size), bounds_of(volume)):
        (z, y, x), (zz, yy, xx) = chunk
        yield f"{volume.key}/{x}-{xx}_{y}-{yy}_{z}-{zz}", chunk


def get(volume: Any, box: Box, absent: set[str] | None = None) -> Array:
    """Read (C, Z, Y, X) from a volume. Chunks that were never written are read as zeros and added to `absent`.

    Raises:
        InputError: a chunk cannot be read, or is an empty file, which cloud-volume would treat as never written.
    """
    try:
        found = _read(volume, box)
    except ImportError as error:
        wants = " ".join(str(error).split())
        raise InputError(volume.cloudpath, f"chunks in {volume.encoding}, whose reader is missing", wants) from error
    except Exception as error:  # each protocol and encoding raises its own errors
        raise _unreadable(volume, box, error) from error
    gone = _absent(volume, box, found)
    if gone:
        _refuse_other_chunks(volume)
    if absent is not None:
        absent.update(gone)
    return found


def put(volume: Any, box: Box, array: Array) -> None:
    """Write (C, Z, Y, X) into a volume: whole chunks only, with the volume's number of channels and dtype.

    Shape and dtype are checked here because cloud-volume silently accepts a 3-D array for a volume of several channels,
    and then writes chunks that cannot be read.

    Raises:
        InputError: the volume cannot be written to.
    """
    chunks = list(stored_in(volume, box))
    if array.shape != (volume.num_channels, *box.size) or array.dtype != np.dtype(volume.dtype):
        raise ValueError(f"{array.dtype} {array.shape} for {volume.num_channels} x {volume.dtype} at {box}")
    if not all(box.contains(chunk) for _, chunk in chunks):
        raise ValueError(f"{box} cuts chunks of {zyx(volume.chunk_size)} in two")
    (z, y, x), (zz, yy, xx) = box
    try:
        if volume.cloudpath.startswith("file://") and volume.encoding == "raw" and not volume.scale.get("sharding"):
            for key, chunk in chunks:
                inside = (slice(None), *chunk.shift(-b for b in box.begin).slices())
                _put_file(Path(volume.cloudpath.removeprefix("file://"), key), array[inside])
        else:
            volume[x:xx, y:yy, z:zz] = np.asfortranarray(array.transpose(3, 2, 1, 0))
    except Exception as error:  # each protocol raises its own errors
        raise unwritable(f"{volume.cloudpath} at x {x}-{xx}, y {y}-{yy}, z {z}-{zz}", error) from error


def _put_file(path: Path, array: Array) -> None:
    """Write one raw chunk as a file, atomically: (x, y, z, c) in Fortran order is (c, z, y, x) in C order.

    cloud-volume is not used because it truncates the file before writing, so a worker killed at that moment would
    damage another worker's output. It also leaves an old compressed file of the same name, which readers may prefer.
    """
    beside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(array.tobytes())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    for suffix in (".gz", ".br", ".zstd", ".xz", ".bz2"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _read(volume: Any, box: Box) -> Array:
    (z, y, x), (zz, yy, xx) = box
    return np.ascontiguousarray(np.asarray(volume[x:xx, y:yy, z:zz]).transpose(3, 2, 1, 0))


def _unreadable(volume: Any, box: Box, error: Exception) -> InputError:
    """Return the error for an unreadable box, which names the first unreadable chunk, or the box if none is found."""
    if (told := store_fault(volume.cloudpath, error)) is not None:
        return told
    for key, chunk in stored_in(volume, box):
        try:
            _read(volume, chunk)
        except Exception as one:  # noqa: BLE001 any failure is told
            return InputError(f"{volume.cloudpath}/{key}", f"an unreadable chunk ({reason(one)})", "a whole chunk")
    (z, y, x), (zz, yy, xx) = box
    where = f"unreadable voxels x {x}-{xx}, y {y}-{yy}, z {z}-{zz} ({reason(error)})"
    return InputError(volume.cloudpath, where, "a whole volume")


def _refuse_other_chunks(volume: Any) -> None:
    """Refuse a level that has files, but no chunk of its grid; with a wrong chunk size in the info it reads as empty.

    Raises:
        InputError: the level has files, but none has the name of a chunk.
    """
    if getattr(volume, "looked_at", None) == volume.mip:
        return
    from cloudfiles import CloudFiles

    whole, size = bounds_of(volume), zyx(volume.chunk_size)
    names = [name.rsplit("/", 1)[-1] for name in itertools.islice(_files(CloudFiles, volume), LOOKED_AT)]
    found = [tuple(map(int, match.groups())) for match in map(CHUNK.match, names) if match]
    for x, xx, y, yy, z, zz in found:
        box = zip((z, y, x), (zz, yy, xx), *whole, size, strict=True)
        if all((b - f) % n == 0 and e == min(b + n, t) for b, e, f, t, n in box):
            break
    else:
        if names:
            got = f"none of its chunks of {size}, but files such as {names[0]}"
            raise InputError(f"{volume.cloudpath}/{volume.key}", got, "an info file that tells how its chunks are cut")
    volume.looked_at = volume.mip


def _files(files: Any, volume: Any) -> Iterator[str]:
    try:
        yield from files(volume.cloudpath, progress=False).list(prefix=f"{volume.key}/", flat=True)
    except FileNotFoundError:  # a level of a local volume without a single chunk has no folder
        return


def _absent(volume: Any, box: Box, found: Array) -> set[str]:
    """Return those of the all-zero chunks that do not exist.

    Raises:
        InputError: a chunk is an empty file, as a full disk leaves behind.
    """
    if volume.scale.get("sharding"):  # chunks are not separate files
        return set()
    black = []
    for key, chunk in stored_in(volume, box):
        inside = chunk.intersect(box)
        assert inside is not None
        z, y, x = inside.shift(-b for b in box.begin).slices()
        if not found[:, z, y, x].any():
            black.append(key)
    if not black:
        return set()
    from cloudfiles import CloudFiles

    sizes = CloudFiles(volume.cloudpath, progress=False).size(black)
    for key, size in sizes.items():
        if size == 0:
            raise InputError(f"{volume.cloudpath}/{key}", "an empty file", "a whole chunk, or none")
    return {key for key, size in sizes.items() if size is None}
