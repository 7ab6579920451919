"""Fixed weight masks of one patch, for tools that blend with them; `predict` uses the exact weights of `deepem.scan`.

The mask of a patch is its bump divided by the sum of the bumps of a 3x3x3 grid of such patches, which is its blending
weight in the middle of a volume. At a volume's border, where neighbours are missing, such masks do not sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.scan.weights import BUMPS, axis_weights
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Float = NDArray[np.float32]


def make_mask(patch_size: Vec3, overlap: Vec3, edge: Vec3 | None = None, bump: str = "zung") -> Float:
    """Return the (Z, Y, X) float32 mask of the middle patch of a 3x3x3 grid.

    Args:
        patch_size: (z, y, x) voxels.
        overlap: (z, y, x) voxels that neighbouring patches share.
        edge: Give weight 0 to the planes of a patch where this edge has no partner: the first planes for a positive
            component, the last ones for a negative one.
        bump: ``zung``, ``wu``, or ``wu_no_crust``.

    The mask is 0 where neither the patch nor its neighbours have weight.
    """
    if bump not in BUMPS:
        raise InputError("bump", bump, f"one of {', '.join(BUMPS)}")
    if any(not 0 <= v < n for v, n in zip(overlap, patch_size, strict=True)):
        raise InputError("overlap", tuple(overlap), f"0 or more and less than the patch size {tuple(patch_size)}")
    z, y, x = (
        axis_weights((v - n, 0, n - v) if v else (0,), n, bump, d)[0].astype(np.float64)
        for n, v, d in zip(vec3(patch_size), vec3(overlap), vec3(edge or (0, 0, 0)), strict=True)
    )
    return np.asarray(z[:, None, None] * y[:, None] * x, np.float32)


class PatchMask:
    """Multiplies predictions (C, Z, Y, X) by the mask of a patch; ``mask`` is (1, Z, Y, X) float32."""

    def __init__(self, patch_size: Vec3, overlap: Vec3) -> None:
        self.mask: Float = make_mask(patch_size, overlap)[None]

    def __call__(self, prediction: Any) -> Any:
        """Return the weighted prediction."""
        return prediction * self.mask

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.mask, dtype=dtype)


class AffinityMask(PatchMask):
    """The masks of an affinity output, one per edge: ``mask`` is (E, Z, Y, X) float32."""

    def __init__(self, patch_size: Vec3, overlap: Vec3, edges: Sequence[Vec3], bump: str = "zung") -> None:
        self.mask = np.stack([make_mask(patch_size, overlap, edge, bump) for edge in edges])
