"""Classes that exclude each other, from label to score; and a row that only a dataset module knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from lab import Lab

from deepem.data.emio import imread, imsave
from deepem.tasks import from_plain
from deepem.test.forward import main as forward
from deepem.tools import evaluate
from deepem.tools.evaluate_options import EvaluateOptions
from deepem.train.run import main as train

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import figure

CLASSES = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that can tell three classes apart by their grey, and the prediction of a volume that it has not seen."""
    with pytest.MonkeyPatch.context() as patch:
        lab = Lab.with_dataset(tmp_path_factory.mktemp("classes"))
        patch.chdir(lab.cwd)
        lab.module.write_text(lab.module.read_text().replace('"mit", "msk"', '"sem", "msk"'))
        for name in "abc":
            seg = np.load(lab.data / name / "seg.npy")
            label = (seg % 3).astype(np.int64)  # no voxel of class 3
            noise = np.random.default_rng(0).integers(0, 40, seg.shape)
            lab.array(name, "sem", label)
            lab.array(name, "img", (label * 90 + noise).astype(np.uint8))
            imsave(np.load(lab.data / name / "img.npy"), lab.data / name / "img.h5")
            imsave(label.astype(np.uint8), lab.data / name / "sem.h5")
        own = f"--data {lab.module} --data_dir {lab.data} --sem 1 --sem_classes {CLASSES} --size_average --cpu"
        more = "--sem_class_weights 1 1 2 0.5 --class_balancing --max_iter 60 --avgs_intv 20 --imgs_intv 60 --lr 0.01"
        sizes = "--fov 8,32,32 --width 4 8 --eval_iter 2 --warm_up 0 --exp_name sem --amp off"
        train([*own.split(), *more.split(), *sizes.split()])
        where = ["--exp_name", "sem", "--data_dir", str(lab.data), "--test_ids", "c", "--cpu"]
        forward([*where, "--test_aug", "0", "5", "--variance"])
        forward([*where, "--out_dtype", "uint8", "--out_tag", "bytes"])
        yield lab, lab.cwd / "experiments" / "sem"


def attributes(file: Path) -> dict[str, Any]:
    with h5py.File(file) as top:
        return dict(top["main"].attrs)


def test_probabilities_and_classes_are_written(trained: Any) -> None:
    _, folder = trained
    probabilities = imread(folder / "forward" / "c_semantic_60.h5")
    classes = imread(folder / "forward" / "c_semantic_class_60.h5")
    assert (probabilities.dtype, probabilities.shape[0]) == (np.float32, CLASSES)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (classes.dtype, classes.shape) == (np.uint8, (1, *probabilities.shape[1:]))
    np.testing.assert_array_equal(classes[0], probabilities.argmax(0))
    assert imread(folder / "forward" / "c_semantic_var_60.h5").shape == probabilities.shape


def test_classes_are_never_scaled(trained: Any) -> None:
    _, folder = trained
    probabilities = imread(folder / "forward" / "c_semantic_60_bytes.h5")
    classes = imread(folder / "forward" / "c_semantic_class_60_bytes.h5")
    assert probabilities.dtype == classes.dtype == np.uint8
    assert probabilities.max() > 100
    assert set(np.unique(classes)) <= set(range(CLASSES))


def test_attributes_carry_the_row(trained: Any) -> None:
    _, folder = trained
    for name, values in (("semantic", "probability"), ("semantic_class", "class"), ("semantic_var", "variance")):
        held = attributes(folder / "forward" / f"c_{name}_60.h5")
        (row,) = (from_plain(plain) for plain in json.loads(held["rows"]))
        assert (row.flag, row.channels, row.class_weights) == ("sem", CLASSES, (1, 1, 2, 0.5))
        assert (list(held["tasks"]), held["values"], held["axes"]) == (["sem"], values, "czyx")


@pytest.mark.parametrize("name", ["semantic_60", "semantic_class_60", "semantic_60_bytes", "semantic_class_60_bytes"])
def test_what_was_learnt_is_scored(trained: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lab, folder = trained
    file = folder / "forward" / f"c_{name}.h5"
    (found,) = evaluate.score_all([file], EvaluateOptions(truth=str(lab.data / "c")))
    assert list(found["classes"]) == ["0", "1", "2", "3"]
    assert found["mean"]["iou"] > 0.8
    assert found["accuracy"] > 0.9
    assert found["classes"]["3"]["share"] == 0
    assert evaluate.main([str(file), "--truth", str(lab.data / "c")]) == 0
    assert "class 1 " in capsys.readouterr().out


def test_a_figure_shows_the_classes(trained: Any) -> None:
    pytest.importorskip("matplotlib")
    lab, folder = trained
    words = [
        "--image",
        lab.data / "c" / "img.h5",
        "--truth",
        lab.data / "c",
        "--metrics",
        folder / "logs/metrics.jsonl",
    ]
    out = folder / "figure.png"
    figure.main([*map(str, words), "--out", str(out), str(folder / "forward" / "c_semantic_60.h5")])
    assert out.stat().st_size > 10_000
