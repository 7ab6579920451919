"""Like `flyem.aug_mip1`, but boxes come first, so that the defects change them too."""

from __future__ import annotations

from typing import Literal

from deepem.data.transform import Augment, recipe


def get_augmentation(
    is_train: bool,
    *,
    missing: int = 0,
    blur: int = 0,
    box: Literal["noise", "fill"] | None = None,
    lost: bool = False,
    random: bool = False,
    motion: int = 0,
    misalign_rot: float = 0.0,
) -> Augment:
    """Apply boxes, grey-value changes, one defect of four, blur and warp.

    Args:
        is_train: training or validation
        missing: maximum number of missing sections; 0 for none
        blur: maximum number of blurry sections; 0 for none
        box: fill boxes with noise or with one grey value
        lost: remove sections from image and labels
        random: give missing sections random grey values instead of a fixed one
        motion: maximum number of sections with motion blur; 0 for none
        misalign_rot: also rotate misaligned sections, by up to this many degrees
    """
    defects = recipe.defects(
        is_train, recipe.shifts_or_slips(rot=misalign_rot), missing=missing, lost=lost, random=random
    )
    return recipe.pinky(is_train, recipe.boxes(box), defects, blur, motion)
