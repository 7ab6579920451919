"""Erode instances and widen boundaries, within each section.

Nothing here acts along z, because sections are often so thick that a membrane between two of them is invisible. Voxels
of id -1 (unknown) stay -1 and do not count as another instance.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PAIRS: tuple[Any, ...] = (
    (np.s_[1:, :], np.s_[:-1, :]),
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[1:, 1:], np.s_[:-1, :-1]),
    (np.s_[1:, :-1], np.s_[:-1, 1:]),
)
"""Offsets to the eight neighbours of a voxel in its section, one per pair of opposite neighbours."""


def eroded(seg: Array, by: int = 1) -> Array:
    """Set ids (..., Y, X) to 0 wherever another id (or 0) lies within `by` voxels in the section::

    1 1 1 2 2 2 0 0    by 1:  1 1 0 0 2 0 0 0
    1 1 1 -1 -1 2 2    by 1:  1 1 1 -1 -1 2 2
    """
    out: Array = seg.copy()
    for section, into in zip(_sections(seg), _sections(out), strict=True):
        gone = dilated(_borders(section), by - 1)
        gone &= section >= 0
        into[gone.view(bool)] = 0
    return out


def dilated(marks: Array, by: int) -> Array:
    """Dilate marks (..., Y, X), uint8 of 0 or 1, by some voxels in the section, along diagonals too."""
    if by <= 0:
        return marks
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    out = np.empty_like(marks, order="C")
    for section, into in zip(_sections(marks), _sections(out), strict=True):
        into[...] = cv2.dilate(np.ascontiguousarray(section), kernel)
    return out


def _borders(section: Array) -> Array:
    """Return 1 at voxels next to another id."""
    borders: Array = np.zeros(section.shape, np.uint8)
    for first, second in PAIRS:
        a, b = section[first], section[second]
        differ = (a != b) & (a >= 0) & (b >= 0)
        borders[first] |= differ
        borders[second] |= differ
    return borders


def _sections(array: Array) -> Array:
    """Yield the (Y, X) sections as views."""
    return array[None] if array.ndim == 2 else array.reshape(-1, *array.shape[-2:])
