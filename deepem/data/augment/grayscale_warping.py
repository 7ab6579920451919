"""Grey values per section and smooth warps, each behind its flag; mirrored axes and exchanged y and x."""

from __future__ import annotations

from deepem.data.transform import Augment, Compose, FlipRotate, Label, recipe


def get_augmentation(
    is_train: bool, *, recompute: bool = False, grayscale: bool = False, warping: bool = False
) -> Augment:
    """Poses, and in training what the flags ask for.

    Args:
        is_train: training or validation
        recompute: give pieces of an instance that the patch cuts apart ids of their own
        grayscale: vary contrast, brightness and gamma per section
        warping: rotate, shear, scale and stretch sections
    """
    return Compose(
        [
            Label() if recompute else None,
            recipe.grey() if is_train and grayscale else None,
            recipe.warp() if is_train and warping else None,
            FlipRotate(),
        ]
    )
