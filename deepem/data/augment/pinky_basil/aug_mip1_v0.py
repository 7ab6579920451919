"""A recipe for serial-section transmission EM at 8 nm: misaligned, missing and lost sections, also in validation."""

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
    absent = MixedMissingSection(missing, random=is_train, individual=False) if missing > 0 else None
    defects = recipe.early_defects(interp, absent, random=is_train)
    return recipe.pinky(is_train, recipe.boxes(box), defects, blur)
