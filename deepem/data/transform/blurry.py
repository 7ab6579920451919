"""Sections out of focus, and sections that moved while they were recorded. Labels and masks stay."""

from __future__ import annotations

from typing import Any

from deepem.data.transform.perturb import Blur, Motion
from deepem.data.transform.section import MixedSection, PartialSection, Section


class BlurrySection(Section):
    """Blur sections by a Gaussian of `sigma` voxels, or with `random` drawn from [0, sigma); arguments of `Section`."""

    def __init__(self, maxsec: int = 0, sigma: float = 5.0, random: bool = True, **section: Any) -> None:
        super().__init__(Blur, maxsec=maxsec, sigma=sigma, random=random, **section)


class PartialBlurrySection(PartialSection):
    """Blur quadrants of sections, as `BlurrySection`."""

    def __init__(self, maxsec: int = 0, sigma: float = 5.0, random: bool = True, **section: Any) -> None:
        super().__init__(Blur, maxsec=maxsec, sigma=sigma, random=random, **section)


class MixedBlurrySection(MixedSection):
    """Blur sections or quadrants of them, as `BlurrySection`."""

    def __init__(self, maxsec: int = 0, sigma: float = 5.0, random: bool = True, **section: Any) -> None:
        super().__init__(Blur, maxsec=maxsec, sigma=sigma, random=random, **section)


class MotionBlur(Section):
    """Blur sections along a line of any angle, its length drawn from a range in voxels; arguments of `Section`."""

    def __init__(self, maxsec: int = 0, length: tuple[float, float] = (3.0, 15.0), **section: Any) -> None:
        super().__init__(Motion, maxsec=maxsec, length=length, **section)


class PartialMotionBlur(PartialSection):
    """Blur quadrants of sections along a line, as `MotionBlur`."""

    def __init__(self, maxsec: int = 0, length: tuple[float, float] = (3.0, 15.0), **section: Any) -> None:
        super().__init__(Motion, maxsec=maxsec, length=length, **section)


class MixedMotionBlur(MixedSection):
    """Blur sections or quadrants of them along a line, as `MotionBlur`."""

    def __init__(self, maxsec: int = 0, length: tuple[float, float] = (3.0, 15.0), **section: Any) -> None:
        super().__init__(Motion, maxsec=maxsec, length=length, **section)
