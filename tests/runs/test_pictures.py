"""The pictures in a run's events: the newest of each tag with its words, also from damaged files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from deepem.runs.pictures import newest_pictures
from deepem.train.board import Board

TAG = "test/images/affinity"


def picture(grey: float) -> np.ndarray:
    return np.full((3, 4, 6), grey, np.float32)


def write(folder: Path, *shown: tuple[int, float], tag: str = TAG) -> Path:
    """An event file as training writes it, with numbers between the pictures; returns its path."""
    before = set(folder.glob("*"))
    board = Board(folder)
    for iteration, grey in shown:
        board.scalar("train/affinity", grey, iteration)
        board.image(tag, picture(grey), iteration)
        board.text(tag, f"grey {grey}", iteration)
    board.close()
    return (set(folder.glob("*")) - before).pop()


def grey_of(png: bytes) -> int:
    return int(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[0, 0, 0])


def test_the_newest_picture_of_each_tag(tmp_path: Path) -> None:
    write(tmp_path, (10, 0.0), (20, 1.0))
    found = newest_pictures(tmp_path)
    assert [(one.tag, one.iteration, one.words) for one in found] == [(TAG, 20, "grey 1.0")]
    assert grey_of(found[0].png) == 255


def test_pictures_of_a_resumed_run_are_in_several_files(tmp_path: Path) -> None:
    first = write(tmp_path, (10, 0.0), (20, 0.0))
    first.rename(first.with_name("events.out.tfevents.1000000000.host"))
    write(tmp_path, (20, 1.0))
    (found,) = newest_pictures(tmp_path)
    assert (found.iteration, grey_of(found.png)) == (20, 255)


@pytest.mark.parametrize("end", [b"", b"\x07", b"\xff" * 40, bytes(11)])
def test_what_lies_before_damage_counts(tmp_path: Path, end: bytes) -> None:
    path = write(tmp_path, (10, 0.0), (20, 1.0))
    path.write_bytes(path.read_bytes()[:-300] + end)
    assert [one.iteration for one in newest_pictures(tmp_path)] in ([10], [20])
    path.write_bytes(b"no events at all" * 10)
    assert newest_pictures(tmp_path) == []


def test_there_may_be_no_events(tmp_path: Path) -> None:
    assert newest_pictures(tmp_path) == []
    Board(tmp_path).close()
    assert newest_pictures(tmp_path) == []
