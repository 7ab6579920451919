"""Check the volumes of a run before it starts, and report what is wrong with them and how to fix it.

Takes all flags of deepem train and those below, and reads what a run with the same flags would read::

    deepem check --data deepem.data.dataset.synthetic --aff 1 --mit 1 --out check.png

Exit code 0: no problem found; 3: problems found; 2: the flags or files cannot be used at all. Some faults cannot be
seen in the data. For example, an image and a label that are mirrored together look like any other volume.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepem.cli.one_line import OneLineParser
from deepem.cli.train_parser import parse
from deepem.tools import output
from deepem.utils.errors import InputError
from deepem.utils.files import write_text
from deepem.utils.provenance import provenance

if TYPE_CHECKING:
    from deepem.tools.checkup import Report

FOUND = 3
"""Exit code if something is wrong with the data."""


def main(words: Sequence[str]) -> int:
    """Check the volumes, print one screen of text, and draw one picture."""
    parser = OneLineParser(
        "deepem check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, help="draw each volume with its label into this picture")
    parser.add_argument("--json", type=Path, help="write the whole report to this file")
    with output.errors_of(parser.prog):
        args, words = parser.parse_known_args(words)
        for flag, path in (("--out", args.out), ("--json", args.json)):
            if path is not None:
                output.check_file(flag, path)
        if args.out is not None and args.out.suffix.lower() != ".png":
            raise InputError("--out", args.out, "a picture to write, such as check.png")
        options = parse(words)
        from deepem.tools import check_sheet, checkup

        report = checkup.examine(options)
        output.say(screen(report))
        if args.json is not None:
            with output.writing("--json", args.json):
                write_text(args.json, json.dumps({**report.plain(), "provenance": provenance()}, indent=1))
        if args.out is not None:
            with output.writing("--out", args.out):
                check_sheet.write(args.out, report)
    return FOUND if report.findings else 0


def screen(report: Report) -> str:
    """Return the report as text."""
    lines = []
    for name, about in report.volumes.items():
        size = about["voxel_size_nm"]
        told = f"{', '.join(f'{n:g}' for n in size)} nm" if size else "voxel size not told"
        change = f"change along z {about['z differs']} of that along y and x" if "z differs" in about else ""
        lines.append(", ".join(filter(None, (f"{name}: {_shape(about)}", told, change))))
        for key, label in about["labels"].items():
            share = f"{label['ids']} ids, {label['cut']:.1%} of edges cut" if "ids" in label else ""
            share = share or f"{label.get('positive', 0):.2%} positive"
            lines.append(f"  {key}: {_shape(label)}, {share}")
    lines += [f"note: {line}" for line in report.notes]
    if report.expected:
        expected = report.expected
        patch = ",".join(map(str, expected["largest_patch"]))
        lines.append(
            f"{expected['samples_per_s']} samples/s in one process, {expected['memory_mb']} MB of volumes, "
            f"checkpoints of about {expected['checkpoint_mb']} MB, patches up to {patch}"
        )
    for number, one in enumerate(report.findings, 1):
        lines.append(f"{number}. {one.where}: {one.code}: {one.what}; {one.remedy}")
    lines.append(f"{len(report.findings)} findings" if report.findings else "nothing found")
    return "\n".join(lines)


def _shape(about: dict[str, Any]) -> str:
    return f"{'x'.join(map(str, about['shape']))} {about['type']}"
