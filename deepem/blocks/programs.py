"""The table of programs whose work can be split into tasks, and the protocols that they must implement.

A program is a module. The table gives its dotted path; it is imported when needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3

if TYPE_CHECKING:
    from deepem.blocks.plan import Plan

PROGRAMS = {
    "forward": "deepem.test.blockwise",
    "objects": "deepem.test.objects_plan",
    "segment": "deepem.tools.segment_tasks",
}


class Tasks(Protocol):
    """Does the tasks of one plan. It is created once per process and reused for every task."""

    def do(self, phase: str, box: Box, label: str) -> dict[str, Any]:
        """Do the task of a box and return the plain values for its marker, with which `holds` checks the output.

        The output must be bit-identical however often, and in whatever order, the tasks of a phase are done. `label`
        names the task in progress messages.

        Raises:
            InputError: reading or writing failed. The task is tried again, and finally marked as failed.
            OSError: likewise.
        """

    def holds(self, phase: str, marker: Mapping[str, Any]) -> bool:
        """Return whether the output of a task still matches its marker."""


@dataclass(frozen=True)
class Effort:
    """The cost of a plan.

    Attributes:
        voxels: Output voxels of all tasks.
        patches: Patches of all tasks. A patch that neighbouring tasks share counts once per task.
        uncut: Patches needed if the work were not split into tasks.
    """

    voxels: int
    patches: int
    uncut: int


class Program(Protocol):
    """The interface of a program's module.

    Attributes:
        MACHINE: The device that does a task: ``GPU`` or ``processor``.
    """

    MACHINE: str

    def make_plan(self, folder: str, words: Sequence[str], task_size: Vec3) -> Plan:
        """Split the work that command-line words describe into tasks of about `task_size` (z, y, x) voxels.

        Raises:
            InputError: the words are not valid.
        """

    def open_tasks(self, plan: Plan) -> Tasks:
        """Return the object that does the tasks of a plan; `make_plan` may have run on another machine."""

    def effort(self, plan: Plan) -> Effort:
        """Return the cost of the plan."""

    def rate(self, plan: Plan) -> float:
        """Measure the output voxels per second of this machine in a trial of a few seconds."""


def program(name: str) -> Program:
    """Return the module of a program.

    Raises:
        InputError: no program has that name.
    """
    if name not in PROGRAMS:
        raise InputError("program", name, f"one of {', '.join(PROGRAMS)}")
    return cast(Program, importlib.import_module(PROGRAMS[name]))
