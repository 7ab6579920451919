"""Find the objects of a volume of any size tile by tile, merge and number them, and paint them block by block.

Each step reads the files that earlier steps left in a folder. The result is therefore the same after a kill and with
any number of workers::

    tiles/N.npz    find    the objects of tile N: boxes, masks, scores
    kept.npz       merge   the objects of the volume, without duplicates from overlapping tiles
    blocks/N.npz   count   the number of visible voxels of each object in block N
    table.npz      number  the objects with any visible voxel, numbered from 1

The network sees one tile at a time, so the result does not depend on which worker takes which tile. A step needs memory
for one tile or block, for the objects of the tiles that it touches, and for a row of numbers per object of the volume.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.blocks.folder import Folder
from deepem.build.detector import Detect
from deepem.models.detection.tiles import Found, Tile, duplicates, handed_on, kept, painted, tiles
from deepem.test.found import pack, unpack
from deepem.utils.geometry import Box, Tiles, Vec3, vec3

Array = NDArray[Any]
AT_HAND = 64
"""Number of tiles whose objects are kept in memory."""


class Objects:
    """The steps from tiles to a label volume.

    Args:
        folder: Where the steps keep their results.
        size: Size of the volume, (z, y, x) voxels.
        tile: Size of the network's input.
        overlap: Overlap of neighbouring tiles, (z, y, x) voxels.
        block: Size of the boxes in which the label volume is painted.
        threshold: A voxel with a higher probability belongs to the object.
    """

    def __init__(
        self, folder: Folder, size: Vec3, tile: Vec3, overlap: Vec3, block: Vec3, threshold: float = 0.5
    ) -> None:
        self.folder, self.size, self.overlap, self.threshold = folder, size, overlap, threshold
        self.grid: Sequence[Tile] = tiles(size, tile, overlap)
        self.blocks = Tiles(Box((0, 0, 0), size), block)
        self._axes = [sorted({(t.box.begin[axis], t.box.end[axis]) for t in self.grid}) for axis in range(3)]
        self.found = lru_cache(AT_HAND)(self._found)

    def touching(self, box: Box) -> list[int]:
        """Return the numbers of the tiles that share voxels with a box, in ascending order."""
        along = [
            [i for i, (b, e) in enumerate(axis) if b < end and begin < e]
            for axis, begin, end in zip(self._axes, *box, strict=True)
        ]
        _, ys, xs = (len(axis) for axis in self._axes)
        return [(z * ys + y) * xs + x for z, y, x in itertools.product(*along)]

    def find(self, number: int, detect: Detect) -> int:
        """Find the objects of a tile, store them, and return their number."""
        tile = self.grid[number]
        some = handed_on(number, tile, self.size, detect(tile.box), threshold=self.threshold)
        self.folder.put(f"tiles/{number}.npz", pack(some))
        return len(some)

    def is_found(self, number: int) -> bool:
        """Whether the objects of a tile have been stored."""
        return self.folder.get(f"tiles/{number}.npz") is not None

    def merge(self) -> int:
        """Choose the objects of the volume, and return their number."""
        pairs = []
        for number, tile in enumerate(self.grid):
            for other in self.touching(tile.box):
                if other > number:
                    pairs += duplicates(self.found(number), self.found(other))
        chosen = kept(_without_masks(self.found(number) for number in range(len(self.grid))), pairs)
        rows = [(*one.key, one.label, one.score) for one in chosen]
        columns = np.array(rows, np.float64).reshape(-1, 4).T
        self._put("kept.npz", tile=columns[0].astype(np.int64), number=columns[1].astype(np.int64),
                  label=columns[2].astype(np.int64), score=columns[3])  # fmt: skip
        return len(rows)

    def count(self, number: int) -> None:
        """Count the visible voxels of each object in a block."""
        box = self.blocks[number]
        names, labels = self._painted(box)
        flat, many = labels.ravel(), len(names) + 1
        voxels = np.bincount(flat, minlength=many)[1:]
        sums = [_sums(labels, axis, many, begin) for axis, begin in enumerate(box.begin)]
        low, high = _extents(labels, len(names), box.begin)
        seen = voxels > 0
        self._put(f"blocks/{number}.npz", names=names[seen], voxels=voxels[seen], sums=np.stack(sums, 1)[seen],
                  low=low[seen], high=high[seen])  # fmt: skip

    def is_counted(self, number: int) -> bool:
        """Whether a block has been counted."""
        return self.folder.get(f"blocks/{number}.npz") is not None

    def number(self) -> int:
        """Number the objects with any visible voxel, from 1, and return how many there are."""
        many = len(self.chosen["tile"])
        voxels, sums = np.zeros(many, np.int64), np.zeros((many, 3), np.int64)
        low, high = np.full((many, 3), np.iinfo(np.int64).max), np.zeros((many, 3), np.int64)
        for block in range(len(self.blocks)):
            part = self._get(f"blocks/{block}.npz")
            at = part["names"]
            voxels[at] += part["voxels"]
            sums[at] += part["sums"]
            low[at], high[at] = np.minimum(low[at], part["low"]), np.maximum(high[at], part["high"])
        seen = np.flatnonzero(voxels)
        columns = [seen, self.chosen["label"][seen], self.chosen["score"][seen], voxels[seen]]
        centroid = sums[seen] / voxels[seen, None]
        self._put("table.npz", names=columns[0], label=columns[1], score=columns[2], voxels=columns[3],
                  box=np.concatenate([low[seen], high[seen]], 1), centroid=centroid)  # fmt: skip
        return len(seen)

    def labels(self, number: int) -> tuple[Box, Array]:
        """Return a block of the label volume, (Z, Y, X) of `dtype`."""
        box = self.blocks[number]
        names, labels = self._painted(box)
        final = np.searchsorted(self.numbered["names"], names) + 1  # invisible objects are not in `labels`
        return box, np.concatenate([[0], final]).astype(self.dtype)[labels]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the label volume: uint32, or uint64 for 2^32 objects or more."""
        return np.dtype(np.uint32 if len(self.numbered["names"]) < 2**32 else np.uint64)

    def rows(self, offset: Vec3 = (0, 0, 0)) -> Iterator[tuple[Any, ...]]:
        """Return the rows of the table of objects, see `deepem.test.found`; `offset` is added to positions."""
        table, shift = self.numbered, np.array(offset)
        for n, row in enumerate(zip(*(table[k] for k in ("label", "score", "box", "voxels", "centroid")), strict=True)):
            label, score, box, voxels, centroid = row
            yield (n + 1, int(label), float(score), *(box + np.tile(shift, 2)).tolist(), int(voxels),
                   *(centroid + shift).tolist())  # fmt: skip

    @cached_property
    def chosen(self) -> dict[str, Array]:
        """The objects of the volume, by tile and number within the tile."""
        return self._get("kept.npz")

    @cached_property
    def numbered(self) -> dict[str, Array]:
        """The objects with any visible voxel."""
        return self._get("table.npz")

    def _painted(self, box: Box) -> tuple[Array, Array]:
        """Return the objects in a block, as indices into `chosen`, and the block painted n + 1 for the n-th of them."""
        there: list[tuple[int, Found]] = []
        for tile in self.touching(box):
            first, last = np.searchsorted(self.chosen["tile"], [tile, tile + 1])
            of_key = {int(n): int(first) + i for i, n in enumerate(self.chosen["number"][first:last])}
            there += [
                (of_key[one.key[1]], one)
                for one in self.found(tile)
                if one.key[1] in of_key and one.box.intersect(box) is not None
            ]
        there.sort(key=lambda pair: pair[0])
        labels = painted(box, [(n, one) for n, (_, one) in enumerate(there, 1)])
        return np.array([name for name, _ in there], np.int64), labels.astype(np.int64)

    def _found(self, number: int) -> list[Found]:
        held = self.folder.get(f"tiles/{number}.npz")
        assert held is not None, f"tile {number} has not been worked on"
        return unpack(number, held)

    def _put(self, name: str, **arrays: Array) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        self.folder.put(name, buffer.getvalue())

    def _get(self, name: str) -> dict[str, Array]:
        held = self.folder.get(name)
        assert held is not None, f"{name} is not there"
        with np.load(io.BytesIO(held)) as file:
            return dict(file)


def _without_masks(every: Iterable[Sequence[Found]]) -> Iterator[Found]:
    """Objects without masks in memory, which choosing among them does not need."""
    none = np.zeros((0, 0, 0), bool)
    for some in every:
        for one in some:
            yield Found(one.key, one.box, none, one.score, one.label, one.owned, one.cut)


def _sums(labels: Array, axis: int, many: int, begin: int) -> Array:
    """Return the sum of the voxel coordinates along an axis for each of the labels 1..many - 1, as integers."""
    length = labels.shape[axis]
    view = [-1 if a == axis else 1 for a in range(3)]
    both = labels * length + np.arange(length).reshape(view)
    per_place = np.bincount(both.ravel(), minlength=many * length).reshape(many, length)
    found: Array = per_place[1:] @ (np.arange(length) + begin)
    return found


def _extents(labels: Array, many: int, begin: Vec3) -> tuple[Array, Array]:
    """Return (N, 3) begins and ends of the labels 1..N, in voxels of the volume; zeros for absent labels."""
    from scipy import ndimage

    places = ndimage.find_objects(labels, many)
    low = [[s.start + b for s, b in zip(p, begin, strict=True)] if p else [0] * 3 for p in places]
    high = [[s.stop + b for s, b in zip(p, begin, strict=True)] if p else [0] * 3 for p in places]
    return np.array(low, np.int64).reshape(-1, 3), np.array(high, np.int64).reshape(-1, 3)


def block_of(size: Vec3, most: Vec3 = (64, 256, 256)) -> Vec3:
    """Return the size of the blocks in which a volume is painted."""
    return vec3(min(n, m) for n, m in zip(size, most, strict=True))
