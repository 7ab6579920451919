"""A program's work cut into tasks, in phases: those of a phase begin when all of the phase before are done.

A plan is a folder with ``plan.json``: the program, what it keeps for itself, and of each phase the box that it covers
and the size of a task. Nothing in it grows with the number of tasks. Tasks are numbered from 0 over all phases.
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
    """Tasks that do not need each other's results.

    Attributes:
        name: What the program knows it by.
        boxes: Of its tasks. A task for the whole is one box.
    """

    name: str
    boxes: Tiles


@dataclass(frozen=True)
class Plan:
    """The tasks of a program's work.

    Attributes:
        folder: Where the plan lies.
        program: The program's name in `deepem.blocks.programs`.
        settings: What the program keeps in the plan: plain values.
        phases: One after the other.
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
        """Write a plan, after further `files` that its program needs.

        Raises:
            InputError: the folder cannot take it.
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
        """The plan in a folder.

        Raises:
            InputError: there is none, or one of another version.
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
        """What says which tasks are done."""
        return Markers(Folder(self.folder))

    def __len__(self) -> int:
        """Tasks of all phases."""
        return self.first(len(self.phases))

    def first(self, phase: int) -> int:
        """The number of the first task of a phase."""
        return sum(len(before.boxes) for before in self.phases[:phase])

    def numbers(self, phase: int) -> range:
        """The numbers of the tasks of a phase."""
        return range(self.first(phase), self.first(phase + 1))

    def phase_of(self, number: int) -> int:
        """The phase of a task."""
        return next(phase for phase in range(len(self.phases)) if number in self.numbers(phase))

    def box(self, number: int) -> Box:
        """The box of a task."""
        phase = self.phase_of(number)
        box: Box = self.phases[phase].boxes[number - self.first(phase)]
        return box

    def done(self) -> set[int]:
        """The tasks that are done."""
        return self.markers.done()

    def failed(self) -> dict[int, str]:
        """The tasks that could not be done at the last try, and why."""
        return self.markers.failed()

    def left(self) -> Iterator[int]:
        """The tasks that can be done now: those left of the first phase that is not done."""
        done = self.done()
        for phase in range(len(self.phases)):
            left = (number for number in self.numbers(phase) if number not in done)
            if (first := next(left, None)) is not None:
                return itertools.chain([first], left)
        return iter(())

    def offer(self) -> Iterator[int]:
        """The tasks that can be done now, their phase opened to workers."""
        left = self.left()
        if (first := next(left, None)) is None:
            return iter(())
        self.markers.open(self.phase_of(first))
        return itertools.chain([first], left)

    def forget(self, number: int) -> None:
        """Have a task done again.

        Tasks of later phases may have read what is now in doubt, so they are done again too, once its phase is done.
        """
        markers, phase = self.markers, self.phase_of(number)
        later = range(phase + 1, len(self.phases))
        markers.close(later)  # first of all: no worker is to begin with a later phase now
        after = self.first(phase + 1)
        markers.forget([number, *(other for other in markers.done() if other >= after)])


def _phase(held: Mapping[str, Any]) -> Phase:
    """A phase as it is written in a plan.

    Raises:
        ValueError: a box or a task of no size.
    """
    begin, end = (vec3(int(n) for n in corner) for corner in held["covered"])
    tile = vec3(int(n) for n in held["task_size"])
    if min(tile) < 1 or any(b >= e for b, e in zip(begin, end, strict=True)):
        raise ValueError(f"{tile} of {begin} to {end}")
    return Phase(str(held["name"]), Tiles(Box(begin, end), tile))
