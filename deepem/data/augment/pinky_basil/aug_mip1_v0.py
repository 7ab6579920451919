"""Serial-section transmission EM at 8 nm: misaligned, missing and lost sections, in validation too."""

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
    """Boxes, grey values, one defect of four, blur, warp.

    Args:
        is_train: training or validation
        missing: at most so many missing sections; 0 for none
        blur: at most so many blurry sections; 0 for none
        box: boxes of noise, or of one grey value
        interp: a section that slips leaves its label where it was
    """
    absent = MixedMissingSection(missing, random=is_train, individual=False) if missing > 0 else None
    defects = recipe.early_defects(interp, absent, random=is_train)
    return recipe.pinky(is_train, recipe.boxes(box), defects, blur)
