"""More instances than the tissue had: copies of those that a patch holds, elsewhere in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from deepem.data.transform.base import SPLIT, Apply, Array, Augment, Sample, Spec, keep, owned, probability
from deepem.data.transform.field import F32
from deepem.data.transform.perturb import round_to
from deepem.utils.crop import centre_crop
from deepem.utils.geometry import Vec3, vec3

Mask = NDArray[np.bool_]

DRAWS = 256
"""Voxels that are drawn to find an instance that can be copied."""


@dataclass(frozen=True, repr=False)
class CopyPaste(Augment):
    """Copy instances of the patch to other places in it, with their membranes: moved, mirrored, y and x exchanged.

    Only within their sections, and only those that touch no side of the patch in y or x, so that no cut face shows
    without a membrane; a process that runs through all sections can be copied. What is copied::

        image             the instance, and about it a rim that fades out: its membrane
        classes, masks    the instance and the half of the rim that shows more of it than of what was there
        ids               the instance: a new id
                          the rim: what was there, as the outer half of a membrane belongs to the neighbour; but 0 where
                          the source has 0, for segmentations with a gap between instances

    So the ids stay true to the image: inside is new, outside is as before, and the membrane lies between. What is not
    true to nature is that a copy lies across its new neighbours, or within one, which may be left in pieces (`Label`
    behind it tells them apart), and that it may be brighter or darker than they are. It is a regulariser for dense
    segmentations and shows rare classes more often. Where arrays differ in size, only what all of them hold is copied.

    Attributes:
        number: At most so many copies, their number uniform in 1..number; fewer where few instances are whole.
        rim: Voxels in y and x by which a copy is wider than its instance to either side.
        aniso: A voxel is so many times as long in z as in y and x: in z, the rim is as much narrower.
        radius: Voxels: a disk as large fits into half of an instance's sections or more. Spares the splinters of a
            segmentation, which show no tissue of their own.
        largest: The share of the patch that an instance has at most.
        skip: How often nothing happens.
    """

    number: int = 2
    rim: int = 4
    aniso: float = 10
    radius: float = 5
    largest: float = 0.05
    skip: float = 0.5

    def __post_init__(self) -> None:
        probability("skip", self.skip)
        probability("largest", self.largest)
        if self.number < 1 or self.radius < 1:
            raise ValueError(f"number, radius: got {self.number}, {self.radius}, wants 1 or more of each")
        if self.rim < 0 or self.aniso <= 0:
            raise ValueError(f"rim, aniso: got {self.rim}, {self.aniso}, wants no negative voxels, a positive factor")

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether; the request stays as it is. Instances are drawn when they are seen."""
        if not spec.segs or rng.random() < self.skip:
            return spec, keep
        number = int(rng.integers(1, self.number + 1))

        def apply(sample: Sample) -> Sample:
            common = vec3(min(axis) for axis in zip(*(a.shape[-3:] for a in sample.values()), strict=True))
            for _ in range(number):
                found = self._find(centre_crop(sample[spec.segs[0]], common)[0], rng)
                if found is None:
                    break
                for key in sample:
                    sample[key] = owned(sample[key])
                self._paste({k: centre_crop(a, common) for k, a in sample.items()}, spec, *found, rng)
            return sample

        return spec, apply

    def _find(self, ids: Array, rng: np.random.Generator) -> tuple[Mask, Vec3] | None:
        """Draw an instance that can be copied, in proportion to its size: its box, rim included, and where that is."""
        near = self.rim + 1
        sides = [ids[:, :near], ids[:, -near:], ids[:, :, :near], ids[:, :, -near:]]
        cut = {0}.union(*(np.unique(side).tolist() for side in sides))
        drawn = ids.ravel()[rng.integers(ids.size, size=DRAWS)]
        for instance in dict.fromkeys(drawn.tolist()):
            if instance in cut:
                continue
            inside: Mask = ids == instance
            if np.count_nonzero(inside) > self.largest * ids.size:
                continue
            box, begin = self._boxed(inside)
            widths = [cv2.distanceTransform(s, cv2.DIST_L2, 3).max() for s in box.astype(np.uint8) if s.any()]
            if np.median(widths) >= self.radius:
                return box, begin
        return None

    def _boxed(self, inside: Mask) -> tuple[Mask, Vec3]:
        """The box around an instance and its rim, as far as sections reach, and where it begins."""
        begin, end = [], []
        rims = (int(self.rim / self.aniso), self.rim, self.rim)
        for axis, (rim, n) in enumerate(zip(rims, inside.shape, strict=True)):
            hit = np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis})))
            begin.append(max(int(hit[0]) - rim, 0))
            end.append(min(int(hit[-1]) + 1 + rim, n))
        return inside[begin[0] : end[0], begin[1] : end[1], begin[2] : end[2]], vec3(begin)

    def _paste(self, sample: Sample, spec: Spec, inside: Mask, begin: Vec3, rng: np.random.Generator) -> None:
        """Copy what is in a box, and in it the instance and its rim, to a random place; all arrays are of one size."""
        pose = rng.random(3) < 0.5
        _, tall, wide = sample[spec.segs[0]].shape[1:]
        depth, rows, cols = inside.shape
        exchange = bool(pose[2]) and cols <= tall and rows <= wide
        h, w = (cols, rows) if exchange else (rows, cols)
        y, x = int(rng.integers(tall - h + 1)), int(rng.integers(wide - w + 1))
        z0, y0, x0 = begin

        def posed(block: Array) -> Array:
            mirrored = block[..., :: -1 if pose[0] else 1, :: -1 if pose[1] else 1]
            return mirrored.swapaxes(-1, -2) if exchange else mirrored

        instance, weight = posed(inside), posed(self._weight(inside))
        more = weight >= 0.5
        for key, array in sample.items():
            block = posed(array[:, z0 : z0 + depth, y0 : y0 + rows, x0 : x0 + cols])
            there = array[:, z0 : z0 + depth, y : y + h, x : x + w]
            if key in spec.images:
                there[...] = round_to(there + weight * (block.astype(np.float32) - there), array.dtype)
                continue
            if key.removesuffix(SPLIT) in spec.segs:
                block = np.where(instance, _unused(array), np.where(block == 0, 0, there)).astype(array.dtype)
            there[:, more] = block[:, more]

    def _weight(self, inside: Mask) -> F32:
        """How much of the copy shows: 1 in the instance and the inner half of its rim, then fading to 0 behind it."""
        away = distance_transform_edt(~inside, sampling=(self.aniso, 1, 1))
        weight: F32 = ((self.rim + 1 - away) / (self.rim / 2 + 1)).clip(0, 1).astype(np.float32)
        return weight


def _unused(ids: Array) -> Any:
    """An id that an array does not hold: the next one, or, if there is no higher one, the lowest."""
    top = int(ids.max())
    if top < np.iinfo(ids.dtype).max:
        return ids.dtype.type(top + 1)
    held = set(np.unique(ids).tolist())
    return ids.dtype.type(next(i for i in range(1, len(held) + 2) if i not in held))
