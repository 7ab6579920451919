"""A recipe for serial-section transmission EM at 8 nm, with the defects of the FlyEM volumes."""

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
    """Apply grey-value changes, one defect (a shift, one with missing sections, missing, lost), boxes, blur and warp.

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
