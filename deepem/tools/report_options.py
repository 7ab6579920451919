"""The flags of `deepem report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepem.cli.flags import Group, flag

PROGRAM = "deepem report"


@dataclass(frozen=True)
class ReportOptions(Group):
    """Where the page goes."""

    title = "report"
    out: Path | None = flag(
        None,
        "HTML file to write (default: report.html in the folder of the run, or above those of several runs)",
        metavar="FILE",
    )
