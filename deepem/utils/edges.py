"""Views of an array that pair each voxel with its partner along an edge.

An edge (dz, dy, dx) relates voxel v to v - (dz, dy, dx). Along one axis, d > 0::

    index     0  1  2  3  4          d = 2
    first           v--v--v          array[d:]    the voxels v
    second    v--v--v                array[:-d]   their partners v - d

d < 0 swaps the two. The affinity of voxel v is stored at v, so `first` indexes the prediction.
"""

from __future__ import annotations

from typing import Any, TypeVar

from deepem.utils.geometry import Vec3, vec3

A = TypeVar("A")


def edge_slices(edge: Vec3) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return slices of the last three axes for the voxels v and for their partners v - edge."""
    first = tuple(slice(d, None) if d > 0 else slice(None, d or None) for d in edge)
    second = tuple(slice(None, -d) if d > 0 else slice(-d or None, None) for d in edge)
    return first, second


def edge_views(array: A, edge: Vec3) -> tuple[A, A]:
    """Return the views (first, second) of a numpy array or tensor whose last three axes are (z, y, x).

    Both have the same shape; they are empty if the edge is longer than the array.
    """
    whole: Any = array
    if any(abs(d) >= n for d, n in zip(edge, whole.shape[-3:], strict=True)):
        empty = whole[..., 0:0, 0:0, 0:0]
        return empty, empty
    first, second = ((..., *slices) for slices in edge_slices(edge))
    return whole[first], whole[second]


def parse_edge(text: str) -> Vec3:
    """Parse an edge ``z,y,x``; raise ValueError unless it is three integers, not all zero."""
    edge = vec3(text.split(","))  # type: ignore[arg-type]
    if edge == (0, 0, 0):
        raise ValueError("an edge relates two voxels: 0,0,0 is not one")
    return edge
