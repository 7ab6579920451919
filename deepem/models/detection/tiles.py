"""Merge objects that a detector finds tile by tile into objects of the whole volume.

::

    tile 0  |-----------------|
    tile 1              |-----------------|          tiles overlap,
    core 0  |--------------|                         cores do not: each is cut in the middle of an overlap
    core 1                 |-----------...

A label volume has one object per voxel, so two detections are one object if their masks share more than half of the
smaller one. Boxes do not decide: those of two objects side by side may overlap more than those of an object and a part
of it. Within a tile, the detection with the higher score stays. An object belongs to the tile whose core contains its
centre. If the object is not longer than the overlap, that tile sees all of it. Tiles may disagree on the position of a
centre, so each tile also reports objects centred up to a margin outside its core. Of the reports of one object by
several tiles, one is kept. The order of preference is: an object seen whole before one cut by a face of its tile; one
centred in the core before one outside it; the higher score; the first tile. With an overlap of the longest object plus
twice the margin, every tile sees its reported objects whole. The result does not depend on the order in which tiles are
processed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepem.models.detection.masks import mask_in_box
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

Key = tuple[int, int]
"""(number of the tile, number of the object in it), which identifies a detected object."""


@dataclass(frozen=True)
class Tile:
    """The box that the network sees at a time, and its core, whose objects the tile owns; both in voxels."""

    box: Box
    core: Box


@dataclass(frozen=True, eq=False)
class Found:
    """An object that a tile reports.

    Attributes:
        key: Number of the tile, and number of the object in it.
        box: Bounding box of the mask, in voxels of the volume.
        mask: (Z, Y, X) bool, the voxels of `box`.
        score: Score of the detector.
        label: Class.
        owned: Whether its centre lies in the core of its tile.
        cut: Whether it touches a face of its tile inside the volume.
    """

    key: Key
    box: Box
    mask: NDArray[np.bool_]
    score: float
    label: int
    owned: bool
    cut: bool

    @cached_property
    def voxels(self) -> int:
        """Number of voxels of the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def rank(self) -> tuple[bool, bool, float, Key]:
        """Sort key; the lowest of several overlapping objects is kept."""
        return self.cut, not self.owned, -self.score, self.key


def tiles(size: Vec3, tile: Vec3, overlap: Vec3) -> list[Tile]:
    """Cut a volume into tiles, x fastest; the last tiles end with the volume and overlap more.

    Raises:
        InputError: the overlap is not shorter than the tile.
    """
    axes = []
    for length, side, common in zip(size, tile, overlap, strict=True):
        if not 0 <= common < side:
            raise InputError("overlap", overlap, f"0 or more, and less than the tile, {tile}")
        count = max(-(-(length - common) // (side - common)), 1)
        begins = [max(min(i * (side - common), length - side), 0) for i in range(count)]
        ends = [min(begin + side, length) for begin in begins]
        cuts = [0, *((b + e) // 2 for b, e in zip(begins[1:], ends, strict=False)), length]
        axes.append([(begins[i], ends[i], cuts[i], cuts[i + 1]) for i in range(count)])
    found = []
    for along in itertools.product(*axes):
        begin, end, core_begin, core_end = (vec3(values) for values in zip(*along, strict=True))
        found.append(Tile(Box(begin, end), Box(core_begin, core_end)))
    return found


def handed_on(
    number: int, tile: Tile, size: Vec3, detections: Mapping[str, Tensor], *, threshold: float = 0.5, margin: int = 4
) -> list[Found]:
    """Return the objects that a tile reports.

    Args:
        number: Number of the tile.
        tile: The tile.
        size: Size (z, y, x) of the volume.
        detections: ``boxes``, ``labels``, ``scores`` and ``mask_probs`` of a `MaskRCNN`, in voxels of the tile.
        threshold: Probability above which a voxel belongs to an object.
        margin: Largest distance of a centre from the core, in voxels.
    """
    probabilities, boxes = detections["mask_probs"].cpu(), detections["boxes"].cpu()
    scores, labels = detections["scores"].tolist(), detections["labels"].tolist()
    found = []
    for n, (probability, box) in enumerate(zip(probabilities, boxes, strict=True)):
        if (pasted := mask_in_box(probability, box, tile.box.size)) is None:
            continue
        place, mask = pasted
        begin = place.shift(tile.box.begin).begin
        made = found_in((number, n), tile, size, begin, (mask > threshold).numpy(), scores[n], labels[n])
        found += [] if made is None else [made]
    return reported(found, tile, margin)


def found_in(
    key: Key, tile: Tile, size: Vec3, begin: Vec3, mask: NDArray[np.bool_], score: float, label: int
) -> Found | None:
    """Return an object of a tile, or None if its mask, which begins at a voxel of the volume, is empty."""
    there = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    if not all(map(len, there)):
        return None
    inner = Box(vec3(int(t[0]) for t in there), vec3(int(t[-1]) + 1 for t in there))
    box = inner.shift(begin)
    cut = any(
        (b == tb and tb > 0) or (e == te and te < length)
        for b, e, tb, te, length in zip(*box, *tile.box, size, strict=True)
    )
    return Found(key, box, mask[inner.slices()], score, label, max(beyond(box, tile.core)) == 0, cut)


def beyond(box: Box, core: Box) -> list[int]:
    """Return twice the distance of a box's centre from a core, along each axis, in voxels; 0 within it."""
    twice = [b + e for b, e in zip(*box, strict=True)]
    return [max(2 * b - c, c - (2 * e - 1), 0) for c, b, e in zip(twice, *core, strict=True)]


def reported(found: Sequence[Found], tile: Tile, margin: int) -> list[Found]:
    """Of the detections of a tile, drop those of an object that has a better one, then those far from the core."""
    pairs = [(a, b) for a, b in duplicates(found, found) if a != b]
    distinct = kept(found, pairs, lambda one: (-one.score, one.key))
    return [one for one in distinct if max(beyond(one.box, tile.core)) <= 2 * margin]


def duplicates(first: Sequence[Found], second: Sequence[Found], overlap: float = 0.5) -> list[tuple[Key, Key]]:
    """Pairs of detections from two tiles that are the same object: their masks share this fraction of the smaller."""
    if not first or not second:
        return []
    a, b = (np.array([[*one.box.begin, *one.box.end] for one in some]) for some in (first, second))
    near = (np.minimum(a[:, None, 3:], b[None, :, 3:]) > np.maximum(a[:, None, :3], b[None, :, :3])).all(2)
    return [(first[i].key, second[j].key) for i, j in np.argwhere(near).tolist() if same(first[i], second[j], overlap)]


def same(one: Found, other: Found, overlap: float) -> bool:
    """Whether the masks of two detections share more than a fraction of the smaller one."""
    common = one.box.intersect(other.box)
    if common is None:
        return False
    views = [found.mask[common.shift(-b for b in found.box.begin).slices()] for found in (one, other)]
    inter = int(np.count_nonzero(views[0] & views[1]))
    return inter > overlap * min(one.voxels, other.voxels)


def kept(
    found: Iterable[Found], pairs: Iterable[tuple[Key, Key]], rank: Callable[[Found], Any] = lambda one: one.rank
) -> list[Found]:
    """Keep objects, the lowest rank first, dropping duplicates of kept ones; return them by tile and number."""
    twins: dict[Key, set[Key]] = {}
    for first, second in pairs:
        twins.setdefault(first, set()).add(second)
        twins.setdefault(second, set()).add(first)
    chosen: dict[Key, Found] = {}
    for one in sorted(found, key=rank):
        if chosen.keys().isdisjoint(twins.get(one.key, ())):
            chosen[one.key] = one
    return [chosen[key] for key in sorted(chosen)]


def merged(grid: Sequence[Tile], found: Sequence[Sequence[Found]], overlap: float = 0.5) -> list[Found]:
    """Merge the objects of all tiles, all in memory, into the objects of the volume."""
    pairs = [
        pair
        for i, j in itertools.combinations(range(len(grid)), 2)
        if grid[i].box.intersect(grid[j].box) is not None
        for pair in duplicates(found[i], found[j], overlap)
    ]
    return kept(itertools.chain.from_iterable(found), pairs)


def painted(block: Box, objects: Iterable[tuple[int, Found]]) -> NDArray[np.uint64]:
    """Labels (Z, Y, X) of a block of the volume; where two objects overlap, the one with the higher score wins.

    Args:
        block: Box in voxels of the volume.
        objects: (id, object), at least those that touch the block.
    """
    out = np.zeros(block.size, np.uint64)
    for number, one in sorted(objects, key=lambda pair: (pair[1].score, -pair[0])):
        if (common := one.box.intersect(block)) is not None:
            here = out[common.shift(-b for b in block.begin).slices()]
            here[one.mask[common.shift(-b for b in one.box.begin).slices()]] = number
    return out
