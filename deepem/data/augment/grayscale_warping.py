"""Grey-value changes per section and smooth warps, each switched on by a flag; flips and swaps of y and x."""

from __future__ import annotations

from deepem.data.transform import Augment, Compose, FlipRotate, Label, recipe


def get_augmentation(
    is_train: bool, *, recompute: bool = False, grayscale: bool = False, warping: bool = False
) -> Augment:
    """Draw an orientation and, in training, apply what the flags switch on.

    Args:
        is_train: training or validation
        recompute: relabel the pieces of instances that the patch cuts apart
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
