"""Stored arrays, read box by box, and images, whose grey values are checked during reading."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.io.faults import missing_package, unreadable_file
from deepem.io.volume import Array, VolumeInfo, VoxelSize
from deepem.utils.errors import InputError, reason, warn
from deepem.utils.geometry import Box, Vec3, touched, vec3

REACH = 128
"""Edges of up to this many voxels are accepted in any volume: a thin one is padded to a patch before prediction."""

SLACK = 1e-3
"""Tolerance by which values of a resampled image may lie outside [0, 1]."""


@dataclass
class Stored:
    """An opened array.

    Attributes:
        name: The file, as named in errors.
        data: An object with ``shape``, ``dtype`` and slicing. Optional attributes: ``chunks``, the unit of reading;
            ``file_of(begin)``, which returns the file of the chunk at `begin`; and ``absent``, the chunks that were
            read and do not exist.
        attributes: Attributes stored in the file.
    """

    name: str
    data: Any
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> Vec3:
        """Size in (z, y, x) voxels."""
        return vec3(self.data.shape[-3:])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0]) if len(self.data.shape) == 4 else 1

    @property
    def info(self) -> VolumeInfo:
        """Return the metadata of the volume.

        Raises:
            InputError: the array has neither three nor four axes.
        """
        self.check_axes()
        axes = "zyx" if len(self.data.shape) == 3 else "czyx"
        dtype = np.dtype(self.data.dtype)
        offset = vec3(int(o) for o in _three(self.attributes.get("offset")) or (0, 0, 0))
        return VolumeInfo(self.name, self.size, dtype, self.channels, axes, self.voxel_size_nm, offset)

    @property
    def voxel_size_nm(self) -> VoxelSize | None:
        """Voxel size in (z, y, x) nanometres; None if the file does not give it."""
        return _three(self.attributes.get("voxel_size_nm")) or _three(self.attributes.get("resolution"))

    @property
    def edges(self) -> tuple[Vec3, ...]:
        """Edge (z, y, x) of each channel, from the attribute ``edges``; empty if the file does not give them.

        Raises:
            InputError: the attribute does not hold edges, or an edge is zero or too long for the volume.
        """
        name, held = self.name.removesuffix(":main"), self.attributes.get("edges", ())
        held = held.tolist() if isinstance(held, np.ndarray) else held
        longest = [max(extent, REACH) for extent in self.size]
        wants = f"edges [[z, y, x], ...] in whole voxels, each non-zero and at most {longest} long"
        try:
            listed = np.asarray(json.loads(held) if isinstance(held, str | bytes) else held)
            if listed.size and listed.dtype.kind not in "iu":
                raise TypeError
            found = tuple(vec3(edge) for edge in listed.tolist())
        except (TypeError, ValueError) as error:
            raise InputError(name, f"edges {held!r}", wants) from error
        for edge in found:
            if not any(edge) or any(abs(step) > most for step, most in zip(edge, longest, strict=True)):
                raise InputError(name, f"edge {edge} in a volume of size {self.size}", wants)
        return found

    def check_axes(self) -> None:
        """Refuse arrays that are not (Z, Y, X) or (C, Z, Y, X).

        Raises:
            InputError: the array has neither three nor four axes.
        """
        if len(self.data.shape) not in (3, 4):
            shape = tuple(self.data.shape)
            raise InputError(self.name, f"an array of shape {shape}", "(Z, Y, X) or (C, Z, Y, X)")
        self.check_channels()

    def check_channels(self) -> None:
        """Refuse 4-D arrays with the channels last.

        Raises:
            InputError: the last axis seems to be the channels.
        """
        shape = tuple(self.data.shape)
        if len(shape) == 4 and shape[-1] in (3, 4) and min(shape[:-1]) > 4:
            wants = "(C, Z, Y, X): move the channels to the front"
            raise InputError(self.name, f"an array of shape {shape}, channels last", wants)

    def whole(self) -> Array:
        """Read the whole array into memory, with its axes unchanged.

        Raises:
            InputError: the last axis seems to be the channels.
        """
        self.check_channels()
        return np.asarray(self.data[...])

    def read(self, box: Box) -> Array:
        """Read a box as (C, Z, Y, X), in the stored type.

        Raises:
            InputError: the box cannot be read; the error names the file and the smallest unreadable box that the format
                can tell.
        """
        self.check_axes()
        z, y, x = box.slices()
        try:
            array = np.asarray(self.data[..., z, y, x])
        except InputError:
            raise
        except Exception as error:  # each format and compression raises its own errors
            if isinstance(error, MemoryError) or missing_package(self.name, error):
                raise unreadable_file(self.name, "", error) from error
            part, where = self._unreadable(box)
            got = f"unreadable voxels {part.begin} to {part.end}{where} ({reason(error)})"
            raise InputError(self.name, got, "a whole volume") from error
        return array if array.ndim == 4 else array[None]

    def warn_of_absent(self) -> None:
        """Warn how many of the chunks that were read are missing."""
        warn_of_absent(self.name, getattr(self.data, "absent", ()))

    def _unreadable(self, box: Box) -> tuple[Box, str]:
        """Return the first unreadable chunk in a box and its file, if it has one; the box if all chunks can be read."""
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
        as_stored: Whether to return grey values of any type and range, for a view that maps them.
    """

    as_stored: bool = False

    def __post_init__(self) -> None:
        self.check_axes()
        dtype = np.dtype(self.data.dtype)
        refuse_unusual(self.name, dtype, as_stored=self.as_stored)

    @property
    def origin(self) -> Vec3:
        """Position of the first voxel: the file's attribute `offset`, or 0."""
        return self.info.offset

    def read(self, box: Box) -> Array:
        """Read a box as (C, Z, Y, X) uint8 or float32.

        Raises:
            InputError: the box cannot be read, or contains a value that is not finite.
        """
        array = super().read(box)
        return grey(self.name, box, array, as_stored=self.as_stored)


def refuse_unusual(name: str, dtype: np.dtype[Any], *, as_stored: bool) -> None:
    """Refuse image types on which networks are not trained, unless the grey values are mapped.

    Raises:
        InputError: the image is neither uint8 nor float.
    """
    if dtype.kind not in "uif" or (dtype != np.uint8 and dtype.kind != "f" and not as_stored):
        wants = "uint8, or floats from 0 to 1; a network that was trained on a range of grey values takes any type"
        raise InputError(name, f"an image of {dtype}", wants)


def grey(name: str, box: Box, array: Array, *, as_stored: bool = False) -> Array:
    """Return grey values as uint8, or as floats after a check of their range; with `as_stored`, any finite values."""
    if array.dtype == np.uint8 or (as_stored and array.dtype.kind in "ui"):
        return array
    if not as_stored:
        return floats(name, box, array)
    _require_finite(name, box, array)
    return array


def warn_of_absent(name: str, absent: Collection[str]) -> None:
    """Warn how many of the chunks that were read are missing."""
    if absent:
        words = "chunk is" if len(absent) == 1 else "chunks are"
        warn(f"{name}: {len(absent)} {words} absent and read as the fill value, such as {min(absent)}")


def floats(name: str, box: Box, array: Array) -> NDArray[np.float32]:
    """Convert grey values to float32.

    Raises:
        InputError: some values are not finite, or lie outside [0, 1], the range of the training data.
    """
    low, high = _require_finite(name, box, array)
    if low < -SLACK or high > 1 + SLACK:
        values = f"values from {low:g} to {high:g} within {box.begin} to {box.end}"
        raise InputError(name, values, "uint8, or floats from 0 to 1")
    return array.astype(np.float32, copy=False)


def _require_finite(name: str, box: Box, array: Array) -> tuple[float, float]:
    """Return the minimum and maximum of an array whose values must all be finite."""
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise InputError(name, f"values that are no numbers within {box.begin} to {box.end}", "finite values")
    return low, high


def _three(value: Any) -> VoxelSize | None:
    """Return an attribute as three finite numbers; None if it is anything else."""
    try:
        z, y, x = (float(v) for v in np.ravel(value))
    except (TypeError, ValueError):
        return None
    return (z, y, x) if np.isfinite((z, y, x)).all() else None
