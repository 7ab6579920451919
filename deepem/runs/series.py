"""Reads metrics.jsonl as series of numbers, line by line: a log of a million rows takes seconds and little memory."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST, LAST = 0, 2**62
"""Iterations outside this range are damage."""


@dataclass(frozen=True)
class Series:
    """One value over the iterations of a run.

    Attributes:
        iterations: (N,) int64, ascending, each once.
        values: (N,) float64, finite.
        not_finite: How many values were infinite or NaN, and are left out.
    """

    iterations: NDArray[np.int64]
    values: NDArray[np.float64]
    not_finite: int = 0


@dataclass(frozen=True)
class Log:
    """What metrics.jsonl holds.

    Attributes:
        series: (phase, name) -> its series.
        rows: How many rows were read.
        damaged: How many lines are no rows, such as those that a crash or a disk error left. A last line without its
            end is still being written, and does not count.
    """

    series: Mapping[tuple[str, str], Series]
    rows: int
    damaged: int

    def phase(self, phase: str) -> dict[str, Series]:
        """Return the series of a phase by name."""
        return {name: one for (of, name), one in self.series.items() if of == phase}

    @property
    def last(self) -> int:
        """The newest iteration; 0 if there is none."""
        return max((int(one.iterations[-1]) for one in self.series.values() if len(one.iterations)), default=0)


@dataclass
class _Column:
    iterations: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    not_finite: int = 0

    def add(self, iteration: int, value: float) -> None:
        if not math.isfinite(value):
            self.not_finite += 1
            return
        self.iterations.append(iteration)
        self.values.append(value)

    def series(self) -> Series:
        iterations, values = np.frombuffer(self.iterations, np.int64), np.frombuffer(self.values, np.float64)
        if (np.diff(iterations) <= 0).any():
            order = np.argsort(iterations, kind="stable")
            iterations, values = iterations[order], values[order]
            newest = np.append(iterations[1:] != iterations[:-1], True)  # of equals, the later row
            iterations, values = iterations[newest], values[newest]
        return Series(iterations, values, self.not_finite)


def read_log(path: Path) -> Log:
    """Read a metrics.jsonl; a file that does not exist has no rows.

    Raises:
        OSError: the file cannot be read.
    """
    columns: dict[tuple[str, str], _Column] = {}
    rows = damaged = 0
    if path.is_file():
        with open(path, "rb") as file:
            for line in file:
                row = _row(line)
                if row is None:
                    damaged += line.endswith(b"\n") and bool(line.strip())
                    continue
                rows += 1
                for name, value in row.items():
                    if type(value) in (int, float) and name != "iter":
                        key = row["phase"], name
                        column = columns.get(key) or columns.setdefault(key, _Column())
                        column.add(row["iter"], _number(value))
    return Log({key: column.series() for key, column in columns.items()}, rows, damaged)


def _row(line: bytes) -> dict[str, Any] | None:
    """Return a row, or None for a line that is none."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("phase"), str):
        return None
    iteration = row.get("iter")
    whole = isinstance(iteration, int) and not isinstance(iteration, bool) and FIRST <= iteration < LAST
    return row if whole else None


def _number(value: float) -> float:
    """Return a number of JSON, which may be a whole number of any length, as a float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
