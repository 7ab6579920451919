"""Acquisition noise, section by section: Gaussian noise, shot noise, dead and hot pixels. Labels stay unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.transform.base import Array, probability
from deepem.data.transform.perturb import Change, Perturb, planes, round_to
from deepem.data.transform.section import Section


@dataclass(frozen=True)
class Gaussian(Perturb):
    """Add Gaussian noise: v + s n, clipped to [0, 1], with n standard normal and s drawn from [0, sigma)."""

    sigma: float = 0.1

    def __post_init__(self) -> None:
        if self.sigma < 0:
            raise ValueError(f"sigma: got {self.sigma}, wants a grey value that is not negative")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the standard deviation; the noise itself is drawn for each block."""
        sigma = np.float32(self.sigma * rng.random())
        return _add(rng, lambda _: sigma)


@dataclass(frozen=True)
class Shot(Perturb):
    """Add shot noise: v + sqrt(v / d) n, clipped to [0, 1], with n standard normal and d electrons in a white voxel.

    The dose d is drawn log-uniformly from the range `dose`. Above about ten electrons, the normal distribution is a
    good approximation of Poisson's, and several times as fast.
    """

    dose: tuple[float, float] = (20, 1000)

    def __post_init__(self) -> None:
        if not 0 < self.dose[0] <= self.dose[1]:
            raise ValueError(f"dose: got {self.dose}, wants a range of positive numbers of electrons")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the dose; the noise itself is drawn for each block."""
        dose = np.float32(np.exp(rng.uniform(*np.log(self.dose))))
        return _add(rng, lambda values: np.sqrt(values / dose))


@dataclass(frozen=True)
class Salt(Perturb):
    """Set random voxels to black or white, half of them each; their fraction is drawn from [0, share)."""

    share: float = 0.02

    def __post_init__(self) -> None:
        probability("share", self.share)

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the fraction; the voxels are drawn for each block."""
        share = self.share * rng.random()

        def change(block: Array) -> None:
            for plane in planes(block):
                hits = np.flatnonzero(rng.random(plane.size, np.float32) < share)
                plane[np.unravel_index(hits, plane.shape)] = rng.integers(0, 2, len(hits)) * _white(block)

        return change


def _white(block: Array) -> int:
    return 255 if block.dtype == np.uint8 else 1


def _add(rng: np.random.Generator, deviation: Any) -> Change:
    """Add normal noise whose standard deviation is a function of the grey value in [0, 1]."""

    def change(block: Array) -> None:
        white = np.float32(_white(block))
        for plane in planes(block):
            values: NDArray[np.float32] = plane / white
            noise = rng.standard_normal(values.shape, np.float32)
            noise *= deviation(values)
            values += noise
            plane[...] = round_to(values.clip(0, 1, out=values) * white, plane.dtype)

    return change


class GaussianNoise(Section):
    """Add Gaussian noise to sections, its standard deviation drawn from [0, sigma); arguments of `Section`."""

    def __init__(self, sigma: float = 0.1, prob: float | None = 1, **section: Any) -> None:
        super().__init__(Gaussian, sigma=sigma, prob=None if section.get("maxsec") else prob, **section)


class PoissonNoise(Section):
    """Add shot noise to sections, its dose in electrons drawn from a range; arguments of `Section`."""

    def __init__(self, dose: tuple[float, float] = (20, 1000), prob: float | None = 1, **section: Any) -> None:
        super().__init__(Shot, dose=dose, prob=None if section.get("maxsec") else prob, **section)


class SaltNoise(Section):
    """Set voxels of sections to black or white, their fraction drawn from [0, share); arguments of `Section`."""

    def __init__(self, share: float = 0.02, prob: float | None = 1, **section: Any) -> None:
        super().__init__(Salt, share=share, prob=None if section.get("maxsec") else prob, **section)
