"""A valid CNNectome U-Net as users have it: trained, evaluated and stitched in a lab's own folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from cnnectome_lab import VALID, applied, network, read, rows, stitch, words
from lab import Lab

import deepem
from deepem.data.emio import imsave
from deepem.test.forward import main as forward
from deepem.tools import export, serving
from deepem.train.run import main as train
from deepem.utils import checkpoint


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of a valid network whose patches are larger in training than in evaluation, and a volume to stitch."""
    with pytest.MonkeyPatch.context() as patch:
        lab = Lab.with_dataset(tmp_path_factory.mktemp("valid"))
        patch.chdir(lab.cwd)
        for name in "abc":
            large = {key: np.tile(np.load(lab.data / name / f"{key}.npy"), (1, 2, 2)) for key in ("img", "seg", "mit")}
            for key, array in (large | {"msk": np.ones_like(large["img"])}).items():
                lab.array(name, key, array)
        image = np.load(lab.data / "c/img.npy")[:, :83, :90]
        imsave(image, lab.data / "c/img.h5")
        with h5py.File(lab.data / "c/img.h5", "a") as file:
            file["main"].attrs.update({"voxel_size_nm": (40.0, 4.0, 8.0), "offset": (0, 0, 0)})
        train(words(lab, "valid", VALID, "--fov 8,54,38"))
        yield lab, image


def test_evaluation_sees_what_the_network_leaves(valid: Any) -> None:
    """The patch of training is no whole number of steps, that of evaluation is."""
    state = checkpoint.read(Path("experiments/valid/models/model4.chkpt"))
    assert state["options"]["outputsz"] == [4, 30, 18]
    made = network("valid")
    assert made(torch.zeros(1, 1, 8, 54, 38))["affinity"].shape[2:] == (4, 18, 16)
    tests = rows("valid", "test")
    assert [row["iter"] for row in tests] == [2, 4]
    assert all(0 < row["affinity"] < 5 for row in tests)


def test_tiles_laid_edge_to_edge_are_the_whole_volume(valid: Any) -> None:
    lab, image = valid
    stitch(lab, "valid")
    found, attributes = read("valid", "c_affinity_4")
    fits = image[:, : 54 + 24, : 38 + 52]  # the most that the network takes: steps of 6 and 4
    assert found.shape == (3, 12 - 4, 83 - 54 + 18, 90 - 38 + 16)
    assert attributes["offset"].tolist() == [2, 18, 11]
    whole = applied(network("valid"), fits)["affinity"]
    assert whole.shape[1:] == (8, 42, 68)
    np.testing.assert_allclose(found[:, :, :42], whole, atol=2e-6)


def test_an_export_gives_and_names_what_evaluation_leaves(valid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded again, the network predicts the same voxels of the volume as `forward`, and the card says which."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.setattr(serving, "onnx", lambda *_: 1 / 0)
    lab, image = valid
    assert export.main(["--exp_name", "valid", "--out", "served"]) == 0
    card = json.loads(Path("served/model.json").read_text())
    assert card["outputs"] == {"affinity": [3, 4, 18, 16], "mitochondria": [1, 4, 18, 16]}
    assert card["outputs_in_training"] == {"affinity": [3, 4, 30, 18], "mitochondria": [1, 4, 30, 18]}
    assert (card["output_begins"], card["output_factor"]) == ([2, 18, 11], [1, 1, 1])
    stitch(lab, "valid")
    found, attributes = read("valid", "c_affinity_4")
    assert attributes["offset"].tolist() == card["output_begins"]
    patch = image[:8, :54, :38]
    np.testing.assert_allclose(applied(deepem.load("served"), patch)["affinity"], found[:, :4, :18, :16], atol=2e-6)
    program = torch.export.load("served/model.pt2").module()
    affinity, _ = program(torch.from_numpy(patch.astype(np.float32) / 255)[None, None])
    np.testing.assert_allclose(affinity[0].detach(), found[:, :4, :18, :16], atol=2e-6)


@pytest.mark.parametrize(
    "more",
    [
        ["--overlap", "0.5,0.5,0.5"],
        ["--stride", "1,6,4", "--blend", "mean"],
        ["--test_aug", "0"],
        ["--max_memory", "40"],
        ["--force_crop", "2,6,8"],
    ],
)
def test_the_result_does_not_depend_on_how_tiles_lie(valid: Any, more: list[str]) -> None:
    lab, _ = valid
    stitch(lab, "valid", "--out_tag", "plain")
    stitch(lab, "valid", "--out_tag", "other", *more)
    plain, at = read("valid", "c_affinity_4_plain")
    other, there = read("valid", "c_affinity_4_other")
    begin = there["offset"] - at["offset"]
    box = tuple(slice(b, b + n) for b, n in zip(begin, other.shape[1:], strict=True))
    np.testing.assert_allclose(other, plain[(slice(None), *box)], atol=2e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--stride", "4,8,8"],
            r"--stride: got 4,8,8, wants strides that are multiples of \(1, 6, 4\), such as 4,6,8",
        ),
        (["--overlap", "0,0,2"], r"--overlap: got 0,0,2, wants strides .* such as 0,0,4"),
        (["--force_crop", "4,10,12"], None),
        (["--force_crop", "4,4,12"], r"output patch: got .* wants \(1, 6, 4\) or more"),
        (["--context", "outside"], "--context: got outside without --gs_input"),
        (["--context", "mirror", "--pad_small"], "--context: got mirror besides"),
    ],
)
def test_strides_that_break_equivariance_are_refused(valid: Any, more: Any, message: str | None, capsys: Any) -> None:
    lab, _ = valid
    if message is None:
        stitch(lab, "valid", "--out_tag", "kept", *more)  # by default, the stride is the largest that works
        return
    with pytest.raises(SystemExit, match="2"):
        stitch(lab, "valid", *more)
    assert re.search(message, capsys.readouterr().err)


def test_a_mirrored_border_gives_the_whole_volume(valid: Any) -> None:
    lab, image = valid
    stitch(lab, "valid", "--context", "mirror", "--out_tag", "mirror")
    found, attributes = read("valid", "c_affinity_4_mirror")
    assert found.shape[1:] == image.shape
    assert attributes["offset"].tolist() == [0, 0, 0]
    sides = [(2, 2), (18, 18 + 1), (11, 11 + 2)]  # the rest to a whole number of steps, too
    padded = np.pad(image, sides, mode="reflect")
    whole = applied(network("valid"), padded)["affinity"]
    np.testing.assert_allclose(found, whole[:, : image.shape[0], : image.shape[1], : image.shape[2]], atol=2e-6)


def test_the_volume_goes_on_outside_the_box(valid: Any, tmp_path: Path) -> None:
    """A box is predicted whole where it lies inside the volume; elsewhere without what the network lacks."""
    cloudvolume = pytest.importorskip("cloudvolume")
    _, image = valid
    path = f"file://{tmp_path}"
    cloudvolume.CloudVolume.from_numpy(
        image.transpose(2, 1, 0)[..., None].copy(), f"{path}/em", resolution=(8, 4, 40), voxel_offset=(100, 10, 5),
        chunk_size=(16, 16, 4), progress=False,
    )  # fmt: skip
    # x, y, z: 117 to 150 lies within; 30 to 58 too; z from 5 to 11 begins with the volume
    box = ["--begin", "117,30,5", "--end", "150,58,11", "--chunk_size", "8,8,8"]
    where = ["--gs_input", f"{path}/em", "--gs_output", f"{path}/out"]
    forward(["--exp_name", "valid", "--cpu", *where, *box, "--context", "outside"])
    out = cloudvolume.CloudVolume(f"{path}/out/affinity", progress=False)
    assert out.bounds.minpt.tolist() == [117, 30, 7]
    assert out.bounds.maxpt.tolist() == [150, 58, 11]
    read_from = image[:, 2 : 2 + 66, 6 : 6 + 58]  # what the network needs around, in whole steps
    whole = applied(network("valid"), read_from)["affinity"]
    found = np.asarray(out[:]).transpose(3, 2, 1, 0)
    np.testing.assert_allclose(found, whole[:, :4, :28, :33], atol=2e-6)
