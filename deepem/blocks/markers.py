"""Markers: small files in a plan's folder that record which tasks are done or failed, and which phases are open.

``done/<thousands>/<number>.json`` holds the values with which a program can check that the output of a task is still as
it was written. The marker is written after the output. Exactly the tasks without a marker are done again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deepem.blocks.folder import Folder


@dataclass(frozen=True)
class Markers:
    """The markers in a folder. Tasks are numbered from 0 across all phases."""

    folder: Folder

    def done(self) -> set[int]:
        """Return the numbers of the tasks that are done."""
        return self._numbers("done/")

    def marker(self, number: int) -> dict[str, Any] | None:
        """Return the contents of a task's done marker; None if the task is not done or the marker is incomplete."""
        held = self.folder.json(_file("done", number))
        return held if isinstance(held, dict) else None

    def set_done(self, number: int, marker: Mapping[str, Any]) -> None:
        """Mark a task as done."""
        self.folder.put(_file("done", number), marker)

    def failed(self) -> dict[int, str]:
        """Return the tasks whose last attempt failed, with the reason."""
        there = sorted(self._numbers("failed/") - self.done())
        return {number: (self.folder.json(_file("failed", number)) or {}).get("error", "?") for number in there}

    def set_failed(self, number: int, line: str) -> None:
        """Record why a task failed."""
        self.folder.put(_file("failed", number), {"error": line})

    def forget(self, numbers: Iterable[int]) -> None:
        """Delete the markers of tasks, so that they are done again."""
        self.folder.delete(_file(kind, number) for number in numbers for kind in ("done", "failed"))

    def opening(self, phase: int) -> str | None:
        """Return the name of the latest opening of a phase; None if it is closed. The first phase is always open."""
        if phase == 0:
            return "first"
        held = self.folder.json(f"open/{phase}.json")
        return held["opening"] if isinstance(held, dict) else None

    def open(self, phase: int) -> None:
        """Open a phase: workers may do its tasks."""
        if self.opening(phase) is None:
            self.folder.put(f"open/{phase}.json", {"opening": uuid.uuid4().hex})

    def close(self, phases: Iterable[int]) -> None:
        """Close phases: workers leave their tasks alone."""
        if names := [f"open/{phase}.json" for phase in phases]:
            self.folder.delete(names)

    def _numbers(self, prefix: str) -> set[int]:
        names = (name.rsplit("/", 1)[-1].removesuffix(".json") for name in self.folder.names(prefix))
        return {int(name) for name in names if name.isdigit()}


def _file(kind: str, number: int) -> str:
    """Return the name of a task's marker; each sub-folder holds a thousand markers."""
    return f"{kind}/{number // 1000}/{number}.json"
