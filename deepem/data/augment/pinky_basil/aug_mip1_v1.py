"""Like `aug_mip1_v0`, with fixed grey values; missing sections differ from each other or are all alike."""

from __future__ import annotations

from typing import Literal

from deepem.data.transform import Augment, MixedMissingSection, recipe


def get_augmentation(
    is_train: bool,
    *,
    missing: int = 0,
    blur: int = 0,
    box: Literal["noise", "fill"] | None = None,
    interp: bool = False,
) -> Augment:
    """Apply boxes, grey-value changes, one defect of four, blur and warp.

    Args:
        is_train: training or validation
        missing: maximum number of missing sections; 0 for none
        blur: maximum number of blurry sections; 0 for none
        box: fill boxes with noise or with one grey value
        interp: when a section slips, shift only its image and not its label
    """
    absent: Augment | None = None
    if missing > 0:
        plain = MixedMissingSection(missing, random=False, individual=False)
        absent = recipe.missing_mixed(missing) if is_train else plain
    defects = recipe.early_defects(interp, absent, random=False)
    return recipe.pinky(is_train, recipe.boxes(box), defects, blur)
