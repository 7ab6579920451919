"""The sheet of augmented samples."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from lab import Lab

from deepem.tasks import TASKS, choose
from deepem.tools import preview, sheet


def task(flag: str):
    return next(t for t in TASKS if t.flag == flag)


def sample(**masks: float) -> dict[str, np.ndarray]:
    """Grey, two instances side by side with a gap, a mitochondrion in one of them."""
    ids = np.zeros((1, 4, 16, 20), np.int32)
    ids[..., :9], ids[..., 11:] = 5, 2**24 + 1
    mit = np.zeros((1, 4, 16, 20), np.float32)
    mit[:, 2, 4:10, 2:7] = 1
    made = {"input": np.full((1, 4, 16, 20), 0.5, np.float32), "affinity": ids, "mitochondria": mit}
    return made | {
        f"{k}_mask": np.full((1, 4, 16, 20), masks.get(k, 1.0), np.float32) for k in ("affinity", "mitochondria")
    }


def test_instances_have_colours_and_other_labels_outlines():
    plain, marked = sheet.draw(sample(), [task("aff"), task("mit")], 4)
    assert plain.shape == marked.shape == (16 + sheet.GAP, 4 * (20 + sheet.GAP), 3)
    assert (plain[:16, :20] == 127).all()
    left, right, gap = marked[2, 2], marked[2, 15], marked[2, 9]
    assert len({tuple(left), tuple(right), tuple(gap)}) == 3
    assert np.ptp(left) > 40
    assert (gap == 127).all()
    third = marked[:16, 2 * (20 + sheet.GAP) :]
    outline = (third == sheet.OUTLINES[0]).all(-1)
    assert outline[4, 2:7].all()
    assert outline[4:10, 2].all()
    assert not outline[5:9, 3:6].any()
    assert not (marked[:16, :20] == sheet.OUTLINES[0]).all(-1).any()


def test_every_class_is_outlined_by_its_name():
    (row,) = choose(["sem"], channels={"sem": 3})
    classes = np.zeros((1, 4, 16, 20), np.uint8)
    classes[..., 4:10, 2:7], classes[..., 4:10, 12:17] = 1, 2
    given = sample() | {"semantic": classes, "semantic_mask": np.ones((1, 4, 16, 20), np.float32)}
    marked = sheet.draw(given, [row], 1)[1]
    for colour, first in zip(sheet.OUTLINES[:2], (2, 12), strict=True):
        outline = (marked[:16, :20] == colour).all(-1)
        assert outline[4, first : first + 5].all()
        assert not outline[5:9, first + 1 : first + 4].any()
    assert sheet.heading("", [row]).shape[1] > sheet.heading("", [task("mit")]).shape[1]


def test_what_does_not_count_is_red_and_what_any_task_counts_is_not():
    tasks = [task("aff"), task("mit")]
    red = sheet.draw(sample(affinity=0, mitochondria=0), tasks, 1)[1]
    assert red[2, 9, 2] > red[2, 9, 0] + 40
    counted = sheet.draw(sample(affinity=0), tasks, 1)[1]
    assert (counted[2, 9] == 127).all()


def test_smaller_outputs_are_shown_within_their_input():
    small = sample()
    small["input"] = np.pad(small["input"], ((0, 0), (1, 1), (3, 4), (2, 2)))
    assert (sheet.draw(small, [task("aff"), task("mit")], 2)[0][:16, :20] == 127).all()


def test_the_command_writes_a_sheet_and_draws_the_recipe(tmp_path, verb_env):
    lab = Lab.with_dataset(tmp_path)
    words = lab.words(None, "--augment", "grayscale_warping", "--grayscale", "--out", "a/sheet.png", "--samples", 2)
    command = [sys.executable, "-m", "deepem", "preview", *words, "--sections", "3"]
    done = subprocess.run(command, cwd=lab.cwd, capture_output=True, text=True, check=False, env=verb_env)
    assert done.returncode == 0, done.stderr
    assert "├─ MixedGrayscale2D" in done.stdout
    picture = cv2.imread(str(lab.cwd / "a" / "sheet.png"))
    assert picture.shape[0] == 2 * (sheet.HEAD + 2 * (32 + sheet.GAP))
    assert picture.std() > 10
    assert sorted(p.name for p in lab.cwd.iterdir()) == ["a"]


def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("hi")
    monkeypatch.setattr(sheet, "sheet", lambda *_: pytest.fail("the work was done first"))
    for words, line in (
        (["--out", str(tmp_path / "pv.foo")], "pv.foo, wants a picture to write, such as preview.png"),
        (["--out", str(tmp_path)], f"--out: got {tmp_path}, wants a picture to write"),
        (["--out", str(tmp_path / "file/pv.png")], f"wants a folder: {tmp_path}/file is a file"),
        (["--samples", "0"], "--samples: got 0"),
        (["--data", "nowhere", "--aff", "1"], "nowhere"),
    ):
        with pytest.raises(SystemExit, match="2"):
            preview.main(words)
        assert line in capsys.readouterr().err.splitlines()[-1]
