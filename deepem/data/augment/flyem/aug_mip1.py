"""Serial-section transmission EM at 8 nm: the defects of the FlyEM volumes."""

from __future__ import annotations

from typing import Literal

from deepem.data.transform import Augment, Compose, FlipRotate, recipe


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
    """Grey values, one defect of four (a shift, one with missing sections, missing, lost), boxes, blur, warp.

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
    shift = recipe.shifts_or_slips(rot=misalign_rot)
    return Compose(
        [
            recipe.grey(),
            recipe.defects(is_train, shift, missing=missing, lost=lost, random=random),
            recipe.boxes(box) if is_train else None,
            recipe.blurry(blur),
            recipe.moved(motion),
            recipe.warp() if is_train else None,
            FlipRotate(),
        ]
    )
