"""As `aug_mip0_v0` in training, with missing sections each on their own or all alike; validation sees clean patches."""

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
    """Boxes, grey values, one defect of four, blur, warp; poses only in validation.

    Args:
        is_train: training or validation
        missing: at most so many missing sections; 0 for none
        blur: at most so many blurry sections; 0 for none
        box: boxes of noise, or of one grey value
        lost: lose sections
        random: missing sections have any grey value instead of a fixed one
        interp: a section that slips leaves its label where it was
    """
    if not is_train:
        return FlipRotate()
    shift = recipe.shift_or_slip_thrice(interp, factor=2)
    absent = recipe.missing_mixed(missing, value=1) if missing > 0 else None
    defects = recipe.defects(True, shift, absent=absent, lost=lost, random=random, value=1, factor=2)
    return recipe.pinky(True, recipe.boxes(box, (10, 50), (1, 10, 10)), defects, blur)
