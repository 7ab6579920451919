"""Phase 3: turn the labels of a block into ids of segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import quantise
from deepem.segment.holes import fill_holes
from deepem.segment.join import Regions
from deepem.segment.label import Read
from deepem.segment.plan import Plan
from deepem.segment.split import split_objects
from deepem.segment.watershed import flood
from deepem.utils.geometry import Box

Ids = NDArray[np.uint64]
Write = Callable[[Box, NDArray[Any]], None]
"""Function that writes an array to a box of the volume."""


def relabel_block(
    plan: Plan, box: Box, regions: Regions, ids: Ids, read_labels: Read, read: Read, read_mask: Read | None = None
) -> Ids:
    """Compute the segments of one block.

    Args:
        plan: The segmentation.
        box: One of `plan.boxes`.
        regions: The regions of the volume.
        ids: The segment id of each region, from `segment_ids`.
        read_labels: Reads the labels from `label_block` for any box.
        read: Reads probabilities, for `watershed` only.
        read_mask: Reads the mask, for `watershed` only.
    """
    area = plan.sees(box)
    found = read_ids(plan, area, regions, ids, read_labels)
    if plan.decoder == "watershed":
        mask = None if read_mask is None else np.asarray(read_mask(area)) != 0
        found = flood(quantise(read(area))[0], found, mask, plan, area)
    if plan.split:
        found = split_objects(found, ids[oversized(plan, regions)], plan, area)
    if plan.holes:
        found = fill_holes(found, plan.halo)
    return np.ascontiguousarray(found[box.shift(-b for b in area.begin).slices()])


def read_ids(plan: Plan, area: Box, regions: Regions, ids: Ids, read_labels: Read) -> Ids:
    """Segment ids of a box, (Z, Y, X) uint64."""
    labels, found = read_labels(area), np.empty(area.size, np.uint64)
    for block, part in plan.parts(area):
        here = part.shift(-b for b in area.begin).slices()
        found[here] = regions.of_block(plan.index(block), ids).take(labels[here])
    return found


def assembled(plan: Plan, area: Box, labels_of: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """The labels of a box, from those of its blocks by their index in `plan.boxes`."""
    parts = list(plan.parts(area))
    if parts == [(area, area)]:
        return labels_of(plan.index(area))
    found = np.empty(area.size, np.uint32)
    for block, part in parts:
        there = part.shift(-b for b in block.begin).slices()
        found[part.shift(-b for b in area.begin).slices()] = labels_of(plan.index(block))[there]
    return found


def oversized(plan: Plan, regions: Regions) -> NDArray[np.bool_]:
    """(N,) bool: regions that are longer than the halo along some axis.

    Objects of this length are not split. Watershed seeds of this length may show the borders between blocks.
    """
    if not len(regions.extents):
        return np.zeros(len(regions.ids), bool)
    sides = regions.extents[:, 3:] - regions.extents[:, :3]
    found: NDArray[np.bool_] = np.any(sides > np.array(plan.halo), axis=1)
    return found


def without_small(found: Ids, min_size: int) -> Ids:
    """Remove segments of fewer voxels from a whole volume."""
    ids, number, sizes = np.unique(found, return_inverse=True, return_counts=True)
    ids[sizes < min_size] = 0
    kept: Ids = ids[number].reshape(found.shape)
    return kept
