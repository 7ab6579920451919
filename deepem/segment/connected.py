"""Components of affinities above a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import AXES
from deepem.utils.edges import edge_slices
from deepem.utils.errors import InputError

Bools = NDArray[np.bool_]


def above_level(near: NDArray[np.uint16], level: int) -> tuple[NDArray[np.uint8], Bools]:
    """Return the edges above a level as bits, and the voxels that have at least one.

    Args:
        near: From `nearest`, (3, Z + 1, Y + 1, X + 1).
        level: Affinities above this join.

    Returns:
        (Z, Y, X) uint8, bit `axis` set where the edge (v, v - 1) along the axis is above the level, and (Z, Y, X) bool.
    """
    below, above = _views(near)
    kept = np.zeros(below[0].shape, np.uint8)
    foreground = np.zeros(kept.shape, bool)
    for axis in range(3):
        joined = below[axis] > level
        kept |= joined.view(np.uint8) * np.uint8(1 << axis)
        foreground |= joined
        foreground |= above[axis] > level
    return kept, foreground


def _views(near: NDArray[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """For each axis, the affinities to the previous voxel and to the next one."""
    above = [near[axis][tuple(slice(1, None) if i == axis else slice(None, -1) for i in range(3))] for axis in range(3)]
    return [near[axis, :-1, :-1, :-1] for axis in range(3)], above


def components(kept: NDArray[np.uint8], foreground: Bools) -> tuple[NDArray[np.uint32], int]:
    """Label the components of kept edges; edges that leave the array are ignored.

    Returns:
        (Z, Y, X) uint32 from 1, with 0 outside the foreground, and the number of components.
    """
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
    labels: NDArray[np.uint32] = cc3d.color_connectivity_graph(graph.T, connectivity=6).T
    return _without_gaps(labels * foreground)


def _without_gaps(labels: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], int]:
    """Relabel to 1, 2, ..., keeping 0. Return the labels and their number."""
    used = np.bincount(labels.ravel()) > 0
    used[0] = False
    numbers = np.cumsum(used, dtype=np.uint32)
    return numbers[labels], int(numbers[-1])
