"""The picture of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import _panels
import figure

from deepem.utils.errors import InputError


def test_the_largest_part_of_an_object_has_its_colour():
    truth = np.array([[1, 1, 1, 1, 1, 5, 5, 5, 0]])
    found = np.array([[9, 9, 9, 4, 4, 4, 4, 4, 0]])
    assert _panels.named_after(found, truth).tolist() == [[1, 1, 1, 5, 5, 5, 5, 5, 0]]
    found = np.array([[9, 9, 9, 4, 4, 7, 7, 7, 0]])
    named = _panels.named_after(found, truth)[0].tolist()
    assert named[:3] == [1, 1, 1]
    assert named[5:] == [5, 5, 5, 0]
    assert named[3] == named[4] not in (0, 1, 5)


def test_colours_are_those_of_the_ids():
    colours = _panels.colour_of(np.array([[0, 3], [70000, 3]]))
    assert colours.shape == (2, 2, 3)
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[0, 1].tolist() == colours[1, 1].tolist() != colours[1, 0].tolist()


def test_what_is_not_marked_stays_grey():
    grey = np.array([[0.2, 0.4]])
    picture = _panels.marked(grey, np.broadcast_to(_panels.MARK, (1, 2, 3)), np.array([[0, 1]]))
    assert picture[0, 0].tolist() == [0.2, 0.2, 0.2]
    assert picture[0, 1, 0] > picture[0, 1, 2]


def test_long_curves_are_averaged_and_short_ones_kept():
    points = [(i, float(i % 2)) for i in range(1, 601)]
    assert len(figure.thinned(points, "train")) == 60
    assert figure.thinned(points, "train")[5] == (60, 0.5)
    assert figure.thinned(points[:50], "train") == points[:50]
    assert figure.thinned(points, "test") == points


def test_rows_of_single_steps_are_averaged_as_later_rows_are():
    points = [(i, float(i)) for i in range(1, 11)] + [(20, 2.0), (30, 3.0)]
    assert figure.thinned(points, "train") == [(10, 5.5), (20, 2.0), (30, 3.0)]


@pytest.fixture
def run(tmp_path) -> list[str]:
    """The files of a small run, as arguments."""
    rng = np.random.default_rng(0)
    volumes = {
        "img": rng.integers(0, 256, (4, 20, 24)).astype(np.uint8),
        "seg": np.kron([[[1, 2], [3, 3]]], np.ones((4, 10, 12), int)),
        "mit": np.zeros((4, 20, 24), np.uint8),
    }
    volumes["mit"][1, 5:9, 5:9] = 1
    for name, array in volumes.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as top:
            top["main"] = array
    for flag, channels in (("aff", 3), ("mit", 1)):
        with h5py.File(tmp_path / f"{flag}_9.h5", "w") as top:
            data = top.create_dataset("main", data=rng.random((channels, 3, 20, 20), np.float32))
            data.attrs.update(axes="czyx", offset=[1, 0, 4], voxel_size_nm=[40.0, 4.0, 4.0], tasks=[flag])
            data.attrs["edges"] = [(0, 0, 1), (0, 1, 0), (1, 0, 0)][: channels // 3 * 3]
    rows = [{"iter": i, "phase": phase, "affinity": 1 / i, "lr": 0.1} for i in (1, 2, 3) for phase in ("train", "test")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [tmp_path / name for name in ("img.h5", ".", "m.jsonl", "a.png", "aff_9.h5", "mit_9.h5")]
    image, truth, metrics, out, *predictions = map(str, names)
    return ["--image", image, "--truth", truth, "--metrics", metrics, "--out", out, *predictions]


def test_one_picture_is_drawn(run, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra viz")
    figure.main(run)
    picture = (tmp_path / "a.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") > int.from_bytes(picture[20:24], "big") > 300


def test_panels_come_in_pairs_from_the_richest_section(run):
    options = SimpleNamespace(image=Path(run[1]), truth=Path(run[3]), z=None, segmentation=None)
    options.predictions = [Path(name) for name in run[-2:]]
    panels, voxel_nm = figure.panels(options)
    assert [panel.title for panel in panels] == [
        "image",
        "true cells",
        "predicted affinity",
        "its segments",
        "true mitochondria",
        "predicted mitochondria",
    ]
    assert voxel_nm == 4
    assert panels[0].note == "section 1"
    assert panels[4].picture[6, 3].tolist() != [panels[4].picture[6, 3, 0]] * 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--metrics", "img.h5"], "--metrics: got img.h5: "),
        (["--metrics", "list.jsonl"], "--metrics: got list.jsonl: a line that is no row, wants the logs/metrics.jsonl"),
        (["--metrics", "none.jsonl"], "--metrics: got none.jsonl: "),
        (["--out", "f.foo"], "--out: got f.foo, wants a name that ends in one of "),
        (["--out", "nodir/f.png"], "--out: got nodir/f.png, wants a file in a folder that is there"),
    ],
)
def test_bad_words_are_one_line_before_anything_is_drawn(run, tmp_path, capsys, monkeypatch, words, says):
    pytest.importorskip("matplotlib", reason="needs the extra viz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figure, "panels", lambda _: pytest.fail("the work was done first"))
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    with pytest.raises(SystemExit) as stopped:
        figure.main([*run, *words])
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith(f"figure.py: error: {says}")
    assert err.count("\n") == 1


def test_a_section_that_is_not_there_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        figure.main([*run, "--z", "3"])
    assert "--z: got 3, wants a section from 0 to 2" in capsys.readouterr().err


@pytest.mark.parametrize("iteration", ['"x"', "null", "0", "true", "1.5"])
def test_rows_of_a_damaged_log_are_refused(tmp_path, iteration):
    (tmp_path / "metrics.jsonl").write_text(f'{{"iter": {iteration}, "phase": "train", "affinity": 1}}\n')
    with pytest.raises(InputError, match="a line that is no row"):
        figure.rows_of(tmp_path / "metrics.jsonl")
