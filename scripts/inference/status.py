#!/usr/bin/env python3
"""How far a plan is: ``status.py --plan FOLDER [--queue URL] [--verify]``; exit code 1 while tasks are left."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.utils import argv


def main() -> None:
    """Read the command line and do it."""
    p = argv.Parser("status.py", __doc__ or "")
    p.add_argument("--plan", required=True, metavar="FOLDER", help="made by plan.py")
    p.add_argument("--queue", metavar="URL", help="tell how many tasks it holds and how many are leased")
    p.add_argument("--verify", action="store_true", help="check the outputs of tasks that are done")
    p.add_argument("--json", action="store_true", help="for scripts")
    if {"-h", "--help"} & set(sys.argv):
        p.print_help()
        return
    with argv.one_line_errors("status.py"):
        own = p.parse_args()
        from deepem.test.plan import Plan
        from deepem.test.worker import open_queue

        plan = Plan.load(own.plan)
        done, failed = plan.done(), plan.failed()
        damaged = plan.damaged() if own.verify else []
        found = {"tasks": len(plan.boxes), "done": len(done), "failed": failed, "damaged": damaged}
        if own.queue:
            queue = open_queue(own.queue)
            found |= {"enqueued": queue.enqueued, "leased": queue.leased}
    if own.json:
        print(json.dumps(found))
    else:
        print(", ".join(f"{name} {value}" for name, value in found.items() if isinstance(value, int)))
        for line in failed.values():
            print(line)
        for number in damaged:
            print(f"task {number}: its output is not what its marker says")
    raise SystemExit(0 if len(done) == len(plan.boxes) and not damaged else 1)


if __name__ == "__main__":
    main()
