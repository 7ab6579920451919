"""Augmentations and constants that several recipes share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from deepem.data.transform.base import Augment
from deepem.data.transform.blurry import MixedBlurrySection, MixedMotionBlur
from deepem.data.transform.box import FillBox, NoiseBox
from deepem.data.transform.compose import Blend, Compose
from deepem.data.transform.flip import FlipRotate
from deepem.data.transform.grayscale import MixedGrayscale2D
from deepem.data.transform.label import Label
from deepem.data.transform.lost import LostPlusMissing, LostSection
from deepem.data.transform.misalign import Misalign, MisalignPlusMissing, SlipMisalign
from deepem.data.transform.missing import MissingSection, MixedMissingSection
from deepem.data.transform.warp import Warp
from deepem.utils.geometry import Vec3

DISPLACEMENTS = (5, 15, 25)
"""Exclusive upper bounds, in voxels, of the three misalignments of a patch."""


def variant(recipe: Callable[..., Augment], **numbers: Any) -> Callable[..., Augment]:
    """Return a recipe's `get_augmentation` with the flags of another recipe and some constants changed."""

    @wraps(recipe)
    def get_augmentation(is_train: bool, **flags: Any) -> Augment:
        return recipe(is_train, **flags, **numbers)

    return get_augmentation


def grey() -> Augment:
    """Change contrast, brightness and gamma of sections or quadrants of them."""
    return MixedGrayscale2D(0.5, 0.5, prob=1, skip=0.3)


def warp(scale_max: float = 1.1) -> Augment:
    """Rotate by up to 45 degrees, shear, scale and stretch all sections alike."""
    return Warp(skip=0.3, do_twist=False, rot_max=45.0, scale_max=scale_max)


def boxes(
    kind: str | None, dims: tuple[int, int] = (5, 25), margin: Vec3 = (1, 5, 5), aniso: float = 10
) -> Augment | None:
    """Fill boxes with noise or with one grey value, or leave the sample unchanged."""
    if kind is None:
        return None
    if kind == "noise":
        return NoiseBox(dims, sigma=(1, 3), margin=margin, aniso=aniso, density=0.3, skip=0.1)
    return FillBox(dims, margin=margin, aniso=aniso, density=0.3, skip=0.1)


def blurry(maxsec: int) -> Augment | None:
    """Blur up to `maxsec` sections or quadrants of them out of focus; 0 for none."""
    return MixedBlurrySection(maxsec) if maxsec > 0 else None


def moved(maxsec: int) -> Augment | None:
    """Apply motion blur to up to `maxsec` sections or quadrants of them; 0 for none."""
    return MixedMotionBlur(maxsec) if maxsec > 0 else None


def shifts_or_slips(factor: int = 1, rot: float = 0) -> Augment:
    """Apply three misalignments (70 %) or three slips of the image alone, rotated by up to `rot` degrees too."""
    disps = [(0, factor * d) for d in DISPLACEMENTS]
    return Blend(
        [
            Compose([Misalign(d, margin=1, rot=rot) for d in disps]),
            Compose([SlipMisalign(d, interp=True, rot=rot) for d in disps]),
        ],
        [0.7, 0.3],
    )


def shift_or_slip_thrice(interp: bool, factor: int = 1) -> Augment:
    """Apply three times a misalignment (70 %) or a slip."""
    return Compose(
        [
            Blend([Misalign((0, factor * d), margin=1), SlipMisalign((0, factor * d), interp=interp)], [0.7, 0.3])
            for d in DISPLACEMENTS
        ]
    )


def shift_with_missing(random: bool, value: float = 0, factor: int = 1) -> Augment:
    """Misalign around missing sections: half of the time with a fixed grey value, half of the time as `random` says."""
    disp = (3, 15) if factor == 1 else (5, 15 * factor)
    fixed = MisalignPlusMissing(disp, value=value)
    return Blend([fixed, MisalignPlusMissing(disp, value=value, random=True)]) if random else fixed


def missing_three_ways(maxsec: int, random: bool, value: float = 0) -> Augment:
    """Blank sections: each separately with a fixed grey value, or as `random` says, or whole sections alike."""
    return Blend(
        [
            MixedMissingSection(maxsec, value, random=False, individual=True),
            MixedMissingSection(maxsec, value, random=random, individual=True),
            MissingSection(maxsec, value, random=random, individual=False),
        ]
    )


def missing_mixed(maxsec: int, value: float = 0) -> Augment:
    """Blank sections with random grey values, with one random grey value for all, or with one fixed grey value."""
    return Blend(
        [
            MixedMissingSection(maxsec, value, random=True, individual=True),
            MixedMissingSection(maxsec, value, random=True, individual=False),
            MixedMissingSection(maxsec, value, random=False, individual=False),
        ]
    )


def lost_three_ways(random: bool, value: float = 0) -> Augment:
    """Remove one section, or two with a blank one after them: as `random` says, or of a fixed grey value."""
    return Blend(
        [LostSection(1), LostPlusMissing(value=value, random=random), LostPlusMissing(value=value, random=False)]
    )


def lost_twice(random: bool) -> Augment:
    """Remove one section at each of two places, or two sections with a blank one after them."""
    return Blend([Compose([LostSection(1), LostSection(1)]), LostPlusMissing(random=random)])


def defects(
    is_train: bool,
    shift: Augment,
    *,
    missing: int = 0,
    absent: Augment | None = None,
    lost: bool,
    random: bool,
    value: float = 0,
    factor: int = 1,
) -> Augment:
    """Apply one of up to four defects: `shift`, a shift with missing sections, missing sections, lost sections.

    There are three variants of missing sections, or those of `absent`. In validation, missing sections have a fixed
    grey value, and no sections are lost.
    """
    choices = [shift, shift_with_missing(random and is_train, value, factor)]
    if missing > 0:
        plain = MixedMissingSection(missing, value, random=False, individual=True)
        choices.append(missing_three_ways(missing, random, value) if is_train else plain)
    if absent is not None:
        choices.append(absent)
    if lost and is_train:
        choices.append(lost_three_ways(random, value))
    return Blend(choices)


def early_defects(interp: bool, absent: Augment | None, random: bool) -> Augment:
    """Apply one of four defects as in the first recipes; with `random`, missing sections have any grey value."""
    shift = shift_or_slip_thrice(interp)
    plus = MisalignPlusMissing((3, 15), random=random)
    return Blend([a for a in (shift, plus, absent, lost_twice(random)) if a is not None])


def pinky(is_train: bool, box: Augment | None, defect: Augment, blur: int, motion: int = 0) -> Augment:
    """Combine boxes (training only), grey values, a defect, blur, motion blur, warp (training only) and flips."""
    return Compose(
        [
            box if is_train else None,
            grey(),
            defect,
            blurry(blur),
            moved(motion),
            warp() if is_train else None,
            FlipRotate(),
        ]
    )


def pinky_v2(
    is_train: bool,
    *,
    missing: int,
    blur: int,
    box: str | None,
    lost: bool,
    random: bool,
    interp: bool,
    value: float = 1,
    factor: int = 1,
) -> Augment:
    """The second Pinky recipe, with displacements and boxes scaled by `factor` and missing sections of grey `value`."""
    shift = shift_or_slip_thrice(interp, factor)
    defect = defects(is_train, shift, missing=missing, lost=lost, random=random, value=value, factor=factor)
    dims, margin = (5 * factor, 25 * factor), (1, 5 * factor, 5 * factor)
    return pinky(is_train, boxes(box, dims, margin), defect, blur)


def kasthuri(
    is_train: bool,
    *,
    recompute: bool,
    grayscale: bool,
    missing: int,
    blur: int,
    warping: bool,
    misalign: int,
    box: str | None,
    mip: int,
    random: bool,
    motion: int = 0,
    misalign_rot: float = 0,
    in_validation: bool = False,
    interp: bool = True,
) -> Augment:
    """Combine the requested ones of grey values, a shift or missing sections, boxes, blur, motion blur and warp.

    Validation has only flips or, with `in_validation`, everything but boxes and warp.
    """
    acts = is_train or in_validation
    choices: list[Augment] = []
    if misalign > 0:
        disp, rot = (0, misalign), misalign_rot
        both = [Misalign(disp, rot=rot), SlipMisalign(disp, interp=interp, rot=rot), None]
        choices.append(Blend(both, [0.5, 0.2, 0.3]))
    if missing > 0:
        choices.append(MixedMissingSection(missing, individual=True, random=random, skip=0.1))
    level = 2**mip
    dims, margin = (max(6 // level, 1), max(30 // level, 1)), (1, 6 // level, 6 // level)
    return Compose(
        [
            grey() if acts and grayscale else None,
            Blend(choices) if acts and choices else None,
            boxes(box, dims, margin, aniso=30 / (6 * level)) if is_train else None,
            blurry(blur) if acts else None,
            moved(motion) if acts else None,
            warp() if is_train and warping else None,
            FlipRotate(),
            Label() if recompute else None,
        ]
    )
