"""The second phase, second half: regions are grouped into segments, small ones joined or left out."""

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
    """The merge tree of the regions of `agglomerate`, down to an affinity `floor` in [0, 1]."""
    return merge_tree(regions.near, len(regions.ids), level(floor))


def group(plan: Plan, regions: Regions, threshold: float, tree: MergeTree | None = None) -> Ints:
    """(N,) int64: the least region of the segment that each region is in.

    Args:
        plan: What to do.
        regions: Of the volume.
        threshold: What lies above is joined. The other decoders than those of GRAPH take that of the plan.
        tree: For `agglomerate`, a tree that reaches down to the threshold; by default it is grown.
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
    """(N,) uint64: for each region the id of its segment, the least of its regions' ids, or 0.

    Args:
        plan: What to do.
        regions: Of the volume.
        groups: From `group`.
        min_size: Segments of fewer voxels become background. A watershed leaves out seeds of fewer than
            `plan.min_seed` instead: how large its segments are is known after it only.
        join_smaller: Before that, segments of fewer voxels are joined to the neighbour of highest mean affinity.

    Raises:
        InputError: a negative size, or pieces to join without a region graph.
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
    """Groups after each that has fewer voxels went to the neighbour with the highest mean affinity above 0.

    Those that a joined one is still too small for go on, until none is small or has a neighbour.
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
            np.minimum.at(to, here[wanted], there[wanted])  # of equals the least
        moving = np.flatnonzero(to < count)
        if not len(moving):
            return groups
        groups = united(np.stack([moving, to[moving]], axis=1), count)[groups]
