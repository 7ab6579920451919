"""Serial-section scanning EM at 6 nm, each change behind its flag; validation sees clean patches."""

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
    """Grey values, misaligned or missing sections, boxes, blur, warp.

    Args:
        is_train: training or validation
        recompute: give pieces of an instance that the patch cuts apart ids of their own
        grayscale: vary contrast, brightness and gamma per section
        missing: at most so many missing sections; 0 for none
        blur: at most so many blurry sections; 0 for none
        warping: rotate, shear, scale and stretch sections
        misalign: misaligned by fewer voxels than this, so 2 at least; 0 for not
        box: boxes of noise, or of one grey value
        mip: level of the volume: boxes have half the size at each
        random: missing sections have any grey value instead of a fixed one
        motion: at most so many sections that moved while they were recorded; 0 for none
        misalign_rot: what is shifted is turned too, by up to so many degrees
        **numbers: what variants of the recipe change, see `recipe.kasthuri`
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
