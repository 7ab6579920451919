"""Mirrored axes and exchanged y and x."""

from __future__ import annotations

from deepem.data.transform import Augment, Compose, FlipRotate, Label


def get_augmentation(is_train: bool, *, recompute: bool = False) -> Augment:
    """The 16 poses of an anisotropic patch.

    Args:
        is_train: training or validation
        recompute: give pieces of an instance that the patch cuts apart ids of their own
    """
    return Compose([Label() if recompute else None, FlipRotate()])
