"""Show the progress of a plan. Exit code 1: tasks remain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepem.cli.flags import REQUIRED, Group, flag
from deepem.cli.parser import read_group
from deepem.tools import output

PROGRAM = "deepem queue status"


@dataclass(frozen=True)
class StatusOptions(Group):
    """The plan and the queue."""

    title = "plan and queue"
    plan: str = flag(REQUIRED, "folder made by deepem queue plan", metavar="FOLDER")
    queue: str | None = flag(None, "also count the tasks in this queue, and those that are leased", metavar="URL")
    verify: bool = flag(False, "check the outputs of finished tasks")
    json: bool = flag(False, "print JSON, for scripts")


def main(words: Sequence[str]) -> int:
    """Read the command line and count the tasks."""
    with output.errors_of(PROGRAM, "queue"):
        own = read_group(PROGRAM, __doc__, StatusOptions, words, f"{PROGRAM} --plan FOLDER")
        found = counts(own.plan, own.queue, own.verify)
    if own.json:
        output.say(json.dumps(found))
    else:
        output.say(", ".join(f"{name} {value}" for name, value in found.items() if isinstance(value, int)))
        for line in found["failed"].values():
            output.say(line)
        for number in found["damaged"]:
            output.say(f"task {number}: its output is not what its marker says")
    return 0 if found["done"] == found["tasks"] and not found["damaged"] else 1


def counts(folder: str, queue: str | None, verify: bool) -> dict[str, Any]:
    """Count the finished, failed and damaged tasks of a plan, and those in a queue."""
    from deepem.blocks.plan import Plan
    from deepem.blocks.queue import open_queue
    from deepem.blocks.worker import damaged, do_task

    plan = Plan.load(folder)
    found: dict[str, Any] = {"tasks": len(plan), "done": len(plan.done()), "failed": plan.failed()}
    found["damaged"] = damaged(plan) if verify else []
    if queue:
        holds = open_queue(queue, do_task)
        found |= {"enqueued": holds.enqueued, "leased": holds.leased}
    return found
