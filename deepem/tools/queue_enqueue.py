"""Put the remaining tasks of a plan into a queue.

Call it again later to enqueue the tasks that still remain and, when a phase is done, those of the next phase. --verify
reads the outputs of finished tasks, compares them with their checksums, and enqueues tasks with damaged outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepem.cli.flags import REQUIRED, Group, flag
from deepem.cli.parser import read_group
from deepem.tools import output

PROGRAM = "deepem queue enqueue"


@dataclass(frozen=True)
class EnqueueOptions(Group):
    """The plan and the queue."""

    title = "plan and queue"
    plan: str = flag(REQUIRED, "folder made by deepem queue plan", metavar="FOLDER")
    queue: str = flag(REQUIRED, "fq://FOLDER or sqs://QUEUE", metavar="URL")
    verify: bool = flag(False, "check the outputs of finished tasks")


def main(words: Sequence[str]) -> int:
    """Read the command line and enqueue."""
    with output.errors_of(PROGRAM, "queue"):
        own = read_group(PROGRAM, __doc__, EnqueueOptions, words, f"{PROGRAM} --plan FOLDER --queue fq://FOLDER")
        from deepem.blocks import worker
        from deepem.blocks.plan import Plan

        plan = Plan.load(own.plan)
        for number in worker.damaged(plan) if own.verify else ():
            worker.tell(f"task {number}: its output is not what its marker says")
            plan.forget(number)
        count = worker.enqueue(plan, own.queue)
        output.say(f"{count} of {len(plan)} tasks put into {own.queue}")
    return 0
