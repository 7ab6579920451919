"""A checkpoint exported for serving."""

from __future__ import annotations

import errno
import json
import sys

import pytest
import torch

import deepem
from deepem.test import forward
from deepem.tools import export, serving
from deepem.utils import byfile
from deepem.utils.errors import InputError
from deepem.utils.provenance import checksum


def run(*words):
    """Export, in this process."""
    assert export.main(words) == 0


def test_the_card_and_the_weights(lab, capsys, monkeypatch):
    monkeypatch.setattr(serving, "program", lambda *_: 0.0)
    monkeypatch.setattr(serving, "onnx", lambda *_: 1 / 0)
    lab.train("run", "--max_iter", 4, "--ema", 0.9)
    run("--exp_name", "run", "--best", "--out", "served", "--model", "net.py")
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
    assert card["provenance"]["checkpoint_sha256"] == checksum(lab.models("run") / "best.chkpt")
    assert card["trained"]["seed"] == 0
    assert card["network"] == {"norm": "batch", "dropout": 0.0}
    modes = {path.stat().st_mode & 0o777 for path in (lab.folder / "served").iterdir()}
    assert modes == {0o644}  # as umask says


def test_a_network_comes_back_from_a_folder_or_a_checkpoint(lab, monkeypatch):
    monkeypatch.setattr(serving, "program", lambda *_: 1 / 0)
    monkeypatch.setattr(serving, "onnx", lambda *_: 1 / 0)
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    lab.train("run", "--max_iter", 4, "--ema", 0.9, "--norm", "group")
    run("--exp_name", "run", "--out", "served", "--model", "net.py")
    path = lab.models("run") / "model4.chkpt"
    served, averaged, raw = (
        deepem.load("served", "net.py"),
        deepem.load(path, "net.py"),
        deepem.load(path, "net.py", raw=True),
    )
    state = lab.state("run", 4)
    for network, weights in ((served, state["ema"]), (averaged, state["ema"]), (raw, state["state_dict"])):
        assert not network.training
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    patch = torch.rand(2, 1, 4, 12, 12)
    assert torch.equal(served(patch)["affinity"], averaged(patch)["affinity"])


def test_code_that_only_a_checkpoint_names_is_not_run(lab, capsys):
    lab.train("run", "--max_iter", 1)
    (lab.folder / "net.py").write_text("raise SystemExit('this was run')")
    for call in (export.main, forward.main, lambda _: deepem.load(lab.models("run") / "model1.chkpt")):
        sys.modules.pop(byfile.import_name(lab.folder / "net.py"), None)
        with pytest.raises((SystemExit, InputError)) as ended:
            call(
                ["--exp_name", "run", "--out", "served"]
                if call is export.main
                else ["--exp_name", "run", "--test_ids", "a"]
            )
        told = str(ended.value) if isinstance(ended.value, InputError) else capsys.readouterr().err
        assert (
            "model1.chkpt names net.py, which is not one of deepem's, wants the module named again: --model net.py"
            in told
        )
    assert not (lab.folder / "served" / "model.json").exists()


@pytest.mark.parametrize("card", ["[]", "{}", '{"run": 5}', '{"run": {"options": [1]}}', "no json"])
def test_a_folder_with_another_card_is_bad_input(tmp_path, card):
    (tmp_path / "model.json").write_text(card)
    with pytest.raises(InputError, match=r"model\.json: got "):
        deepem.load(tmp_path)


def test_a_disk_that_cannot_take_an_export_leaves_no_card(lab, capsys, monkeypatch):
    def full(served, image, expected, path, card):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(serving, "safetensors", full)
    lab.train("run", "--max_iter", 1)
    with pytest.raises(SystemExit) as ended:
        run("--exp_name", "run", "--out", "served", "--model", "net.py")
    assert ended.value.code == 2
    assert "--out: got served/model.safetensors: OSError: [Errno 28] No space left" in capsys.readouterr().err
    assert list((lab.folder / "served").iterdir()) == []


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


@pytest.mark.slow
def test_the_batch_of_the_onnx_graph_is_free(lab):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    lab.train("run", "--model", "rsunet", "--width", 4, 8, "--fov", "4,16,16", "--max_iter", 1)
    run("--exp_name", "run", "--out", "served")
    shape = onnx.load(lab.folder / "served" / "model.onnx").graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_param
    assert [n.dim_value for n in shape.dim[1:]] == [1, 4, 16, 16]


def test_a_folder_that_cannot_be_made_is_one_line(lab, capsys, monkeypatch):
    monkeypatch.setattr(serving, "stored_run", lambda *_: pytest.fail("the work was done first"))
    state = {"iter": 1, "state_dict": {}, "options": {}, "spec": [{}, {}]}
    monkeypatch.setattr(serving, "find", lambda *_: serving.Checkpoint(lab.folder, state))
    lab.folder.mkdir(exist_ok=True)
    (lab.folder / "file").write_text("hi")
    for out in ("file", "file/served"):
        with pytest.raises(SystemExit) as caught:
            run("--exp_name", "run", "--out", str(lab.folder / out))
        assert caught.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"deepem export: error: --out: got {lab.folder / out}, wants a folder")
        assert err.count("\n") == 1


def test_an_experiment_that_is_not_there_is_one_line(lab, capsys):
    with pytest.raises(SystemExit) as caught:
        run("--exp_name", "none", "--out", "served")
    assert caught.value.code == 2
    assert "deepem export: error: --exp_name none: got no readable checkpoint" in capsys.readouterr().err
