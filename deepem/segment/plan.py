"""The settings of a segmentation, and the blocks that the volume is cut into."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import AXES, Channels, level
from deepem.segment.fragments import HALO
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, touched, vec3

DECODERS = ("agglomerate", "mutex", "components", "watershed", "objects")
GRAPH = ("agglomerate", "mutex")
"""Decoders that join fragments in the region graph: one pass over the volume serves any number of thresholds."""

AFFINITIES = (*GRAPH, "components")
"""Decoders that take affinities; the others take one probability per voxel."""


@dataclass(frozen=True)
class Plan:
    """One segmentation of one volume: everything that determines the result, and the block size, which does not.

    Attributes:
        volume: The voxels to segment.
        block: Size of a block; the last blocks along an axis may be shorter.
        decoder: One of DECODERS.
        edges: For affinities, (dz, dy, dx) of each channel.
        threshold: Values above it are joined. The decoders in GRAPH take it when the graph is cut instead.
        corners: For `objects`: voxels that share only an edge or a corner are connected, like voxels that share a face.
        min_seed: For `watershed`: ignore seeds of fewer voxels.
        split: For `objects`: cut objects where they are narrow, with seeds at least this many voxels apart; 0 turns it
            off.
        holes: Fill background that one segment encloses.
        halo: Voxels read around a block for `watershed`, `split` and `holes`.
    """

    volume: Box
    block: Vec3
    decoder: str = "agglomerate"
    edges: tuple[Vec3, ...] = ()
    threshold: float = 0.5
    corners: bool = False
    min_seed: int = 0
    split: int = 0
    holes: bool = False
    halo: Vec3 = (32, 32, 32)

    def __post_init__(self) -> None:
        check_decoder(self.decoder)
        if min(self.block) < 1:
            raise InputError("block size", self.block, "1 voxel or more on every axis")
        if min(self.halo) < 0:
            raise InputError("halo", self.halo, "0 voxels or more on every axis")
        for name in ("min_seed", "split"):
            if getattr(self, name) < 0:
                raise InputError(name, getattr(self, name), "0 or more")
        level(self.threshold)
        if self.decoder == "mutex" and not self.channels.far:
            raise InputError("edges", list(self.edges), "a long-range edge, along which the decoder mutex keeps apart")
        if self.affinities:
            _ = self.channels

    @property
    def affinities(self) -> bool:
        """Whether the input is affinities."""
        return self.decoder in AFFINITIES

    @cached_property
    def channels(self) -> Channels:
        """The assignment of affinity channels to pairs of voxels."""
        return Channels.of(self.edges)

    @cached_property
    def joins(self) -> tuple[Vec3, ...]:
        """The edges that can connect voxels of neighbouring blocks."""
        if not self.corners:
            return AXES
        steps = (vec3(step) for step in itertools.product((-1, 0, 1), repeat=3))
        return tuple(step for step in steps if step > (0, 0, 0))

    @property
    def local(self) -> bool:
        """Whether the segments of a block follow from its labels alone once phase 2 is done."""
        return not (self.decoder == "watershed" or self.split or self.holes)

    @property
    def far(self) -> tuple[tuple[int, Vec3], ...]:
        """Channel and edge of the long-range affinities that the decoder uses."""
        return self.channels.far if self.decoder == "mutex" else ()

    @cached_property
    def reach(self) -> Vec3:
        """The largest distance along each axis between two voxels in different blocks that form a pair."""
        edges = (*self.joins, *(edge for _, edge in self.far))
        return vec3(max(abs(edge[axis]) for edge in edges) for axis in range(3))

    @cached_property
    def counts(self) -> Vec3:
        """Number of blocks along each axis."""
        return vec3(-(-n // b) for n, b in zip(self.volume.size, self.block, strict=True))

    @property
    def graph_bytes(self) -> int:
        """About the memory that joining the region graph takes: 5300 edges per Mvox, 400 bytes each."""
        return int(self.volume.voxels * 5300e-6) * 400 if self.decoder in GRAPH else 0

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The blocks, in array order."""
        return tuple(touched(self.volume, self.block, self.volume))

    def index(self, box: Box) -> int:
        """The block that contains the first voxel of a box."""
        steps = zip(box.begin, self.volume.begin, self.block, strict=True)
        z, y, x = ((b - v) // n for b, v, n in steps)
        return (z * self.counts[1] + y) * self.counts[2] + x

    def parts(self, area: Box) -> Iterator[tuple[Box, Box]]:
        """Yield each block that a box touches, with what they have in common."""
        for block in touched(area, self.block, self.volume):
            part = block.intersect(area)
            assert part is not None
            yield block, part

    def grown(self, box: Box, by: Sequence[int]) -> Box:
        """A box extended by a halo, clipped to the volume."""
        begin = vec3(b - n for b, n in zip(box.begin, by, strict=True))
        end = vec3(e + n for e, n in zip(box.end, by, strict=True))
        found = Box(begin, end).intersect(self.volume)
        assert found is not None
        return found

    def reads(self, box: Box) -> Box:
        """The box of probabilities to read for labelling a block."""
        if not self.affinities:
            return box
        return self.grown(box, [max([HALO, *(abs(e[axis]) for _, e in self.far)]) for axis in range(3)])

    def sees(self, box: Box) -> Box:
        """The box of labels to read for relabelling a block."""
        return box if self.local else self.grown(box, self.halo)

    def voxels(self, box: Box, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Convert flat indices of voxels in a box to flat indices in the volume."""
        z, y, x = (
            i + b - v for i, b, v in zip(np.unravel_index(flat, box.size), box.begin, self.volume.begin, strict=True)
        )
        _, height, width = self.volume.size
        found: NDArray[np.int64] = (z * height + y) * width + x
        return found

    def text(self) -> dict[str, object]:
        """The attributes as plain values, to be stored with the results."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return found | {"volume": [list(self.volume.begin), list(self.volume.end)]}


def check_decoder(decoder: str) -> None:
    """Raise unless the decoder exists."""
    if decoder not in DECODERS:
        raise InputError("decoder", decoder, f"one of {', '.join(DECODERS)}")


def seams(box: Box, edge: Vec3, volume: Box) -> Iterator[Box]:
    """Voxels v of a block whose partner v - edge lies in another block, as boxes that do not overlap.

    ::

        edge (0, 1, 2)      + + + + +       +  the slab along y
                            . . . . # #     #  the slab along x, without the first
                            (mirrored: partners lie towards the origin)
    """
    ends = list(zip(*box, *volume, edge, strict=True))
    valid = [(max(b, low + d), min(e, high + d)) for b, e, low, high, d in ends]
    inside = [(max(b, b + d), min(e, e + d)) for b, e, _, _, d in ends]
    for axis in range(3):
        (low, high), (first, last) = valid[axis], inside[axis]
        leaving = ((low, first), (last, high)) if first < last else ((low, high),)
        for begin, end in leaving:
            ranges = [*inside[:axis], (begin, end), *valid[axis + 1 :]]
            if all(b < e for b, e in ranges):
                yield Box(vec3(b for b, _ in ranges), vec3(e for _, e in ranges))


def memory_of(plan: Plan) -> tuple[int, int]:
    """Upper bound on the bytes for one block, and an estimate of the bytes for the region graph of the volume.

    Measured on tissue: a block takes 40 bytes per voxel plus 10 per channel for affinities, 60 for `watershed`, 30 for
    `objects`; a graph has 5,300 edges per million voxels, 400 bytes each.
    """
    box = plan.boxes[0]
    if plan.affinities:
        block = box.voxels * (40 + 10 * len(plan.edges))
    else:
        block = plan.reads(box).voxels * 30
    return max(block, 0 if plan.local else plan.sees(box).voxels * 60), plan.graph_bytes
