"""Parts that augmentation recipes share, with the numbers they share."""

from __future__ import annotations

from deepem.data.transform.base import Augment
from deepem.data.transform.blurry import MixedBlurrySection
from deepem.data.transform.box import FillBox, NoiseBox
from deepem.data.transform.compose import Blend, Compose
from deepem.data.transform.grayscale import MixedGrayscale2D
from deepem.data.transform.lost import LostPlusMissing, LostSection
from deepem.data.transform.misalign import Misalign, MisalignPlusMissing, SlipMisalign
from deepem.data.transform.missing import MissingSection, MixedMissingSection
from deepem.data.transform.warp import Warp
from deepem.utils.geometry import Vec3

DISPLACEMENTS = (5, 15, 25)
"""A patch is misaligned three times: up to but not by so many voxels."""


def grey() -> Augment:
    """Contrast, brightness and gamma of sections or quadrants of them."""
    return MixedGrayscale2D(0.5, 0.5, prob=1, skip=0.3)


def warp(scale_max: float = 1.1) -> Augment:
    """Rotation up to 45 degrees, shear, scale and stretch, the same in all sections."""
    return Warp(skip=0.3, do_twist=False, rot_max=45.0, scale_max=scale_max)


def boxes(kind: str | None, dims: tuple[int, int] = (5, 25), margin: Vec3 = (1, 5, 5)) -> Augment | None:
    """Boxes of noise or of one grey value, or none."""
    if kind == "noise":
        return NoiseBox(dims, sigma=(1, 3), margin=margin, density=0.3, skip=0.1)
    if kind == "fill":
        return FillBox(dims, margin=margin, density=0.3, skip=0.1)
    return None


def blurry(maxsec: int) -> Augment | None:
    """Up to `maxsec` sections or quadrants of them out of focus; 0 for none."""
    return MixedBlurrySection(maxsec) if maxsec > 0 else None


def shifts_or_slips(factor: int = 1) -> Augment:
    """Three misalignments (70 %), or three slips that spare the labels."""
    disps = [(0, factor * d) for d in DISPLACEMENTS]
    return Blend(
        [
            Compose([Misalign(d, margin=1) for d in disps]),
            Compose([SlipMisalign(d, interp=True) for d in disps]),
        ],
        [0.7, 0.3],
    )


def shift_or_slip_thrice(interp: bool, factor: int = 1) -> Augment:
    """Three times a misalignment (70 %) or a slip."""
    return Compose(
        [
            Blend([Misalign((0, factor * d), margin=1), SlipMisalign((0, factor * d), interp=interp)], [0.7, 0.3])
            for d in DISPLACEMENTS
        ]
    )


def shift_with_missing(random: bool, value: float = 0, factor: int = 1) -> Augment:
    """A misalignment about missing sections: of a fixed grey value, half of the time as `random` says."""
    disp = (3, 15) if factor == 1 else (5, 15 * factor)
    fixed = MisalignPlusMissing(disp, value=value)
    return Blend([fixed, MisalignPlusMissing(disp, value=value, random=True)]) if random else fixed


def missing_three_ways(maxsec: int, random: bool, value: float = 0) -> Augment:
    """Missing sections: each on its own with a fixed grey value, or as `random` says, or whole ones alike."""
    return Blend(
        [
            MixedMissingSection(maxsec, value, random=False, individual=True),
            MixedMissingSection(maxsec, value, random=random, individual=True),
            MissingSection(maxsec, value, random=random, individual=False),
        ]
    )


def missing_mixed(maxsec: int, value: float = 0) -> Augment:
    """Missing sections: each on its own with any grey value, all alike with one, or all alike with a fixed one."""
    return Blend(
        [
            MixedMissingSection(maxsec, value, random=True, individual=True),
            MixedMissingSection(maxsec, value, random=True, individual=False),
            MixedMissingSection(maxsec, value, random=False, individual=False),
        ]
    )


def lost_three_ways(random: bool, value: float = 0) -> Augment:
    """A lost section, or two lost with one missing: as `random` says, or of a fixed grey value."""
    return Blend(
        [LostSection(1), LostPlusMissing(value=value, random=random), LostPlusMissing(value=value, random=False)]
    )


def lost_twice(random: bool) -> Augment:
    """A section lost at two places, or two lost with one missing."""
    return Blend([Compose([LostSection(1), LostSection(1)]), LostPlusMissing(random=random)])
