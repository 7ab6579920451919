"""Out-of-focus and motion blur of sections; labels and masks stay unchanged."""

from __future__ import annotations

from typing import Any

from deepem.data.transform.perturb import Blur, Motion
from deepem.data.transform.section import MixedSection, PartialSection, Section


class BlurrySection(Section):
    """Blur sections with a Gaussian of `sigma` voxels (`random`: drawn from [0, sigma)); see `Section`."""

    def __init__(self, maxsec: int = 0, sigma: float = 5.0, random: bool = True, **section: Any) -> None:
        super().__init__(Blur, maxsec=maxsec, sigma=sigma, random=random, **section)


class PartialBlurrySection(PartialSection):
    """Blur quadrants of sections in the way of `BlurrySection`."""

    def __init__(self, maxsec: int = 0, sigma: float = 5.0, random: bool = True, **section: Any) -> None:
        super().__init__(Blur, maxsec=maxsec, sigma=sigma, random=random, **section)


class MixedBlurrySection(MixedSection):
    """Blur whole sections or quadrants of them in the way of `BlurrySection`."""

    def __init__(self, maxsec: int = 0, sigma: float = 5.0, random: bool = True, **section: Any) -> None:
        super().__init__(Blur, maxsec=maxsec, sigma=sigma, random=random, **section)


class MotionBlur(Section):
    """Blur sections along a line of random angle; its length in voxels is drawn from a range. See `Section`."""

    def __init__(self, maxsec: int = 0, length: tuple[float, float] = (3.0, 15.0), **section: Any) -> None:
        super().__init__(Motion, maxsec=maxsec, length=length, **section)


class PartialMotionBlur(PartialSection):
    """Blur quadrants of sections along a line in the way of `MotionBlur`."""

    def __init__(self, maxsec: int = 0, length: tuple[float, float] = (3.0, 15.0), **section: Any) -> None:
        super().__init__(Motion, maxsec=maxsec, length=length, **section)


class MixedMotionBlur(MixedSection):
    """Blur whole sections or quadrants of them along a line in the way of `MotionBlur`."""

    def __init__(self, maxsec: int = 0, length: tuple[float, float] = (3.0, 15.0), **section: Any) -> None:
        super().__init__(Motion, maxsec=maxsec, length=length, **section)
