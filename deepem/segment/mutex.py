"""Mutex watershed on the region graph: strongest edges first; attractive edges join, repulsive edges forbid joining.

Near affinities attract by their mean, long-range ones repel by 1 - mean (Wolf et al. 2020, arXiv:1904.12654). A mutex
watershed on voxels would depend on the cut into blocks; on the region graph it does not.
"""

from __future__ import annotations

import numpy as np

from deepem.segment.channels import FULL, level
from deepem.segment.graph import Ints, Table
from deepem.utils.errors import InputError


def mutex_watershed(near: Table, far: Table, count: int, threshold: float) -> Ints:
    """(count,) int64: the lowest region of the group that each region is in.

    Args:
        near: Edges between regions that touch; those above the threshold attract.
        far: Edges between regions that are related by long-range affinities.
        count: Number of regions.
        threshold: Threshold on the affinity.
    """
    try:
        from bioimage_cpp.graph import UndirectedGraph
        from bioimage_cpp.graph.mutex_watershed import mutex_watershed_clustering
    except ImportError:
        raise InputError("bioimage-cpp", "not installed", "pip install deepem") from None
    attracts = near.means > level(threshold)
    if not attracts.any():
        return np.arange(count)
    graph = UndirectedGraph.from_unique_edges(count, near.pairs[attracts].astype(np.uint64))
    attraction, repulsion = near.means[attracts] / FULL, 1 - far.means / FULL
    group = mutex_watershed_clustering(graph, attraction, far.pairs.astype(np.uint64), repulsion).astype(np.int64)
    least = np.zeros(int(group.max()) + 1, np.int64)
    least[group[::-1]] = np.arange(count - 1, -1, -1)
    found: Ints = least[group]
    return found
