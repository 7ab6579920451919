"""As `aug_mip1_v3`, with white missing sections and each of three displacements a misalignment or a slip."""

from __future__ import annotations

from typing import Any, Literal

from deepem.data.transform import Augment, recipe


def get_augmentation(
    is_train: bool,
    *,
    missing: int = 0,
    blur: int = 0,
    box: Literal["noise", "fill"] | None = None,
    lost: bool = False,
    random: bool = False,
    interp: bool = False,
    **numbers: Any,
) -> Augment:
    """Boxes, grey values, one defect of four, blur, warp.

    Args:
        is_train: training or validation
        missing: at most so many missing sections; 0 for none
        blur: at most so many blurry sections; 0 for none
        box: boxes of noise, or of one grey value
        lost: lose sections
        random: missing sections have any grey value instead of a fixed one
        interp: a section that slips leaves its label where it was
        **numbers: what variants of the recipe change, see `recipe.pinky_v2`
    """
    return recipe.pinky_v2(
        is_train, missing=missing, blur=blur, box=box, lost=lost, random=random, interp=interp, **numbers
    )
