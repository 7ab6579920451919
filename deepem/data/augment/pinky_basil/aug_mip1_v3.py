"""As `flyem.aug_mip1`, with the boxes first: defects act on them too."""

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
    """Boxes, grey values, one defect of four, blur, warp.

    Args:
        is_train: training or validation
        missing: at most so many missing sections; 0 for none
        blur: at most so many blurry sections; 0 for none
        box: boxes of noise, or of one grey value
        lost: lose sections
        random: missing sections have any grey value instead of a fixed one
        motion: at most so many sections that moved while they were recorded; 0 for none
        misalign_rot: what is shifted is turned too, by up to so many degrees
    """
    defects = recipe.defects(
        is_train, recipe.shifts_or_slips(rot=misalign_rot), missing=missing, lost=lost, random=random
    )
    return recipe.pinky(is_train, recipe.boxes(box), defects, blur, motion)
