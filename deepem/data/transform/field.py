"""Resample sections at given positions: images bilinearly, labels and masks at the nearest voxel.

A field holds, for each voxel of the resulting section, the position to read from, as an offset from the centre voxel.
One field serves all arrays of a sample; arrays smaller than the field use its centre::

    voxel (v, u) relative to the centre of the result  --field-->  (y, x) relative to the centre of what was read
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.data.transform.base import Array
from deepem.utils.crop import centre_slices

F32 = NDArray[np.float32]


def offsets(n: int) -> F32:
    """Return the positions of an axis's n voxels relative to its centre voxel n // 2."""
    return np.arange(-(n // 2), n - n // 2, dtype=np.float32)


@dataclass(frozen=True)
class Field:
    """Positions to read a section's voxels from, relative to the centre voxel: y and x, each (Y, X) float32."""

    y: F32
    x: F32

    def centre(self, size: tuple[int, int]) -> Field:
        """Return the part of the field for a smaller section with the same centre voxel."""
        _, y, x = centre_slices((1, *self.y.shape), (1, *size))
        return Field(self.y[y, x], self.x[y, x])

    def reach(self) -> tuple[int, int]:
        """Return the smallest even size (y, x) of a section that contains every voxel to be read."""
        y, x = (2 * max(-int(np.floor(f.min())), int(np.ceil(f.max())) + 1) for f in (self.y, self.x))
        return y, x


class Reader:
    """A field prepared for reading sections of one size: offsets are converted to array positions once.

    Args:
        field: The field, of the size of the result.
        size: (y, x) of the sections to be read, at least `field.reach()`.
    """

    def __init__(self, field: Field, size: tuple[int, int]) -> None:
        self._field, self._size, self._centre = field, size, (size[0] // 2, size[1] // 2)
        self._maps: tuple[Array, Array] | None = None
        self._nearest: Array | None = None

    def linear(self, plane: Array, out: Array) -> None:
        """Resample a section (Y, X), uint8 or float32, bilinearly into `out`; rows must not have negative strides."""
        if self._maps is None:
            y, x = self._field.y + np.float32(self._centre[0]), self._field.x + np.float32(self._centre[1])
            self._maps = cv2.convertMaps(x, y, cv2.CV_16SC2)
        cv2.remap(plane, *self._maps, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)

    def nearest(self, plane: Array, out: Array) -> None:
        """Resample a section (Y, X) of any dtype into `out`, at the nearest voxels."""
        if self._nearest is None:
            # round offsets, not positions: positions include the array's centre, so arrays would break ties differently
            index = np.rint(self._field.y).astype(np.intp)
            index *= self._size[1]
            index += np.rint(self._field.x).astype(np.intp)
            index += self._centre[0] * self._size[1] + self._centre[1]
            self._nearest = index
        # copy a strided section first: one sequential read is cheaper than many scattered ones.
        # mode "clip" makes `take` write into `out` directly; the index is always in range
        np.take(np.ascontiguousarray(plane).reshape(-1), self._nearest, out=out, mode="clip")
