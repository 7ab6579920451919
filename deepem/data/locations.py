"""Places in a mask, drawn without a list of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from deepem.data.drawn import Array, Drawn, counts_of, size_of
from deepem.data.facts import BLOCK
from deepem.data.shared import Shared
from deepem.utils.geometry import Box, Vec3, vec3


class Locations:
    """The non-zero voxels of a mask, drawn uniformly from any box of it, without a list of them.

    The mask is cut into cubes, and their non-zero voxels are counted once. Then the voxels have numbers, cube by cube:
    a number drawn uniformly names a cube, by the sums of the counts, and one of its voxels, for which that cube alone
    is read, and not even that where it is full. One that lies outside the box is drawn again. When a handful of tries
    all miss, the voxels in the box are counted exactly, cube by cube, so a draw ends, and fails only where the box
    holds no voxel.
    """

    TRIES = 32

    def __init__(self, mask: Shared | Drawn) -> None:
        counts = counts_of(mask if isinstance(mask, Drawn) else mask.array)
        self.size = size_of(mask if isinstance(mask, Drawn) else mask.array)
        self.count = int(counts.sum())
        self._mask, self._grid = mask, counts.shape
        self._ends = Shared(np.cumsum(counts.ravel()))

    def draw(self, box: Box, rng: np.random.Generator) -> Vec3 | None:
        """One of the mask's voxels in the box, or None."""
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
        """A voxel drawn from those of the mask in the box, after all of them have been counted."""
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
        """The n-th non-zero voxel of a part of the mask that holds so many."""
        flat = number if count == part.voxels else np.flatnonzero(self._cut(part))[number]
        return vec3(i + b for i, b in zip(np.unravel_index(flat, part.size), part.begin, strict=True))

    def _cut(self, box: Box) -> Array:
        """The mask in a box (z, y, x)."""
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
        """The voxels of all cubes before one."""
        return int(self._ends.array[cube - 1]) if cube else 0

    def _in(self, cube: int) -> int:
        return int(self._ends.array[cube]) - self._before(cube)

    def _cubes(self, box: Box) -> Iterator[int]:
        """The cubes that a box touches."""
        spans = [range(b // BLOCK, -(-e // BLOCK)) for b, e in zip(*box, strict=True)]
        _, ys, xs = self._grid
        return ((z * ys + y) * xs + x for z, y, x in itertools.product(*spans))
