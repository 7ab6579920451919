"""Write a page about a run: curves, pictures, scores, options, outputs, and the commands that make it again.

    deepem report demo                                  writes experiments/demo/report.html
    deepem report experiments/demo --out demo.html
    deepem report demo other another                    compares runs, in experiments/report.html

A run is given by its folder, or by its name in experiments/. The page is one HTML file that needs no other file and no
network; open it in any browser. The run may still be going, or have been resumed, or have damaged logs: the page says
what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from deepem.cli.parser import leading, read_group
from deepem.tools import output
from deepem.tools.report_options import PROGRAM, ReportOptions
from deepem.utils.errors import InputError
from deepem.utils.files import write_text


def main(words: Sequence[str]) -> int:
    """Read the command line and write the page."""
    with output.errors_of(PROGRAM, "out"):
        runs, rest = leading(words)
        own = read_group(PROGRAM, __doc__, ReportOptions, rest, f"{PROGRAM} RUN ...")
        if not runs:
            raise InputError("RUN", "nothing", "the folder of a run, or its name in experiments/")
        from deepem.tools import compare_page, run_page, run_record

        folders = [run_record.find(word) for word in runs]
        out = own.out or common(folders) / "report.html"
        if out.suffix.lower() not in (".html", ".htm"):
            raise InputError("--out", out, "a name that ends in .html")
        output.check_file("--out", out)
        records = [run_record.read(folder) for folder in folders]
        text = run_page.page(records[0]) if len(records) == 1 else compare_page.page(records)
        with output.writing("--out", out):
            write_text(out, text)
        output.say(out)
    return 0


def common(folders: Sequence[Path]) -> Path:
    """Return the folder of a run, or the innermost folder that holds several."""
    if len(folders) == 1:
        return folders[0]
    return Path(os.path.relpath(os.path.commonpath([folder.resolve().parent for folder in folders])))
