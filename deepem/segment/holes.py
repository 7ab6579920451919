"""Holes: background that a single segment encloses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepem.segment.channels import AXES
from deepem.utils.edges import edge_views
from deepem.utils.geometry import Vec3

Ids = NDArray[np.uint64]


def fill_holes(ids: Ids, largest: Vec3) -> Ids:
    """Fill every hole with the id of the segment around it.

    A hole is a face-connected piece of background that touches exactly one segment and does not reach the array's
    border.

    Args:
        ids: (Z, Y, X) uint64.
        largest: Leave a hole that is longer than this along an axis.
    """
    import cc3d

    background: NDArray[np.uint32] = cc3d.connected_components(ids == 0, connectivity=6, out_dtype=np.uint32)
    count = int(background.max())
    if not count:
        return ids
    least, most = np.full(count + 1, np.iinfo(np.uint64).max), np.zeros(count + 1, np.uint64)
    for edge in AXES:
        (below, above), (first, second) = edge_views(background, edge), edge_views(ids, edge)
        for piece, segment in ((below, second), (above, first)):
            touching = (piece > 0) & (segment > 0)
            np.minimum.at(least, piece[touching], segment[touching])
            np.maximum.at(most, piece[touching], segment[touching])
    hole = least == most
    for number, slices in enumerate(ndimage.find_objects(background.astype(np.int32)), 1):
        if slices is not None and hole[number]:
            ends = zip(slices, ids.shape, largest, strict=True)
            hole[number] = all(s.start > 0 and s.stop < n and s.stop - s.start <= longest for s, n, longest in ends)
    hole[0] = False
    filled = np.where(hole, least, np.uint64(0))
    return np.where(ids == 0, filled[background], ids)
