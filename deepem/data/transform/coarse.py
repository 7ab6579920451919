"""Lower the resolution of an image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from deepem.data.transform.base import Array
from deepem.data.transform.perturb import Change, Perturb, planes


@dataclass(frozen=True)
class Coarse(Perturb):
    """Average over squares of voxels (`isotropic`: cubes), then resize by linear interpolation to the original size.

    `factor` is the range from which the side of a square is drawn, in voxels.
    """

    factor: tuple[float, float] = (2.0, 4.0)
    isotropic: bool = False

    def __post_init__(self) -> None:
        if len(self.factor) != 2 or not 1 <= self.factor[0] <= self.factor[1]:
            raise ValueError(f"factor: got {self.factor}, wants a range of factors from 1 up")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the factor."""
        factor = float(rng.uniform(*self.factor))

        def change(block: Array) -> None:
            for plane in planes(block):
                plane[...] = _there_and_back(plane, factor, factor)
            if self.isotropic and block.shape[1] > 1:
                for plane in planes(block.swapaxes(1, 2)):  # (Z, X) at each y
                    plane[...] = _there_and_back(np.ascontiguousarray(plane), factor, 1)

        return change


def _there_and_back(plane: Array, rows: float, cols: float) -> Array:
    """Shrink a section by these factors, to one row and column at least, and enlarge it to its original size."""
    y, x = plane.shape
    small = cv2.resize(plane, (max(round(x / cols), 1), max(round(y / rows), 1)), interpolation=cv2.INTER_AREA)
    back: Array = cv2.resize(small, (x, y), interpolation=cv2.INTER_LINEAR)
    return back
