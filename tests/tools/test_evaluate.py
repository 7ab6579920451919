"""The command `deepem evaluate`: predictions and segmentations against the truth, from files to figures.

What each score means is tested with `deepem.evaluate`; here are files, attributes, choices, and what is said of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from segment.volumes import cells as neurons
from segment.volumes import noisy

import deepem
from deepem.build import cases
from deepem.evaluate import adapted_rand, voi
from deepem.io.files import imsave
from deepem.segment import segment
from deepem.tools import evaluate, label_scores
from deepem.tools.evaluate_options import METRICS, EvaluateOptions
from deepem.tools.score_text import without_nan

NEAREST = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]


def slabs(shape=(6, 12, 14)) -> np.ndarray:
    """Ids of three touching pieces and a background, different along every axis."""
    ids = np.full(shape, 1)
    ids[:, 5:, :] = 2
    ids[2:, 5:, 6:] = 300
    ids[:2, :3, 9:] = 0
    return ids


def oracle(ids: np.ndarray, edges) -> np.ndarray:
    """The affinities of ids, one voxel at a time; 0.5 where a voxel has no partner."""
    found = np.full((len(edges), *ids.shape), 0.5, np.float32)
    for channel, edge in enumerate(edges):
        for v in np.ndindex(ids.shape):
            u = tuple(a - d for a, d in zip(v, edge, strict=True))
            if all(0 <= a < n for a, n in zip(u, ids.shape, strict=True)):
                found[(channel, *v)] = ids[v] == ids[u] != 0
    return found


def write(file: Path, array: np.ndarray, **attributes) -> Path:
    with h5py.File(file, "w") as top:
        top.create_dataset("main", data=array).attrs.update(attributes)
    return file


@pytest.fixture
def folder(tmp_path) -> Path:
    """Truth of seg and mit, and oracle predictions of the part of it that starts at (1, 2, 3)."""
    ids = slabs()
    mit = (np.indices(ids.shape).sum(0) % 5 == 0).astype(np.uint8)
    write(tmp_path / "seg.h5", ids.astype(np.uint64), voxel_size_nm=[40.0, 4.0, 4.0])
    write(tmp_path / "mit.h5", mit)
    common = {"axes": "czyx", "voxel_size_nm": [40.0, 4.0, 4.0], "offset": [1, 2, 3]}
    part = (slice(1, 6), slice(2, 12), slice(3, 13))
    write(tmp_path / "aff_9.h5", oracle(ids[part], NEAREST), edges=NEAREST, tasks='["aff"]', **common)
    write(tmp_path / "mit_9.h5", mit[part][None] * np.float32(0.4) + 0.2, tasks=["mit"], **common)
    return tmp_path


def test_an_oracle_scores_perfectly_where_it_lies(folder, verb_env):
    file = folder / "figures.json"
    predictions = [str(folder / "aff_9.h5"), str(folder / "mit_9.h5")]
    done = subprocess.run(
        [sys.executable, "-m", "deepem", "evaluate", *predictions, "--truth", folder, "--json", file],
        capture_output=True, text=True, check=True, cwd=folder, env=verb_env,
    )  # fmt: skip
    assert "cut edges    average precision 1.0000" in done.stdout
    assert "ROC AUC 1.0000" in done.stdout
    affinity, mitochondria = json.loads(file.read_text())
    assert affinity["provenance"]["command"].endswith(f"--json {file}")
    assert mitochondria["provenance"]["version"] == deepem.__version__
    assert affinity["output"] == "affinity"
    assert affinity["cut_edges"]["by_edge"] == {"0,0,1": 1, "0,1,0": 1, "1,0,0": 1}
    assert 0 < affinity["cut_edges"]["share"]["0,1,0"] < 0.3
    assert mitochondria["channels"]["0"]["f1_best"] == 1
    assert mitochondria["channels"]["0"]["f1_best_threshold"] == pytest.approx(0.6)
    assert mitochondria["channels"]["0"]["f1_at_0.5"] == 1


def test_a_prediction_elsewhere_does_not(folder):
    with h5py.File(folder / "mit_9.h5", "r+") as top:
        top["main"].attrs["offset"] = [1, 2, 4]
    (result,) = evaluate.score_all([folder / "mit_9.h5"], EvaluateOptions(truth=str(folder)))
    assert result["channels"]["0"]["auc"] < 0.6


def test_a_mask_hides_what_is_wrong(folder):
    mask = np.ones(slabs().shape, np.uint8)
    mask[3] = 0
    with h5py.File(folder / "mit_9.h5", "r+") as top:
        top["main"][:, 2] = 0.9
    bad, good = (
        evaluate.score_all([folder / "mit_9.h5"], EvaluateOptions(truth=f"{folder}/mit.h5", mask=counts))[0]
        for counts in (None, str(write(folder / "msk.h5", mask)))
    )
    assert bad["channels"]["0"]["auc"] < 1
    assert good["channels"]["0"]["auc"] == 1


def test_a_mask_may_have_an_axis_of_one_channel(folder):
    mask = (np.indices(slabs().shape).sum(0) % 7 > 0).astype(np.uint8)
    flat, deep = write(folder / "flat.h5", mask), write(folder / "deep.h5", mask[None])
    for name in ("aff_9.h5", "mit_9.h5"):
        with h5py.File(folder / name, "r+") as top:
            top["main"][...] = np.random.default_rng(0).random(top["main"].shape)
        one, other, none = (
            evaluate.score_all([folder / name], EvaluateOptions(truth=str(folder), mask=counts, segment=["components"]))
            for counts in (str(flat), str(deep), None)
        )
        assert one == other != none


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--json", "nodir/x.json"], "--json: got nodir/x.json, wants a file in a folder that is there"),
        (["--json", "."], "--json: got ., wants a file, not a folder"),
        (["--truth", "bad.h5"], "bad.h5: got a file that cannot be read"),
        (["--truth", "flat.h5"], "flat.h5: got a volume of shape (12, 14), wants (Z, Y, X)"),
        (["--mask", "flat.h5"], "flat.h5: got a volume of shape (12, 14), wants (Z, Y, X)"),
        (["--mask", "two.h5"], "two.h5: got 2 channels, wants one"),
    ],
)
def test_bad_words_are_one_line_before_anything_is_scored(folder, capsys, monkeypatch, words, says):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cases.Case, "blocks", lambda *_: pytest.fail("the work was done first"))
    (folder / "bad.h5").write_text("hi\n")
    write(folder / "flat.h5", slabs()[0]), write(folder / "two.h5", np.stack([slabs()] * 2))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["mit_9.h5", "--truth", ".", *words])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert not out
    assert err.startswith(f"deepem evaluate: error: {says}")
    assert err.count("\n") == 1


def test_a_boundary_without_a_label_of_its_own_follows_from_the_segmentation(folder):
    ids = slabs()
    write(folder / "seg.h5", ids)
    across = np.zeros((1, *ids.shape), np.float32)
    for axis in (1, 2):
        step = np.diff(ids, axis=axis) != 0
        pad = [(0, 0)] * 3
        pad[axis] = (1, 0)
        across[0] += np.pad(step, pad)
        pad[axis] = (0, 1)
        across[0] += np.pad(step, pad)
    across[0] += ids == 0
    file = write(folder / "b.h5", across, axes="czyx", offset=[0, 0, 0], tasks=["bdr"])
    (result,) = evaluate.score_all([file], EvaluateOptions(truth=str(folder)))
    assert result["channels"]["0"]["auc"] == 1


def test_block_by_block_gives_the_same_digits(folder, monkeypatch):
    """Cut edges over block faces, a boundary made of ids, a mask and borders among them."""
    rng = np.random.default_rng(0)
    mask = rng.random(slabs().shape) > 0.2
    write(folder / "msk.h5", mask.astype(np.uint8))
    for name in ("aff_9.h5", "mit_9.h5"):
        with h5py.File(folder / name, "r+") as top:
            top["main"][...] = rng.random(top["main"].shape).round(2)
    edges = [(0, 0, -3), (2, -1, 0)]
    write(
        folder / "far.h5",
        rng.random((2, 6, 12, 14)).astype(np.float32),
        axes="czyx",
        offset=[0, 0, 0],
        tasks=["long"],
        edges=edges,
    )
    write(folder / "b.h5", rng.random((1, 5, 9, 11)).astype(np.float32), axes="czyx", offset=[1, 2, 3], tasks=["bdr"])
    files = [folder / name for name in ("aff_9.h5", "mit_9.h5", "far.h5", "b.h5")]
    own = EvaluateOptions(truth=str(folder), mask=f"{folder}/msk.h5", ignore_border=(1, 0, 0), segment=["none"])
    whole = without_nan(evaluate.score_all(files, own))
    monkeypatch.setattr(cases, "BLOCK", (2, 3, 5))
    assert without_nan(evaluate.score_all(files, own)) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": "xyzc"}, "axes 'xyzc'"),
        ({"edges": NEAREST[:2]}, "2 edges for 3 channels"),
        ({"tasks": '["aff", "mit"]'}, "tasks ['aff', 'mit']"),
        ({"offset": [4, 0, 0]}, "voxels (4, 0, 0) to (9, 10, 10)"),
        ({"voxel_size_nm": [10.0, 10.0, 10.0]}, "voxels of [10.0, 10.0, 10.0] nm"),
        ({"offset": None}, "no attribute offset"),
        ({"offset": [0, 0]}, "offset [0, 0]"),
        ({"offset": [np.nan, 0.0, 0.0]}, "offset [nan, 0.0, 0.0]"),
        ({"tasks": 5}, "tasks 5"),
        ({"edges": [0, 0, 1]}, "edges [0, 0, 1]"),
        ({"edges": [(0, 0, 0), *NEAREST[1:]]}, "edge (0, 0, 0)"),
        ({"edges": [(0, 0, 999), *NEAREST[1:]]}, "edge (0, 0, 999)"),
        ({"voxel_size_nm": "x"}, "voxel_size_nm 'x'"),
    ],
)
def test_what_does_not_fit_is_refused(folder, capsys, change, message):
    with h5py.File(folder / "aff_9.h5", "r+") as top:
        for name, value in change.items():
            if value is None:
                del top["main"].attrs[name]
            else:
                top["main"].attrs[name] = value
    with pytest.raises(SystemExit) as error:
        evaluate.main([str(folder / "aff_9.h5"), "--truth", str(folder)])
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert f"error: {folder}/aff_9.h5: got {message}" in line
    assert ", wants " in line


def test_truth_that_is_not_there_is_refused(folder, capsys):
    (folder / "mit.h5").unlink()
    with pytest.raises(SystemExit):
        evaluate.main([str(folder / "mit_9.h5"), "--truth", str(folder)])
    assert "no mit.h5" in capsys.readouterr().err


def test_classes_are_scored_one_by_one(tmp_path):
    """Worked out by hand: rows are true classes, columns what was found; class 3 is nowhere."""
    truth = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 1]).reshape(1, 2, 5)
    found = np.array([0, 0, 1, 1, 0, 2, 2, 2, 1, 3], np.uint8).reshape(1, 1, 2, 5)
    mask = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0]).reshape(1, 2, 5)
    write(tmp_path / "sem.h5", truth), write(tmp_path / "msk.h5", mask)
    row = {"flag": "sem", "name": "semantic", "source": "sem", "kind": "semantic", "channels": 4, "help": "x"}
    about = {"axes": "czyx", "offset": [0, 0, 0], "tasks": ["sem"], "rows": json.dumps([row]), "values": "class"}
    file = write(tmp_path / "out.h5", found, **about)
    (result,) = evaluate.score_all([file], EvaluateOptions(truth=str(tmp_path), mask=f"{tmp_path}/msk.h5"))
    rows = list(result["classes"].values())
    assert [row["precision"] for row in rows[:3]] == pytest.approx([2 / 3, 1 / 3, 1])
    assert [row["recall"] for row in rows[:3]] == pytest.approx([2 / 3, 1 / 2, 3 / 4])
    assert [row["iou"] for row in rows[:3]] == pytest.approx([2 / 4, 1 / 4, 3 / 4])
    assert [row["share"] for row in rows] == pytest.approx([3 / 9, 2 / 9, 4 / 9, 0])
    assert all(np.isnan(rows[3][name]) for name in ("precision", "recall", "iou"))
    assert result["accuracy"] == pytest.approx(6 / 9)


def run(capsys, *words):
    """What the command prints, and its JSON."""
    assert evaluate.main([*map(str, words), "--json", "figures.json"]) == 0
    return capsys.readouterr().out, json.loads(Path("figures.json").read_text())


def seen(truth, file, seed, noise=0.1):
    """An affinity output as an unsure network gives it."""
    about = {"axes": "czyx", "offset": [0, 0, 0], "edges": NEAREST, "tasks": ["aff"]}
    values = noisy(truth, NEAREST, seed, noise)
    write(file, values, **about)
    return values


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
class TestSegmentations:
    """Rows of the table of faults that comparable programs had are among them."""

    def of(self, capsys, segmentation, truth, *words):
        imsave(np.asarray(truth, np.uint32).reshape(1, 1, -1), "truth.h5")
        imsave(np.asarray(segmentation, np.uint64).reshape(1, 1, -1), "seg.h5")
        text, (result,) = run(capsys, "seg.h5", "--truth", "truth.h5", *words)
        return text, result

    def test_precision_falls_with_mergers(self, capsys):
        text, result = self.of(capsys, [1, 1, 1, 1], [1, 2, 3, 2])
        assert result["adapted_rand"] == pytest.approx({"error": 5 / 11, "precision": 0.375, "recall": 1})
        assert "precision 0.3750 (falls with mergers)   recall 1.0000   (self-pairs count" in text

    def test_a_predicted_0_is_a_segment_per_voxel(self, capsys):
        _, result = self.of(capsys, [1, 1, 0, 0], [1, 1, 1, 1])
        assert result["adapted_rand"]["recall"] == pytest.approx(6 / 16)
        assert result["adapted_rand"]["error"] == pytest.approx(5 / 11)

    def test_only_true_0_is_left_out_of_the_variation_of_information(self, capsys):
        _, result = self.of(capsys, [1, 1, 0, 5], [1, 2, 3, 0])
        assert result["voi"] == pytest.approx({"merge": 2 / 3, "split": 0})

    def test_the_formula_is_printed(self, capsys):
        text, result = self.of(capsys, [1, 1, 2, 2], [1, 1, 1, 2])
        assert "= sqrt(adapted_rand * (voi_split + voi_merge))" in text
        cremi = result["cremi"]
        assert cremi["score"] == pytest.approx(
            np.sqrt(cremi["adapted_rand"] * (cremi["voi_split"] + cremi["voi_merge"]))
        )

    def test_huge_ids(self, capsys):
        _, result = self.of(capsys, [2**63, 2**63 + 1, 7, 7], [1, 2, 3, 3])
        assert result["adapted_rand"]["error"] == 0

    def test_the_worst_errors_are_listed_with_their_boxes(self, capsys):
        text, result = self.of(capsys, [1, 1, 2, 2, 3, 3], [1, 1, 1, 1, 1, 9])
        assert result["objects"]["splits"][0]["end"] == [1, 1, 5]
        assert "split  object 1: " in text
        assert "box [0, 0, 0] to [1, 1, 5]" in text

    def test_a_cut_out_lies_where_its_offset_says_block_by_block(self, capsys, monkeypatch):
        monkeypatch.setattr(label_scores, "BLOCK", (5, 7, 9))
        truth = neurons((12, 30, 34))
        part = (slice(2, 11), slice(3, 28), slice(4, 33))
        found = segment(noisy(truth))[part]
        write(Path("truth.h5"), truth), write(Path("seg.h5"), found, offset=[2, 3, 4], axes="zyx")
        _, (result,) = run(capsys, "seg.h5", "--truth", "truth.h5")
        assert result["adapted_rand"] == adapted_rand(found, truth[part])
        assert result["voi"] == voi(found, truth[part])

    def test_borders_are_left_out(self, capsys, monkeypatch):
        monkeypatch.setattr(label_scores, "BLOCK", (1, 1, 4))
        truth = [1, 1, 1, 1, 2, 2, 2, 2]
        found = [1, 1, 1, 2, 1, 2, 2, 2]
        assert self.of(capsys, found, truth)[1]["adapted_rand"]["error"] > 0
        assert self.of(capsys, found, truth, "--ignore_border", "0,0,1")[1]["adapted_rand"]["error"] == 0

    def test_the_best_that_fragments_could_give(self, capsys):
        imsave(np.array([1, 2, 3, 4], np.uint32).reshape(1, 1, 4), "fragments.h5")
        text, result = self.of(
            capsys, [1, 1, 1, 1], [1, 1, 2, 2], "--metrics", "oracle", "voi", "--fragments", "fragments.h5"
        )
        assert result["oracle"]["error"] == 0
        assert result["voi"]["merge"] == 1
        assert "oracle merge of the fragments: adapted Rand error 0.0000" in text

    def test_skeletons_from_a_file(self, capsys):
        nodes = [[0, 0, 10 * x] for x in range(6)]
        Path("skeletons.json").write_text(json.dumps({"1": [nodes, [[x, x + 1] for x in range(5)]]}))
        write(Path("truth.h5"), np.ones((1, 1, 6), int), voxel_size_nm=[10.0, 10.0, 10.0])
        write(Path("seg.h5"), np.array([1, 1, 1, 2, 2, 2]).reshape(1, 1, 6), voxel_size_nm=[10.0, 10.0, 10.0])
        words = ("seg.h5", "--truth", "truth.h5", "--metrics", "erl", "--skeletons", "skeletons.json")
        text, (result,) = run(capsys, *words, "--merge_threshold", 3)
        assert result["erl"]["erl"] == pytest.approx((20**2 + 20**2) / 50)
        assert "(merge threshold 3 nodes; 1 skeletons, 1 edges split" in text

    def test_objects_found_and_missed(self, capsys):
        text, result = self.of(capsys, [1, 1, 0, 2, 0, 0], [1, 1, 0, 0, 0, 3], "--kind", "instance")
        assert result["instances"]["ap"]["0.5"] == pytest.approx(1 / 3)
        assert (result["detections"]["missed"], result["detections"]["false_alarms"]) == ([3], [2])
        assert "1 found, 1 missed, 1 false; by 1 voxels or more" in text

    def test_objects_with_scores_are_ranked(self, capsys, monkeypatch):
        """Two hits and a false alarm of the middle score: recall 1/2 at precision 1, then 1 at 2/3."""
        monkeypatch.setattr(label_scores, "BLOCK", (1, 1, 4))
        found, truth = [1, 1, 0, 2, 0, 3, 3, 3], [4, 4, 0, 0, 0, 5, 5, 5]
        Path("seg.csv").write_text("id,class,score\n1,1,0.9\n2,1,0.8\n3,1,0.7\n")
        text, result = self.of(capsys, found, truth, "--kind", "instance", "--picture", "p.png")
        for by in ("instances", "boxes"):
            assert result[by]["ap_ranked"]["0.5"] == pytest.approx((51 + 50 * 2 / 3) / 101)
            assert result[by]["ap"]["0.5"] == pytest.approx(2 / 3)
        assert result["instances"]["ranked"]["0.5"]["recall"][-1] == 1
        assert "ranked by score   AP0.5 0.8350" in text
        assert Path("p.png").read_bytes()[1:4] == b"PNG"
        Path("other.csv").write_text("id,score\n1,0.1\n2,0.8\n3,0.7\n")
        _, other = self.of(capsys, found, truth, "--kind", "instance", "--scores", "other.csv")
        assert other["instances"]["ap_ranked"]["0.5"] == pytest.approx(2 / 3)

    @pytest.mark.parametrize(("table", "line"), [
        ("id,class\n1,2\n", "no column score"),
        ("id,score\n1,high\n", "could not convert string to float: 'high'"),
        ("id,score\n1,nan\n", "the score nan of object 1"),
    ])  # fmt: skip
    def test_a_table_without_scores_is_refused(self, capsys, table, line):
        Path("t.csv").write_text(table)
        with pytest.raises(SystemExit) as caught:
            self.of(capsys, [1, 1], [1, 1], "--kind", "instance", "--scores", "t.csv")
        assert caught.value.code == 2
        assert line in capsys.readouterr().err

    def test_objects_of_forward_say_what_they_are(self, capsys):
        from deepem.tasks import choose
        from deepem.test.kinds import written

        attributes = written(choose(["inst"]))["instance"].attributes((0, 0, 0))
        write(Path("seg.h5"), np.array([1, 1, 0, 2]).reshape(1, 1, 4), **attributes)
        write(Path("truth.h5"), np.array([7, 7, 0, 9]).reshape(1, 1, 4))
        _, (result,) = run(capsys, "seg.h5", "--truth", "truth.h5")
        assert result["instances"]["ap"]["0.5"] == 1

    def test_every_metric_has_a_flag(self):
        assert set(METRICS) == set(label_scores.METRICS)

    def test_a_picture_of_the_worst(self, capsys):
        truth = np.ones((2, 20, 20), np.uint8)
        truth[:, :, 10:] = 2
        imsave(truth, "truth.h5"), imsave(np.ones((2, 20, 20), np.uint64), "seg.h5"), imsave(truth * 60, "img.h5")
        run(capsys, "seg.h5", "--truth", "truth.h5", "--picture", "p.png", "--image", "img.h5")
        assert Path("p.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.usefixtures("here")
class TestChoice:
    def test_a_threshold_chosen_by_its_own_truth_says_so(self, capsys):
        truth = neurons((12, 30, 34))
        values = seen(truth, Path("aff.h5"), 0)
        imsave(truth, "seg.h5")
        text, (result,) = run(capsys, "aff.h5", "--truth", "seg.h5", "--threshold", 0.3, 0.6, "--picture", "p.png")
        assert set(result["segmentation"]) == {"agglomerate", "components"}
        for name, row in result["segmentation"].items():
            assert row["own_truth"] is True
            errors = {t: adapted_rand(segment(values, decoder=name, threshold=t), truth)["error"] for t in (0.3, 0.6)}
            assert row["error"] == min(errors.values()) == errors[row["threshold"]]
        assert text.count("chosen by this truth itself: flatters") == 2
        assert [row["threshold"] for row in result["curves"]["agglomerate"]] == [0.3, 0.6]
        assert Path("p.png").read_bytes()[1:4] == b"PNG"

    def test_one_volume_chooses_and_another_reports(self, capsys):
        truths = [neurons((12, 30, 34)), np.flip(neurons((12, 30, 34)), 1)]
        for i, truth in enumerate(truths):
            seen(truth, Path(f"aff{i}.h5"), i, 0.1 + 0.1 * i)
            imsave(np.ascontiguousarray(truth), f"seg{i}.h5")
        words = ("--segment", "agglomerate", "--threshold", 0.2, 0.4, 0.6)
        text, (tuned, tested) = run(capsys, "--tune_on", "aff0.h5:seg0.h5", "--test", "aff1.h5:seg1.h5", *words)
        chosen, (row,) = tuned["chosen"], tested["segmentation"].values()
        assert (chosen["own_truth"], row["own_truth"]) == (True, False)
        assert chosen["threshold"] == row["threshold"]
        with h5py.File("aff1.h5") as file:
            found = segment(file["main"][:], threshold=row["threshold"])
        assert row["error"] == adapted_rand(found, truths[1])["error"]
        assert "chosen on another volume" in text

    def test_of_a_binary_output_too(self, capsys):
        about = {"axes": "czyx", "offset": [0, 0, 0], "tasks": ["mit"]}
        for name, scale in (("a", 1), ("b", 0.5)):
            values = np.array([0.1, 0.2, 0.6, 0.8], np.float32).reshape(1, 1, 1, 4) * np.float32(scale)
            write(Path(f"{name}.h5"), values, **about)
        imsave(np.array([0, 0, 1, 1]).reshape(1, 1, 4), "mit.h5")
        _, (_, tested) = run(capsys, "--tune_on", "a.h5:mit.h5", "--test", "b.h5:mit.h5")
        row = tested["at_chosen_threshold"]["0"]
        assert row["threshold"] == pytest.approx(0.6)
        assert (row["recall"], row["own_truth"]) == (0, False)

    def test_the_volume_that_chose_is_no_test(self, capsys):
        with pytest.raises(SystemExit):
            evaluate.main(["--tune_on", "a.h5:b.h5", "--test", "a.h5:b.h5"])
        assert "--test: got a.h5:b.h5, wants another volume than that of --tune_on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "FILE: got nothing, wants a prediction or a segmentation"),
        (["aff_9.h5"], "--truth: got nothing, wants a label volume"),
        (["--tune_on", "a:b"], "--test: got nothing, wants both --tune_on and --test"),
        (["--tune_on", "a", "--test", "b:c"], "--tune_on: got a, wants PREDICTION:TRUTH"),
        (["aff_9.h5", "--truth", ".", "--segment", "auto", "mutex"], "--segment: got auto mutex, wants auto or none"),
        (["aff_9.h5", "--truth", ".", "--kind", "binary"], "--kind: got binary, wants affinity, as aff_9.h5 says"),
        (["seg.h5", "--truth", ".", "--metrics", "oracle"], "--fragments: got nothing, wants the fragments"),
        (["img.h5", "--truth", "."], "img.h5: got 1 x float32 without an attribute tasks, wants a label volume"),
        (
            ["mit_9.h5", "--truth", ".", "--picture", "p.png"],
            "--picture: got mitochondria of mit_9.h5, wants affinities",
        ),
    ],
)
def test_what_cannot_be_scored_is_one_line(folder, monkeypatch, capsys, words, line):
    monkeypatch.chdir(folder)
    imsave(np.zeros((2, 3, 4), np.float32), "img.h5")
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"deepem evaluate: error: {line}")
