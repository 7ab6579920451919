"""An array as it is stored, read box by box; an image, whose grey values are checked as they are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.io.faults import missing_package, unreadable_file
from deepem.io.volume import Array, VolumeInfo, VoxelSize
from deepem.utils.errors import InputError, reason, warn
from deepem.utils.geometry import Box, Vec3, touched, vec3

SLACK = 1e-3
"""What a resampled image may lie outside 0 to 1."""


@dataclass
class Stored:
    """An opened array.

    Attributes:
        name: What an error names: the file.
        data: Anything with ``shape``, ``dtype`` and slices. It may have ``chunks``, the unit that is read at once,
            ``file_of(begin)``, the file of the chunk that begins there, and ``absent``, the chunks that were asked for
            and are not there.
        attributes: What the file says about itself.
    """

    name: str
    data: Any
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> Vec3:
        """(z, y, x) voxels."""
        return vec3(self.data.shape[-3:])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0]) if len(self.data.shape) == 4 else 1

    @property
    def info(self) -> VolumeInfo:
        """What the volume is.

        Raises:
            InputError: it has neither three axes nor four.
        """
        self.check_axes()
        axes = "zyx" if len(self.data.shape) == 3 else "czyx"
        dtype = np.dtype(self.data.dtype)
        offset = vec3(int(o) for o in _three(self.attributes.get("offset")) or (0, 0, 0))
        return VolumeInfo(self.name, self.size, dtype, self.channels, axes, self.voxel_size_nm, offset)

    @property
    def voxel_size_nm(self) -> VoxelSize | None:
        """(z, y, x) nanometres, if the file says so."""
        return _three(self.attributes.get("voxel_size_nm")) or _three(self.attributes.get("resolution"))

    def check_axes(self) -> None:
        """Refuse what is no (Z, Y, X) or (C, Z, Y, X) array.

        Raises:
            InputError: it has neither three axes nor four.
        """
        if len(self.data.shape) not in (3, 4):
            shape = tuple(self.data.shape)
            raise InputError(self.name, f"an array of shape {shape}", "(Z, Y, X) or (C, Z, Y, X)")
        self.check_channels()

    def check_channels(self) -> None:
        """Refuse four axes of which the last are the channels.

        Raises:
            InputError: it looks so.
        """
        shape = tuple(self.data.shape)
        if len(shape) == 4 and shape[-1] in (3, 4) and min(shape[:-1]) > 4:
            wants = "(C, Z, Y, X): move the channels to the front"
            raise InputError(self.name, f"an array of shape {shape}, channels last", wants)

    def whole(self) -> Array:
        """All of it, in memory, with the axes that it has.

        Raises:
            InputError: the channels are its last axis.
        """
        self.check_channels()
        return np.asarray(self.data[...])

    def read(self, box: Box) -> Array:
        """The box as (C, Z, Y, X), of the type that is stored.

        Raises:
            InputError: it cannot be read there; file and box are named, as narrowly as the format allows.
        """
        self.check_axes()
        z, y, x = box.slices()
        try:
            array = np.asarray(self.data[..., z, y, x])
        except InputError:
            raise
        except Exception as error:  # each format and compression raises errors of its own
            if isinstance(error, MemoryError) or missing_package(self.name, error):
                raise unreadable_file(self.name, "", error) from error
            part, where = self._unreadable(box)
            got = f"unreadable voxels {part.begin} to {part.end}{where} ({reason(error)})"
            raise InputError(self.name, got, "a whole volume") from error
        return array if array.ndim == 4 else array[None]

    def warn_of_absent(self) -> None:
        """Say how many of the chunks that were read are not there."""
        warn_of_absent(self.name, getattr(self.data, "absent", ()))

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
                file_of = getattr(self.data, "file_of", None)
                return part, f", file {file_of(part.begin)}" if file_of else ""
        return box, ""


@dataclass
class Image(Stored):
    """An image: uint8, or floats from 0 to 1.

    Attributes:
        as_stored: Whether grey values of any type and range are handed on, for a view that maps them.
    """

    as_stored: bool = False
    origin = (0, 0, 0)

    def __post_init__(self) -> None:
        self.check_axes()
        dtype = np.dtype(self.data.dtype)
        refuse_unusual(self.name, dtype, as_stored=self.as_stored)

    def read(self, box: Box) -> Array:
        """The box as (C, Z, Y, X) uint8 or float32.

        Raises:
            InputError: the file cannot be read there, or holds a value that is not a finite number.
        """
        array = super().read(box)
        return grey(self.name, box, array, as_stored=self.as_stored)


def refuse_unusual(name: str, dtype: np.dtype[Any], *, as_stored: bool) -> None:
    """Refuse an image of another type than networks are trained on, unless its grey values are mapped.

    Raises:
        InputError: neither bytes nor floats.
    """
    if dtype.kind not in "uif" or (dtype != np.uint8 and dtype.kind != "f" and not as_stored):
        wants = "uint8, or floats from 0 to 1; a network that was trained on a range of grey values takes any type"
        raise InputError(name, f"an image of {dtype}", wants)


def grey(name: str, box: Box, array: Array, *, as_stored: bool = False) -> Array:
    """Grey values as they are handed on: bytes, whole numbers that are mapped later, or floats that are checked."""
    if array.dtype == np.uint8 or (as_stored and array.dtype.kind in "ui"):
        return array
    return floats(name, box, array, any_range=as_stored)


def warn_of_absent(name: str, absent: Collection[str]) -> None:
    """Say how many chunks that were read are not there."""
    if absent:
        words = "chunk is" if len(absent) == 1 else "chunks are"
        warn(f"{name}: {len(absent)} {words} absent and read as the fill value, such as {min(absent)}")


def floats(name: str, box: Box, array: Array, *, any_range: bool = False) -> NDArray[np.float32]:
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


def _three(value: Any) -> VoxelSize | None:
    """Three finite numbers, or None if the attribute is something else."""
    try:
        z, y, x = (float(v) for v in np.ravel(value))
    except (TypeError, ValueError):
        return None
    return (z, y, x) if np.isfinite((z, y, x)).all() else None
