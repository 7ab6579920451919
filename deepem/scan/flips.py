"""The 16 flips and transposes of test-time augmentation, and how they act on boxes and affinities.

The number k in 0..15 has four bits, highest first: flip z, flip y, flip x, transpose y and x. An image is flipped, then
transposed; a prediction is transposed, then flipped back.

An affinity at voxel v says whether v and v - e belong together. In the flipped volume the network sees the same two
voxels. If the flip reverses the edge, the network stores the affinity at the other voxel of the pair. After flipping
back, the prediction must therefore be shifted by the edge::

    x              0   1   2   3        edge +1: affinity of 2 is the pair (1, 2)
    flipped x'     3   2   1   0        edge +1 there: affinity of x' = 2 is the pair (x' 1, 2) = (x 2, 1)
                                        flipped back it lies at x = 1, but belongs at x = 2; x = 0 stays unknown
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

Origin = tuple[int, Vec3]
"""The source of an affinity: channel c and shift d, A(v) = F[c](v - d)."""


@dataclass(frozen=True)
class Flip:
    """One of the 16 flips; boxes and sizes are (z, y, x)."""

    axes: tuple[bool, bool, bool]
    transpose: bool

    @classmethod
    def of(cls, number: int) -> Flip:
        """Return the flip of a number from 0 to 15."""
        if not 0 <= number < 16:
            raise InputError("test_aug", number, "numbers from 0 to 15")
        z, y, x, transpose = (bool(number >> bit & 1) for bit in (3, 2, 1, 0))
        return cls((z, y, x), transpose)

    def apply(self, volume: torch.Tensor) -> torch.Tensor:
        """Flip a volume (..., Z, Y, X) for the network."""
        flipped = volume.flip([axis - 3 for axis in range(3) if self.axes[axis]])
        return flipped.transpose(-1, -2) if self.transpose else flipped

    def revert(self, volume: torch.Tensor) -> torch.Tensor:
        """Flip a prediction (..., Z, Y, X) back."""
        back = volume.transpose(-1, -2) if self.transpose else volume
        return back.flip([axis - 3 for axis in range(3) if self.axes[axis]])

    def turned_axes(self) -> Vec3:
        """Return, for each axis of the volume, its index after the flip."""
        return self._swap((0, 1, 2))

    def size(self, size: Vec3) -> Vec3:
        """Return the size of a volume after the flip."""
        return self._swap(size)

    def box(self, box: Box, size: Vec3) -> Box:
        """Return the position after the flip of a box in a volume of that size."""
        mirrored = self._mirror(box, size)
        return Box(self._swap(mirrored.begin), self._swap(mirrored.end))

    def unbox(self, box: Box, size: Vec3) -> Box:
        """Return the position before the flip of a box in the flipped volume; `size` is the size before the flip."""
        return self._mirror(Box(self._swap(box.begin), self._swap(box.end)), size)

    def origins(self, edges: Sequence[Vec3]) -> list[Origin | None]:
        """Return the source of each affinity channel in a prediction that was flipped back; None if it has none."""
        seen = [self._turned(edge) for edge in edges]  # each channel's edge, in the volume before the flip
        found: list[Origin | None] = []
        for edge in edges:
            back = vec3(-d for d in edge)
            if edge in seen:
                found.append((seen.index(edge), (0, 0, 0)))
            else:
                found.append((seen.index(back), edge) if back in seen else None)
        return found

    def _turned(self, edge: Vec3) -> Vec3:
        return vec3(-d if flipped else d for d, flipped in zip(self._swap(edge), self.axes, strict=True))

    def _mirror(self, box: Box, size: Vec3) -> Box:
        ranges = [(n - e, n - b) if flipped else (b, e) for b, e, n, flipped in zip(*box, size, self.axes, strict=True)]
        return Box(vec3(b for b, _ in ranges), vec3(e for _, e in ranges))

    def _swap(self, values: Vec3) -> Vec3:
        z, y, x = values
        return (z, x, y) if self.transpose else (z, y, x)
