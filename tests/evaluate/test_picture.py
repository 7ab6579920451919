"""The picture of scores: each error is shown where it is, ids keep their colours apart, files appear whole."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from deepem import evaluate
from deepem.evaluate.picture import WHOLE, CutOut, colours, cut_outs, draw
from deepem.utils.errors import InputError


class Lazy:
    """A volume that is read by slices of at most a few voxels."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, at):
        part = self.array[at]
        assert part.size < self.array.size / 2
        return part


def volumes() -> tuple[np.ndarray, np.ndarray]:
    """(segmentation, truth): object 2^53 is cut at y 30 in sections 9 to 11, objects 7 and 8 are joined at x 40."""
    truth = np.zeros((24, 60, 80), np.uint64)
    truth[:, 5:55, :20], truth[3:6, :, 30:40], truth[3:6, :, 40:52] = 2**53, 8, 7
    segmentation = np.where(truth == 2**53, 2**53 + 1, np.where(truth > 0, 5, 0)).astype(np.uint64)
    segmentation[9:12, 30:55, :20] = 2**53
    return segmentation, truth


def test_an_error_is_shown_in_the_section_and_window_where_its_parts_meet():
    segmentation, truth = volumes()
    image = np.indices(truth.shape).sum(0)
    table = evaluate.objects(segmentation, truth)
    split, merge = cut_outs(table, Lazy(segmentation), Lazy(truth), Lazy(image), side=24)
    assert split.title == "object 9007199254740992 cut into 2"
    z = int(split.note.split("z ")[1].split(",")[0])
    assert 9 <= z < 12
    assert f"z {z}, y 18, x 0" in split.note
    assert split.truth.shape == split.segmentation.shape == (24, 24, 4)
    inner = np.zeros((24, 24), bool)
    inner[1:, 1:20] = True
    assert (split.truth[inner, :3] == WHOLE).all()
    assert (split.segmentation[:11, 1:20, :3] == WHOLE).all()
    assert not (split.segmentation[13:, 1:20, :3] == WHOLE).all(-1).any()
    assert (split.grey[0, 0], split.grey[-1, -1]) == (0, 1)
    assert merge.title == "segment 5 joins 2"
    assert "x 27" in merge.note
    assert len({tuple(colour) for colour in merge.truth[5, 5:20, :3].tolist()}) == 3
    assert (merge.segmentation[5, 4:20, :3] == WHOLE).all()


def test_large_ids_next_to_each_other_have_colours_of_their_own():
    for first in (1, 2**24, 2**53, 2**63):
        one, other = colours(np.array([first, first + 1], np.uint64))
        assert np.abs(one - other).max() > 0.2
    assert (colours(np.array([5, 5])) == colours(np.array([5, 5], np.uint64))).all()
    assert 0 <= colours(np.arange(1000)).min() <= colours(np.arange(1000)).max() <= 1


def test_a_picture_is_written_whole(tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    segmentation, truth = volumes()
    rows = evaluate.curve([(0.3, segmentation), (0.6, truth)], truth)
    cuts = cut_outs(evaluate.objects(segmentation, truth), segmentation, truth)
    out = tmp_path / "scores.png"
    draw(
        out,
        curves={"agglomerate": rows},
        chosen=evaluate.choose(rows),
        ranked={0.5: {"recall": [0.5], "precision": [1.0]}},
        cuts=[*cuts, cuts[0]],
        title="scores",
    )
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.png"]


def test_nothing_to_draw_and_nothing_to_draw_with_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="picture: got neither curves nor cut-outs"):
        draw(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    blank = np.zeros((2, 2))
    with pytest.raises(InputError, match=r"picture: got no package matplotlib, wants pip install 'deepem\[view\]'"):
        draw(tmp_path / "a.png", cuts=[CutOut("", "", blank, blank, blank)])
    assert list(tmp_path.iterdir()) == []
