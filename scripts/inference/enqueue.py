#!/usr/bin/env python3
"""Put the tasks of a plan that are not done into a queue: ``enqueue.py --plan FOLDER --queue fq://FOLDER``.

With --verify the outputs of the others are read and compared with their checksums, and the damaged ones go in too.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.utils import argv


def main() -> None:
    """Read the command line and do it."""
    p = argv.Parser("enqueue.py", __doc__ or "")
    p.add_argument("--plan", required=True, metavar="FOLDER", help="made by plan.py")
    p.add_argument("--queue", required=True, metavar="URL", help="fq://FOLDER or sqs://QUEUE")
    p.add_argument("--verify", action="store_true", help="check the outputs of tasks that are done")
    if {"-h", "--help"} & set(sys.argv):
        p.print_help()
        return
    with argv.one_line_errors("enqueue.py"):
        own = p.parse_args()
        from deepem.test.plan import Plan
        from deepem.test.worker import enqueue

        plan = Plan.load(own.plan)
        damaged = plan.damaged() if own.verify else []
        for number in damaged:
            print(f"task {number}: its output is not what its marker says", file=sys.stderr)
            plan.forget(number)
        print(f"{enqueue(plan, own.queue, plan.left())} of {len(plan.boxes)} tasks put into {own.queue}")


if __name__ == "__main__":
    main()
