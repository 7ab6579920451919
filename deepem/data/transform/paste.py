"""Copy instances of a patch to other places in the same patch."""

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
"""Number of random voxels tried in the search for an instance that can be copied."""


@dataclass(frozen=True, repr=False)
class CopyPaste(Augment):
    """Copy instances with their membranes to other places in the patch: moved, mirrored, with y and x swapped.

    An instance stays within its sections. It can be copied if it touches no side of the patch in y or x, so that no cut
    face shows up without a membrane; it may run through all sections. This is copied::

        image             the instance and a rim around it (its membrane), which fades out
        classes, masks    the instance and the inner half of the rim, where the copy dominates
        ids               the instance, under a new id
                          the rim keeps the old ids, since the outer half of a membrane belongs to the neighbour;
                          but it becomes 0 where the source is 0, for segmentations with a gap between instances

    The ids therefore match the image: new inside, unchanged outside, with the membrane between. Two things are
    unrealistic. A copy may cut through its new neighbours and leave them in pieces (apply `Label` afterwards to relabel
    the pieces), and it may be brighter or darker than its surroundings. The augmentation regularises dense
    segmentations and shows rare classes more often. If arrays differ in size, only the region that they share changes.

    Attributes:
        number: The number of copies is uniform in 1..number; fewer if there are not enough whole instances.
        rim: Width of the rim in y and x, in voxels.
        aniso: Ratio of a voxel's length in z to its length in y and x; the rim is thinner in z by this factor.
        radius: Copy only instances in which a disk of this radius, in voxels, fits in at least half of the sections.
            This excludes splinters of a segmentation.
        largest: Copy only instances that fill at most this fraction of the patch.
        skip: Probability of leaving the sample unchanged.
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
        """Draw whether to act, and return the request unchanged; instances are drawn from the sample later."""
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
        """Draw an instance that can be copied, weighted by size; return its box with the rim, and its place."""
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
        """Return the box around an instance and its rim, cropped to the patch in z, and where the box begins."""
        begin, end = [], []
        rims = (int(self.rim / self.aniso), self.rim, self.rim)
        for axis, (rim, n) in enumerate(zip(rims, inside.shape, strict=True)):
            hit = np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis})))
            begin.append(max(int(hit[0]) - rim, 0))
            end.append(min(int(hit[-1]) + 1 + rim, n))
        return inside[begin[0] : end[0], begin[1] : end[1], begin[2] : end[2]], vec3(begin)

    def _paste(self, sample: Sample, spec: Spec, inside: Mask, begin: Vec3, rng: np.random.Generator) -> None:
        """Copy the instance and its rim in a box to a random place; all arrays have the same size."""
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
        """Return the opacity of the copy: 1 in the instance and the inner half of its rim, fading to 0 beyond."""
        away = distance_transform_edt(~inside, sampling=(self.aniso, 1, 1))
        weight: F32 = ((self.rim + 1 - away) / (self.rim / 2 + 1)).clip(0, 1).astype(np.float32)
        return weight


def _unused(ids: Array) -> Any:
    """Return an unused id: the maximum plus one or, if the dtype has no higher value, the lowest unused id."""
    top = int(ids.max())
    if top < np.iinfo(ids.dtype).max:
        return ids.dtype.type(top + 1)
    held = set(np.unique(ids).tolist())
    return ids.dtype.type(next(i for i in range(1, len(held) + 2) if i not in held))
