"""Arrays in memory order, quickly."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_KINDS = {1: np.uint8, 2: np.uint16, 4: np.float32}
"""By item size, a type that OpenCV moves without looking at the values."""

_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}


def contiguous(array: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """A C-ordered array of the values of (..., Y, X): `out` if given, else itself if it is one, else a copy.

    What `numpy.ascontiguousarray` gives. Views of arrays with mirrored axes or exchanged y and x are copied section by
    section with OpenCV, which moves blocks where numpy moves single values: up to ten times as fast.

    Args:
        array: Anything with at least two axes.
        out: A C-ordered array of the same shape to write into; its type may differ.
    """
    if array.flags.c_contiguous and out is None:
        return array
    if out is None:
        out = np.empty(array.shape, array.dtype)
    if not turned(array) or out.dtype != array.dtype or not _copy_sections(array, out):
        np.copyto(out, array, casting="same_kind")
    return out


def turned(array: NDArray[Any]) -> bool:
    """Whether axes are mirrored, or y and x exchanged: numpy then goes through memory voxel by voxel."""
    return min(array.strides) < 0 or array.strides[-1] > array.strides[-2]


def _copy_sections(array: NDArray[Any], out: NDArray[Any]) -> bool:
    """Copy a view that is mirrored or has y and x exchanged, and return whether it is such a view."""
    mirrored = tuple(stride < 0 for stride in array.strides)
    plain = array[tuple(slice(None, None, -1 if m else 1) for m in mirrored)]
    exchanged = plain.strides[-2] < plain.strides[-1]
    if exchanged:
        plain = plain.swapaxes(-1, -2)
    in_rows = plain.strides[-1] == array.itemsize and plain.strides[-2] >= array.itemsize * plain.shape[-1]
    if array.itemsize not in _KINDS or not in_rows:
        return False
    source, target = plain.view(_KINDS[array.itemsize]), out.view(_KINDS[array.itemsize])
    for index in np.ndindex(array.shape[:-2]):
        there = tuple(n - 1 - i if m else i for i, n, m in zip(index, array.shape, mirrored, strict=False))
        _copy_section(source[there], target[index], exchanged, mirrored[-2:])
    return True


def _copy_section(source: NDArray[Any], target: NDArray[Any], exchanged: bool, mirrored: tuple[bool, ...]) -> None:
    if mirrored == (False, False):
        if exchanged:
            cv2.transpose(source, dst=target)
        else:
            target[...] = source
    else:
        cv2.flip(cv2.transpose(source) if exchanged else source, _FLIPS[mirrored], dst=target)  # type: ignore[index]
