"""Logs of a resumed run: what is newer than its checkpoint is moved aside, what is older stays."""

from __future__ import annotations

import json
from pathlib import Path

from deepem.runs import events


def steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return [event.step for event in board.Scalars("train/affinity")] if board.Tags()["scalars"] else []


def test_logs_are_cut_back(tmp_path: Path) -> None:
    from tensorboardX import SummaryWriter

    board = SummaryWriter(str(tmp_path))
    for step in range(1, 11):
        board.add_scalar("train/affinity", step, step)
        events.append_row(tmp_path / "metrics.jsonl", {"iter": step, "phase": "train"})
    board.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"iter": 11, "pha')

    moved = events.set_aside(tmp_path, 6)
    assert [json.loads(row)["iter"] for row in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert steps(moved[0].parent) == list(range(1, 11))
    assert {path.name for path in moved} == {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert events.set_aside(tmp_path, 6) == []


def test_there_may_be_no_logs(tmp_path: Path) -> None:
    assert events.set_aside(tmp_path / "none", 3) == []
