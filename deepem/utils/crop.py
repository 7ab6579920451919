"""Centre crops of arrays and tensors over their last three axes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from deepem.utils.geometry import Vec3, vec3

A = TypeVar("A")


def centre_slices(size: Iterable[int], inner: Iterable[int]) -> tuple[slice, slice, slice]:
    """Return the slices of a box of size `inner` that shares its centre voxel (size // 2) with a box of size `size`.

    Patches are centred on a voxel at size // 2, so nested patches start at size // 2 - inner // 2.
    """
    size, inner = vec3(size), vec3(inner)
    if any(i > s for s, i in zip(size, inner, strict=True)):
        raise ValueError(f"cannot crop {inner} out of {size}")
    z, y, x = (slice(s // 2 - i // 2, s // 2 - i // 2 + i) for s, i in zip(size, inner, strict=True))
    return z, y, x


def centre_crop(array: A, size: Vec3) -> A:
    """Return a view of the centre `size` voxels of the last three axes of a numpy array or tensor."""
    whole: Any = array
    inside = (..., *centre_slices(whole.shape[-3:], size))
    cropped: A = whole[inside]
    return cropped
