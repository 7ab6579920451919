"""A checkpoint exported for serving."""

from __future__ import annotations

import json

import pytest
import torch

from deepem.tools import export, serving


def run(*words):
    """Export, in this process."""
    assert export.main(words) == 0


def test_the_card_and_the_weights(lab, capsys, monkeypatch):
    monkeypatch.setattr(serving, "program", lambda *_: 0.0)
    monkeypatch.setattr(serving, "onnx", lambda *_: 1 / 0)
    lab.train("run", "--max_iter", 4, "--ema", 0.9)
    run("--exp_name", "run", "--best", "--out", "served")
    card = json.loads((lab.folder / "served" / "model.json").read_text())
    assert card["iteration"] == 4
    assert card["weights"] == "moving average"
    assert card["tasks"]["affinity"]["edges"] == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert "train_ids: ['a', 'b']" in (lab.folder / "served" / "MODEL_CARD.md").read_text()
    assert "model.onnx: not written: ZeroDivisionError" in capsys.readouterr().out
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    weights = safetensors.load_file(lab.folder / "served" / "model.safetensors")
    ema = lab.state("run", 4)["ema"]
    assert ema.keys() == weights.keys()
    assert all(torch.equal(ema[name], weights[name]) for name in ema)


@pytest.mark.slow
def test_the_program_gives_the_probabilities_of_the_network(lab, capsys):
    more = ("--model", "rsunet", "--width", 4, 8, "--fov", "4,16,16", "--max_iter", 1)
    lab.train("run", *more)
    run("--exp_name", "run", "--raw", "--out", "served")
    told = capsys.readouterr().out
    assert "model.pt2: largest difference of a probability 0" in told
    program = torch.export.load(lab.folder / "served" / "model.pt2").module()
    assert [tuple(output.shape) for output in program(torch.rand(3, 1, 4, 16, 16))] == [
        (3, 3, 4, 16, 16),
        (3, 1, 4, 16, 16),
    ]


def test_a_folder_that_cannot_be_made_is_one_line(lab, capsys, monkeypatch):
    monkeypatch.setattr(serving, "stored_run", lambda *_: pytest.fail("the work was done first"))
    state = {"iter": 1, "state_dict": {}, "options": {}, "spec": [{}, {}]}
    monkeypatch.setattr(serving, "find", lambda *_: state)
    lab.folder.mkdir(exist_ok=True)
    (lab.folder / "file").write_text("hi")
    for out in ("file", "file/served"):
        with pytest.raises(SystemExit) as caught:
            run("--exp_name", "run", "--out", str(lab.folder / out))
        assert caught.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"deepem export: error: --out: got {lab.folder / out}: ")
        assert err.count("\n") == 1


def test_an_experiment_that_is_not_there_is_one_line(lab, capsys):
    with pytest.raises(SystemExit) as caught:
        run("--exp_name", "none", "--out", "served")
    assert caught.value.code == 2
    assert "deepem export: error: --exp_name none: got no readable checkpoint" in capsys.readouterr().err
