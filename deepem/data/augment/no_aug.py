"""No augmentation in training; validation patches are flipped and rotated."""

from __future__ import annotations

from deepem.data.transform import Augment, Compose, FlipRotate, Label


def get_augmentation(is_train: bool, *, recompute: bool = False) -> Augment:
    """Return no augmentation for training, flips and rotations for validation.

    Args:
        is_train: training or validation
        recompute: relabel the pieces of instances that the patch cuts apart
    """
    return Compose([Label() if recompute else None, None if is_train else FlipRotate()])
