"""Change tones between sections: warped histograms, and steps in contrast. Labels stay unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.transform.image_only import ImageAugment
from deepem.data.transform.perturb import Change, Grayscale, Perturb, through_table, unchanged
from deepem.data.transform.region import cut, extent
from deepem.data.transform.section import Section
from deepem.utils.geometry import Vec3


@dataclass(frozen=True)
class Curve(Perturb):
    """Map grey values by a random increasing curve, piecewise linear with `knots` + 1 evenly spaced points.

    The increments are 1 / knots * exp(strength * U[-1, 1)), scaled so that black stays black and white stays white.
    """

    knots: int = 6
    strength: float = 0.7

    def __post_init__(self) -> None:
        if self.knots < 2 or self.strength < 0:
            raise ValueError(f"knots, strength: got {self.knots}, {self.strength}, wants 2 or more and no negative one")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the curve."""
        rises = np.exp(self.strength * rng.uniform(-1, 1, self.knots))
        heights = np.concatenate([[0], np.cumsum(rises / rises.sum())])

        def curve(values: NDArray[np.floating]) -> None:
            values[...] = np.interp(values, np.linspace(0, 1, self.knots + 1), heights)

        return through_table(curve)


class HistogramShift(Section):
    """Map the grey values of each section by its own random increasing curve; black and white stay unchanged.

    The curve stretches some tones and compresses others, which contrast and gamma cannot do. Arguments of `Section`.
    """

    def __init__(self, knots: int = 6, strength: float = 0.7, prob: float | None = 1, **section: Any) -> None:
        super().__init__(Curve, knots=knots, strength=strength, prob=None if section.get("maxsec") else prob, **section)


@dataclass(frozen=True, repr=False)
class ContrastStep(ImageAugment):
    """Change contrast, brightness and gamma from a random section on, as if the microscope had been readjusted.

    Attributes:
        contrast_factor: See `Grayscale3D`.
        brightness_factor: See `Grayscale3D`.
        skip: Probability of leaving the sample unchanged.
    """

    contrast_factor: float = 0.5
    brightness_factor: float = 0.5
    skip: float = 0

    def change(self, frame: Vec3, rng: np.random.Generator) -> Change:
        """Draw the section and the curve; images of one section stay unchanged."""
        if frame[0] < 2:
            return unchanged
        change = Grayscale(self.contrast_factor, self.brightness_factor).draw(rng)
        (z0, y0, x0), end = extent(frame)
        at = int(rng.integers(1, frame[0])) + z0
        return lambda image: change(cut(image, (at, y0, x0), end))
