"""Which input sizes a CNNectome U-Net accepts, and the output sizes that result.

Axes are independent, with one exception. A valid convolution removes voxels, pooling divides the size, upsampling
multiplies it. An upsampled map of `s` voxels whose convolutions remove `c` voxels is cropped to the largest `n * p + c
<= s`, where `p` is the product of all poolings from its level down. The result of the convolutions is then a multiple
of `p`. Outputs laid edge to edge thus start a multiple of `p` apart, and every voxel gets the same value from any of
them::

    n - down[0] ------------- crop -------------> crop(n * f[0]) - up[0]
         | / f[0]                                     ^ * f[0]
         n - down[1] -- crop --> crop(n * f[1]) - up[1]
              | / f[1]                ^ * f[1]
              n - down[2] ------------'

The exception, as in the public code: if a map is cropped along one axis, it must be larger along every axis than the
voxels that its convolutions remove.
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
    """A shape that does not fit a network: an InputError that is also the RuntimeError that torch would raise."""


def zyx(values: Sequence[int], absent: int) -> Vec3:
    """Convert two, three or four numbers to (z, y, x): fill in a missing z, drop a length."""
    return vec3((*(absent,) * (3 - len(values)), *values)[-3:])


def taken(kernels: Sequence[Sequence[int]], axis: int) -> int:
    """Voxels that a sequence of valid convolutions removes along one axis, which is counted from the end: -1 for x."""
    return sum(kernel[axis] - 1 for kernel in kernels if len(kernel) >= -axis)


def kept(size: int, lost: int, period: int, *, centred: bool = False) -> int:
    """Size to which an upsampled map is cropped: the largest `n * period + lost` up to its size.

    Args:
        size: Voxels of the map.
        lost: Voxels that its convolutions remove.
        period: Product of the poolings from its level down.
        centred: Where there is a choice, crop an even number of voxels, so that the map keeps its centre.
    """
    largest = (size - lost) // period * period + lost
    return largest - period if centred and period % 2 and (size - largest) % 2 else largest


class Course(NamedTuple):
    """The sizes along one axis: the final size and, for each level, coarsest first, the effect of the crop."""

    size: int
    cropped: tuple[bool, ...]
    tight: tuple[bool, ...]
    """Whether the map is no larger than the voxels that its convolutions remove."""


@dataclass(frozen=True)
class Sizes:
    """Size arithmetic of one network; two axes are taken as y and x.

    Attributes:
        factors: Pooling per level, finest first.
        down: Kernels per level and convolution on the way down; one level more than poolings.
        up: Kernels on the way up, one list per pooling.
        padded: Whether convolutions are padded and keep the size.
        equivariant: Whether upsampled maps are cropped.
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
        """Compute the sizes along axis z, y or x from `size` voxels; None if the size does not fit."""
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
        """Whether eval mode shifts a finer output by half an input voxel, since it crops an odd number of voxels."""
        course = replace(self, finer=()).course(axis, size)
        finer = prod(zyx(factor, 1)[axis] for factor, _, _ in self.finer)
        return self.equivariant == "eval" and finer > 1 and course is not None and (size - course.size) % 2 == 1

    def length(self, length: int) -> int | None:
        """Final length for this many frames; None if there are too few."""
        lost = 0 if self.padded else sum(taken(kernels, -4) for kernels in (*self.down, *self.up))
        left = length - lost - sum(taken(kernels, -4) for _, kernels, padded in self.finer if not padded)
        return left if left > 0 else None

    @property
    def step(self) -> Vec3:
        """(z, y, x) steps between the sizes that fit."""
        return vec3(prod(zyx(f, 1)[axis] for f in self.factors) for axis in range(3))

    @property
    def context(self) -> Vec3:
        """(z, y, x) input voxels that valid convolutions remove from the output, both ends together."""

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
        """The nearest sizes below and above that fit along one axis; three sizes above if none below fits.

        Args:
            axis: 0, 1, 2 for z, y, x.
            size: Voxels.
            training: The mode.
            roomy: Only sizes whose maps are larger than the voxels that their convolutions remove.
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
            ShapeError: the size cannot be pooled evenly or is too small; the error names each such axis with the
                nearest sizes that work.
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
        """Find the axes that are too small because another axis is cropped at the same level."""
        tight = set()
        for level in range(len(self.factors)):
            if any(course.cropped[level] for course in courses):
                tight |= {axis for axis, course in enumerate(courses) if course.tight[level]}
        return sorted(tight)


def _either(sizes: Sequence[int]) -> str:
    """Join numbers as in a sentence: 4, 8 or 12."""
    words = list(map(str, sizes))
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))) or "none"
