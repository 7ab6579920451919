"""How far a plan is: ``deepem queue status --plan FOLDER [--queue URL] [--verify]``. Exit code 1: tasks are left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from deepem.tools import output
from deepem.utils import argv


def main(words: Sequence[str]) -> int:
    """Read the command line and do it."""
    p = argv.Parser("deepem queue status", __doc__ or "")
    p.add_argument("--plan", required=True, metavar="FOLDER", help="made by deepem queue plan")
    p.add_argument("--queue", metavar="URL", help="show how many tasks it holds and how many are leased")
    p.add_argument("--verify", action="store_true", help="check the outputs of tasks that are done")
    p.add_argument("--json", action="store_true", help="for scripts")
    if output.asks_for_help(p, words):
        return 0
    with output.errors_of(p.prog, "queue"):
        own = p.parse_args(words)
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
    """What is done, failed and damaged of a plan, and what a queue holds."""
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
