"""`deepem suggest` and the dataset that its cut-outs become."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deepem.data.dataset import annotated
from deepem.io.files import imread, imsave
from deepem.tools import suggest
from deepem.utils.errors import InputError

SIZE = (8, 32, 32)
PREDICTION = "t1_mitochondria_7.h5"
WORDS = [
    "img.h5",
    "--predictions",
    PREDICTION,
    "--out",
    "rounds",
    "--size",
    "4,8,8",
    "--context",
    "1,4,4",
    "--count",
    "2",
]


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """An image that says where its voxels are, and a prediction that knows all but two places."""
    monkeypatch.chdir(tmp_path)
    image = np.arange(np.prod(SIZE), dtype=np.float32).reshape(SIZE) / np.prod(SIZE)
    imsave(image, "img.h5")
    p = np.zeros((1, *SIZE), np.float32)
    p[0, :4, 8:16, 16:24] = 0.5
    p[0, 4:, 24:, 0:8] = 0.4
    p[0, 0, 0, 0] = 0.5
    attributes = {"axes": "czyx", "offset": [0, 0, 0], "tasks": ["mit"]}
    imsave(p, PREDICTION, attributes=attributes)
    return image


def rows(number: int) -> list[dict]:
    return json.loads(Path(f"rounds/round{number}.json").read_text())["cutouts"]


def test_the_places_that_are_not_known_are_cut_out_with_context(volume: np.ndarray) -> None:
    assert suggest.main([*WORDS, "--no-diverse"]) == 0
    assert [row["offset"] for row in rows(1)] == [[0, 8, 16], [4, 24, 0]]
    assert [row["context"] for row in rows(1)] == [[0, 4, 4], [1, 4, 0]]
    folder = Path("rounds/r1_001")
    assert np.array_equal(imread(folder / "img.h5"), volume[3:8, 20:32, 0:12])
    assert np.array_equal(imread(folder / "draft_mit.h5"), np.zeros((5, 12, 12)))
    assert imread(folder / "prediction_t1_mitochondria_7.h5").shape == (1, 5, 12, 12)


def test_a_later_round_overlaps_no_earlier_one(volume: np.ndarray) -> None:
    for number in range(1, 5):
        assert suggest.main(WORDS) == 0
        assert len(rows(number)) == 2
    places = [tuple(row["offset"]) for number in range(1, 5) for row in rows(number)]
    assert len(set(places)) == 8


@pytest.mark.parametrize("by", ["entropy", "segments", "random", "grid"])
def test_every_measure_chooses(volume: np.ndarray, by: str) -> None:
    assert suggest.main([*WORDS, "--by", by, "--count", "3"]) == 0
    assert len(rows(1)) == 3


def test_disagreement_and_variance_need_their_files(volume: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    for by in ("disagreement", "variance"):
        with pytest.raises(SystemExit):
            suggest.main([*WORDS, "--by", by])
    other = imread(PREDICTION)
    other[0, :4, :8, :8] = 1
    imsave(other, "t1_mitochondria_8.h5", attributes={"axes": "czyx", "offset": [0, 0, 0]})
    imsave(other, "t1_mitochondria_var_7.h5", attributes={"axes": "czyx", "offset": [0, 0, 0]})
    for number, (by, file) in enumerate(
        [("disagreement", "t1_mitochondria_8.h5"), ("variance", "t1_mitochondria_var_7.h5")]
    ):
        shutil.rmtree("rounds", ignore_errors=True)
        words = [*WORDS, "--by", by, "--no-diverse", "--count", "1", "--predictions", PREDICTION, file]
        assert suggest.main(words) == 0, number
        assert rows(1)[0]["offset"] == [0, 0, 0]


def test_what_is_annotated_is_a_dataset(volume: np.ndarray) -> None:
    assert suggest.main([*WORDS, "--no-diverse"]) == 0
    with pytest.raises(InputError, match=r"rounds: all: got no annotated cut-out of 2, wants mit.h5"):
        annotated.load_data("rounds", labels=("mit",))
    truth = (imread("rounds/r1_001/img.h5") > 0.9).astype(np.uint8)
    imsave(truth, "rounds/r1_001/mit.h5")
    found = annotated.load_data("rounds", ["all", "round1"], labels=("mit", "seg"))
    assert list(found) == ["all", "round1"]
    (cut,) = found["all"].values()
    assert set(cut) == {"img", "msk", "mit"}
    assert np.array_equal(cut["mit"], truth)
    assert cut["msk"][1:, 4:, :8].all()
    assert cut["msk"].sum() == 4 * 8 * 8
    imsave(truth, "rounds/r1_001/msk.h5")
    assert annotated.load_data("rounds", labels=("mit",))["all"]["r1_001"]["msk"].sum() == truth[1:, 4:, :8].sum()
    imsave(truth[1:], "rounds/r1_001/mit.h5")
    with pytest.raises(InputError, match=r"wants \(5, 12, 12\), as the image"):
        annotated.load_data("rounds", labels=("mit",))


def test_every_fifth_is_held_out(volume: np.ndarray) -> None:
    assert suggest.main([*WORDS, "--count", "7"]) == 0
    for row in rows(1):
        folder = Path("rounds") / row["id"]
        imsave(imread(folder / "draft_mit.h5"), folder / "mit.h5")
    found = annotated.load_data("rounds", ["train", "val"], labels=("mit",))
    assert list(found["val"]) == ["r1_004"]
    assert len(found["train"]) == 6


def test_the_networks_own_features_tell_boxes_apart(volume: np.ndarray, tmp_path: Path) -> None:
    from lab import Lab

    Lab.with_checkpoint(tmp_path)
    words = [*WORDS, "--checkpoint", "experiments/exp/models/model7.chkpt", "--size", "4,16,16", "--count", "3"]
    assert suggest.main(words) == 0
    assert len(rows(1)) == 3


@pytest.mark.slow
def test_three_rounds_with_the_truth_as_annotator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepem.data.synth.volume import make_volume
    from deepem.test import forward
    from deepem.train import run

    monkeypatch.chdir(tmp_path)
    whole = make_volume("v1", (16, 128, 128))
    Path("data/t1").mkdir(parents=True)
    imsave(whole["img"], "data/t1/img.h5")
    base = ["--mit", "1", "--fov", "8,32,32", "--width", "4", "8", "--cpu", "--num_workers", "0"]
    base += ["--eval_iter", "1", "--avgs_intv", "5", "--seed", "1"]
    run.main(["--data", "synthetic", "--synth_size", "8,32,32", "--exp_name", "r0", "--max_iter", "5", *base])
    seen = 0
    for number in (1, 2, 3):
        before = f"experiments/r{number - 1}"
        forward.main(["--exp_name", f"r{number - 1}", "--data_dir", "data", "--test_ids", "t1", "--cpu"])
        (prediction,) = Path(before, "forward").glob("t1_mitochondria_*.h5")
        words = ["--out", "rounds", "--size", "8,32,32", "--context", "0,8,8", "--count", "3"]
        assert suggest.main(["data/t1/img.h5", "--predictions", str(prediction), *words]) == 0
        for row in rows(number):
            begin, image = row["corner"], imread(f"rounds/{row['id']}/img.h5")
            part = tuple(slice(b, b + n) for b, n in zip(begin, image.shape, strict=True))
            assert np.array_equal(image, whole["img"][part])
            imsave(whole["mit"][part], f"rounds/{row['id']}/mit.h5")
            seen += int(np.prod(row["size"]))
        (model,) = Path(before, "models").glob("model*.chkpt")
        more = ["--exp_name", f"r{number}", "--pretrain", str(model), "--max_iter", "5"]
        run.main(["--data", "annotated", "--data_dir", "rounds", *more, *base])
    assert seen == 9 * 8 * 32 * 32
