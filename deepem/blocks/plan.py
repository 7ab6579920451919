"""A plan splits a program's work into tasks, in phases. A phase begins when all tasks of the phase before are done.

A plan is a folder with ``plan.json``, which holds the program, the program's settings and, for each phase, the box that
it covers and the size of a task. Its size does not depend on the number of tasks. Tasks are numbered from 0 across all
phases.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepem.blocks.folder import Folder
from deepem.blocks.markers import Markers
from deepem.utils.errors import InputError, reason
from deepem.utils.geometry import Box, Tiles, vec3

FILE = "plan.json"


@dataclass(frozen=True)
class Phase:
    """Tasks that are independent of each other.

    Attributes:
        name: The program's name for the phase.
        boxes: The boxes of its tasks; a single box if one task does the whole.
    """

    name: str
    boxes: Tiles


@dataclass(frozen=True)
class Plan:
    """The tasks of a program's work.

    Attributes:
        folder: The folder of the plan.
        program: The program's name in `deepem.blocks.programs`.
        settings: The program's own settings, as plain values.
        phases: The phases in order.
    """

    folder: str
    program: str
    settings: Mapping[str, Any]
    phases: tuple[Phase, ...]

    @classmethod
    def create(
        cls,
        folder: str,
        program: str,
        settings: Mapping[str, Any],
        phases: Sequence[Phase],
        files: Mapping[str, bytes] | None = None,
    ) -> Plan:
        """Write a plan, after the additional `files` that its program needs.

        Raises:
            InputError: the folder cannot be written to.
        """
        for name, value in (files or {}).items():
            Folder(folder).put(name, value)
        written = [
            {"name": phase.name, "covered": [*phase.boxes.whole], "task_size": phase.boxes.tile} for phase in phases
        ]
        Folder(folder).put(FILE, {"program": program, "settings": settings, "phases": written})
        return cls.load(folder)

    @classmethod
    def load(cls, folder: str) -> Plan:
        """Read the plan in a folder.

        Raises:
            InputError: the folder has no plan, or one of a different version.
        """
        try:
            held = Folder(folder).json(FILE)
        except OSError as error:
            raise InputError(folder, error.strerror or reason(error), "the folder of a plan") from error
        if held is None:
            raise InputError(folder, f"no {FILE}", "the folder of a plan")
        if not isinstance(held, Mapping) or "phases" not in held:
            raise InputError(folder, f"the {FILE} of another version", "a plan made by this version, in a new folder")
        try:
            phases = tuple(map(_phase, held["phases"]))
            program, settings = str(held["program"]), dict(held["settings"])
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            wants = "a plan as this version writes it: make it again in a new folder"
            raise InputError(f"{folder}/{FILE}", f"contents of another kind ({reason(error)})", wants) from error
        return cls(folder, program, settings, phases)

    @property
    def markers(self) -> Markers:
        """The markers that record which tasks are done."""
        return Markers(Folder(self.folder))

    def __len__(self) -> int:
        """Number of tasks of all phases."""
        return self.first(len(self.phases))

    def first(self, phase: int) -> int:
        """Return the number of the first task of a phase."""
        return sum(len(before.boxes) for before in self.phases[:phase])

    def numbers(self, phase: int) -> range:
        """Return the numbers of the tasks of a phase."""
        return range(self.first(phase), self.first(phase + 1))

    def phase_of(self, number: int) -> int:
        """Return the phase of a task."""
        return next(phase for phase in range(len(self.phases)) if number in self.numbers(phase))

    def box(self, number: int) -> Box:
        """Return the box of a task."""
        phase = self.phase_of(number)
        box: Box = self.phases[phase].boxes[number - self.first(phase)]
        return box

    def done(self) -> set[int]:
        """Return the numbers of the tasks that are done."""
        return self.markers.done()

    def failed(self) -> dict[int, str]:
        """Return the tasks whose last attempt failed, with the reason."""
        return self.markers.failed()

    def left(self) -> Iterator[int]:
        """Return the tasks that can be done now: the remaining tasks of the first unfinished phase."""
        done = self.done()
        for phase in range(len(self.phases)):
            left = (number for number in self.numbers(phase) if number not in done)
            if (first := next(left, None)) is not None:
                return itertools.chain([first], left)
        return iter(())

    def offer(self) -> Iterator[int]:
        """Open the first unfinished phase to workers and return its remaining tasks."""
        left = self.left()
        if (first := next(left, None)) is None:
            return iter(())
        self.markers.open(self.phase_of(first))
        return itertools.chain([first], left)

    def forget(self, number: int) -> None:
        """Mark a task to be done again.

        Tasks of later phases may have read its wrong output, so they are done again as well, after this phase.
        """
        markers, phase = self.markers, self.phase_of(number)
        later = range(phase + 1, len(self.phases))
        markers.close(later)  # first, so that no worker starts on a later phase
        after = self.first(phase + 1)
        markers.forget([number, *(other for other in markers.done() if other >= after)])


def _phase(held: Mapping[str, Any]) -> Phase:
    """Read a phase from a plan.

    Raises:
        ValueError: the box or the task size is empty.
    """
    begin, end = (vec3(int(n) for n in corner) for corner in held["covered"])
    tile = vec3(int(n) for n in held["task_size"])
    if min(tile) < 1 or any(b >= e for b, e in zip(begin, end, strict=True)):
        raise ValueError(f"{tile} of {begin} to {end}")
    return Phase(str(held["name"]), Tiles(Box(begin, end), tile))
