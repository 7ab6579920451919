"""Test-time augmentation: the running mean and variance over flips of a volume, both updated in place.

For each flip, the flipped volume is stitched on its own grid, and the prediction is flipped back. Some values are
unknown under a flip: planes left empty by shifting an affinity, borders left by a crop, and channels whose flipped edge
is not predicted. They carry no weight, so the mean and the variance are over the known values only::

    n += 1;  d = value - mean;  mean += d / n;  m2 += d (value - mean)        (Welford 1962)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from deepem.scan.flips import Flip
from deepem.scan.stitch import Finished, Read, Scan
from deepem.utils.geometry import Box, Vec3, vec3

VARIANCE = "_var"
"""Suffix of the name of an output's variance."""


@dataclass
class Augmented:
    """The mean over flips of a scan; has the interface of `Scan`.

    Attributes:
        scan_of: Returns the scan for a volume of a given size; transposed volumes need a different one.
        size: Size of the volume.
        flips: The flips to average over.
        edges: The edges of the channels of each affinity output.
        variance: Whether to also return `<name>_var`.
    """

    scan_of: Callable[[Vec3], Scan]
    size: Vec3
    flips: Sequence[Flip]
    edges: Mapping[str, Sequence[Vec3]] = field(default_factory=dict)
    variance: bool = False

    def __post_init__(self) -> None:
        self.scans = {size: self.scan_of(size) for size in dict.fromkeys(flip.size(self.size) for flip in self.flips)}
        self.covered = self.scan_of(self.size).grid.covered

    def count(self, box: Box) -> int:
        """Return the number of patches needed for a box."""
        needed = [(flip, self._needed(flip, box)) for flip in self.flips]
        return sum(
            self.scans[flip.size(self.size)].grid.count(flip.box(part, self.size)) for flip, part in needed if part
        )

    def count_tiled(self, box: Box, tile: Vec3) -> int:
        """Return the number of patches needed for the tiles of a box; see `Grid.count_tiled`."""
        total = 0
        for flip in self.flips:
            axes = self.scans[flip.size(self.size)].grid.axes
            where = flip.turned_axes()
            counts = [0, 0, 0]
            for axis in range(3):
                for begin in range(box.begin[axis], box.end[axis], tile[axis]):
                    end = min(begin + tile[axis], box.end[axis])
                    slab = Box(_with(box.begin, axis, begin), _with(box.end, axis, end))
                    if part := self._needed(flip, slab):
                        seen = flip.box(part, self.size)
                        counts[axis] += len(axes[where[axis]].touching(seen.begin[where[axis]], seen.end[where[axis]]))
            total += math.prod(counts)
        return total

    def run(self, read: Read, box: Box | None = None, planes: int | None = None) -> Iterator[Finished]:
        """Compute a box and yield it in parts of at most `planes` planes, z ascending; see `Scan.run`."""
        box = self.covered if box is None else box
        step = planes or box.size[0]
        for z in range(box.begin[0], box.end[0], step):
            (_, *begin), (_, *end) = box
            part = Box((z, begin[0], begin[1]), (min(z + step, box.end[0]), end[0], end[1]))
            yield part, self._average(read, part)

    def _average(self, read: Read, box: Box) -> dict[str, torch.Tensor]:
        means: dict[str, Mean] = {}
        for flip in self.flips:
            part = self._needed(flip, box)
            if part is None:
                continue

            def flipped(inner: Box, flip: Flip = flip) -> torch.Tensor:
                return flip.apply(read(flip.unbox(inner, self.size)))

            scan = self.scans[flip.size(self.size)]
            ((_, values),) = scan.run(flipped, flip.box(part, self.size))
            for name in list(values):
                value = flip.revert(values.pop(name))
                if name not in means:
                    means[name] = Mean(value.shape[0], box, self.variance, value.device)
                for channel, (source, shift) in self._origins(flip, name, value.shape[0]):
                    means[name].add(channel, value[source], part.shift(shift))
        return {
            **{name: mean.mean for name, mean in means.items()},
            **{f"{name}{VARIANCE}": mean.variance() for name, mean in means.items() if self.variance},
        }

    def _origins(self, flip: Flip, name: str, channels: int) -> Iterator[tuple[int, tuple[int, Vec3]]]:
        edges = self.edges.get(name)
        if edges is None:
            yield from ((c, (c, (0, 0, 0))) for c in range(channels))
            return
        for channel, origin in enumerate(flip.origins(edges)):
            if origin is not None:
                yield channel, origin

    def _needed(self, flip: Flip, box: Box) -> Box | None:
        """Return the voxels of a flip's prediction that the box needs; None if the prediction has none of them."""
        shifts = {(0, 0, 0)}
        for edges in self.edges.values():
            shifts |= {origin[1] for origin in flip.origins(edges) if origin is not None}
        begin = vec3(b - max(d) for b, d in zip(box.begin, zip(*shifts, strict=True), strict=True))
        end = vec3(e - min(d) for e, d in zip(box.end, zip(*shifts, strict=True), strict=True))
        known = flip.unbox(self.scans[flip.size(self.size)].grid.covered, self.size)
        return Box(begin, end).intersect(known)


def _with(values: Vec3, axis: int, value: int) -> Vec3:
    return vec3(value if i == axis else v for i, v in enumerate(values))


class Mean:
    """Per-voxel running mean and sum of squared deviations of an output in a box, over the known values."""

    def __init__(self, channels: int, box: Box, variance: bool, device: torch.device) -> None:
        self.box = box
        self.mean = torch.zeros(channels, *box.size, device=device)
        self.count = torch.zeros(channels, *box.size, dtype=torch.uint8, device=device)
        self._squares = torch.zeros_like(self.mean) if variance else None

    def add(self, channel: int, value: torch.Tensor, where: Box) -> None:
        """Add values (Z, Y, X) of one channel, which are known in the voxels `where`."""
        both = self.box.intersect(where)
        if both is None:
            return
        value = value[both.shift(-b for b in where.begin).slices()]
        inside = (channel, *both.shift(-b for b in self.box.begin).slices())
        mean, count = self.mean[inside], self.count[inside]
        count += 1
        deviation = value - mean
        mean.addcdiv_(deviation, count)
        if self._squares is not None:
            self._squares[inside].addcmul_(deviation, value - mean)

    def variance(self) -> torch.Tensor:
        """Return the population variance; 0 where no value is known."""
        assert self._squares is not None
        return self._squares.div_(self.count.clamp(min=1))
