"""Lost sections: remove sections from all arrays, so that the sections before and after become neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, probability
from deepem.data.transform.misalign import change_sections
from deepem.data.transform.perturb import Fill
from deepem.data.transform.slide import lose


@dataclass(frozen=True, repr=False)
class LostSection(Augment):
    """Remove consecutive sections from every array, at a random place.

    Attributes:
        nsec: Number of sections to remove.
        skip: Probability of leaving the sample unchanged.
    """

    nsec: int
    skip: float = 0

    def __post_init__(self) -> None:
        probability("skip", self.skip)
        if self.nsec < 1:
            raise ValueError(f"nsec: got {self.nsec}, wants at least one section")

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the place; the request grows by the sections to remove."""
        depth = min(z for z, _, _ in spec.size.values())
        if rng.random() < self.skip or depth < 2:
            return spec, keep
        return lose(spec, self.nsec, int(rng.integers(1, depth)) - depth // 2)


@dataclass(frozen=True, repr=False)
class LostPlusMissing(Augment):
    """Remove two sections from every array, and blank the next section in the images.

    Attributes:
        skip: Probability of leaving the sample unchanged.
        value: Grey value of the blank section, in [0, 1].
        random: Draw this grey value from [0, 1) instead.
    """

    skip: float = 0
    value: float = 0
    random: bool = False

    def __post_init__(self) -> None:
        probability("skip", self.skip)
        Fill(self.value)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the place and the grey value; the request grows by two sections."""
        depth = min(z for z, _, _ in spec.size.values())
        if rng.random() < self.skip or depth < 2:
            return spec, keep
        at = int(rng.integers(1, depth)) - depth // 2
        fill = Fill(self.value, self.random).draw(rng)
        request, cut = lose(spec, 2, at)

        def apply(sample: Sample) -> Sample:
            return change_sections(cut(sample), spec, {at: fill})

        return request, apply
