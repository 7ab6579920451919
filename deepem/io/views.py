"""Views that change an input volume during reading: padding, masks, contrast.

A view is itself a volume, so views can be stacked. The voxels do not depend on the boxes in which a view is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from deepem.io.volume import Array, Volume
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, touched, vec3
from deepem.utils.intensity import Intensity

STRETCHED = "uint8, whose contrast alone can be normalised"


class View:
    """Base class: a view that passes through another volume. Subclasses override what they change."""

    def __init__(self, inner: Volume) -> None:
        self.inner = inner
        self.name, self.size, self.channels = inner.name, inner.size, inner.channels
        self.origin, self.voxel_size_nm = inner.origin, inner.voxel_size_nm

    def read(self, box: Box) -> Array:
        """Read a box as (C, Z, Y, X) uint8 or float32."""
        return self.inner.read(box)


class Ranged(View):
    """A view that maps a range of grey values of any type to [0, 1], float32."""

    def __init__(self, inner: Volume, intensity: Intensity) -> None:
        super().__init__(inner)
        self.intensity = intensity

    def read(self, box: Box) -> Array:
        """Read a box with mapped grey values."""
        return self.intensity(self.inner.read(box))


def blocks_of(volume: Volume, piece: Sequence[int] = (16, 2048, 2048)) -> Iterator[Array]:
    """Yield a volume block by block."""
    whole = Box((0, 0, 0), volume.size)
    for box in touched(whole, vec3(piece), whole):
        yield volume.read(box)


class Mirrored(View):
    """A volume padded by reflection, repeatedly if needed; the border voxels are not duplicated.

    Attributes:
        own: The box of the unpadded volume if the padding only enlarges it to the size of a patch; otherwise None.
    """

    own: Box | None = None

    def __init__(self, inner: Volume, before: Vec3, after: Vec3) -> None:
        super().__init__(inner)
        self.before = before
        self.size = vec3(b + n + a for b, n, a in zip(before, inner.size, after, strict=True))
        self.origin = vec3(o - b for o, b in zip(inner.origin, before, strict=True))

    @classmethod
    def to_size(cls, inner: Volume, least: Vec3) -> Mirrored:
        """Pad a volume to at least a size, with the smaller half in front; only the unpadded box, `own`, is output."""
        missing = [max(m - n, 0) for m, n in zip(least, inner.size, strict=True)]
        made = cls(inner, vec3(m // 2 for m in missing), vec3(m - m // 2 for m in missing))
        made.own = Box(made.before, vec3(b + n for b, n in zip(made.before, inner.size, strict=True)))
        return made

    def read(self, box: Box) -> Array:
        """Read a box with the padding filled in."""
        found = [
            _reflect(np.arange(b, e) - p, n) for b, e, p, n in zip(*box, self.before, self.inner.size, strict=True)
        ]
        hull = Box(vec3(i.min() for i in found), vec3(i.max() + 1 for i in found))
        array = self.inner.read(hull)
        if hull.size == box.size and all(np.all(np.diff(i) == 1) for i in found):
            return array
        z, y, x = (i - b for i, b in zip(found, hull.begin, strict=True))
        return np.asarray(array[:, z[:, None, None], y[:, None], x])


class Finer(View):
    """A volume upsampled by repeating voxels.

    Args:
        inner: The volume.
        factor: (z, y, x) voxels per voxel of the inner volume.
    """

    def __init__(self, inner: Volume, factor: Vec3) -> None:
        super().__init__(inner)
        self.factor = factor
        self.size = vec3(n * f for n, f in zip(inner.size, factor, strict=True))
        self.origin = vec3(o * f for o, f in zip(inner.origin, factor, strict=True))
        if inner.voxel_size_nm is not None:
            z, y, x = (nm / f for nm, f in zip(inner.voxel_size_nm, factor, strict=True))
            self.voxel_size_nm = z, y, x

    def read(self, box: Box) -> Array:
        """Read a box, given in upsampled voxels."""
        sides = list(zip(*box, self.factor, strict=True))
        begin, end = vec3(b // f for b, _, f in sides), vec3(-(-e // f) for _, e, f in sides)
        array = self.inner.read(Box(begin, end))
        for axis, factor in enumerate(self.factor, 1):
            array = np.repeat(array, factor, axis) if factor > 1 else array
        z, y, x = (slice(b - first * f, e - first * f) for (b, e, f), first in zip(sides, begin, strict=True))
        return array[:, z, y, x]


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    if size == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * size - 2)
    return np.where(index < size, index, 2 * size - 2 - index)


class Masked(View):
    """A volume set to 0 wherever a mask volume is nonzero."""

    def __init__(self, inner: Volume, mask: Volume) -> None:
        super().__init__(inner)
        if mask.size != inner.size:
            raise InputError(mask.name, f"a mask of {mask.size}", f"the size of {inner.name}, {inner.size}")
        self.mask = mask

    def read(self, box: Box) -> Array:
        """Read a masked box without changing its dtype; floats in [0, 1] cast to uint8 would be black."""
        array = self.inner.read(box)
        return np.where(self.mask.read(box) > 0, array.dtype.type(0), array)


class Normalised(View):
    """A uint8 volume whose sections are contrast-stretched to the full range of grey values.

    In each section, black voxels are ignored, the darkest `lower` and the brightest `upper` fraction of the voxels are
    clipped, and the values in between are stretched to 0..255. A section with no values in between does not change.

    Args:
        inner: The volume.
        tables: (C, Z, 256) uint8 lookup tables from old to new grey values; see `tables_of`.
    """

    def __init__(self, inner: Volume, tables: NDArray[np.uint8]) -> None:
        super().__init__(inner)
        self.tables = tables

    def read(self, box: Box) -> Array:
        """Read a contrast-stretched box."""
        array = self.inner.read(box)
        if array.dtype != np.uint8:
            raise InputError(self.name, f"an image of {array.dtype}", STRETCHED)
        tables = self.tables[:, box.begin[0] : box.end[0]]
        return np.stack(
            [[t[plane] for t, plane in zip(*both, strict=True)] for both in zip(tables, array, strict=True)]
        )


def tables_of(volume: Volume, lower: float, upper: float, piece: Sequence[int] = (16, 2048, 2048)) -> NDArray[np.uint8]:
    """Return the lookup tables for `Normalised`, computed from whole sections that are read piece by piece."""
    counts = np.zeros((volume.channels, volume.size[0], 256), np.int64)
    for begin in np.ndindex(*(-(-n // p) for n, p in zip(volume.size, piece, strict=True))):
        corner = vec3(i * p for i, p in zip(begin, piece, strict=True))
        box = Box(corner, vec3(min(c + p, n) for c, p, n in zip(corner, piece, volume.size, strict=True)))
        array = volume.read(box)
        if array.dtype != np.uint8:
            raise InputError(volume.name, f"an image of {array.dtype}", STRETCHED)
        for c, z in np.ndindex(array.shape[:2]):
            counts[c, box.begin[0] + z] += np.bincount(array[c, z].ravel(), minlength=256)
    return np.apply_along_axis(_table, 2, counts, lower, upper).astype(np.uint8)


def _table(count: NDArray[np.int64], lower: float, upper: float) -> NDArray[np.uint8]:
    identity = np.arange(256)
    count = count.copy()
    count[0] = 0
    total = count.sum()
    if not total:
        return identity.astype(np.uint8)
    share = np.cumsum(count) / total
    low, high = int(np.argmax(share > lower)), int(np.argmax(share >= 1 - upper))
    if high <= low:
        return identity.astype(np.uint8)
    return np.rint(np.clip((identity - low) * 255 / (high - low), 0, 255)).astype(np.uint8)
