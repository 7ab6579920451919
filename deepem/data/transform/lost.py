"""Sections that were lost: gone from every array, and what was apart lies side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, probability
from deepem.data.transform.misalign import change_sections
from deepem.data.transform.perturb import Fill
from deepem.data.transform.slide import lose


@dataclass(frozen=True, repr=False)
class LostSection(Augment):
    """Cut some neighbouring sections out of every array, at a random place.

    Attributes:
        nsec: How many.
        skip: How often nothing happens.
    """

    nsec: int
    skip: float = 0

    def __post_init__(self) -> None:
        probability("skip", self.skip)
        if self.nsec < 1:
            raise ValueError(f"nsec: got {self.nsec}, wants at least one section")

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the place; the request is longer by the sections that are lost."""
        depth = min(z for z, _, _ in spec.size.values())
        if rng.random() < self.skip or depth < 2:
            return spec, keep
        return lose(spec, self.nsec, int(rng.integers(1, depth)) - depth // 2)


@dataclass(frozen=True, repr=False)
class LostPlusMissing(Augment):
    """Two sections are lost, and the first one behind them is missing in the images.

    Attributes:
        skip: How often nothing happens.
        value: Grey value of the missing section, in [0, 1].
        random: It is drawn from [0, 1) instead.
    """

    skip: float = 0
    value: float = 0
    random: bool = False

    def __post_init__(self) -> None:
        probability("skip", self.skip)
        Fill(self.value)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the place and the grey value; the request is two sections longer."""
        depth = min(z for z, _, _ in spec.size.values())
        if rng.random() < self.skip or depth < 2:
            return spec, keep
        at = int(rng.integers(1, depth)) - depth // 2
        fill = Fill(self.value, self.random).draw(rng)
        request, cut = lose(spec, 2, at)

        def apply(sample: Sample) -> Sample:
            return change_sections(cut(sample), spec, {at: fill})

        return request, apply
