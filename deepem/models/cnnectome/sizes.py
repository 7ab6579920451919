"""Which sizes a CNNectome U-Net takes, and what it gives back.

Every axis stands alone, with one exception. A valid convolution takes voxels away, a pooling divides, upsampling
multiplies. An upsampled map of `s` voxels whose convolutions take `c` is cropped to the largest `n * p + c <= s`, where
`p` is the product of all poolings from its level down. What the convolutions leave is then a multiple of `p`, so that
outputs laid edge to edge start a multiple of `p` apart, and a voxel gets the same value from any of them::

    n - down[0] ------------- crop -------------> crop(n * f[0]) - up[0]
         | / f[0]                                     ^ * f[0]
         n - down[1] -- crop --> crop(n * f[1]) - up[1]
              | / f[1]                ^ * f[1]
              n - down[2] ------------'

The exception: if a map is cropped along one axis, it must be larger than what its convolutions take along all of them,
as in the public code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from math import prod
from typing import NamedTuple

from deepem.models.cnnectome.settings import Equivariant, Size
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

AXES = "zyx"


class ShapeError(InputError, RuntimeError):
    """A tensor of a shape that a network cannot take: bad input, and the RuntimeError that torch would raise."""


def zyx(values: Sequence[int], absent: int) -> Vec3:
    """(z, y, x) of two, three or four numbers: an absent z is filled in, a length left out."""
    return vec3((*(absent,) * (3 - len(values)), *values)[-3:])


def taken(kernels: Sequence[Sequence[int]], axis: int) -> int:
    """Voxels that a row of valid convolutions takes from one axis, counted from the last: -1 for x."""
    return sum(kernel[axis] - 1 for kernel in kernels if len(kernel) >= -axis)


def kept(size: int, lost: int, period: int, *, centred: bool = False) -> int:
    """Voxels kept of an upsampled map, the largest `n * period + lost` up to its size.

    Args:
        size: Voxels of the map.
        lost: Voxels that its convolutions take.
        period: Product of the poolings from its level down.
        centred: Crop an even number, where there is a choice, so that the map keeps its centre.
    """
    largest = (size - lost) // period * period + lost
    return largest - period if centred and period % 2 and (size - largest) % 2 else largest


class Course(NamedTuple):
    """What becomes of one axis: its size at the end, and per level, coarsest first, what the crop does."""

    size: int
    cropped: tuple[bool, ...]
    tight: tuple[bool, ...]
    """Whether the map is no larger than what its convolutions take."""


@dataclass(frozen=True)
class Sizes:
    """Arithmetic of the sizes of one network; two axes are taken for y and x.

    Attributes:
        factors: Pooling per level, finest first.
        down: Kernels per level and convolution on the way down, one level more.
        up: Kernels on the way up, one list per pooling.
        padded: Convolutions keep the size.
        equivariant: When upsampled maps are cropped.
        finer: Factor, kernels and padding of each step of super-resolution.
    """

    factors: tuple[Size, ...]
    down: tuple[tuple[Size, ...], ...]
    up: tuple[tuple[Size, ...], ...]
    padded: bool = False
    equivariant: Equivariant = True
    finer: tuple[tuple[Size, tuple[Size, ...], bool], ...] = ()

    def below(self, level: int) -> Sizes:
        """Sizes of the network without its finest `level` levels."""
        return replace(self, factors=self.factors[level:], down=self.down[level:], up=self.up[level:], finer=())

    def crops(self, training: bool) -> bool:
        """Whether maps are cropped in this mode."""
        return self.equivariant is True or (self.equivariant == "eval" and not training)

    def factor(self, level: int, axis: int) -> int:
        """Pooling of a level along z, y or x."""
        return zyx(self.factors[level], 1)[axis]

    def course(self, axis: int, size: int, training: bool = False) -> Course | None:
        """The course of an axis z, y or x of `size` voxels, or None if the network cannot take it."""
        levels = range(len(self.factors))
        for level, kernels in enumerate(self.down):
            size -= 0 if self.padded else taken(kernels, axis - 3)
            if size < 1 or (level in levels and size % self.factor(level, axis)):
                return None
            size //= self.factor(level, axis) if level in levels else 1
        period, cropped, tight = 1, [], []
        for level in reversed(levels):
            size *= self.factor(level, axis)
            period *= self.factor(level, axis)
            lost = taken(self.up[level], axis - 3)
            centred = self.equivariant == "eval" and level > 0
            keep = kept(size, lost, period, centred=centred) if self.crops(training) else size
            cropped.append(keep != size)
            tight.append(keep <= lost)
            size = keep if self.padded else keep - lost
            if size < 1 or (cropped[-1] and tight[-1]):
                return None
        for factor, kernels, padded in self.finer:
            size = size * zyx(factor, 1)[axis] - (0 if padded else taken(kernels, axis - 3))
        return Course(size, tuple(cropped), tuple(tight)) if size > 0 else None

    def off_centre(self, axis: int, size: int) -> bool:
        """Whether the finer output for `size` voxels is not in their middle, since an odd number is cropped."""
        course = replace(self, finer=()).course(axis, size)
        finer = prod(zyx(factor, 1)[axis] for factor, _, _ in self.finer)
        return finer > 1 and course is not None and (size - course.size) % 2 == 1

    def length(self, length: int) -> int | None:
        """Length at the end for a length axis of so many frames, or None if there are too few."""
        lost = 0 if self.padded else sum(taken(kernels, -4) for kernels in (*self.down, *self.up))
        left = length - lost - sum(taken(kernels, -4) for _, kernels, padded in self.finer if not padded)
        return left if left > 0 else None

    @property
    def step(self) -> Vec3:
        """(z, y, x) steps between the sizes that fit."""
        return vec3(prod(zyx(f, 1)[axis] for f in self.factors) for axis in range(3))

    @property
    def context(self) -> Vec3:
        """(z, y, x) input voxels by which valid convolutions make the output smaller, both ends together."""

        def along(axis: int) -> int:
            total, scale = 0, 1
            for level, kernels in enumerate(self.down):
                up = self.up[level] if level < len(self.up) else ()
                total += scale * taken((*kernels, *up), axis - 3)
                scale *= self.factor(level, axis) if level < len(self.factors) else 1
            return total

        return vec3(map(along, range(3)))

    def smallest(self, training: bool = False) -> Vec3:
        """(z, y, x) the smallest input that fits."""
        return vec3(self.nearest(axis, 0, training, roomy=self.equivariant is True)[0] for axis in range(3))

    def nearest(self, axis: int, size: int, training: bool = False, *, roomy: bool = False) -> list[int]:
        """The closest size below and the closest above that fit along one axis; three above if there is none below.

        Args:
            axis: 0, 1, 2 for z, y, x.
            size: Voxels.
            training: The mode.
            roomy: Only sizes whose maps are larger than what their convolutions take.
        """

        def fits(n: int) -> bool:
            course = self.course(axis, n, training)
            return course is not None and not (roomy and any(course.tight))

        period = self.step[axis]
        lost = sum(taken(kernels, axis - 3) for kernels in (*self.down, *self.up, *(k for _, k, _ in self.finer)))
        below = next((n for n in range(size - 1, max(0, size - 4 * period), -1) if fits(n)), None)
        last = max(size, 0) + (4 + lost) * period
        above: Iterator[int] = (n for n in count(max(size, 0) + 1) if n > last or fits(n))
        found = [n for n in islice(above, 1 if below else 3) if n <= last]
        return [below, *found] if below else found

    def output_size(
        self, size: Sequence[int], where: str = "fov (or inputsz)", *, training: bool = False
    ) -> tuple[int, ...]:
        """Size of the output for an input of `size`, both ([z,] y, x).

        Raises:
            ShapeError: a size that cannot be pooled evenly or is too small; it names each such axis with the nearest
                sizes that work.
        """
        whole = zyx([int(n) for n in size], 1)
        courses = [self.course(axis, n, training) for axis, n in enumerate(whole)]
        wrong = {axis: False for axis, course in enumerate(courses) if course is None}
        if not wrong and self.equivariant is True:
            wrong = dict.fromkeys(self._tight([c for c in courses if c is not None]), True)
        if wrong:
            parts = [
                f"{AXES[axis]} = {_either(self.nearest(axis, whole[axis], training, roomy=roomy))} "
                f"instead of {whole[axis]}"
                for axis, roomy in wrong.items()
            ]
            raise ShapeError(where, ",".join(map(str, size)), f"a size the network can pool: {'; '.join(parts)}")
        return tuple(c.size for c in courses if c is not None)[-len(size) :]

    def _tight(self, courses: Sequence[Course]) -> list[int]:
        """Axes that are too small because another one is cropped at the same level."""
        tight = set()
        for level in range(len(self.factors)):
            if any(course.cropped[level] for course in courses):
                tight |= {axis for axis, course in enumerate(courses) if course.tight[level]}
        return sorted(tight)


def _either(sizes: Sequence[int]) -> str:
    """Numbers as in a sentence: 4, 8 or 12."""
    words = list(map(str, sizes))
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))) or "none"
