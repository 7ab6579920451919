#!/usr/bin/env python3
"""Cut a prediction into tasks: ``plan.py --plan FOLDER [--task_size X,Y,Z] <the flags of forward.py>``.

Makes the output volumes and FOLDER/plan.json, and prints tasks, voxels, GPU hours and cost. Then: enqueue.py, and
work.py on as many machines as there are, in the same working directory or a copy of it; status.py tells how far it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.test.option import xyz
from deepem.utils import argv


def main() -> None:
    """Read the command line and do it."""
    p = argv.Parser("plan.py", __doc__ or "")
    p.add_argument("--plan", required=True, metavar="FOLDER", help="a path, file://, gs://, ...")
    p.add_argument("--task_size", type=xyz, default=(1024, 1024, 128), metavar="X,Y,Z", help="rounded to whole chunks")
    p.add_argument("--voxels_per_s", type=argv.positive, help="of one GPU (default: a trial on this machine)")
    p.add_argument("--price", type=argv.positive, default=1.0, metavar="PER_HOUR", help="of one GPU for an hour")
    if {"-h", "--help"} & set(sys.argv):
        p.print_help()
        return
    with argv.one_line_errors("plan.py"):
        words = sys.argv[1:]
        for at in [n for n, word in enumerate(words) if word == "--task_size"]:
            words[at + 1 : at + 2] = [f" {word}" for word in words[at + 1 : at + 2]]  # argparse takes -5,1,1 for a flag
        own, words = p.parse_known_args(words)
        from deepem.test.plan import Plan

        plan = Plan.make(own.plan, words, own.task_size[::-1])
        rate, how = (own.voxels_per_s, "as given") if own.voxels_per_s else (plan.rate(), "a trial here")
        patches, least = plan.patches, plan.uncut
        hours = plan.voxels * patches / least / rate / 3600
        more = f"{patches / least:.2f} times those of one piece"
        each = hours * 3600 / len(plan.boxes)
        print(f"{len(plan.boxes):,} tasks, {plan.voxels:,} voxels, {patches:,} patches ({more})")
        print(f"about {hours:,.2f} GPU hours at {rate:,.0f} voxels/s ({how}), cost {hours * own.price:,.2f}")
        print(f"about {each:,.0f} s a task: --lease of work.py is to be several times that")


if __name__ == "__main__":
    main()
