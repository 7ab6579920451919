"""Make several runs from one file: every combination of the values under ``sweep:``, and a table of results."""

from __future__ import annotations

import itertools
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deepem.cli.config_file import SWEEP, Setting, is_null, plain
from deepem.utils.errors import InputError

SCRIPT = """\
#!/usr/bin/env bash
# Every run of {files}, one per task of an array job. A task that is stopped is queued again and goes on.
#SBATCH --job-name=deepem
#SBATCH --array=0-{last}
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={folder}/point-%a.log
{options}
set -uo pipefail
cd {cwd}
{command} --point "$SLURM_ARRAY_TASK_ID" & child=$!
trap 'kill -USR1 "$child"' USR1
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
if [ "$code" -eq 85 ]; then scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"; exit 0; fi
exit "$code"
"""


@dataclass(frozen=True)
class Point:
    """One combination of the values of a sweep: names and YAML nodes."""

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A name for the folder, such as ``lr=1e-3,seed=0``."""
        return ",".join(f"{key}={_word(node)}" for key, node in self.values.items())

    def settings(self, exp_name: str, *, several: bool) -> str:
        """Return a YAML file that sets these values for training.

        Args:
            exp_name: The name of the run.
            several: Whether the file that it overrides has a heading for each program.
        """
        lines = [f"{key}: {json.dumps(plain(node))}" for key, node in self.values.items()]
        lines.append(f"exp_name: {json.dumps(exp_name)}")
        if several:
            return "train:\n" + "".join(f"  {line}\n" for line in lines) + "sweep: null\n"
        return "".join(f"{line}\n" for line in lines) + "sweep: null\n"


def _word(node: Any) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "-".join(_word(inner) for inner in node.value)
    return str(node.value).replace("/", "_") if isinstance(node, yaml.ScalarNode) else "x"


def points(settings: Sequence[Setting]) -> list[Point]:
    """Return all combinations of a sweep, the last name varying fastest; one empty point without a sweep.

    Raises:
        InputError: the values of a sweep are not lists.
    """
    lists: dict[str, list[Any]] = {}
    for setting in settings:
        if setting.path[0] != SWEEP:
            continue
        if is_null(setting.node):
            lists.pop(setting.path[-1], None)
            continue
        if len(setting.path) < 2 or not isinstance(setting.node, yaml.SequenceNode) or not setting.node.value:
            wants = "lists of values: sweep: {lr: [1e-3, 3e-4], seed: [0, 1]}"
            raise InputError(f"{setting.at}: {'.'.join(setting.path)}", f"{plain(setting.node)}", wants)
        lists[setting.path[-1]] = setting.node.value
    made = [Point(dict(zip(lists, values, strict=True))) for values in itertools.product(*lists.values())]
    names = [point.name for point in made]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(SWEEP, f"{twice[0]} twice", "different values")
    return made


def script(files: Sequence[str], count: int, folder: Path, options: Sequence[str], words: Sequence[str]) -> str:
    """Return the script of an array job with a task for each point.

    Args:
        files: The files of settings.
        count: How many points there are.
        folder: Where the logs go.
        options: Options of sbatch, such as ``gpus=1`` and ``time=12:00:00``.
        words: The command for one point, without the number of the point.
    """
    lines = "".join(f"#SBATCH --{option.removeprefix('--')}\n" for option in options)
    return SCRIPT.format(
        files=" ".join(files), last=count - 1, folder=folder, options=lines, cwd=shlex.quote(os.getcwd()),
        command=shlex.join(words),
    )  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, with columns in the order of first appearance."""
    columns = list(dict.fromkeys(column for row in rows for column, value in row.items() if value is not None))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


SCORES = ("average_precision", "are", "error", "auc", "f1_best", "iou", "split", "merge", "voi", "ap_mean", "pq")
"""The scores of `deepem evaluate` to show in the table of a sweep."""

HEADINGS = ("cut_edges", "segmentation", "channels")


def scores(held: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Yield (name, value) for these scores in the output of `deepem evaluate --json`."""
    if isinstance(held, list):
        for row in held:
            yield from scores(row, (*path, _scored(row)) if isinstance(row, dict) else path)
    elif isinstance(held, dict):
        for key, value in held.items():
            if isinstance(value, int | float) and key in SCORES and "by_edge" not in path:
                yield (
                    " ".join(part for part in (*path, key) if part not in ("cut_edges", "segmentation", "channels")),
                    value,
                )
            elif isinstance(value, dict | list) and key not in ("by_edge", "share", "classes", "curves", "objects"):
                yield from scores(value, (*path, key))


def _scored(row: Mapping[str, Any]) -> str:
    """Name the subject of a row of scores: the output, or for segmentations the suffix of the file."""
    if row.get("output") != "segmentation":
        return str(row.get("output", ""))
    return "seg" + Path(str(row.get("file", ""))).stem.rpartition("_seg")[2]
