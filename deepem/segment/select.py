"""Phase 2, second half: group regions into segments; join or drop small ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepem.segment.agglomerate import merge_tree
from deepem.segment.channels import level
from deepem.segment.graph import Ints, Table, united
from deepem.segment.join import Regions
from deepem.segment.mutex import mutex_watershed
from deepem.segment.plan import GRAPH, Plan
from deepem.segment.tree import MergeTree
from deepem.utils.errors import InputError


def grow_tree(regions: Regions, floor: float = 0.0) -> MergeTree:
    """Compute the merge tree of the regions for `agglomerate`, down to an affinity `floor` in [0, 1]."""
    return merge_tree(regions.near, len(regions.ids), level(floor))


def group(plan: Plan, regions: Regions, threshold: float, tree: MergeTree | None = None) -> Ints:
    """Group regions into segments. Return (N,) int64, the lowest region of the segment that each region is in.

    Args:
        plan: The segmentation.
        regions: The regions of the volume.
        threshold: Affinities above it are joined. Decoders that are not in GRAPH use the threshold of the plan.
        tree: For `agglomerate`, a merge tree that reaches down to the threshold; computed if not given.
    """
    count = len(regions.ids)
    if plan.decoder == "agglomerate":
        return (grow_tree(regions, threshold) if tree is None else tree).cut(threshold)
    if plan.decoder == "mutex":
        return mutex_watershed(regions.near, regions.far, count, threshold)
    return np.arange(count)


def segment_ids(
    plan: Plan, regions: Regions, groups: Ints, *, min_size: int = 0, join_smaller: int = 0
) -> NDArray[np.uint64]:
    """(N,) uint64: the segment id of each region, which is the lowest id of the segment's regions, or 0.

    Args:
        plan: The segmentation.
        regions: The regions of the volume.
        groups: Result of `group`.
        min_size: Segments of fewer voxels become background. `watershed` drops seeds of fewer than `plan.min_seed`
            voxels instead, because the sizes of its segments are known only after phase 3.
        join_smaller: Before that, join segments of fewer voxels to the neighbour with the highest mean affinity.

    Raises:
        InputError: a size is negative, or `join_smaller` is given for a decoder without a region graph.
    """
    for name, value in (("min_size", min_size), ("join_smaller", join_smaller)):
        if value < 0:
            raise InputError(name, value, "0 or more voxels")
    if join_smaller:
        if plan.decoder not in GRAPH:
            raise InputError("join_smaller", f"{join_smaller} for the decoder {plan.decoder}", " or ".join(GRAPH))
        groups = join_small(regions.near, groups, regions.sizes, join_smaller)
    sizes = np.zeros(len(groups), np.int64)
    np.add.at(sizes, groups, regions.sizes)
    least = plan.min_seed if plan.decoder == "watershed" else min_size
    return np.where(sizes[groups] >= least, regions.ids[groups], np.uint64(0))


def join_small(near: Table, groups: Ints, sizes: Ints, smaller: int) -> Ints:
    """Join each group of fewer voxels to the neighbour with the highest mean affinity above 0.

    This repeats until every group is large enough or has no such neighbour.
    """
    count = len(groups)
    while True:
        total = np.zeros(count, np.int64)
        np.add.at(total, groups, sizes)
        table = near.mapped(groups)
        means = table.means
        best = np.full(count, 0.0)
        for side in table.pairs.T:
            np.maximum.at(best, side, means)
        to = np.full(count, count)
        for here, there in (table.pairs.T, table.pairs.T[::-1]):
            wanted = (total[here] < smaller) & (means == best[here]) & (means > 0)
            np.minimum.at(to, here[wanted], there[wanted])  # the lowest one in a tie
        moving = np.flatnonzero(to < count)
        if not len(moving):
            return groups
        groups = united(np.stack([moving, to[moving]], axis=1), count)[groups]
