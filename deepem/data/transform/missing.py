"""Sections that were not recorded: one grey value in place of the image. Labels and masks stay."""

from __future__ import annotations

from typing import Any

from deepem.data.transform.perturb import Fill
from deepem.data.transform.section import MixedSection, PartialSection, Section


class MissingSection(Section):
    """Fill sections with `value`, or with `random` by a value drawn from [0, 1); arguments of `Section`."""

    def __init__(self, maxsec: int = 0, value: float = 0, random: bool = True, **section: Any) -> None:
        super().__init__(Fill, maxsec=maxsec, value=value, random=random, **section)


class PartialMissingSection(PartialSection):
    """Fill quadrants of sections, as `MissingSection`."""

    def __init__(self, maxsec: int = 0, value: float = 0, random: bool = True, **section: Any) -> None:
        super().__init__(Fill, maxsec=maxsec, value=value, random=random, **section)


class MixedMissingSection(MixedSection):
    """Fill sections or quadrants of them, as `MissingSection`."""

    def __init__(self, maxsec: int = 0, value: float = 0, random: bool = True, **section: Any) -> None:
        super().__init__(Fill, maxsec=maxsec, value=value, random=random, **section)
