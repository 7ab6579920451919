"""Do tasks of a queue until none is left: ``deepem queue work --queue fq://FOLDER``, on any number of machines."""

from __future__ import annotations

from collections.abc import Sequence

from deepem.tools import output
from deepem.utils import argv


def main(words: Sequence[str]) -> int:
    """Read the command line and do it."""
    p = argv.Parser("deepem queue work", __doc__ or "")
    p.add_argument("--queue", required=True, metavar="URL", help="fq://FOLDER or sqs://QUEUE")
    p.add_argument("--lease", type=argv.counting, default=600, metavar="SECONDS", help="a task takes less than this")
    p.add_argument("--stay", action="store_true", help="wait for more when the queue is empty")
    if output.asks_for_help(p, words):
        return 0
    with output.errors_of(p.prog, "queue"):
        own = p.parse_args(words)
        from deepem.blocks.worker import work
        from deepem.utils.allocator import keep_memory

        keep_memory(one_arena=True)
        output.say(f"{work(own.queue, own.lease, own.stay)} tasks taken")
    return 0
