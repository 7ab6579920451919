"""Cut a prediction or a segmentation into tasks.

Writes FOLDER/plan.json, and prints tasks, voxels, hours and cost. Then call `deepem queue enqueue`, and call it again
whenever a phase is done. Call `deepem queue work` on any number of machines, in the same working directory or a copy of
it. `deepem queue status` shows the progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepem.cli import forward_parser
from deepem.cli import words as readers
from deepem.cli.flags import REQUIRED, Group, filled, flag, flags_of
from deepem.cli.parser import Parser
from deepem.tools import output
from deepem.tools.segment_options import SegmentOptions
from deepem.utils.geometry import Vec3, vec3

PROGRAM = "deepem queue plan"


@dataclass(frozen=True)
class PlanOptions(Group):
    """The folder of the plan and the size of its tasks."""

    title = "plan"
    plan: str = flag(REQUIRED, "folder of the plan: a path, file://, gs://, ...", metavar="FOLDER")
    program: Literal["forward", "segment"] = flag("forward", "the program to cut into tasks")
    task_size: Vec3 = flag(
        (1024, 1024, 128), "size of a task, rounded to whole chunks", read=readers.xyz, metavar="X,Y,Z"
    )
    voxels_per_s: float | None = flag(
        None, "speed of one GPU or processor (default: measured on this machine)", read=readers.positive
    )
    price: float = flag(1.0, "cost of one GPU or processor per hour", read=readers.positive, metavar="PER_HOUR")


def main(words: Sequence[str]) -> int:
    """Read the command line, make the plan and print what it costs."""
    parser = Parser(PROGRAM, __doc__ or "", f"{PROGRAM} --plan FOLDER <the words of deepem forward>")
    parser.add_group(PlanOptions)
    with output.errors_of(PROGRAM) as flags:
        flags.update(forward_parser.parser().flags, (flag.name for flag in flags_of(SegmentOptions)))
        given, rest = parser.read_known(words)
        own = filled(PlanOptions, given)
        from deepem.blocks.programs import program

        of = program(own.program)
        plan = of.make_plan(own.plan, rest, vec3(own.task_size[::-1]))
        of = program(plan.program)
        rate, how = (own.voxels_per_s, "as given") if own.voxels_per_s else (of.rate(plan), "a trial here")
        effort, tasks = of.effort(plan), len(plan)
        share = effort.patches / effort.uncut
        hours = effort.voxels * share / rate / 3600
        patches = f"{effort.patches:,} patches ({share:.2f} times those of one piece)"
        output.say(f"{tasks:,} tasks, {effort.voxels:,} voxels, {patches}")
        output.say(
            f"about {hours:,.2f} {of.MACHINE} hours at {rate:,.0f} voxels/s ({how}), cost {hours * own.price:,.2f}"
        )
        each = hours * 3600 / tasks
        output.say(f"about {each:,.0f} s a task: --lease of deepem queue work is to be several times that")
    return 0
