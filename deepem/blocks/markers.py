"""Markers: small files in the folder of a plan that say which tasks are done, which failed, and which phases are open.

``done/<thousands>/<number>.json`` holds what a program needs to tell whether the output is still as it was written. It
is written after the output. A task without it is to be done again, and nothing else is.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deepem.blocks.folder import Folder


@dataclass(frozen=True)
class Markers:
    """The markers in a folder; tasks are numbered from 0 over all phases."""

    folder: Folder

    def done(self) -> set[int]:
        """The tasks that are done."""
        return self._numbers("done/")

    def marker(self, number: int) -> dict[str, Any] | None:
        """What was noted when a task was done; None if it is not done, or the note is not whole."""
        held = self.folder.json(_file("done", number))
        return held if isinstance(held, dict) else None

    def set_done(self, number: int, marker: Mapping[str, Any]) -> None:
        """Note that a task is done."""
        self.folder.put(_file("done", number), marker)

    def failed(self) -> dict[int, str]:
        """The tasks that could not be done at the last try, and why."""
        there = sorted(self._numbers("failed/") - self.done())
        return {number: (self.folder.json(_file("failed", number)) or {}).get("error", "?") for number in there}

    def set_failed(self, number: int, line: str) -> None:
        """Note why a task could not be done."""
        self.folder.put(_file("failed", number), {"error": line})

    def forget(self, numbers: Iterable[int]) -> None:
        """Take the markers of tasks away, so that they are done again."""
        self.folder.delete(_file(kind, number) for number in numbers for kind in ("done", "failed"))

    def opening(self, phase: int) -> str | None:
        """The name of the latest opening of a phase, None while it is closed. The first phase is always open."""
        if phase == 0:
            return "first"
        held = self.folder.json(f"open/{phase}.json")
        return held["opening"] if isinstance(held, dict) else None

    def open(self, phase: int) -> None:
        """Let workers do the tasks of a phase."""
        if self.opening(phase) is None:
            self.folder.put(f"open/{phase}.json", {"opening": uuid.uuid4().hex})

    def close(self, phases: Iterable[int]) -> None:
        """Keep workers from the tasks of phases."""
        if names := [f"open/{phase}.json" for phase in phases]:
            self.folder.delete(names)

    def _numbers(self, prefix: str) -> set[int]:
        names = (name.rsplit("/", 1)[-1].removesuffix(".json") for name in self.folder.names(prefix))
        return {int(name) for name in names if name.isdigit()}


def _file(kind: str, number: int) -> str:
    """The marker of a task: a thousand of them in a folder."""
    return f"{kind}/{number // 1000}/{number}.json"
