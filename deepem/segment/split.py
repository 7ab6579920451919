"""Split objects where they are narrow: seeds at maxima of the distance to the surface grow until they meet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepem.segment.channels import FULL
from deepem.segment.plan import Plan
from deepem.segment.runs import measured
from deepem.segment.watershed import grow, renumbered
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, vec3

Ids = NDArray[np.uint64]


def split_objects(ids: Ids, whole: Ids, plan: Plan, area: Box) -> Ids:
    """Split every object; the id of a part is the flat index in the volume of its first voxel, plus 1.

    Each object is split on its own, so the result does not depend on its surroundings.

    Args:
        ids: (Z, Y, X) uint64.
        whole: Objects that are not split.
        plan: Gives the distance between seeds, and the volume that the array lies in.
        area: The box of the array.
    """
    labels, names = renumbered(ids)
    stays = np.isin(names, whole)
    found: Ids = ids.copy()
    for number, slices in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if slices is None or stays[number]:
            continue
        parts = _parts(labels[slices] == number, plan.split)
        count = int(parts.max())
        if count > 1:
            begin = [s.start + b for s, b in zip(slices, area.begin, strict=True)]
            first = plan.voxels(Box.of_size(begin, vec3(parts.shape)), measured(parts, count)[1]).astype(np.uint64)
            here = found[slices]
            here[parts > 0] = (first + np.uint64(1))[parts[parts > 0] - 1]
    return found


def _parts(shape: NDArray[np.bool_], apart: int) -> NDArray[np.uint32]:
    """Parts of one object, (Z, Y, X) uint32 from 1."""
    try:
        import edt
    except ImportError:
        raise InputError("edt", "not installed", "pip install deepem") from None
    padded = np.pad(shape, 1)
    depth: NDArray[np.float32] = edt.edt(padded)[1:-1, 1:-1, 1:-1]
    markers = np.zeros(shape.shape, np.uint32)
    for number, voxel in enumerate(_seeds(depth, apart), 1):
        markers[voxel] = number
    steps: NDArray[np.uint16] = np.rint((1 - depth / max(float(depth.max()), 1)) * FULL).astype(np.uint16)
    return grow(steps, markers, shape)


def _seeds(depth: NDArray[np.float32], apart: int) -> Iterator[tuple[int, int, int]]:
    """Pick the deepest voxels, each farther than a distance from all before it; the first in array order wins a tie."""
    peaks = (depth == ndimage.maximum_filter(depth, size=2 * apart + 1, mode="constant")) & (depth > 0)
    voxels = np.argwhere(peaks)
    order = np.argsort(-depth[peaks], kind="stable")
    taken: list[NDArray[np.int64]] = []
    for voxel in voxels[order]:
        if all(np.square(voxel - other).sum() > apart * apart for other in taken):
            taken.append(voxel)
            yield vec3(voxel)
