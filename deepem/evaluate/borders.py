"""Voxels near the border between true objects, which a score may leave out."""

from __future__ import annotations

import numpy as np

from deepem.evaluate.overlaps import Array
from deepem.utils.geometry import Vec3


def inside(truth: Array, reach: Vec3) -> Array:
    """A mask of the voxels whose neighbourhood belongs to their own object.

    Manual borders are a voxel or two off, and CREMI, for one, does not count what lies near them. Blocks need `reach`
    voxels of their surroundings on each side, cut off again afterwards.

    Args:
        truth: (Z, Y, X) ids, any integer type; 0 is an object like any other.
        reach: A voxel counts if all voxels no further than this along z, y and x have its id. What lies outside the
            array does not matter.

    Returns:
        (Z, Y, X) bool.
    """
    alike = np.ones(truth.shape, bool)
    for axis, far in enumerate(reach):
        kept = alike.copy()
        for step in range(1, min(far, truth.shape[axis] - 1) + 1):
            low = (slice(None),) * axis + (slice(None, -step),)
            high = (slice(None),) * axis + (slice(step, None),)
            same = truth[low] == truth[high]
            kept[low] &= same & alike[high]
            kept[high] &= same & alike[low]
        alike = kept
    return alike
