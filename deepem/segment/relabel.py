"""The third phase: labels of a block become ids of segments."""

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
from deepem.utils.geometry import Box, touched

Ids = NDArray[np.uint64]
Write = Callable[[Box, NDArray[Any]], None]
"""Takes a box of the volume and its array."""


def relabel_block(
    plan: Plan, box: Box, regions: Regions, ids: Ids, read_labels: Read, read: Read, read_mask: Read | None = None
) -> Ids:
    """The segments of one block.

    Args:
        plan: What to do.
        box: One of `plan.boxes`.
        regions: Of the volume.
        ids: For each region the id of its segment, from `segment_ids`.
        read_labels: Gives the labels that `label_block` made, of any box.
        read: Gives probabilities, for `watershed` only.
        read_mask: Gives the mask, for `watershed` only.
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
    """The ids of the segments of a box, (Z, Y, X) uint64."""
    blocks = list(touched(area, plan.block, plan.volume))
    labels = read_labels(area)
    found = np.empty(area.size, np.uint64)
    for block in blocks:
        part = block.intersect(area)
        assert part is not None
        here = part.shift(-b for b in area.begin).slices()
        found[here] = regions.of_block(plan.index(block), ids)[labels[here]]
    return found


def oversized(plan: Plan, regions: Regions) -> NDArray[np.bool_]:
    """(N,) bool: the regions of which a side is longer than the halo.

    Objects among them are not split. Of a watershed they are seeds, around which the cut of the volume may show.
    """
    if not len(regions.extents):
        return np.zeros(len(regions.ids), bool)
    sides = regions.extents[:, 3:] - regions.extents[:, :3]
    found: NDArray[np.bool_] = np.any(sides > np.array(plan.halo), axis=1)
    return found


def without_small(found: Ids, min_size: int) -> Ids:
    """The segments of a whole volume without those of fewer voxels."""
    ids, number, sizes = np.unique(found, return_inverse=True, return_counts=True)
    ids[sizes < min_size] = 0
    kept: Ids = ids[number].reshape(found.shape)
    return kept
