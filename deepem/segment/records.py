"""The record of a labelled block: plain arrays from which phase 2 assembles the whole volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.graph import Ints, Table, of_arrays, to_arrays
from deepem.segment.plan import Plan, seams
from deepem.utils.geometry import Box, Vec3, vec3

Load = Callable[[int], "Record"]
"""Function that loads the record of a block by its index in `plan.boxes`."""


@dataclass(frozen=True)
class Record:
    """A labelled block with regions 1, 2, ...

    Attributes:
        firsts: (N,) int64, the first voxel of each region, as a flat index in the volume.
        sizes: (N,) int64, the number of voxels of each region.
        extents: (N, 6) int64, the bounding box of each region, begin and end, for `objects` and `watershed`; otherwise
            (0, 6).
        near: Edges between the regions from the nearest affinities, for the decoders in GRAPH.
        far: Edges from long-range affinities.
        shells: uint32, the labels in a slab along each of the six faces, as thick as the plan's reach, concatenated.
        joined: bool, for every pair of voxels across a face along each edge of `plan.joins`, whether the pair is
            joined.
        near_values: uint16, the affinity of each of these pairs.
        far_values: uint16, the affinity of every pair across a face along each long-range edge.
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
        """Return the arrays to save."""
        return to_arrays(self)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Record:
        """Rebuild a record from the result of `arrays`."""
        return cls(**of_arrays(cls, arrays))


def shell_boxes(box: Box, reach: Vec3) -> Iterator[Box]:
    """Yield the slabs along the faces of a block: low and high side, along z, y and x."""
    for axis, thick in enumerate(reach):
        begin, end = box
        low = vec3(min(e, b + thick) if i == axis else e for i, (b, e) in enumerate(zip(begin, end, strict=True)))
        high = vec3(max(b, e - thick) if i == axis else b for i, (b, e) in enumerate(zip(begin, end, strict=True)))
        if thick:
            yield from (Box(begin, low), Box(high, end))


def shells_of(labels: NDArray[np.unsignedinteger[Any]], box: Box, reach: Vec3) -> NDArray[np.uint32]:
    """Labels of the slabs of a block, concatenated."""
    parts = [labels[slab.shift(-b for b in box.begin).slices()].ravel() for slab in shell_boxes(box, reach)]
    return np.concatenate(parts, dtype=np.uint32) if parts else np.zeros(0, np.uint32)


def over_faces(plan: Plan, box: Box, edges: tuple[Vec3, ...]) -> Iterator[tuple[int, Box]]:
    """Yield (edge number, seam) for the pairs of voxels across the faces of a block, in the record's order."""
    for number, edge in enumerate(edges):
        yield from ((number, seam) for seam in seams(box, edge, plan.volume))


def read_shells(plan: Plan, load: Load, first_region: Ints, box: Box) -> Ints:
    """Regions of a box inside the slabs, numbered through the whole volume; 0 is background.

    Args:
        plan: The blocks.
        load: Loads records.
        first_region: For each block, the number of regions before it.
        box: A box that lies within the slabs of every block it touches.
    """
    found = np.empty(box.size, np.int64)
    for block, part in plan.parts(box):
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
