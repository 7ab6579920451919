#!/usr/bin/env python3
"""Do tasks of a queue until none is left: ``work.py --queue fq://FOLDER``; on as many machines as there are."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.utils import argv


def main() -> None:
    """Read the command line and do it."""
    p = argv.Parser("work.py", __doc__ or "")
    p.add_argument("--queue", required=True, metavar="URL", help="fq://FOLDER or sqs://QUEUE")
    p.add_argument("--lease", type=argv.counting, default=600, metavar="SECONDS", help="a task takes less than this")
    p.add_argument("--stay", action="store_true", help="wait for more when the queue is empty")
    if {"-h", "--help"} & set(sys.argv):
        p.print_help()
        return
    with argv.one_line_errors("work.py"):
        own = p.parse_args()
        from deepem.test.worker import work
        from deepem.utils.allocator import keep_memory

        keep_memory(one_arena=True)
        print(f"{work(own.queue, own.lease, own.stay)} tasks taken")


if __name__ == "__main__":
    main()
