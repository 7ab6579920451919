"""Put the tasks of a plan that are left into a queue: ``deepem queue enqueue --plan FOLDER --queue fq://FOLDER``.

Call it again later: it puts in what is still left, and when a phase is done, the tasks of the next one. With --verify
the outputs of tasks that are done are read and compared with their checksums, and damaged ones are done again.
"""

from __future__ import annotations

from collections.abc import Sequence

from deepem.tools import output
from deepem.utils import argv


def main(words: Sequence[str]) -> int:
    """Read the command line and do it."""
    p = argv.Parser("deepem queue enqueue", __doc__ or "")
    p.add_argument("--plan", required=True, metavar="FOLDER", help="made by deepem queue plan")
    p.add_argument("--queue", required=True, metavar="URL", help="fq://FOLDER or sqs://QUEUE")
    p.add_argument("--verify", action="store_true", help="check the outputs of tasks that are done")
    if output.asks_for_help(p, words):
        return 0
    with output.errors_of(p.prog, "queue"):
        own = p.parse_args(words)
        from deepem.blocks import worker
        from deepem.blocks.plan import Plan

        plan = Plan.load(own.plan)
        for number in worker.damaged(plan) if own.verify else ():
            worker.tell(f"task {number}: its output is not what its marker says")
            plan.forget(number)
        count = worker.enqueue(plan, own.queue)
        output.say(f"{count} of {len(plan)} tasks put into {own.queue}")
    return 0
