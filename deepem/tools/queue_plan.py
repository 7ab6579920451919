"""Cut a prediction into tasks: ``deepem queue plan --plan FOLDER [--task_size X,Y,Z] <the flags of deepem forward>``.

Makes the output volumes and FOLDER/plan.json, and prints tasks, voxels, GPU hours and cost. Then call `deepem queue
enqueue`, and `deepem queue work` on as many machines as there are, in the same working directory or a copy of it.
`deepem queue status` shows how far it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from deepem.tools import output
from deepem.utils import argv
from deepem.utils.geometry import vec3

PROGRAM = "forward"


def main(words: Sequence[str]) -> int:
    """Read the command line, make the plan and print what it costs."""
    p = argv.Parser("deepem queue plan", __doc__ or "")
    p.add_argument("--plan", required=True, metavar="FOLDER", help="a path, file://, gs://, ...")
    p.add_argument("--task_size", type=xyz, default=(1024, 1024, 128), metavar="X,Y,Z", help="rounded to whole chunks")
    p.add_argument("--voxels_per_s", type=argv.positive, help="of one GPU (default: a trial on this machine)")
    p.add_argument("--price", type=argv.positive, default=1.0, metavar="PER_HOUR", help="of one GPU for an hour")
    if output.asks_for_help(p, words):
        return 0
    with output.errors_of(p.prog):
        words = list(words)
        for at in [n for n, word in enumerate(words) if word == "--task_size"]:
            words[at + 1 : at + 2] = [f" {word}" for word in words[at + 1 : at + 2]]  # argparse takes -5,1,1 for a flag
        own, rest = p.parse_known_args(words)
        from deepem.blocks.programs import program

        of = program(PROGRAM)
        plan = of.make_plan(own.plan, rest, vec3(own.task_size[::-1]))
        rate, how = (own.voxels_per_s, "as given") if own.voxels_per_s else (of.rate(plan), "a trial here")
        effort, tasks = of.effort(plan), len(plan)
        share = effort.patches / effort.uncut
        hours = effort.voxels * share / rate / 3600
        patches = f"{effort.patches:,} patches ({share:.2f} times those of one piece)"
        output.say(f"{tasks:,} tasks, {effort.voxels:,} voxels, {patches}")
        output.say(f"about {hours:,.2f} GPU hours at {rate:,.0f} voxels/s ({how}), cost {hours * own.price:,.2f}")
        each = hours * 3600 / tasks
        output.say(f"about {each:,.0f} s a task: --lease of deepem queue work is to be several times that")
    return 0


def _three(text: str) -> tuple[int, int, int]:
    x, y, z = (int(part) for part in text.split(","))
    return x, y, z


xyz = argv.value_of("three whole numbers x,y,z", _three)
