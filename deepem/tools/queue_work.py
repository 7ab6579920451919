"""Do tasks of a queue until it is empty; run this on any number of machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepem.cli import words as readers
from deepem.cli.flags import REQUIRED, Group, flag
from deepem.cli.parser import read_group
from deepem.tools import output

PROGRAM = "deepem queue work"


@dataclass(frozen=True)
class WorkOptions(Group):
    """The queue and the lease of its tasks."""

    title = "queue"
    queue: str = flag(REQUIRED, "fq://FOLDER or sqs://QUEUE", metavar="URL")
    lease: int = flag(600, "return a task that takes longer to the queue", read=readers.counting, metavar="SECONDS")
    stay: bool = flag(False, "wait for more tasks when the queue is empty")


def main(words: Sequence[str]) -> int:
    """Read the command line and work."""
    with output.errors_of(PROGRAM, "queue"):
        own = read_group(PROGRAM, __doc__, WorkOptions, words, f"{PROGRAM} --queue fq://FOLDER")
        from deepem.blocks.worker import work
        from deepem.utils.allocator import keep_memory

        keep_memory(one_arena=True)
        output.say(f"{work(own.queue, own.lease, own.stay)} tasks taken")
    return 0
