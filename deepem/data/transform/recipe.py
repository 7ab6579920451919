"""Parts that augmentation recipes share, with the numbers they share."""

from __future__ import annotations

from deepem.data.transform.base import Augment
from deepem.data.transform.grayscale import MixedGrayscale2D
from deepem.data.transform.warp import Warp


def grey() -> Augment:
    """Contrast, brightness and gamma of sections or quadrants of them."""
    return MixedGrayscale2D(0.5, 0.5, prob=1, skip=0.3)


def warp(scale_max: float = 1.1) -> Augment:
    """Rotation up to 45 degrees, shear, scale and stretch, the same in all sections."""
    return Warp(skip=0.3, do_twist=False, rot_max=45.0, scale_max=scale_max)
