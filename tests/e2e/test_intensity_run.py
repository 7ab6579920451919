"""A lab with a camera of 16 bits: refused with what to add, trained, previewed, predicted and exported alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepem.data.emio import imread, imsave
from deepem.test.forward import main as forward
from deepem.test.forward import predict
from deepem.tools.export import main as export
from deepem.tools.preview import main as preview
from deepem.train.run import main as train
from deepem.utils import checkpoint

MODULE = """
from deepem.data.emio import load_files
data_info = {name: {"dir": name, "img": "img.h5", "seg": "seg.h5"} for name in "ab"}
splits = {"train": ["a"], "val": ["b"]}
def load_data(data_dir, data_ids=None, *, class_keys=(), labels=()):
    return load_files(data_info, data_dir, data_ids, labels)
"""
SMALL = [
    "--aff",
    "1",
    "--fov",
    "4,16,16",
    "--width",
    "4",
    "8",
    "--depth",
    "2",
    "--max_iter",
    "2",
    "--cpu",
    "--amp",
    "off",
]
QUIET = ["--num_workers", "0", "--eval_iter", "1", "--eval_intv", "2", "--chkpt_intv", "2"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    rng = np.random.default_rng(0)
    for name in "ab":
        imsave(rng.integers(100, 4000, (8, 32, 32)).astype(np.uint16), tmp_path / "data" / name / "img.h5")
        imsave(rng.integers(0, 3, (8, 32, 32)).astype(np.uint16), tmp_path / "data" / name / "seg.h5")
    (tmp_path / "camera.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return ["--data", "camera.py", *SMALL, *QUIET, "--exp_name", "run"]


def test_without_the_flag_the_line_says_what_to_add(lab: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train(lab)
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "camera.py a img: got uint16 grey values" in line
    assert "--intensity LOW,HIGH" in line
    assert "0.5 and 99.5: --intensity 1" in line


@pytest.mark.parametrize("words", [["100,4000"], ["percentile"], ["percentile", "--percentiles_of", "volume"]])
def test_trained_and_predicted_with_one_mapping(
    lab: list[str], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    train([*lab, "--intensity", *words])
    told = capsys.readouterr()
    assert "a: uint16 grey values" in told.out + told.err
    state: dict[str, Any] = checkpoint.read(checkpoint.path_of(Path("experiments/run/models"), 2))
    stored = state["intensity"]
    image = imread("data/b/img.h5")
    if words[-1] == "volume":
        assert stored == {"percentiles": [0.5, 99.5]}
        low, high = np.percentile(image, [0.5, 99.5], method="inverted_cdf")
    else:
        ((low, high),) = stored["ranges"]
    if words == ["100,4000"]:
        assert (low, high) == (100, 4000)
    forward(["--exp_name", "run", "--data_dir", "data", "--test_ids", "b", "--cpu"])
    assert f"grey values {low:g} to {high:g} become 0 to 1" in "".join(capsys.readouterr())
    from deepem.build.stored import stored_run

    network = stored_run(state, "it").network()
    network.load_state_dict(state["state_dict"])
    grey = ((image.astype(np.float32) - low) / (high - low)).clip(0, 1)
    expected = predict(network.eval(), grey, patch_size=(4, 16, 16))["affinity"]
    np.testing.assert_allclose(imread("experiments/run/forward/b_affinity_2.h5"), expected, atol=1e-5)


def test_preview_and_export_say_it_and_resume_keeps_it(lab: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    train([*lab, "--intensity", "100,4000"])
    export(["--exp_name", "run", "--out", "served"])
    card = json.loads(Path("served/model.json").read_text())
    assert card["intensity"] == {"ranges": [[100.0, 4000.0]]}
    assert "100 to 4000" in card["normalisation"]
    preview([*lab, "--intensity", "100,4000", "--out", "sheet.png", "--samples", "1"])
    assert "a: uint16 grey values, 100 to 4000 become 0 to 1" in capsys.readouterr().out
    train([*lab, "--intensity", "100,4000", "--max_iter", "4"])
    with pytest.raises(SystemExit):
        train([*lab, "--intensity", "0,4000", "--max_iter", "6"])
    assert "--intensity was" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["4000,100"], ["100"], ["brightest"], ["100,4000", "percentile"], ["1,2", "1,3"]])
def test_a_range_that_is_none_is_refused(lab: list[str], capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train([*lab, "--intensity", *words])
    assert ended.value.code == 2
    assert "--intensity: got" in capsys.readouterr().err.splitlines()[-1]
