"""Flip axes and swap y and x."""

from __future__ import annotations

from deepem.data.transform import Augment, Compose, FlipRotate, Label


def get_augmentation(is_train: bool, *, recompute: bool = False) -> Augment:
    """Draw one of the 16 orientations of an anisotropic patch.

    Args:
        is_train: training or validation
        recompute: relabel the pieces of instances that the patch cuts apart
    """
    return Compose([Label() if recompute else None, FlipRotate()])
