"""Watershed fragments: every voxel follows its steepest edge.

An edge is kept if it is above `low` and the steepest edge of at least one of its voxels (the first one in a tie), or if
it is `high` or more. Fragments are the connected components of the kept edges. Whether an edge is kept depends only on
affinities up to two voxels away, so blocks with a halo of two voxels keep exactly the same edges as the whole volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import AXES, FULL
from deepem.utils.edges import edge_slices
from deepem.utils.errors import InputError

HALO = 2
LOW, HIGH = round(1e-4 * FULL), round(0.9999 * FULL)

Bools = NDArray[np.bool_]


def steepest(near: NDArray[np.uint16], low: int = LOW, high: int = HIGH) -> tuple[NDArray[np.uint8], Bools]:
    """Return the kept edges as bits, and the voxels that have at least one.

    Args:
        near: From `nearest`, (3, Z + 1, Y + 1, X + 1).
        low: A voxel is background if none of its affinities is above this.
        high: Edges of this affinity or more are always kept.

    Returns:
        (Z, Y, X) uint8, bit `axis` set where the edge (v, v - 1) along the axis is kept, and (Z, Y, X) bool.
    """
    below, above = views(near)
    top = np.maximum(below[0], above[0])
    for view in (below[1], above[1], below[2], above[2]):
        np.maximum(top, view, out=top)
    foreground = top > low
    top[~foreground] = FULL  # no edge of the voxel has this value
    kept = np.zeros(tuple(n + 1 for n in top.shape), np.uint8)
    free = np.ones(top.shape, bool)
    here = kept[:-1, :-1, :-1]
    for axis in range(3):
        bit = np.uint8(1 << axis)
        best = below[axis] == top
        best &= free
        free &= ~best
        best |= below[axis] >= high
        here |= best.view(np.uint8) * bit
        best = above[axis] == top
        best &= free
        free &= ~best
        up(kept, axis)[...] |= best.view(np.uint8) * bit
    return here, foreground


def above_level(near: NDArray[np.uint16], level: int) -> tuple[NDArray[np.uint8], Bools]:
    """Return the edges above a level, and the voxels that have at least one, in the form of `steepest`."""
    below, above = views(near)
    kept = np.zeros(below[0].shape, np.uint8)
    foreground = np.zeros(kept.shape, bool)
    for axis in range(3):
        joined = below[axis] > level
        kept |= joined.view(np.uint8) * np.uint8(1 << axis)
        foreground |= joined
        foreground |= above[axis] > level
    return kept, foreground


def views(near: NDArray[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Yield, for each axis, the affinities to the previous voxel and to the next one."""
    return [near[axis, :-1, :-1, :-1] for axis in range(3)], [up(near[axis], axis) for axis in range(3)]


def up(padded: NDArray[Any], axis: int) -> NDArray[Any]:
    """View of a padded array, shifted by one voxel along an axis."""
    return padded[tuple(slice(1, None) if i == axis else slice(None, -1) for i in range(3))]


def components(kept: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Label the components of kept edges, (Z, Y, X) uint32 from 1; edges that leave the array are ignored."""
    try:
        import cc3d
    except ImportError:
        raise InputError("connected-components-3d", "not installed", "pip install deepem") from None
    graph = np.zeros(kept.shape, np.uint8)
    for axis, edge in enumerate(AXES):  # cc3d: +x 1, -x 2, +y 4, -y 8, +z 16, -z 32
        first, second = edge_slices(edge)
        joined = (kept[first] >> np.uint8(axis)) & np.uint8(1)
        shift = np.uint8(2 * (2 - axis))
        graph[second] |= joined << shift
        graph[first] |= joined << (shift + np.uint8(1))
    found: NDArray[np.uint32] = cc3d.color_connectivity_graph(graph.T, connectivity=6).T
    return found


def compact(
    labels: NDArray[np.uint32], foreground: Bools | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Relabel to 1, 2, ... without gaps, 0 outside the foreground. Return the labels and the size of each in voxels."""
    if foreground is not None and not foreground.all():
        labels = labels * foreground
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    used = sizes > 0
    if not used[1:].all():
        labels = np.cumsum(used, dtype=np.uint32)[labels]
    return labels, sizes[used].astype(np.int64)


def first_voxels(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """(count,) int64: the lowest flat index of each label from 1."""
    flat = labels.ravel()
    found = np.zeros(count + 1, np.int64)
    found[flat[::-1]] = np.arange(flat.size - 1, -1, -1)  # with repeated indices the last assignment wins
    return found[1:]
