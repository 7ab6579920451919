"""Patch positions: a regular grid from the volume's corner; the last patch of each axis is flush with the volume's end.

One axis of a volume of 13 voxels, patch 6, output 4, stride 3::

    voxel   0 1 2 3 4 5 6 7 8 9 . . 12
    patch 0 f[o o o o]r                    start 1        f, r: input border that the
    patch 1       f[o o o o]r              start 4        output does not cover
    patch 2             f[o o o o]r        start 7
    patch 3               f[o o o o]r      start 8        flush with the end, off the stride
    covered   1 . . . . . . . . . 11

The grid depends only on the whole volume, so any part of the volume is computed from the same patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

Layers = tuple[range, range, range]
"""Index of a patch along (z, y, x)."""


@dataclass(frozen=True)
class Axis:
    """The patches along one axis, in voxels.

    Attributes:
        size: Length of the volume.
        patch: Length of the input patch.
        output: Length of the output patch, which lies inside the input patch.
        stride: Distance from one patch to the next, at most `output`.
        front: Voxels of the input patch in front of the output patch.
    """

    size: int
    patch: int
    output: int
    stride: int
    front: int

    @property
    def end(self) -> int:
        """End of the voxels that output patches cover; they begin at `front`."""
        return self.size - (self.patch - self.output - self.front)

    @property
    def count(self) -> int:
        """Number of patches."""
        return -(-(self.size - self.patch) // self.stride) + 1

    def start(self, index: int) -> int:
        """First output voxel of a patch."""
        return self.front + min(index * self.stride, self.size - self.patch)

    def touching(self, begin: int, end: int) -> range:
        """Return the patches whose outputs overlap [begin, end)."""
        begin, end = max(begin, self.front), min(end, self.end)
        first = max(0, (begin - self.front - self.output) // self.stride + 1)
        last = min((end - self.front - 1) // self.stride, self.count - 1)
        if self.start(self.count - 1) < end:
            last = self.count - 1
        return range(min(first, self.count - 1), last + 1)

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Return the starts of all patches that overlap a patch (itself included), relative to its own start."""
        own = self.start(index)
        return tuple(self.start(i) - own for i in self.touching(own, own + self.output))


@dataclass(frozen=True)
class Grid:
    """The patches of a volume. All sizes are in (z, y, x) voxels.

    Attributes:
        size: Size of the volume.
        patch: Size of the input patch.
        output: Size of the output patch.
        stride: Distance from one patch to the next.
        front: Voxels of the input patch in front of the output patch, by default (patch - output) // 2. A network that
            crops around the patch's centre voxel, as `deepem.utils.crop` does, needs patch // 2 - output // 2, which is
            one more if the patch is even and the output odd.

    Raises:
        InputError: the volume is smaller than a patch, or the patches leave gaps.
    """

    size: Vec3
    patch: Vec3
    output: Vec3
    stride: Vec3
    front: Vec3 | None = None

    def __post_init__(self) -> None:
        if self.front is None:
            halves = vec3((p - o) // 2 for p, o in zip(self.patch, self.output, strict=True))
            object.__setattr__(self, "front", halves)
        for name in ("size", "patch", "output", "stride", "front"):
            object.__setattr__(self, name, vec3(getattr(self, name)))
        if any(n < p for n, p in zip(self.size, self.patch, strict=True)):
            raise InputError("image", f"a volume of {self.size}", f"at least one patch, {self.patch}")
        if any(not 1 <= o <= p for o, p in zip(self.output, self.patch, strict=True)):
            raise InputError("output size", self.output, f"1 to the patch size {self.patch} on every axis")
        if any(not 1 <= s <= o for s, o in zip(self.stride, self.output, strict=True)):
            raise InputError("stride", self.stride, f"1 to the output size {self.output} on every axis")

    @cached_property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """The three axes, z, y, x."""
        assert self.front is not None
        sizes = zip(self.size, self.patch, self.output, self.stride, self.front, strict=True)
        z, y, x = (Axis(*n) for n in sizes)
        return z, y, x

    @cached_property
    def covered(self) -> Box:
        """The voxels of the volume that output patches cover."""
        return Box(vec3(a.front for a in self.axes), vec3(a.end for a in self.axes))

    def touching(self, box: Box) -> Layers:
        """Return the indices of the patches whose outputs overlap the box."""
        z, y, x = (a.touching(b, e) for a, b, e in zip(self.axes, *box, strict=True))
        return z, y, x

    def output_box(self, index: Sequence[int]) -> Box:
        """Return the output box of a patch."""
        return Box.of_size((a.start(i) for a, i in zip(self.axes, index, strict=True)), self.output)

    def input_box(self, layers: Layers) -> Box:
        """Return the smallest box that holds the inputs of all these patches."""
        begin = vec3(a.start(r[0]) - a.front for a, r in zip(self.axes, layers, strict=True))
        end = vec3(a.start(r[-1]) - a.front + a.patch for a, r in zip(self.axes, layers, strict=True))
        return Box(begin, end)

    def count(self, box: Box) -> int:
        """Return the number of patches needed for a box."""
        return math.prod(len(r) for r in self.touching(box))

    def count_tiled(self, box: Box, tile: Vec3) -> int:
        """Return the number of patches needed for all tiles of a box, counted axis by axis."""
        axes = zip(self.axes, *box, tile, strict=True)
        return math.prod(sum(len(a.touching(i, min(i + n, e))) for i in range(b, e, n)) for a, b, e, n in axes)


def resolve_stride(
    output: Vec3,
    overlap: Sequence[float] = (0.5, 0.5, 0.5),
    stride: Sequence[float] | None = None,
    step: Vec3 = (1, 1, 1),
    *,
    exact: bool = True,
) -> Vec3:
    """Return the stride in voxels.

    An overlap between 0 and 1 is a fraction of the output patch: floor(fraction * output) voxels. Other overlaps are in
    voxels. A stride between 0 and 1 is a fraction, rounded up to voxels; other strides are in voxels. The stride
    overrides the overlap. Strides that result from a fraction are rounded down to a multiple of `step`.

    Args:
        output: Size of the output patch.
        overlap: Overlap of two patches.
        stride: Distance from one patch to the next.
        step: The network allows only strides that are multiples of this.
        exact: Never round an overlap that is given in voxels.

    Raises:
        InputError: the patches would leave gaps or not move, the values are not three numbers of 0 or more, or the
            network does not allow the stride.
    """
    flag, given = ("overlap", overlap) if stride is None else ("stride", stride)
    _check(flag, given)
    if stride is not None:
        found = vec3(math.ceil(s * o) if 0 < s < 1 else int(s) for s, o in zip(stride, output, strict=True))
        if any(not 1 <= s <= o for s, o in zip(found, output, strict=True)):
            raise InputError("stride", tuple(stride), f"1 to {output} voxels, or a fraction")
    else:
        shared = vec3(math.floor(v * o) if 0 < v < 1 else int(v) for v, o in zip(overlap, output, strict=True))
        if any(not 0 <= v < o for v, o in zip(shared, output, strict=True)):
            raise InputError("overlap", tuple(overlap), f"0 or more and less than the output patch {output}")
        found = vec3(o - v for v, o in zip(shared, output, strict=True))
    if any(o < s for o, s in zip(output, step, strict=True)):
        raise InputError("output patch", output, f"{step} or more: the network gives the same only in such steps")
    rounds = [0 < v < 1 or not (exact or stride is not None) for v in given]
    nearest = vec3(max(n // s, 1) * s for n, s in zip(found, step, strict=True))
    if any(n != m and not r for n, m, r in zip(found, nearest, rounds, strict=True)):
        works = nearest if stride is not None else tuple(o - n for o, n in zip(output, nearest, strict=True))
        raise InputError(flag, _comma(given), f"strides that are multiples of {step}, such as {_comma(works)}")
    return nearest


def _comma(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _check(flag: str, values: Sequence[float]) -> None:
    """Refuse NaN, infinite and negative values, which rounding would hide or fail on."""
    given = tuple(values) if hasattr(values, "__len__") else (values,)
    if len(given) != 3 or not all(0 <= v < math.inf for v in given):
        raise InputError(flag, given, "three numbers z,y,x of 0 or more")


def runs(layers: range, depth: int | None) -> Iterator[range]:
    """Split the layers into consecutive runs of at most `depth` layers (None: a single run)."""
    step = len(layers) if depth is None else depth
    yield from (layers[i : i + step] for i in range(0, len(layers), step))
