"""What a lab does: its own dataset by file path, from its own folder, trained, resumed and used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from lab import Lab, same

from deepem.data.emio import imread, imsave
from deepem.test.forward import main as forward
from deepem.train.run import main as train
from deepem.utils import checkpoint

AUGMENT = ["--augment", "grayscale_warping", "--grayscale", "--warping"]


def weights(folder: Path, number: int) -> dict[str, Any]:
    state: dict[str, Any] = checkpoint.read(checkpoint.path_of(folder / "models", number))
    return state


def losses(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("iter", "affinity", "mitochondria")} for row in rows if row["phase"] == "train"]


def test_the_command_line_from_another_folder(lab: Lab, root: Path) -> None:
    """Two commands as a user types them: train by file path, then predict, each in a process of its own."""
    run = [sys.executable, str(root / "deepem" / "train" / "run.py")]
    done = subprocess.run([*run, *lab.words(None, "--max_iter", 4)], cwd=lab.cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = lab.cwd / "experiments" / "cortex_aff_mit"
    written = {"models", "logs", "options.json", "options.args", "options.yaml", ".lock"}
    assert {path.name for path in folder.iterdir()} == written
    assert [row["iter"] for row in losses(folder)] == [2, 4]

    image = np.load(lab.data / "c" / "img.npy")
    imsave(image, lab.data / "c" / "img.h5")
    words = ["--exp_name", "cortex_aff_mit", "--data_dir", str(lab.data), "--test_ids", "c", "--cpu"]
    run = [sys.executable, "-m", "deepem.test.forward"]
    env = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*run, *words], cwd=lab.cwd, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    affinity = imread(folder / "forward" / "c_affinity_4.h5")
    assert affinity.shape == (3, *image.shape)
    assert affinity.dtype == np.float32
    assert 0 < affinity.min() <= affinity.max() < 1
    assert imread(folder / "forward" / "c_mitochondria_4.h5").shape == (1, *image.shape)


def test_the_stream_does_not_depend_on_workers_and_resume_is_exact(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.cwd)
    train(lab.words("whole", *AUGMENT, "--max_iter", 6, "--num_workers", 0))
    for workers in (0, 1, 2):
        name = f"parts{workers}"
        for stop in (3, 6):
            train(lab.words(name, *AUGMENT, "--max_iter", stop, "--num_workers", workers))
        for key in ("state_dict", "optimizer", "averages"):
            whole, parts = (weights(Path("experiments") / n, 6)[key] for n in ("whole", name))
            assert same(whole, parts), key
    # iteration 3 ends the first part, so that it writes a row of its own there
    assert losses(Path("experiments/whole"))[-1] == losses(Path("experiments/parts2"))[-1]


def test_how_often_each_volume_was_drawn_is_logged_beside_its_probability(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.cwd)
    train(lab.words(None, "--train_ids", "a", "b", "--train_prob", 3, 1, "--max_iter", 40, "--avgs_intv", 40))
    row = json.loads(Path("experiments/cortex_aff_mit/logs/metrics.jsonl").read_text().splitlines()[0])
    assert (row["asked/a"], row["asked/b"]) == (0.75, 0.25)
    assert row["drawn/a"] + row["drawn/b"] == 1
    assert 0.5 < row["drawn/a"] < 0.95


def test_the_written_options_run_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.cwd)
    train(lab.words("one", *AUGMENT, "--max_iter", 2, "--long", 1, "--edges", "0,0,3", "-1,0,0"))
    before = weights(Path("experiments/one"), 2)["state_dict"]
    train(["@experiments/one/options.args", "--exp_name", "two"])
    train(["--config", "experiments/one/options.yaml", "--exp_name", "three"])
    for again in ("two", "three"):
        assert same(before, weights(Path("experiments") / again, 2)["state_dict"])


def test_the_loss_falls(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.cwd)
    train(lab.words("falls", "--max_iter", 60, "--avgs_intv", 10, "--lr", 0.01))
    rows = losses(Path("experiments/falls"))
    assert rows[-1]["affinity"] < 0.8 * rows[0]["affinity"]
    assert rows[-1]["mitochondria"] < 0.8 * rows[0]["mitochondria"]


def test_forward_agrees_with_predict(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepem.models.rsunet import create_model
    from deepem.test.forward import predict

    monkeypatch.chdir(lab.cwd)
    train(lab.words("run", "--max_iter", 2))
    image = np.load(lab.data / "c" / "img.npy")
    imsave(image, lab.data / "c" / "img.h5")
    forward(["--exp_name", "run", "--data_dir", str(lab.data), "--test_ids", "c", "--cpu"])
    model = create_model(
        in_spec={"input": (1, 8, 32, 32)},
        out_spec={"affinity": (3, 8, 32, 32), "mitochondria": (1, 8, 32, 32)},
        width=[4, 8],
    )
    model.load_state_dict(weights(Path("experiments/run"), 2)["ema"])
    found = predict(model.eval(), image, patch_size=(8, 32, 32), device="cpu")
    for name, array in found.items():
        np.testing.assert_allclose(imread(f"experiments/run/forward/c_{name}_2.h5"), array, atol=1e-6)


def test_forward_keeps_the_centre_of_patches_of_a_model_that_does_not_crop(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.cwd)
    train(lab.words("run", "--max_iter", 2))
    imsave(np.load(lab.data / "c" / "img.npy"), lab.data / "c" / "img.h5")
    words = ["--exp_name", "run", "--data_dir", str(lab.data), "--test_ids", "c", "--cpu"]
    forward([*words, "--outputsz", "4,16,16"])
    with h5py.File("experiments/run/forward/c_affinity_2.h5") as file:
        assert file["main"].shape == (3, 12 - 4, 49 - 16, 54 - 16)
        assert list(file["main"].attrs.get("offset", file.attrs.get("offset"))) == [2, 8, 8]
