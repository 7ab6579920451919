"""A recipe for serial-section scanning EM at 6 nm; flags switch on each change, and validation patches stay clean."""

from __future__ import annotations

from typing import Any, Literal

from deepem.data.transform import Augment, recipe


def get_augmentation(
    is_train: bool,
    *,
    recompute: bool = False,
    grayscale: bool = False,
    missing: int = 0,
    blur: int = 0,
    warping: bool = False,
    misalign: int = 0,
    box: Literal["noise", "fill"] | None = None,
    mip: int = 0,
    random: bool = False,
    motion: int = 0,
    misalign_rot: float = 0.0,
    **numbers: Any,
) -> Augment:
    """Apply grey-value changes, misaligned or missing sections, boxes, blur and warp, as the flags say.

    Args:
        is_train: training or validation
        recompute: relabel the pieces of instances that the patch cuts apart
        grayscale: vary contrast, brightness and gamma per section
        missing: maximum number of missing sections; 0 for none
        blur: maximum number of blurry sections; 0 for none
        warping: rotate, shear, scale and stretch sections
        misalign: misalign by fewer voxels than this (2 or more); 0 turns misalignment off
        box: fill boxes with noise or with one grey value
        mip: mip level of the volume; boxes are half as large at each level
        random: give missing sections random grey values instead of a fixed one
        motion: maximum number of sections with motion blur; 0 for none
        misalign_rot: also rotate misaligned sections, by up to this many degrees
        **numbers: constants that variants of the recipe change; see `recipe.kasthuri`
    """
    return recipe.kasthuri(
        is_train,
        recompute=recompute,
        grayscale=grayscale,
        missing=missing,
        blur=blur,
        warping=warping,
        misalign=misalign,
        box=box,
        random=random,
        mip=mip,
        motion=motion,
        misalign_rot=misalign_rot,
        **numbers,
    )
