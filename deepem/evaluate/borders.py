"""Mask out voxels near the borders of true objects, which some scores ignore."""

from __future__ import annotations

import numpy as np

from deepem.evaluate.overlaps import Array
from deepem.utils.geometry import Vec3


def inside(truth: Array, reach: Vec3) -> Array:
    """Mask of the voxels whose whole neighbourhood belongs to one object.

    Manually drawn borders are off by a voxel or two, so CREMI, for example, ignores voxels near them. To process a
    volume in blocks, read `reach` extra voxels on each side and crop them from the result.

    Args:
        truth: (Z, Y, X) ids, any integer type; 0 is an object like any other.
        reach: A voxel counts if all voxels up to this far away along z, y and x have its id. Voxels outside the array
            are ignored.

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
