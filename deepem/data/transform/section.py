"""Perturb single sections of an image: whole sections, quadrants, or one of the two at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, owned, probability
from deepem.data.transform.perturb import Change, Perturb, in_rows
from deepem.data.transform.region import cut, extent
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

Region = tuple[Vec3, Vec3]


class Section(Augment):
    """Perturb random sections of the images; labels and masks stay, and all images of a sample change alike.

    Perturb either at most `maxsec` sections (the number is uniform in 1..maxsec) or each section with probability
    `prob`.

    Args:
        perturb: The change of a section: a class of `deepem.data.transform.perturb`, constructed with `params`.
        maxsec: Maximum number of sections, less than the number of sections of the image.
        prob: Probability of perturbing each section; an alternative to `maxsec`.
        skip: Probability of leaving the whole sample unchanged.
        double: Also perturb the section after each drawn section.
        individual: Draw parameters for each section; otherwise all sections share one draw.
        params: Arguments of `perturb`.
    """

    def __init__(
        self,
        perturb: Callable[..., Perturb],
        maxsec: int = 0,
        prob: float | None = None,
        skip: float = 0,
        double: bool = False,
        individual: bool = True,
        **params: Any,
    ) -> None:
        probability("skip", skip)
        if prob is not None:
            probability("prob", prob)
        elif maxsec < 1:
            raise ValueError(f"{type(self).__name__}: got maxsec {maxsec} and no prob, wants one of them")
        self.perturb = perturb(**params)
        self.maxsec, self.prob, self.skip = maxsec, prob, skip
        self.double, self.individual = double, individual

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw sections, regions and parameters, and return the request unchanged."""
        self.check(spec)
        if not spec.images or rng.random() < self.skip:
            return spec, keep
        frame = spec.frame(spec.images)
        plan = self._plan(frame, self.sections(frame[0], rng), rng)

        def apply(sample: Sample) -> Sample:
            for key in spec.images:
                image = sample[key] = in_rows(owned(sample[key]))
                for (begin, end), change in plan:
                    block = cut(image, begin, end)
                    if block.size:
                        change(block)
            return sample

        return spec, apply

    def suits(self, factor: Vec3) -> bool:
        """Always True: labels do not change."""
        return True

    def check(self, spec: Spec) -> None:
        """Refuse images that do not have more than `maxsec` sections."""
        depth = spec.frame(spec.images)[0]
        if spec.images and self.prob is None and self.maxsec >= depth:
            raise InputError(f"{type(self).__name__} maxsec", self.maxsec, f"less than the {depth} sections of a patch")

    def sections(self, depth: int, rng: np.random.Generator) -> list[int]:
        """Draw section numbers from 0..depth-1."""
        if self.prob is not None:
            chosen = np.flatnonzero(rng.random(depth) < self.prob)
        else:
            chosen = rng.choice(depth, rng.integers(1, self.maxsec + 1), replace=False)
        if self.double:
            chosen = np.unique(np.concatenate([chosen, (chosen + 1).clip(max=depth - 1)]))
        return [int(z) for z in chosen]

    def _plan(self, frame: Vec3, sections: list[int], rng: np.random.Generator) -> list[tuple[Region, Change]]:
        """Yield the regions to change, relative to the centre voxel, and the change of each."""
        shared = None if self.individual else self.perturb.draw(rng)
        partial = self.partial(rng)
        (z0, y0, x0), (_, y1, x1) = extent(frame)
        plan = []
        for z in sections:
            whole = ((z + z0, y0, x0), (z + z0 + 1, y1, x1))
            partial = self.partial(rng) if self.individual else partial
            for region in _quadrants(whole, rng) if partial else [whole]:
                plan.append((region, shared or self.perturb.draw(rng)))
        return plan

    def partial(self, rng: np.random.Generator) -> bool:
        """Draw whether to perturb quadrants of a section instead of the whole section."""
        return False

    def lines(self) -> list[str]:
        """Return the arguments that are set, for the repr."""
        own = ("maxsec", "prob", "skip", "double", "individual")
        given = {f.name: getattr(self.perturb, f.name) for f in fields(self.perturb)}  # type: ignore[arg-type]
        if type(self) in (Section, PartialSection, MixedSection):
            given = {"perturb": type(self.perturb).__name__, **given}
        given |= {k: getattr(self, k) for k in own}
        for name, needless in (("maxsec", self.prob is not None), ("double", not self.double)):
            if needless:
                del given[name]
        return [f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items() if v is not None)})"]


class PartialSection(Section):
    """Perturb quadrants of random sections.

    A uniformly drawn point divides the section into quadrants. Each quadrant is perturbed with probability 1/2, with
    its own parameters if `individual`.
    """

    def partial(self, rng: np.random.Generator) -> bool:
        """Always True."""
        return True


class MixedSection(Section):
    """Perturb random sections, whole or in quadrants: one coin toss per section if `individual`, else one for all."""

    def partial(self, rng: np.random.Generator) -> bool:
        """Toss a fair coin."""
        return bool(rng.random() < 0.5)


def _quadrants(whole: Region, rng: np.random.Generator) -> list[Region]:
    """Draw each quadrant about a random point with probability 1/2."""
    (z, y0, x0), (_, y1, x1) = whole
    y, x = int(rng.integers(y0, y1)), int(rng.integers(x0, x1))
    parts = [((z, a, c), (z + 1, b, d)) for a, b in ((y0, y), (y, y1)) for c, d in ((x0, x), (x, x1))]
    return [part for part, hit in zip(parts, rng.random(4) < 0.5, strict=True) if hit]
