"""What labelling a block leaves behind beside its labels: plain arrays, from which the whole is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.graph import Ints, Table, of_arrays, to_arrays
from deepem.segment.plan import Plan, seams
from deepem.utils.geometry import Box, Vec3, touched, vec3

Load = Callable[[int], "Record"]
"""Gives the record of a block by its index in `plan.boxes`."""


@dataclass(frozen=True)
class Record:
    """A labelled block; its regions are 1, 2, ...

    Attributes:
        firsts: (N,) int64, the least voxel of each region, as an index in the volume.
        sizes: (N,) int64, its voxels.
        extents: (N, 6) int64, its bounding box, begin and end, for `objects` and `watershed`; else (0, 6).
        near: Edges between its regions from the nearest affinities, in the decoders of GRAPH.
        far: Edges from long-range affinities.
        shells: uint32, its labels along its six faces, as thick as the plan's reach, one after another.
        joined: bool, for every pair of voxels over a face, along each of `plan.joins`, whether it is kept.
        near_values: uint16, the affinity of each of these.
        far_values: uint16, the affinity of every pair over a face along each long-range edge.
    """

    firsts: Ints
    sizes: Ints
    extents: Ints
    near: Table
    far: Table
    shells: NDArray[np.uint32]
    joined: NDArray[np.bool_]
    near_values: NDArray[np.uint16]
    far_values: NDArray[np.uint16]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What to save."""
        return to_arrays(self)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Record:
        """The record that `arrays` gave."""
        return cls(**of_arrays(cls, arrays))


def shell_boxes(box: Box, reach: Vec3) -> Iterator[Box]:
    """The slabs along the faces of a block, low and high, along z, y and x."""
    for axis, thick in enumerate(reach):
        begin, end = box
        low = vec3(min(e, b + thick) if i == axis else e for i, (b, e) in enumerate(zip(begin, end, strict=True)))
        high = vec3(max(b, e - thick) if i == axis else b for i, (b, e) in enumerate(zip(begin, end, strict=True)))
        if thick:
            yield from (Box(begin, low), Box(high, end))


def shells_of(labels: NDArray[np.uint32], box: Box, reach: Vec3) -> NDArray[np.uint32]:
    """The labels of the slabs of a block, one after another."""
    parts = [labels[slab.shift(-b for b in box.begin).slices()].ravel() for slab in shell_boxes(box, reach)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


def over_faces(plan: Plan, box: Box, edges: tuple[Vec3, ...]) -> Iterator[tuple[int, Box]]:
    """(edge, seam) for all pairs of voxels that leave a block along edges, in the order of the record's values."""
    for number, edge in enumerate(edges):
        yield from ((number, seam) for seam in seams(box, edge, plan.volume))


def read_shells(plan: Plan, load: Load, first_region: Ints, box: Box) -> Ints:
    """The regions of a box that lies in the slabs of its blocks, as numbers in the whole volume; 0 is background.

    Args:
        plan: The cut.
        load: Gives records.
        first_region: For each block, the number of regions before it.
        box: Anything that is within reach of a face in each block that it touches.
    """
    found = np.empty(box.size, np.int64)
    for block in touched(box, plan.block, plan.volume):
        part = block.intersect(box)
        assert part is not None
        index, start = plan.index(block), 0
        for slab in shell_boxes(block, plan.reach):
            if slab.contains(part):
                values = load(index).shells[start : start + slab.voxels].reshape(slab.size)
                labels = values[part.shift(-b for b in slab.begin).slices()].astype(np.int64)
                found[part.shift(-b for b in box.begin).slices()] = np.where(labels, labels + first_region[index], 0)
                break
            start += slab.voxels
        else:
            raise AssertionError(f"{part} is in no slab of {block}")
    return found
