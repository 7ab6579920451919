"""Rows of the task table that a dataset module brings: from its flag to training, prediction, export and score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from lab import Lab

import deepem
from deepem.data.emio import imread, imsave
from deepem.test.forward import main as forward
from deepem.tools import evaluate, export
from deepem.train.run import main as train

ROWS = """

from deepem.tasks import Task

tasks = (
    Task("axon", "axon", "axo", "binary", 1, "axons"),
    Task("far", "far_affinity", "seg", "affinity", 2, "edges over 4 voxels", edges=((0, 0, 4), (0, 4, 0))),
)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A lab whose module brings two rows: a run of both, then, without the module, the prediction of c."""
    with pytest.MonkeyPatch.context() as patch:
        lab = Lab.with_dataset(tmp_path_factory.mktemp("rows"))
        patch.chdir(lab.cwd)
        lab.module.write_text(lab.module.read_text().replace('"mit", "msk"', '"axo", "msk"') + ROWS)
        for name in "abc":
            image = np.load(lab.data / name / "img.npy")
            lab.array(name, "axo", (image > 128).astype(np.uint8))
            imsave(image, lab.data / name / "img.h5")
            imsave((image > 128).astype(np.uint8), lab.data / name / "axo.h5")
            imsave(np.load(lab.data / name / "seg.npy"), lab.data / name / "seg.h5")
        own = f"--data {lab.module} --data_dir {lab.data} --axon 1 --far 0.5 --size_average --cpu --amp off"
        sizes = "--fov 8,32,32 --width 4 8 --max_iter 60 --lr 0.02 --eval_iter 2 --avgs_intv 20 --warm_up 0"
        train([*own.split(), *sizes.split(), "--exp_name", "own"])
        lab.module.unlink()
        forward(["--exp_name", "own", "--data_dir", str(lab.data), "--test_ids", "c", "--cpu", "--test_aug", "0", "5"])
        yield lab


def output(lab: Lab, name: str) -> Path:
    return lab.cwd / "experiments" / "own" / "forward" / f"c_{name}_60.h5"


def test_both_rows_are_trained_and_logged(lab: Lab) -> None:
    logged = (lab.cwd / "experiments" / "own" / "logs" / "metrics.jsonl").read_text().splitlines()
    assert {"axon", "far_affinity"} <= json.loads(logged[-1]).keys()


def test_prediction_needs_no_dataset_module(lab: Lab) -> None:
    with h5py.File(output(lab, "axon")) as axon, h5py.File(output(lab, "far_affinity")) as far:
        assert (list(axon["main"].attrs["tasks"]), list(far["main"].attrs["tasks"])) == (["axon"], ["far"])
        np.testing.assert_array_equal(far["main"].attrs["edges"], [[0, 0, 4], [0, 4, 0]])
        assert (axon["main"].shape[0], far["main"].shape[0]) == (1, 2)


@pytest.mark.parametrize("name", ["axon", "far_affinity"])
def test_scores_need_no_dataset_module(lab: Lab, name: str) -> None:
    scores = lab.cwd / f"{name}.json"
    assert evaluate.main([str(output(lab, name)), "--truth", str(lab.data / "c"), "--json", str(scores)]) == 0
    (found,) = json.loads(scores.read_text())
    assert found["cut_edges" if name == "far_affinity" else "channels"], found
    if name == "axon":
        assert found["channels"]["0"]["auc"] > 0.9


def test_the_export_rebuilds_the_network(lab: Lab) -> None:
    assert export.main(["--exp_name", "own", "--out", "served"]) == 0
    network = deepem.load("served")
    image = imread(lab.data / "c" / "img.h5")
    with torch.inference_mode():
        heads = network(torch.from_numpy(image[None, None, :8, :32, :32] / np.float32(255)))
    assert {name: tuple(head.shape[1:]) for name, head in heads.items()} == {
        "axon": (1, 8, 32, 32),
        "far_affinity": (2, 8, 32, 32),
    }
