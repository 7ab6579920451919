"""Like `aug_mip0_v0`, with missing sections that differ or are all alike; validation patches stay clean."""

from __future__ import annotations

from typing import Literal

from deepem.data.transform import Augment, FlipRotate, recipe


def get_augmentation(
    is_train: bool,
    *,
    missing: int = 0,
    blur: int = 0,
    box: Literal["noise", "fill"] | None = None,
    lost: bool = False,
    random: bool = False,
    interp: bool = False,
) -> Augment:
    """Apply boxes, grey-value changes, one defect of four, blur and warp; validation has only flips.

    Args:
        is_train: training or validation
        missing: maximum number of missing sections; 0 for none
        blur: maximum number of blurry sections; 0 for none
        box: fill boxes with noise or with one grey value
        lost: remove sections from image and labels
        random: give missing sections random grey values instead of a fixed one
        interp: when a section slips, shift only its image and not its label
    """
    if not is_train:
        return FlipRotate()
    shift = recipe.shift_or_slip_thrice(interp, factor=2)
    absent = recipe.missing_mixed(missing, value=1) if missing > 0 else None
    defects = recipe.defects(True, shift, absent=absent, lost=lost, random=random, value=1, factor=2)
    return recipe.pinky(True, recipe.boxes(box, (10, 50), (1, 10, 10)), defects, blur)
