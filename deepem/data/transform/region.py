"""Boxes given relative to the centre voxel that all arrays of a sample share."""

from __future__ import annotations

from deepem.data.transform.base import Array
from deepem.utils.geometry import Vec3


def cut(array: Array, begin: Vec3, end: Vec3) -> Array:
    """Return a view of an array (C, Z, Y, X) from `begin` up to `end`, relative to its centre voxel.

    The box is cropped to the array, so the view may be smaller or empty.
    """
    slices = (
        slice(max(b + n // 2, 0), max(e + n // 2, 0)) for b, e, n in zip(begin, end, array.shape[-3:], strict=True)
    )
    z, y, x = slices
    return array[..., z, y, x]


def extent(size: Vec3) -> tuple[Vec3, Vec3]:
    """Return the begin and end of an array of this size, relative to its centre voxel."""
    z, y, x = size
    return (-(z // 2), -(y // 2), -(x // 2)), (z - z // 2, y - y // 2, x - x // 2)
