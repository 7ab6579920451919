"""Change contrast, brightness and gamma of images, for the whole patch or for each section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deepem.data.transform.base import Apply, Augment, Spec
from deepem.data.transform.image_only import ImageAugment
from deepem.data.transform.perturb import Change, Grayscale
from deepem.data.transform.section import MixedSection, PartialSection, Section
from deepem.utils.geometry import Vec3


@dataclass(frozen=True, repr=False)
class Grayscale3D(ImageAugment):
    """Change contrast, brightness and gamma of all images with one draw (see `perturb.Grayscale`); labels stay.

    Attributes:
        contrast_factor: Contrast is multiplied by 1 + contrast_factor * U[-0.5, 0.5).
        brightness_factor: Brightness changes by brightness_factor * U[-0.5, 0.5), for grey values in [0, 1].
        skip: Probability of leaving the sample unchanged.
    """

    contrast_factor: float = 0.3
    brightness_factor: float = 0.3
    skip: float = 0.3

    def change(self, frame: Vec3, rng: np.random.Generator) -> Change:
        """Draw the curve of grey values."""
        return Grayscale(self.contrast_factor, self.brightness_factor).draw(rng)


class Grayscale2D(Section):
    """Change contrast, brightness and gamma of each section separately (by default of all sections); see `Section`."""

    def __init__(
        self, contrast_factor: float = 0.3, brightness_factor: float = 0.3, prob: float | None = 1, **section: Any
    ) -> None:
        prob = None if section.get("maxsec") else prob
        super().__init__(
            Grayscale, contrast_factor=contrast_factor, brightness_factor=brightness_factor, prob=prob, **section
        )


class PartialGrayscale2D(PartialSection):
    """Change contrast, brightness and gamma of quadrants of sections; arguments of `Section`."""

    def __init__(self, contrast_factor: float = 0.3, brightness_factor: float = 0.3, **section: Any) -> None:
        super().__init__(Grayscale, contrast_factor=contrast_factor, brightness_factor=brightness_factor, **section)


class MixedGrayscale2D(MixedSection):
    """Change contrast, brightness and gamma of sections or quadrants of them; arguments of `Section`."""

    def __init__(self, contrast_factor: float = 0.3, brightness_factor: float = 0.3, **section: Any) -> None:
        super().__init__(Grayscale, contrast_factor=contrast_factor, brightness_factor=brightness_factor, **section)


@dataclass(frozen=True, repr=False)
class GrayscaleMixed(Augment):
    """Apply `Grayscale3D` or, to every section, `Grayscale2D`, each with probability 1/2.

    Attributes:
        contrast_factor: See `Grayscale3D`.
        brightness_factor: See `Grayscale3D`.
        skip: Probability of leaving the sample unchanged.
    """

    contrast_factor: float = 0.3
    brightness_factor: float = 0.3
    skip: float = 0.3

    def suits(self, factor: Vec3) -> bool:
        """Always: labels stay."""
        return True

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw one of the two and prepare it."""
        kind = Grayscale3D if rng.random() < 0.5 else Grayscale2D
        return kind(self.contrast_factor, self.brightness_factor, skip=self.skip).prepare(spec, rng)
