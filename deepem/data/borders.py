"""Borders of instances: widened, or eroded away, within each section.

Sections are often so thick that a membrane between two of them is not seen, so nothing here acts along z. Voxels of id
-1 are not known: they stay -1, and they are no other instance to their neighbours.
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
"""The eight neighbours of every voxel of a section, each pair once."""


def eroded(seg: Array, by: int = 1) -> Array:
    """Ids (..., Y, X) with 0 wherever another id, 0 among them, lies within `by` voxels in the section::

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
    """Marks (..., Y, X) uint8, 0 or 1, widened by some voxels in the section, along diagonals too."""
    if by <= 0:
        return marks
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    out = np.empty_like(marks, order="C")
    for section, into in zip(_sections(marks), _sections(out), strict=True):
        into[...] = cv2.dilate(np.ascontiguousarray(section), kernel)
    return out


def _borders(section: Array) -> Array:
    """1 at voxels that have another id beside them."""
    borders: Array = np.zeros(section.shape, np.uint8)
    for first, second in PAIRS:
        a, b = section[first], section[second]
        differ = (a != b) & (a >= 0) & (b >= 0)
        borders[first] |= differ
        borders[second] |= differ
    return borders


def _sections(array: Array) -> Array:
    """The (Y, X) sections, as views."""
    return array[None] if array.ndim == 2 else array.reshape(-1, *array.shape[-2:])
