"""Boxes and vectors in (z, y, x) voxels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Vec3 = tuple[int, int, int]


def vec3(values: Iterable[int]) -> Vec3:
    """Convert three integers to a (z, y, x) tuple; raise ValueError if there are not three."""
    z, y, x = values
    return int(z), int(y), int(x)


@dataclass(frozen=True)
class Box:
    """A box of voxels, begin-inclusive and end-exclusive, (z, y, x).

    Every side must be at least one voxel; an empty box raises ValueError.
    """

    begin: Vec3
    end: Vec3

    def __post_init__(self) -> None:
        begin, end = vec3(self.begin), vec3(self.end)
        object.__setattr__(self, "begin", begin)
        object.__setattr__(self, "end", end)
        if not (begin[0] < end[0] and begin[1] < end[1] and begin[2] < end[2]):
            raise ValueError(f"empty box: begin {self.begin}, end {self.end}")

    @classmethod
    def of_size(cls, begin: Iterable[int], size: Iterable[int]) -> Box:
        """Return the box of a given size that starts at `begin`."""
        (z, y, x), (d, h, w) = begin, size
        return cls((z, y, x), (z + d, y + h, x + w))

    @classmethod
    def around(cls, centre: Iterable[int], size: Iterable[int]) -> Box:
        """Return the box of a given size centred on a voxel: it starts at centre - size // 2."""
        (z, y, x), (d, h, w) = centre, size
        return cls.of_size((z - d // 2, y - h // 2, x - w // 2), (d, h, w))

    @property
    def size(self) -> Vec3:
        """Size in (z, y, x) voxels."""
        return vec3(e - b for b, e in zip(self.begin, self.end, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        z, y, x = self.size
        return z * y * x

    def slices(self) -> tuple[slice, slice, slice]:
        """Return the slices of this box in an array whose first voxel is at (0, 0, 0)."""
        (z, y, x), (to_z, to_y, to_x) = self.begin, self.end
        return slice(z, to_z), slice(y, to_y), slice(x, to_x)

    def shift(self, by: Iterable[int]) -> Box:
        """Return the box moved by a vector."""
        by = vec3(by)
        return Box(
            vec3(b + d for b, d in zip(self.begin, by, strict=True)),
            vec3(e + d for e, d in zip(self.end, by, strict=True)),
        )

    def contains(self, other: Box) -> bool:
        """Return whether the other box lies inside this one."""
        return all(a <= b for a, b in zip(self.begin, other.begin, strict=True)) and all(
            a >= b for a, b in zip(self.end, other.end, strict=True)
        )

    def intersect(self, other: Box) -> Box | None:
        """Return the intersection of both boxes; None if it is empty."""
        begin = vec3(max(a, b) for a, b in zip(self.begin, other.begin, strict=True))
        end = vec3(min(a, b) for a, b in zip(self.end, other.end, strict=True))
        return Box(begin, end) if all(b < e for b, e in zip(begin, end, strict=True)) else None

    def __iter__(self) -> Iterator[Vec3]:
        """Unpack as (begin, end)."""
        yield self.begin
        yield self.end


def touched(box: Box, size: Vec3, whole: Box) -> Iterator[Box]:
    """Return the chunks that a box touches. Chunks divide `whole` from its begin; the last ones may be smaller."""
    firsts = zip(*box, whole.begin, size, strict=True)
    for begin in itertools.product(*(range(b - (b - f) % n, e, n) for b, e, f, n in firsts)):
        yield Box(vec3(begin), vec3(min(b + n, e) for b, n, e in zip(begin, size, whole.end, strict=True)))


@dataclass(frozen=True)
class Tiles(Sequence[Box]):
    """A box split into tiles, z slowest. Tiles are created on demand: there may be hundreds of millions."""

    whole: Box
    tile: Vec3

    @property
    def counts(self) -> Vec3:
        """Number of tiles along each axis."""
        return vec3(-(-(e - b) // n) for b, e, n in zip(*self.whole, self.tile, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        _, ys, xs = self.counts
        index = number // (ys * xs), number // xs % ys, number % xs
        begin = vec3(b + i * n for b, i, n in zip(self.whole.begin, index, self.tile, strict=True))
        return Box(begin, vec3(min(b + n, e) for b, n, e in zip(begin, self.tile, self.whole.end, strict=True)))
