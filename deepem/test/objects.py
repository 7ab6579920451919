"""Objects of a volume of any size: found tile by tile, merged, numbered, and painted block by block.

Each step reads what the steps before it have left in a folder, so that whoever goes on after a kill, or beside others,
gives the same::

    tiles/N.npz    find    what tile N hands on: boxes, masks, scores
    kept.npz       merge   the objects of the volume, without what two tiles have both found
    blocks/N.npz   count   the voxels of each of them that are seen in block N
    table.npz      number  those that are seen anywhere, numbered from 1

The network sees a tile and nothing else, alone, so it does not matter how tiles are shared out. A step needs memory for
a tile or a block, for the objects of the tiles that it touches, and for a row of numbers of each object of the volume.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepem.blocks.folder import Folder
from deepem.models.detection.tiles import Found, Tile, duplicates, handed_on, kept, painted, tiles
from deepem.test.found import pack, unpack
from deepem.utils.geometry import Box, Tiles, Vec3, vec3

Array = NDArray[Any]
Detect = Callable[[Box], Mapping[str, Tensor]]
"""From a box of the volume to ``boxes``, ``labels``, ``scores`` and ``mask_probs`` of the objects in it."""

AT_HAND = 64
"""Tiles whose objects are kept in memory."""


class Objects:
    """The steps from tiles to a label volume.

    Args:
        folder: What the steps leave for each other.
        size: (z, y, x) of the volume.
        tile: What the network sees at a time.
        overlap: Of neighbouring tiles, (z, y, x) voxels.
        block: What is painted at a time.
        threshold: Probability above which a voxel is of an object.
    """

    def __init__(
        self, folder: Folder, size: Vec3, tile: Vec3, overlap: Vec3, block: Vec3, threshold: float = 0.5
    ) -> None:
        self.folder, self.size, self.threshold = folder, size, threshold
        self.grid: Sequence[Tile] = tiles(size, tile, overlap)
        self.blocks = Tiles(Box((0, 0, 0), size), block)
        self._axes = [sorted({(t.box.begin[axis], t.box.end[axis]) for t in self.grid}) for axis in range(3)]
        self.found = lru_cache(AT_HAND)(self._found)

    def touching(self, box: Box) -> list[int]:
        """The numbers of the tiles that share voxels with a box, rising."""
        along = [
            [i for i, (b, e) in enumerate(axis) if b < end and begin < e]
            for axis, begin, end in zip(self._axes, *box, strict=True)
        ]
        _, ys, xs = (len(axis) for axis in self._axes)
        return [(z * ys + y) * xs + x for z, y, x in itertools.product(*along)]

    def find(self, number: int, detect: Detect) -> int:
        """Find the objects of a tile, and return how many it hands on."""
        tile = self.grid[number]
        some = handed_on(number, tile, self.size, detect(tile.box), threshold=self.threshold)
        self.folder.put(f"tiles/{number}.npz", pack(some))
        return len(some)

    def is_found(self, number: int) -> bool:
        """Whether the objects of a tile are there."""
        return self.folder.get(f"tiles/{number}.npz") is not None

    def merge(self) -> int:
        """Choose the objects of the volume, and return how many they are."""
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
        """Count the voxels of each object that are seen in a block."""
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
        """Number the objects that are seen anywhere, from 1, and return how many they are."""
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
        """A block of the volume of labels, (Z, Y, X) of `dtype`."""
        box = self.blocks[number]
        names, labels = self._painted(box)
        final = np.searchsorted(self.numbered["names"], names) + 1  # what is not seen is not in `labels`
        return box, np.concatenate([[0], final]).astype(self.dtype)[labels]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the volume of labels."""
        return np.dtype(np.uint32 if len(self.numbered["names"]) < 2**32 else np.uint64)

    def rows(self, offset: Vec3 = (0, 0, 0)) -> Iterator[tuple[Any, ...]]:
        """The rows of the table of objects, see `deepem.test.found`; `offset` is added to places."""
        table, shift = self.numbered, np.array(offset)
        for n, row in enumerate(zip(*(table[k] for k in ("label", "score", "box", "voxels", "centroid")), strict=True)):
            label, score, box, voxels, centroid = row
            yield (n + 1, int(label), float(score), *(box + np.tile(shift, 2)).tolist(), int(voxels),
                   *(centroid + shift).tolist())  # fmt: skip

    @cached_property
    def chosen(self) -> dict[str, Array]:
        """The objects of the volume, by tile and number."""
        return self._get("kept.npz")

    @cached_property
    def numbered(self) -> dict[str, Array]:
        """Those that are seen."""
        return self._get("table.npz")

    def _painted(self, box: Box) -> tuple[Array, Array]:
        """The objects that touch a block, as indices into `chosen`, and the block, n + 1 for the n-th of them."""
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
    """Objects that do not keep their masks in memory: to choose among them takes none."""
    none = np.zeros((0, 0, 0), bool)
    for some in every:
        for one in some:
            yield Found(one.key, one.box, none, one.score, one.label, one.owned, one.cut)


def _sums(labels: Array, axis: int, many: int, begin: int) -> Array:
    """For each of the labels 1..many - 1 the sum of the places of its voxels along an axis, in whole numbers."""
    length = labels.shape[axis]
    view = [-1 if a == axis else 1 for a in range(3)]
    both = labels * length + np.arange(length).reshape(view)
    per_place = np.bincount(both.ravel(), minlength=many * length).reshape(many, length)
    found: Array = per_place[1:] @ (np.arange(length) + begin)
    return found


def _extents(labels: Array, many: int, begin: Vec3) -> tuple[Array, Array]:
    """(N, 3) begins and ends of the labels 1..N, in voxels of the volume; zeros for those that are not there."""
    from scipy import ndimage

    places = ndimage.find_objects(labels, many)
    low = [[s.start + b for s, b in zip(p, begin, strict=True)] if p else [0] * 3 for p in places]
    high = [[s.stop + b for s, b in zip(p, begin, strict=True)] if p else [0] * 3 for p in places]
    return np.array(low, np.int64).reshape(-1, 3), np.array(high, np.int64).reshape(-1, 3)


def block_of(size: Vec3, most: Vec3 = (64, 256, 256)) -> Vec3:
    """The block that a volume is painted in."""
    return vec3(min(n, m) for n, m in zip(size, most, strict=True))
