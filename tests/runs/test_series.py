"""metrics.jsonl as series: complete rows alone, each iteration once, and nothing that cannot be drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deepem.runs import events
from deepem.runs.series import read_log

ROW = {"iter": 1, "phase": "train", "affinity": 0.5}


def log(folder: Path, *lines: object) -> Path:
    """A metrics.jsonl of rows, and of lines as they are."""
    path = folder / "metrics.jsonl"
    path.write_text("".join(line if isinstance(line, str) else f"{json.dumps(line)}\n" for line in lines))
    return path


def test_a_series_per_phase_and_name(tmp_path: Path) -> None:
    for iteration in (1, 2, 3):
        events.append_row(tmp_path / "metrics.jsonl", {**ROW, "iter": iteration, "lr": 0.1 * iteration})
    events.append_row(tmp_path / "metrics.jsonl", {"iter": 2, "phase": "test", "affinity": 0.25})
    found = read_log(tmp_path / "metrics.jsonl")
    assert (found.rows, found.damaged, found.last) == (4, 0, 3)
    assert set(found.series) == {("train", "affinity"), ("train", "lr"), ("test", "affinity")}
    assert found.phase("train")["lr"].iterations.tolist() == [1, 2, 3]
    np.testing.assert_allclose(found.phase("train")["lr"].values, [0.1, 0.2, 0.3])
    assert found.phase("test")["affinity"].values.tolist() == [0.25]


def test_there_may_be_no_rows(tmp_path: Path) -> None:
    for found in (read_log(tmp_path / "metrics.jsonl"), read_log(log(tmp_path))):
        assert (found.rows, found.damaged, found.last, found.series) == (0, 0, 0, {})


@pytest.mark.parametrize(
    "line",
    [
        '{"iter": 2, "phase": "train", "affi\n',
        "\x00\x00\x00\n",
        "[1, 2]\n",
        "7\n",
        '{"iter": "2", "phase": "train"}\n',
        '{"iter": true, "phase": "train"}\n',
        '{"iter": -1, "phase": "train"}\n',
        f'{{"iter": {10**30}, "phase": "train"}}\n',
        '{"iter": 2}\n',
        '{"iter": 2, "phase": ["train"]}\n',
        "[" * 100_000 + "\n",
    ],
)
def test_a_damaged_line_is_counted_and_left_out(tmp_path: Path, line: str) -> None:
    found = read_log(log(tmp_path, ROW, line, {**ROW, "iter": 3}))
    assert (found.rows, found.damaged) == (2, 1)
    assert found.phase("train")["affinity"].iterations.tolist() == [1, 3]


def test_bytes_that_are_no_text_are_a_damaged_line(tmp_path: Path) -> None:
    path = log(tmp_path, ROW)
    path.write_bytes(path.read_bytes() + b"\xff\xfe\x00\n")
    assert read_log(path).damaged == 1


def test_the_line_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    found = read_log(log(tmp_path, ROW, '{"iter": 2, "ph'))
    assert (found.rows, found.damaged) == (1, 0)


def test_values_that_cannot_be_drawn_are_counted(tmp_path: Path) -> None:
    rows = [{**ROW, "iter": i, "affinity": v} for i, v in enumerate((float("nan"), 1.0, float("inf"), 10**400))]
    series = read_log(log(tmp_path, *rows)).phase("train")["affinity"]
    assert (series.iterations.tolist(), series.values.tolist(), series.not_finite) == ([1], [1.0], 3)
    none = read_log(log(tmp_path, {**ROW, "affinity": float("nan")})).phase("train")["affinity"]
    assert (len(none.values), none.not_finite) == (0, 1)


def test_only_numbers_are_values(tmp_path: Path) -> None:
    assert read_log(log(tmp_path, {**ROW, "note": "text", "flag": True, "list": [1], "none": None})).series.keys() == {
        ("train", "affinity")
    }


def test_of_rows_with_one_iteration_the_later_counts(tmp_path: Path) -> None:
    """A log that several runs wrote into, or one that was put together by hand."""
    rows = [{**ROW, "iter": i, "affinity": float(v)} for i, v in ((1, 1), (2, 2), (3, 3), (2, 20), (4, 4))]
    series = read_log(log(tmp_path, *rows)).phase("train")["affinity"]
    assert (series.iterations.tolist(), series.values.tolist()) == ([1, 2, 3, 4], [1, 20, 3, 4])
