"""Train, predict, segment, evaluate and report as one file of settings says.

    deepem run exp.yaml

The file has a heading for each program::

    train:    {data: synthetic, aff: 1, max_iter: 1000, exp_name: demo}
    forward:  {data_dir: data, test_ids: [t1, t2]}
    segment:  {threshold: 0.5}
    evaluate: {truth: "data/{}"}              {} is the id; the default is the folder of the image
    report:   {}                              a page about the run: report.html in its folder
    sweep:    {lr: [1e-3, 3e-4], seed: [0, 1]}    of training; every combination is one run

A file without such headings only trains. A stage is skipped if the same options and inputs already made its outputs and
these have not changed since. The same command resumes a pipeline that was killed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepem.cli import config_file
from deepem.cli import words as readers
from deepem.cli.flags import Group, flag
from deepem.cli.parser import leading, read_group
from deepem.tools import output
from deepem.utils.errors import InputError
from deepem.utils.files import write_text

PROGRAM = "deepem run"


@dataclass(frozen=True)
class PipelineOptions(Group):
    """How to do the runs of the file."""

    title = "runs"
    point: int | None = flag(None, "do only this run of a sweep, counted from 0", read=readers.natural, metavar="N")
    slurm: bool = flag(False, "submit an array job with a task for each run, or write its script if there is no sbatch")
    sbatch: list[str] = flag([], "options of sbatch, such as gpus=1 time=12:00:00", metavar="NAME=X", many="*")
    table: bool = flag(False, "only show the table of a sweep")


def main(words: Sequence[str]) -> int:
    """Read the command line and do the stages that are not done."""
    with output.errors_of(PROGRAM, "point"):
        files, rest = leading(words)
        if "--schema" in rest:
            output.say(schema_text().rstrip())
            return 0
        own = read_group(PROGRAM, __doc__, PipelineOptions, rest, f"{PROGRAM} exp.yaml")
        if not files:
            raise InputError("FILE", "nothing", f"a file of settings: {PROGRAM} exp.yaml")
        from deepem.tools import runner, sweep

        points = sweep.points(config_file.read(files))
        runs = [runner.Run.of(files, point) for point in points]
        for run in runs:
            runner.check(run)
        if own.point is not None and own.point >= len(runs):
            raise InputError("--point", own.point, f"a number from 0 to {len(runs) - 1}")
        folder = runs[0].folder.parent if points[0].values else runs[0].folder
        if own.slurm:
            return submit(files, len(runs), folder, own.sbatch)
        if not own.table:
            for run in runs if own.point is None else [runs[own.point]]:
                code = runner.do(run)
                if code:
                    return code
        if points[0].values and own.point is None:
            text = sweep.table([run.row() for run in runs])
            write_text(folder / "sweep.md", text + "\n")
            output.say(text)
    return 0


def schema_text() -> str:
    """Return the JSON schema of a file of settings for all stages."""
    from deepem.cli import forward_parser, schema, train_parser
    from deepem.cli.flags import flags_of
    from deepem.tools.evaluate_options import EvaluateOptions
    from deepem.tools.report_options import ReportOptions
    from deepem.tools.segment_options import SegmentOptions

    groups: dict[str, type[Group]] = {"segment": SegmentOptions, "evaluate": EvaluateOptions, "report": ReportOptions}
    parsers = {"train": train_parser.parser(), "forward": forward_parser.parser()}
    return schema.pipeline(
        {name: parser.titles for name, parser in parsers.items()}
        | {name: {group.title: flags_of(group)} for name, group in groups.items()}
    )


def submit(files: Sequence[str], count: int, folder: Path, options: Sequence[str]) -> int:
    """Write the script of an array job, and submit it if sbatch is installed."""
    from deepem.tools import sweep

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.sbatch"
    command = [sys.executable, "-m", "deepem", "run", *files]
    write_text(path, sweep.script(files, count, folder, options, command))
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        output.say(f"{path}: {count} tasks; no sbatch here: submit it with sbatch {path}")
        return 0
    return subprocess.run([sbatch, str(path)], check=False).returncode
