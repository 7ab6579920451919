"""Like `aug_mip1_v3`, with white missing sections; each of three displacements is a misalignment or a slip."""

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
    """Apply boxes, grey-value changes, one defect of four, blur and warp.

    Args:
        is_train: training or validation
        missing: maximum number of missing sections; 0 for none
        blur: maximum number of blurry sections; 0 for none
        box: fill boxes with noise or with one grey value
        lost: remove sections from image and labels
        random: give missing sections random grey values instead of a fixed one
        interp: when a section slips, shift only its image and not its label
        **numbers: constants that variants of the recipe change; see `recipe.pinky_v2`
    """
    return recipe.pinky_v2(
        is_train, missing=missing, blur=blur, box=box, lost=lost, random=random, interp=interp, **numbers
    )
