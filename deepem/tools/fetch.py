"""Get a published checkpoint by its name, check it, and put it where other commands find it.

    deepem fetch NAME                              into experiments/NAME
    deepem fetch NAME --table ours.json            from your own table
    deepem forward --exp_name NAME --data_dir data --test_ids t1
    deepem train --pretrain experiments/NAME/models/model1000.chkpt ...

A table is a JSON file, {"NAME": {"address": "https://.../", "sha256": "..."}}; `deepem export --bundle` prints the row.
The checksum is that of bundle.json at the address, which holds those of all other files. Only tensors, arrays and text
are taken, and no code comes with them. The network must reproduce the example that was published with it. The folder
appears when everything is there and right, or not at all. `deepem.load(FOLDER)` returns the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepem.cli import words as readers
from deepem.cli.flags import Group, flag
from deepem.cli.parser import leading, read_group
from deepem.tools import output
from deepem.utils.errors import InputError

PROGRAM = "deepem fetch"
TABLE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class FetchOptions(Group):
    """What to fetch, from where, and where to."""

    title = "published checkpoints"
    out: Path | None = flag(None, "folder to make (default: experiments/NAME)", metavar="DIR")
    table: Path | None = flag(None, "table of addresses (default: deepem/tools/published.json)", metavar="FILE")
    model: str | None = flag(None, "model module; needed if it is not one of deepem's", metavar="MODULE")
    patience: float = flag(
        60.0, "a server that sends nothing for this many seconds counts as gone", read=readers.positive
    )
    list: bool = flag(False, "only list the table")


def main(words: Sequence[str]) -> int:
    """Read the command line and fetch."""
    with output.errors_of(PROGRAM):
        names, rest = leading(words)
        own = read_group(PROGRAM, __doc__, FetchOptions, rest, f"{PROGRAM} NAME")
        from deepem.tools import fetching

        rows = fetching.table(own.table or TABLE)
        if own.list:
            for name, row in rows.items():
                output.say(f"{name:<28} {row.address}")
            return 0
        if len(names) != 1:
            raise InputError("NAME", " ".join(names) or "nothing", f"one of: {', '.join(rows) or 'the table is empty'}")
        row = fetching.row(rows, names[0], own.table or TABLE)
        out = own.out or Path("experiments", names[0])
        output.check_folder("--out", out)
        with output.writing("--out", out):
            output.say(fetching.fetched(row, out, own.model, own.patience))
    return 0
