"""Phase 2, first half: join the regions of all blocks into regions of the volume, and their edges into one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.graph import Ints, Table, merged, of_arrays, summed, to_arrays, united
from deepem.segment.plan import Plan
from deepem.segment.records import Load, over_faces, read_shells
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

_HELD = 64
"""Number of records kept in memory; those of neighbouring blocks are soon needed again."""


Each = Callable[[Callable[[int], Any], Sequence[int]], Iterable[Any]]


@dataclass(frozen=True)
class Regions:
    """The regions of a volume: fragments, seeds or objects, in the order of their ids.

    Attributes:
        ids: (N,) uint64, the index in the volume of a region's least voxel, plus 1.
        sizes: (N,) int64, voxels.
        extents: (N, 6) int64 bounding boxes, begin and end, or (0, 6).
        near: The region graph: edges between regions that touch.
        far: Edges between regions that long-range affinities relate.
        part_of: (M,) int64, for all regions of all blocks in order, the region of the volume that each is part of.
        first_part: (blocks + 1,) int64, the index in `part_of` of each block's first region.
    """

    ids: NDArray[np.uint64]
    sizes: Ints
    extents: Ints
    near: Table
    far: Table
    part_of: Ints
    first_part: Ints

    def of_block(self, index: int, values: NDArray[Any]) -> NDArray[Any]:
        """Lookup table for the labels of a block: region i of the volume becomes values[i], label 0 becomes 0."""
        parts = self.part_of[self.first_part[index] : self.first_part[index + 1]]
        return np.concatenate([np.zeros(1, values.dtype), values[parts]])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save."""
        return to_arrays(self)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Regions:
        """Rebuild regions from the result of `arrays`."""
        return cls(**of_arrays(cls, arrays))


def join(plan: Plan, load: Load, most_edges: int | None = None, each: Each = map) -> Regions:
    """Join the records of all blocks.

    Args:
        plan: The blocks.
        load: Loads the record of a block by its index in `plan.boxes`; called a few times for each record.
        most_edges: Raise if the graph needs more rows than this before parts are summed; a row takes about 400 bytes.
        each: Calls a function for each of many blocks, like `map`; may use several threads.

    Raises:
        InputError: the region graph is too large.
    """
    held = lru_cache(_HELD)(load)
    records = [held(i) for i in range(len(plan.boxes))] if len(plan.boxes) == 1 else None
    load = held if records is None else records.__getitem__
    counts = [(len(r.sizes), len(r.near) + len(r.far)) for r in (load(i) for i in range(len(plan.boxes)))]
    rows = sum(rows for _, rows in counts)
    if most_edges is not None and rows > most_edges:
        raise InputError("region graph", f"{rows:,} edges of blocks", f"{most_edges:,} at most; a part of the volume")
    first = np.cumsum([0, *(n for n, _ in counts)])
    faces = list(each(lambda index: _over_faces_of(plan, load, first, index), range(len(plan.boxes))))
    joined, near, far = zip(*faces, strict=True)
    parts = _Parts(first, np.concatenate(joined), merged(near), merged(far))
    return parts.regions(plan, load)


@dataclass(frozen=True)
class _Parts:
    """Regions of all blocks, numbered consecutively from 1, and the edges between regions of different blocks."""

    first: Ints
    joined: Ints
    near: Table
    far: Table

    def regions(self, plan: Plan, load: Load) -> Regions:
        count = int(self.first[-1])
        blocks = range(len(plan.boxes))
        least_part = united(self.joined, count + 1)[1:] - 1
        records = (load(i) for i in blocks)
        each = [(r.firsts, r.sizes, r.extents) for r in records]
        firsts, sizes, extents = (np.concatenate(x) for x in zip(*each, strict=True))
        roots = np.flatnonzero(least_part == np.arange(count))
        least_voxel = firsts[roots].copy()
        rank = np.empty(count, np.int64)
        rank[roots] = np.arange(len(roots))
        group = rank[least_part]
        np.minimum.at(least_voxel, group, firsts)
        order = np.argsort(least_voxel)
        rank[: len(roots)][order] = np.arange(len(roots))
        part_of = rank[: len(roots)][group]
        total = np.zeros(len(roots), np.int64)
        np.add.at(total, part_of, sizes)
        to = np.append(-1, part_of)
        return Regions(
            ids=least_voxel[order].astype(np.uint64) + np.uint64(1),
            sizes=total,
            extents=_boxes_of(extents, part_of, len(roots)),
            near=merged([self.near.mapped(to), *self._of_blocks("near", load, to, blocks)]),
            far=merged([self.far.mapped(to), *self._of_blocks("far", load, to, blocks)]),
            part_of=part_of,
            first_part=self.first,
        )

    def _of_blocks(self, name: str, load: Load, to: Ints, blocks: range) -> Iterator[Table]:
        for i in blocks:
            table: Table = getattr(load(i), name)
            if len(table):
                yield Table(to[table.pairs + self.first[i]], table.sums, table.counts)


def _boxes_of(extents: Ints, part_of: Ints, count: int) -> Ints:
    """Bounding boxes of regions from those of their parts."""
    if not len(extents):
        return np.zeros((0, 6), np.int64)
    found = np.empty((count, 6), np.int64)
    found[part_of] = extents
    np.minimum.at(found[:, :3], part_of, extents[:, :3])
    np.maximum.at(found[:, 3:], part_of, extents[:, 3:])
    return found


def _over_faces_of(plan: Plan, load: Load, first: Ints, index: int) -> tuple[Ints, Table, Table]:
    """Find the parts that continue across the faces of a block, and the edges between parts that do not."""
    record, joined, near, far = load(index), [np.zeros((0, 2), np.int64)], [], []
    at = 0
    for u, v, n in _pairs(plan, load, first, index, plan.joins):
        joined.append(_continued(u, v, record.joined[at : at + n]))
        if len(record.near_values):
            near.append(_tabulated(u, v, record.near_values[at : at + n]))
        at += n
    at = 0
    for u, v, n in _pairs(plan, load, first, index, tuple(edge for _, edge in plan.far)):
        far.append(_tabulated(u, v, record.far_values[at : at + n]))
        at += n
    return np.concatenate(joined), merged(near), merged(far)


def _pairs(
    plan: Plan, load: Load, first: Ints, index: int, edges: tuple[Vec3, ...]
) -> Iterator[tuple[Ints, Ints, int]]:
    """Yield, by seam, the regions of v and v - edge of all pairs across the faces of a block, and their number."""
    for number, seam in over_faces(plan, plan.boxes[index], edges):
        partner = seam.shift(-d for d in edges[number])
        u, v = (read_shells(plan, load, first, box).ravel() for box in (seam, partner))
        yield u, v, seam.voxels


def _continued(u: Ints, v: Ints, joined: NDArray[np.bool_]) -> Ints:
    """(N, 2) parts that are joined; of neighbouring pairs of the same parts, only the first."""
    pairs = np.stack([u, v], axis=1)[joined & (u > 0) & (v > 0)]
    return pairs[_changes(pairs[:, 0], pairs[:, 1])]


def _tabulated(u: Ints, v: Ints, values: NDArray[np.uint16]) -> Table:
    """Build a table from pairs of voxels. Neighbouring pairs of the same parts are summed first: most of them are."""
    if not len(u):
        return Table.empty()
    start = _changes(u, v)
    sums, counts = np.add.reduceat(values, start, dtype=np.int64), np.diff(start, append=len(u))
    both = (u[start] > 0) & (v[start] > 0)
    return summed(u[start][both], v[start][both], sums[both], counts[both])


def _changes(u: Ints, v: Ints) -> Ints:
    """Where a run of equal pairs starts."""
    return np.flatnonzero(np.append(True, (u[1:] != u[:-1]) | (v[1:] != v[:-1]))[: len(u)])
