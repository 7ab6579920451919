"""Grain of the recording, section by section: Gaussian noise, shot noise, dead and hot pixels. Labels stay."""

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
    """v + s n, n standard normal, clipped to [0, 1]; the deviation s is drawn from [0, sigma)."""

    sigma: float = 0.1

    def __post_init__(self) -> None:
        if self.sigma < 0:
            raise ValueError(f"sigma: got {self.sigma}, wants a grey value that is not negative")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the deviation; the noise is drawn for each block."""
        sigma = np.float32(self.sigma * rng.random())
        return _add(rng, lambda _: sigma)


@dataclass(frozen=True)
class Shot(Perturb):
    """v + sqrt(v / d) n, n standard normal, clipped to [0, 1]: Poisson noise of d electrons in a white voxel.

    The dose d is drawn from the range `dose`, evenly in its logarithm. From some ten electrons on, the normal
    distribution is as good as Poisson's, and several times as fast.
    """

    dose: tuple[float, float] = (20, 1000)

    def __post_init__(self) -> None:
        if not 0 < self.dose[0] <= self.dose[1]:
            raise ValueError(f"dose: got {self.dose}, wants a range of positive numbers of electrons")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the dose; the noise is drawn for each block."""
        dose = np.float32(np.exp(rng.uniform(*np.log(self.dose))))
        return _add(rng, lambda values: np.sqrt(values / dose))


@dataclass(frozen=True)
class Salt(Perturb):
    """Each voxel is black or white, half and half, with a probability that is drawn from [0, share)."""

    share: float = 0.02

    def __post_init__(self) -> None:
        probability("share", self.share)

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the probability; the voxels are drawn for each block."""
        share = self.share * rng.random()

        def change(block: Array) -> None:
            for plane in planes(block):
                hits = np.flatnonzero(rng.random(plane.size, np.float32) < share)
                plane[np.unravel_index(hits, plane.shape)] = rng.integers(0, 2, len(hits)) * _white(block)

        return change


def _white(block: Array) -> int:
    return 255 if block.dtype == np.uint8 else 1


def _add(rng: np.random.Generator, deviation: Any) -> Change:
    """Add normal noise whose deviation is a function of grey values in [0, 1]."""

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
    """Normal noise in every section, its deviation drawn from [0, sigma) in grey values; arguments of `Section`."""

    def __init__(self, sigma: float = 0.1, prob: float | None = 1, **section: Any) -> None:
        super().__init__(Gaussian, sigma=sigma, prob=None if section.get("maxsec") else prob, **section)


class PoissonNoise(Section):
    """Shot noise in every section, its dose in electrons drawn from a range; arguments of `Section`."""

    def __init__(self, dose: tuple[float, float] = (20, 1000), prob: float | None = 1, **section: Any) -> None:
        super().__init__(Shot, dose=dose, prob=None if section.get("maxsec") else prob, **section)


class SaltNoise(Section):
    """Black and white voxels in every section, their share drawn from [0, share); arguments of `Section`."""

    def __init__(self, share: float = 0.02, prob: float | None = 1, **section: Any) -> None:
        super().__init__(Salt, share=share, prob=None if section.get("maxsec") else prob, **section)
