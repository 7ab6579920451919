"""Overlap table: the number of voxels that every pair of ids shares, from which segmentation scores are computed.

Segments are runs of equal ids along x, so the table is counted run by run, not voxel by voxel::

    truth     1 1 1 1 2 2 2 0        (truth, segment)  voxels
    segment   7 7 9 9 9 9 9 9             (1, 7)         2
    run       a a b b c c c d             (1, 9)         2
                                          (2, 9)         3
                                          (0, 9)         1

Tables of blocks add up exactly, ids stay unsigned 64-bit integers, and memory use is the size of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.utils.errors import InputError

Array = NDArray[Any]

Rows = tuple[Array, Array, Array | None]
"""Rows of the segmentation, the truth and the mask."""

CHUNK = 1 << 17
"""Voxels processed at a time, few enough to stay in the processor's cache."""

PENDING = 1 << 20
"""Number of runs collected before they are summed by pair."""


@dataclass(frozen=True)
class Table:
    """Pairs of ids in ascending order of (truth, segment), each once.

    Attributes:
        truth: (N,) uint64.
        segment: (N,) uint64.
        voxels: (N,) int64, the number of voxels of the pair.
        begin: (N, 3) int64, the first voxel of the pair's bounding box; None if places are not kept.
        end: (N, 3) int64, one past its last voxel.
        sums: (N, 3) int64, the sum of the coordinates of its voxels.
    """

    truth: Array
    segment: Array
    voxels: Array
    begin: Array | None = None
    end: Array | None = None
    sums: Array | None = None

    @classmethod
    def empty(cls, places: bool) -> Table:
        """A table without pairs."""
        ids, where = np.zeros(0, np.uint64), np.zeros((0, 3), np.int64) if places else None
        return cls(ids, ids, np.zeros(0, np.int64), where, where, where)

    @property
    def labelled(self) -> Table:
        """The pairs whose truth id is not 0."""
        return self.where(self.truth != 0)

    def where(self, keep: Array) -> Table:
        """Select pairs by a mask or by indices."""
        return Table(*(None if column is None else column[keep] for column in self.columns()))  # type: ignore[arg-type]

    def columns(self) -> tuple[Array | None, ...]:
        """All columns, in the order of the attributes."""
        return self.truth, self.segment, self.voxels, self.begin, self.end, self.sums

    def by_truth(self) -> tuple[Array, Array]:
        """Truth ids, ascending, and the number of voxels of each."""
        return totals(self.truth, self.voxels)

    def by_segment(self) -> tuple[Array, Array]:
        """Segment ids, ascending, and the number of voxels of each."""
        return totals(self.segment, self.voxels)


class Overlaps:
    """Counts pairs of ids block by block.

    Args:
        places: Keep bounding boxes and coordinate sums too; blocks must then be (Z, Y, X).
    """

    def __init__(self, places: bool = False) -> None:
        self.places = places
        self._table = Table.empty(places)
        self._summed: list[Table] = []
        self._runs: list[Table] = []
        self._pending = 0

    def add(
        self, segmentation: Array, truth: Array, *, mask: Array | None = None, begin: Sequence[int] = (0, 0, 0)
    ) -> None:
        """Add one block.

        Args:
            segmentation: Whole numbers from 0, of any integer type.
            truth: Whole numbers of the same shape; the integer type may differ.
            mask: Voxels where it is 0 do not count.
            begin: First voxel of the block in the volume, (z, y, x); used for bounding boxes and coordinate sums.

        Raises:
            InputError: the shapes differ, an array does not hold whole numbers, or an id is negative.
        """
        segmentation, truth = np.asarray(segmentation), np.asarray(truth)
        check(segmentation, truth, mask)
        if self.places and truth.ndim != 3:
            raise InputError("truth", f"shape {truth.shape}", "(Z, Y, X), for bounding boxes")
        for first_row, rows in _rows(segmentation, truth, mask):
            self._runs.append(self._found(first_row, rows, truth.shape, begin))
            self._pending += len(self._runs[-1].voxels)
            if self._pending > PENDING:
                self._fold()

    def merge(self, other: Overlaps) -> None:
        """Add the counts of another `Overlaps`, for example from another process."""
        if self.places and not other.places:
            raise ValueError("no places were kept in the other table")
        table = other.table()
        self._summed.append(table if self.places else Table(table.truth, table.segment, table.voxels))

    def table(self) -> Table:
        """The pairs counted so far."""
        self._fold()
        if self._summed:
            self._table, self._summed = summed([self._table, *self._summed]), []
        return self._table

    def _fold(self) -> None:
        if self._runs:
            self._summed.append(summed(self._runs))
            self._runs, self._pending = [], 0
        if sum(len(table.voxels) for table in self._summed) > max(PENDING, len(self._table.voxels)):
            self._table, self._summed = summed([self._table, *self._summed]), []

    def _found(self, first_row: int, rows: Rows, shape: tuple[int, ...], begin: Sequence[int]) -> Table:
        """Find the runs in some rows."""
        segment, truth, mask = (None if part is None else part.reshape(-1) for part in rows)
        assert segment is not None
        assert truth is not None
        heads = np.empty(truth.size, bool)
        heads[:1] = True
        np.not_equal(truth[1:], truth[:-1], out=heads[1:])
        heads[1:] |= segment[1:] != segment[:-1]
        if mask is not None:
            heads[1:] |= mask[1:] != mask[:-1]
        if self.places:
            heads[:: shape[-1]] = True
        at = np.flatnonzero(heads)
        length = np.diff(at, append=truth.size)
        if mask is not None:
            counts = mask[at]
            at, length = at[counts], length[counts]
        ids = _as_ids(truth[at], "truth"), _as_ids(segment[at], "segmentation")
        if not self.places:
            return Table(*ids, length)
        row, x = np.divmod(at, shape[-1])
        z, y = np.divmod(row + first_row, shape[-2])
        low = np.stack([z, y, x], 1) + np.asarray(begin, np.int64)
        high = low + 1
        high[:, 2] += length - 1
        sums = low * length[:, None]
        sums[:, 2] += length * (length - 1) // 2
        return Table(*ids, length, low, high, sums)


def check(segmentation: Array, truth: Array, mask: Array | None = None) -> None:
    """Raise unless the arrays hold whole numbers (and a mask) and have the same shape."""
    for name, array in (("segmentation", segmentation), ("truth", truth)):
        if array.dtype.kind not in "iub" or not array.ndim:
            raise InputError(name, f"an array of {array.dtype}, shape {array.shape}", "whole numbers")
    if segmentation.shape != truth.shape:
        raise InputError("segmentation", f"shape {segmentation.shape}", f"that of the truth, {truth.shape}")
    if mask is not None and mask.shape != truth.shape:
        raise InputError("mask", f"shape {mask.shape}", f"that of the truth, {truth.shape}")


def summed(tables: Sequence[Table]) -> Table:
    """Sum several tables into one."""
    columns = zip(*(table.columns() for table in tables), strict=True)
    truth, segment, voxels, begin, end, sums = (
        None if column[0] is None else np.concatenate(column) for column in columns
    )
    assert truth is not None
    assert segment is not None
    assert voxels is not None
    if not truth.size:
        return tables[0]
    order = _order(truth, segment)
    truth, segment = truth[order], segment[order]
    first = np.flatnonzero(np.append(True, (truth[1:] != truth[:-1]) | (segment[1:] != segment[:-1])))
    ids = truth[first], segment[first], np.add.reduceat(voxels[order], first)
    if begin is None or end is None or sums is None:
        return Table(*ids)
    return Table(
        *ids,
        np.minimum.reduceat(begin[order], first),
        np.maximum.reduceat(end[order], first),
        np.add.reduceat(sums[order], first),
    )


def totals(ids: Array, voxels: Array) -> tuple[Array, Array]:
    """Distinct ids, ascending, and the summed voxels of each."""
    if not ids.size:
        return ids, voxels
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    first = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    return ids[first], np.add.reduceat(voxels[order], first)


def _order(truth: Array, segment: Array) -> Array:
    """An order that sorts pairs by truth, then segment: of one packed key where both fit into 64 bits."""
    low_truth, low_segment = truth.min(), segment.min()
    bits = int(segment.max() - low_segment).bit_length()
    if bits + int(truth.max() - low_truth).bit_length() > 64:
        return np.lexsort((segment, truth))
    high = (truth - low_truth) << np.uint64(bits) if bits < 64 else np.zeros_like(truth)
    return np.argsort(high | (segment - low_segment))


def _as_ids(values: Array, name: str) -> Array:
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise InputError(name, f"the id {values.min()}", "ids from 0 on")
    return values.astype(np.uint64)


def _rows(segmentation: Array, truth: Array, mask: Array | None) -> Iterator[tuple[int, Rows]]:
    """(first row, whole rows along the last axis) of about CHUNK voxels, contiguous; a volume is not copied at once."""
    arrays = [segmentation, truth] if mask is None else [segmentation, truth, mask]
    if truth.size == 0:
        return
    first = 0
    for slab in _slabs(arrays):
        step = max(1, CHUNK // slab[0].shape[1])
        for row in range(0, len(slab[0]), step):
            part = [array[row : row + step] for array in slab]
            yield first + row, (part[0], part[1], part[2] != 0 if len(part) > 2 else None)
        first += len(slab[0])


def _slabs(arrays: Sequence[Array]) -> Iterator[list[Array]]:
    """The arrays as rows along their last axis: all at once if that needs no copy, otherwise plane by plane."""
    width = arrays[0].shape[-1]
    if all(array.flags.c_contiguous for array in arrays) or arrays[0].ndim < 3:
        yield [array.reshape(-1, width) for array in arrays]
        return
    for parts in zip(*arrays, strict=True):
        yield [np.ascontiguousarray(part).reshape(-1, width) for part in parts]
