"""Edge tables: how strongly two regions are connected, as integers, so that sums do not depend on their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from deepem.segment.runs import flat_steps, shifted, starts
from deepem.utils.geometry import Vec3

Ints = NDArray[np.int64]

_PACKED = 1 << 24


@dataclass(frozen=True)
class Table:
    """Pairs of regions, in ascending order, with summed affinities.

    Attributes:
        pairs: (N, 2) int64, the lower region first, each pair once.
        sums: (N,) int64, the sum of the affinities of all pairs of voxels between the two, in units of 1 / 65535.
        counts: (N,) int64, the number of these pairs of voxels.
    """

    pairs: Ints
    sums: Ints
    counts: Ints

    @classmethod
    def empty(cls) -> Table:
        """A table without pairs."""
        return cls(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean affinity of each pair, in units of 1 / 65535."""
        return self.sums / self.counts

    def mapped(self, to: Ints) -> Table:
        """Relabel the regions, region i becoming to[i], and sum the edges that become parallel."""
        pairs = to[self.pairs]
        return summed(pairs[:, 0], pairs[:, 1], self.sums, self.counts)


def merged(tables: Sequence[Table]) -> Table:
    """Sum several tables over the same regions into one."""
    if not tables:
        return Table.empty()
    pairs, sums, counts = (np.concatenate([getattr(t, name) for t in tables]) for name in ("pairs", "sums", "counts"))
    return summed(pairs[:, 0], pairs[:, 1], sums, counts)


def tabulate(labels: NDArray[Any], affinities: Iterable[tuple[Vec3, NDArray[np.uint16]]]) -> Table:
    """Build the table from the pairs of voxels of an array.

    Args:
        labels: (Z, Y, X), the region of each voxel; 0 is background.
        affinities: For each edge (dz, dy, dx), the affinity of (v, v - edge) at v, (Z, Y, X) uint16.
    """
    labels = np.ascontiguousarray(labels)
    if labels.size and int(labels.max()) >= _PACKED:
        found = [_between(labels, edge, values) for edge, values in affinities]
        u, v, each = (np.concatenate([part[i] for part in found]).astype(np.int64) for i in range(3))
        inside = (u > 0) & (v > 0)
        return summed(u[inside], v[inside], each[inside], np.ones(int(inside.sum()), np.int64))
    packed = np.concatenate([_packed(*_between(labels, edge, values)) for edge, values in affinities])
    packed.sort()
    packed = packed[np.searchsorted(packed, np.uint64(1 << 40)) :]  # without background, which comes first
    key = (packed >> np.uint64(16)).view(np.int64)
    start = starts(key)
    sums = np.add.reduceat((packed & np.uint64(0xFFFF)).view(np.int64), start) if len(key) else np.zeros(0, np.int64)
    rows = np.stack([key[start] >> 24, key[start] & (_PACKED - 1)], axis=1)
    return Table(rows, sums, np.diff(start, append=len(key)))


def _packed(u: NDArray[Any], v: NDArray[Any], affinity: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Both regions and the affinity in 64 bits, which sort several times faster than rows do."""
    found: NDArray[np.uint64] = np.minimum(u, v).astype(np.uint64)
    found <<= np.uint64(24)
    found |= np.maximum(u, v)
    found <<= np.uint64(16)
    found |= affinity
    return found


def _between(
    labels: NDArray[Any], edge: Vec3, values: NDArray[np.uint16]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint16]]:
    """Pairs of voxels in different regions, as flat arrays: region of v, region of v - edge, and affinity."""
    flat, apart = labels.ravel(), np.zeros(labels.size, bool)
    step = int(np.dot(edge, flat_steps(labels.shape)))
    later, earlier = shifted(flat, abs(step))
    np.not_equal(later, earlier, out=apart[step:] if step >= 0 else apart[: len(later)])
    _clear_outside(apart.reshape(labels.shape), edge)
    here = np.flatnonzero(apart)
    u, affinity = flat.take(here), np.ascontiguousarray(values).ravel().take(here)
    here -= step
    return u, flat.take(here), affinity


def _clear_outside(mask: NDArray[np.bool_], edge: Vec3) -> None:
    """Set to False, in place, the voxels whose partner v - edge lies outside the array."""
    for axis, (d, n) in enumerate(zip(edge, mask.shape, strict=True)):
        outside = slice(0, min(d, n)) if d > 0 else slice(max(n + d, 0), n)
        mask[(slice(None),) * axis + (outside,)] = False


def summed(u: Ints, v: Ints, sums: Ints, counts: Ints) -> Table:
    """Build a table from rows in any order; pairs may repeat in either direction, and rows with u == v are dropped."""
    apart = u != v
    low, high = np.minimum(u, v)[apart], np.maximum(u, v)[apart]
    if not len(low):
        return Table.empty()
    width = int(high.max()) + 1
    key = low * width + high
    order = np.argsort(key)
    key = key[order]
    start = starts(key)
    pairs = np.stack(np.divmod(key[start], width), axis=1)
    return Table(pairs, *(np.add.reduceat(x[apart][order], start) for x in (sums, counts)))


def united(pairs: NDArray[np.signedinteger[Any]], count: int) -> Ints:
    """(count,) int64: for each of `count` nodes, the lowest node that it is connected to by pairs (N, 2)."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    groups, group = connected_components(graph, directed=False)
    least = np.zeros(groups, np.int64)
    least[group[::-1]] = np.arange(count - 1, -1, -1)
    found: Ints = least[group]
    return found


_COLUMNS = tuple(field.name for field in fields(Table))


def to_arrays(result: Any) -> dict[str, NDArray[Any]]:
    """Flatten a dataclass of arrays and tables into plain arrays by name, for an npz file."""
    found: dict[str, NDArray[Any]] = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Table):
            found |= {f"{field.name}_{column}": getattr(value, column) for column in _COLUMNS}
        else:
            found[field.name] = value
    return found


def of_arrays(kind: Any, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Rebuild the attributes of a dataclass from the result of `to_arrays`."""
    return {
        field.name: arrays[field.name]
        if field.name in arrays
        else Table(*(arrays[f"{field.name}_{column}"] for column in _COLUMNS))
        for field in fields(kind)
    }
