"""Objects that were made of a map are scored against that map's label, never against neurons."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from deepem.data.emio import imsave
from deepem.tasks import TASKS, to_plain
from deepem.tools import evaluate, segment


def volume() -> np.ndarray:
    """Two boxes that are apart, and one that touches the border."""
    found = np.zeros((6, 20, 24), np.uint8)
    found[1:4, 2:8, 3:9] = found[1:5, 12:18, 3:9] = found[2:6, 6:14, 16:24] = 1
    return found


@pytest.mark.parametrize(("ids", "yes"), [(False, 1), (False, 255), (True, 1)])
def test_mitochondria_are_scored_against_mitochondria(
    ids: bool, yes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mit = volume()
    (row,) = (row for row in TASKS if row.flag == "mit")
    with h5py.File(tmp_path / "map.h5", "w") as file:
        main = file.create_dataset("main", data=(mit[None] * np.float32(0.8)))
        main.attrs.update(axes="czyx", offset=[0, 0, 0], tasks=["mit"], rows=json.dumps([to_plain(row)]))
    truth = tmp_path / "truth"
    truth.mkdir()
    numbered = mit.astype(np.uint32)
    numbered[:, 12:18, :10] *= 2
    numbered[..., 16:] *= 3
    imsave(numbered if ids else mit * np.uint8(yes), truth / "mit.h5")
    imsave(np.ones_like(mit), truth / "seg.h5")
    out = str(tmp_path / "objects.h5")
    assert segment.main([str(tmp_path / "map.h5"), "--decoder", "objects", "--out", out]) == 0
    words = [out, "--truth", str(truth), "--metrics", "instances", "--json", str(tmp_path / "scores.json")]
    assert evaluate.main(words) == 0
    (found,) = json.loads((tmp_path / "scores.json").read_text())
    assert found["truth"] == str(truth / "mit.h5")
    assert found["instances"]["ap"]["0.9"] == 1
    assert ("holds no ids" in capsys.readouterr().out) is not ids
