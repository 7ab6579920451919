"""`Finding`: a fault of a volume, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        code: A short name of the kind of fault.
        what: What was found, in words.
        remedy: What to do.
        where: The volume and the array in it.
    """

    code: str
    what: str
    remedy: str
    where: str = ""

    def at(self, where: str) -> Finding:
        """Return this finding with the name of the array."""
        return Finding(self.code, self.what, self.remedy, where)

    def plain(self) -> dict[str, Any]:
        """Return the finding as a dict for JSON."""
        return asdict(self)
