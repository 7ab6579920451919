"""Missing sections: replace the image by one grey value; labels and masks stay unchanged."""

from __future__ import annotations

from typing import Any

from deepem.data.transform.perturb import Fill
from deepem.data.transform.section import MixedSection, PartialSection, Section


class MissingSection(Section):
    """Fill sections with `value`, or with `random` a value drawn from [0, 1). Other arguments: see `Section`."""

    def __init__(self, maxsec: int = 0, value: float = 0, random: bool = True, **section: Any) -> None:
        super().__init__(Fill, maxsec=maxsec, value=value, random=random, **section)


class PartialMissingSection(PartialSection):
    """Fill quadrants of sections in the way of `MissingSection`."""

    def __init__(self, maxsec: int = 0, value: float = 0, random: bool = True, **section: Any) -> None:
        super().__init__(Fill, maxsec=maxsec, value=value, random=random, **section)


class MixedMissingSection(MixedSection):
    """Fill whole sections or quadrants of them in the way of `MissingSection`."""

    def __init__(self, maxsec: int = 0, value: float = 0, random: bool = True, **section: Any) -> None:
        super().__init__(Fill, maxsec=maxsec, value=value, random=random, **section)
