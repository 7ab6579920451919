"""The programs whose work can be cut into tasks, by name, and what each must offer.

A program is a module, named here by its dotted path and imported when it is needed.
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

PROGRAMS = {"forward": "deepem.test.blockwise", "segment": "deepem.tools.segment_tasks"}


class Tasks(Protocol):
    """What does the tasks of one plan. It is made once per process and kept from task to task."""

    def do(self, phase: str, box: Box, label: str) -> dict[str, Any]:
        """Do the task of a box and return what its marker holds: plain values from which `holds` knows the output.

        The output must be the same, to the bit, however often and in whatever order the tasks of a phase are done.
        `label` names the task where it shows progress.

        Raises:
            InputError: something cannot be read or written. The task is tried again, and then noted as failed.
            OSError: likewise.
        """

    def holds(self, phase: str, marker: Mapping[str, Any]) -> bool:
        """Whether the output of a task is still what its marker says."""


@dataclass(frozen=True)
class Effort:
    """What a plan costs.

    Attributes:
        voxels: Output voxels of all tasks.
        patches: Patches of all tasks. Those that neighbouring tasks share count for each of them.
        uncut: Patches of the whole in one piece.
    """

    voxels: int
    patches: int
    uncut: int


class Program(Protocol):
    """What the module of a program offers.

    Attributes:
        MACHINE: What does a task: ``GPU`` or ``processor``.
    """

    MACHINE: str

    def make_plan(self, folder: str, words: Sequence[str], task_size: Vec3) -> Plan:
        """Cut what a command line asks for into tasks of about `task_size` (z, y, x) voxels.

        Raises:
            InputError: the words cannot be used.
        """

    def open_tasks(self, plan: Plan) -> Tasks:
        """What does the tasks of a plan that `make_plan` has made, here or on another machine."""

    def effort(self, plan: Plan) -> Effort:
        """What the plan costs."""

    def rate(self, plan: Plan) -> float:
        """Output voxels per second on this machine, from a trial of a few seconds."""


def program(name: str) -> Program:
    """The module of a program.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PROGRAMS:
        raise InputError("program", name, f"one of {', '.join(PROGRAMS)}")
    return cast(Program, importlib.import_module(PROGRAMS[name]))
