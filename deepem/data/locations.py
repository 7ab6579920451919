"""Draw locations uniformly from a mask, without a list of its voxels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from deepem.data.drawn import Array, Drawn, counts_of, size_of
from deepem.data.facts import BLOCK
from deepem.data.shared import Shared
from deepem.utils.geometry import Box, Vec3, vec3


class Locations:
    """Draw non-zero voxels of a mask uniformly from any box, without a list of all voxels.

    The mask is divided into cubes, whose non-zero voxels are counted once. This numbers the voxels cube by cube. A
    number drawn uniformly selects a cube, by the cumulative counts, and a voxel in it. Only that cube is read, and a
    full cube need not be read at all. A voxel outside the box is drawn again. If several tries miss the box, the voxels
    in the box are counted exactly, cube by cube. So every draw ends, and it fails only if the box holds no voxel.
    """

    TRIES = 32

    def __init__(self, mask: Shared | Drawn) -> None:
        counts = counts_of(mask if isinstance(mask, Drawn) else mask.array)
        self.size = size_of(mask if isinstance(mask, Drawn) else mask.array)
        self.count = int(counts.sum())
        self._mask, self._grid = mask, counts.shape
        self._ends = Shared(np.cumsum(counts.ravel()))

    def draw(self, box: Box, rng: np.random.Generator) -> Vec3 | None:
        """Draw one of the mask's voxels in the box; return None if there is none."""
        if self.count == 0:
            return None
        for number in rng.integers(self.count, size=self.TRIES):
            cube = int(np.searchsorted(self._ends.array, number, side="right"))
            whole = self._box(cube)
            if whole.intersect(box) is None:
                continue
            found = self._voxel(whole, int(number) - self._before(cube), self._in(cube))
            if box.contains(Box.of_size(found, (1, 1, 1))):
                return found
        return self._search(box, rng)

    def _search(self, box: Box, rng: np.random.Generator) -> Vec3 | None:
        """Count the mask's voxels in the box exactly, and draw one of them."""
        parts: list[tuple[Box, int]] = []
        for cube in self._cubes(box):
            whole = self._box(cube)
            part = whole.intersect(box)
            assert part is not None
            count = self._in(cube) if part == whole else int(np.count_nonzero(self._cut(part))) if self._in(cube) else 0
            parts.append((part, count))
        ends = np.cumsum([count for _, count in parts])
        if not ends[-1]:
            return None
        number = int(rng.integers(ends[-1]))
        at = int(np.searchsorted(ends, number, side="right"))
        part, count = parts[at]
        return self._voxel(part, number - int(ends[at]) + count, count)

    def _voxel(self, part: Box, number: int, count: int) -> Vec3:
        """Return the n-th non-zero voxel of a part of the mask."""
        flat = number if count == part.voxels else np.flatnonzero(self._cut(part))[number]
        return vec3(i + b for i, b in zip(np.unravel_index(flat, part.size), part.begin, strict=True))

    def _cut(self, box: Box) -> Array:
        """Return the mask in a box (z, y, x)."""
        if isinstance(self._mask, Drawn):
            found: Array = self._mask.cut(box)[0]
            return found
        z, y, x = box.slices()
        inside: Array = self._mask.array[0, z, y, x]
        return inside

    def _box(self, cube: int) -> Box:
        first = vec3(int(i) * BLOCK for i in np.unravel_index(cube, self._grid))
        return Box(first, vec3(min(b + BLOCK, n) for b, n in zip(first, self.size, strict=True)))

    def _before(self, cube: int) -> int:
        """Return the number of non-zero voxels in all cubes before one."""
        return int(self._ends.array[cube - 1]) if cube else 0

    def _in(self, cube: int) -> int:
        return int(self._ends.array[cube]) - self._before(cube)

    def _cubes(self, box: Box) -> Iterator[int]:
        """Return the cubes that a box touches."""
        spans = [range(b // BLOCK, -(-e // BLOCK)) for b, e in zip(*box, strict=True)]
        _, ys, xs = self._grid
        return ((z * ys + y) * xs + x for z, y, x in itertools.product(*spans))
