"""Draw bounding boxes of objects in sections, with distinct colours per object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.utils.geometry import Vec3

HUE_STEP = 0.6180339887498949
"""The golden ratio: gives consecutive ids hues that are far apart."""


def boxes_of(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return the boxes (N, 6), (z1, y1, x1, z2, y2, x2), of the objects in a volume (Z, Y, X), in order of their ids.

    Id 0 is background.
    """
    from scipy import ndimage

    names, number = np.unique(ids, return_inverse=True)
    number = number.reshape(ids.shape) + int(not (names == 0).any())
    found = [where for where in ndimage.find_objects(number) if where is not None]
    rows = [[*(s.start for s in where), *(s.stop for s in where)] for where in found]
    return np.array(rows, np.int64).reshape(-1, 6)


def frames(boxes: Sequence[Sequence[float]] | NDArray[Any], size: Vec3) -> NDArray[np.int32]:
    """Return (Z, Y, X) with n + 1 on the outline of box n in every section that it crosses, one voxel wide, else 0."""
    drawn = np.zeros(size, np.int32)
    for number, box in enumerate(np.rint(np.asarray(boxes, np.float64)).astype(int).reshape(-1, 6), 1):
        (z1, y1, x1), (z2, y2, x2) = np.maximum(box[:3], 0), np.minimum(box[3:], size)
        if z1 < z2 and y1 < y2 and x1 < x2:
            drawn[z1:z2, [y1, y2 - 1], x1:x2] = number
            drawn[z1:z2, y1:y2, [x1, x2 - 1]] = number
    return drawn


def colours_of(ids: NDArray[Any]) -> NDArray[np.float32]:
    """Return colours (..., 3) in [0, 1]: a fixed bright colour per id, and black for 0."""
    names, at = np.unique(ids, return_inverse=True)
    turn = names.astype(np.float64) * HUE_STEP % 1
    waves = np.abs((turn[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    table = np.where(names[:, None] != 0, 0.15 + 0.85 * waves.clip(0, 1), 0).astype(np.float32)
    found: NDArray[np.float32] = table[at].reshape(*ids.shape, 3)
    return found
