"""The figures of merit against slow, obvious definitions, and the script that prints them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import same_partition

from deepem import tasks
from deepem.tools import evaluate, scoring

NEAREST = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
BACK = [(0, 0, -1), (0, -1, 0), (-1, 0, 0)]
RANKED = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30)


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


class TestRanking:
    @given(RANKED)
    def test_auc_is_the_chance_that_an_event_outranks_the_rest(self, rows):
        score_, event = (np.array(x) for x in zip(*rows, strict=True))
        wins = [(a > b) + (a == b) / 2 for a in score_[event] for b in score_[~event]]
        auc = scoring.Ranking.of(score_, event).auc()
        assert auc == pytest.approx(np.mean(wins)) if wins else np.isnan(auc)

    @given(RANKED)
    def test_average_precision_and_f1_by_calling_at_every_score(self, rows):
        score_, event = (np.array(x) for x in zip(*rows, strict=True))
        ranking = scoring.Ranking.of(score_, event)
        if not event.any():
            assert np.isnan(ranking.average_precision())
            assert np.isnan(ranking.best_f1()[0])
            return
        average, before, f1 = 0.0, 0.0, {}
        for threshold in sorted(set(score_.tolist()), reverse=True):
            called = score_ >= threshold
            recall, precision = event[called].sum() / event.sum(), event[called].mean()
            average, before = average + (recall - before) * precision, recall
            f1[threshold] = 2 * event[called].sum() / (called.sum() + event.sum())
        assert ranking.average_precision() == pytest.approx(average)
        best, threshold = ranking.best_f1()
        assert best == pytest.approx(max(f1.values())) == pytest.approx(f1[threshold])
        called = [f1[threshold] for threshold in sorted(f1) if threshold >= 2.5]
        assert ranking.f1_at(2.5) == pytest.approx(called[0] if called else 0)

    def test_chance_is_the_share(self):
        assert scoring.Ranking.of(np.zeros(10), np.arange(10) < 3).average_precision() == pytest.approx(0.3)
        assert scoring.Ranking.of(np.zeros(10), np.arange(10) < 3).share == pytest.approx(0.3)

    def test_nothing_counts(self):
        ranking = scoring.Ranking.of(np.zeros(0), np.zeros(0))
        assert all(np.isnan(v) for v in (ranking.share, ranking.auc(), ranking.average_precision(), ranking.f1_at(0)))


class TestCutEdges:
    @pytest.mark.parametrize("edges", [NEAREST, BACK, [(2, -1, 3)]])
    def test_an_oracle_finds_them_all(self, edges):
        ids = slabs()
        for channel, edge in zip(oracle(ids, edges), edges, strict=True):
            assert scoring.cut_edges(channel, edge, ids).average_precision() == 1

    def test_planes_without_a_partner_do_not_count(self):
        ids = slabs()
        for channel, edge in zip(oracle(ids, NEAREST + BACK), NEAREST + BACK, strict=True):
            channel[channel == 0.5] = -9
            assert scoring.cut_edges(channel, edge, ids).average_precision() == 1

    def test_an_edge_read_the_wrong_way_is_noticed(self):
        ids = slabs()
        wrong = [scoring.cut_edges(c, e, ids) for c, e in zip(oracle(ids, BACK), NEAREST, strict=True)]
        assert max(r.average_precision() for r in wrong) < 0.9

    def test_pairs_outside_the_mask_do_not_count(self):
        ids, mask = slabs(), np.ones((6, 12, 14))
        (channel,) = oracle(ids, [(0, 1, 0)])
        channel[3], mask[3] = 0, 0
        assert scoring.cut_edges(channel, (0, 1, 0), ids).average_precision() < 1
        assert scoring.cut_edges(channel, (0, 1, 0), ids, mask).average_precision() == 1


class TestSegments:
    @pytest.mark.parametrize("edges", [NEAREST, BACK, [(1, 0, 0), (0, -1, 0), (0, 0, 1)], [*NEAREST, (0, 0, 4)]])
    def test_of_the_oracle_are_the_labels(self, edges):
        ids = slabs()
        found = scoring.segments(oracle(ids, edges), edges, 0.5)
        assert same_partition(found, ids)
        assert (found == 0).sum() == (ids == 0).sum()

    def test_of_edges_read_the_wrong_way_are_not(self):
        assert not same_partition(scoring.segments(oracle(slabs(), BACK), NEAREST, 0.5), slabs())

    def test_above_every_affinity_there_are_none(self):
        assert scoring.segments(oracle(slabs(), NEAREST), NEAREST, 1).max() == 0

    def test_tiny_ones_dissolve_into_the_nearest(self):
        ids = np.zeros((1, 4, 9), int)
        ids[:, :, :3], ids[:, :, 7:], ids[0, 0, 5] = 1, 2, 3
        found = scoring.grown(ids, 5, 10)
        assert np.unique(found).tolist() == [1, 2]
        assert (found[..., :4] == 1).all()
        assert (found[..., 6:] == 2).all()
        assert (scoring.grown(ids, 5, 1)[0, 1] == [1, 1, 1, 1, 0, 0, 2, 2, 2]).all()
        assert not scoring.grown(ids, 50, 10).any()

    def test_they_grow_through_thick_sections_later(self):
        ids = np.zeros((3, 1, 5), int)
        ids[1, 0, 2] = 7
        found = scoring.grown(ids, 1, 2, (40, 4, 4))
        assert found.any((1, 2)).tolist() == [False, True, False]
        assert found[1].all()

    @pytest.mark.parametrize("edges", [NEAREST, BACK])
    def test_waterz_gets_the_axes_and_directions_it_wants(self, edges):
        pytest.importorskip("waterz", reason="needs the extra eval")
        ids = np.kron(slabs() + 1, np.ones((1, 3, 3), int))
        ((_, found),) = scoring.by_waterz(oracle(ids, edges), edges, [0.5])
        assert scoring.agreement(found, ids).are < 0.01
        along = scoring.nearest_zyx(oracle(ids, edges), edges)
        assert np.array_equal(along[0, 1:], (ids[1:] == ids[:-1]).astype(np.float32))
        assert np.array_equal(along[2, ..., 1:], (ids[..., 1:] == ids[..., :-1]).astype(np.float32))

    def test_long_range_affinities_are_scored_without_waterz(self):
        ids, edges = slabs(), ((0, 0, 3), (0, 3, 0), (2, 0, 0))
        assert [scoring.hold_nearest(e) for e in (NEAREST, BACK, [*NEAREST, *edges], edges)] == [True] * 3 + [False]
        row = next(task for task in tasks.TASKS if task.flag == "long")
        prediction = evaluate.Prediction(Path("t_long_range_1.h5"), oracle(ids, edges), row, edges, (0, 0, 0), None)
        found = evaluate.score_affinity(prediction, ids[None], "seg", None, "both")
        assert found["cut_edges"]["average_precision"] == 1
        assert list(found["segmentation"]) == ["components"]

    def test_every_waterz_threshold_has_segments_of_its_own(self):
        pytest.importorskip("waterz", reason="needs the extra eval")
        ids = np.ones((4, 16, 16), int)
        ids[..., 8:] = 2
        affinity = np.where(oracle(ids, NEAREST) == 0, np.float32(0.4), np.float32(1))
        swept = scoring.by_waterz(affinity, NEAREST, [0.1, 0.9])
        assert [(t, len(np.unique(found))) for t, found in swept] == [(0.1, 2), (0.9, 1)]


class TestAgreement:
    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=25))
    def test_by_looking_at_every_pair_of_voxels(self, rows):
        truth, ids = (np.array(x) for x in zip(*rows, strict=True))
        found = scoring.agreement(ids, truth)
        t, s = truth[truth > 0], ids[truth > 0]
        if not t.size:
            assert np.isnan(found.are)
            return
        i, j = np.triu_indices(t.size, 1)
        a, b = t[i] == t[j], s[i] == s[j]
        expected = 1 - 2 * (a & b).sum() / (a.sum() + b.sum()) if a.sum() + b.sum() else 0
        assert found.are == pytest.approx(expected)

        def entropy(*labels: np.ndarray) -> float:
            p = np.unique(np.stack(labels), axis=1, return_counts=True)[1] / t.size
            return float(-(p * np.log2(p)).sum())

        assert found.split == pytest.approx(entropy(t, s) - entropy(t), abs=1e-9)
        assert found.merge == pytest.approx(entropy(t, s) - entropy(s), abs=1e-9)

    def test_equal_to_another_implementation(self):
        metrics = pytest.importorskip("skimage.metrics", reason="needs the extra eval")
        rng = np.random.default_rng(0)
        truth, ids = rng.integers(0, 6, (2, 5, 8, 8))
        found = scoring.agreement(ids, truth)
        assert found.are == pytest.approx(metrics.adapted_rand_error(truth, ids, ignore_labels=(0,))[0])
        split, merge = metrics.variation_of_information(truth, ids, ignore_labels=(0,))
        assert (found.split, found.merge) == (pytest.approx(split), pytest.approx(merge))

    def test_names_do_not_matter_and_huge_ones_are_no_trouble(self):
        ids = slabs()
        assert scoring.agreement(ids * 2**50, ids).are == 0
        assert scoring.agreement(np.ones_like(ids), ids).merge > 0.5
        assert scoring.agreement(np.arange(ids.size).reshape(ids.shape), ids).split > 5


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
    assert affinity["output"] == "affinity"
    assert affinity["cut_edges"]["by_edge"] == {"0,0,1": 1, "0,1,0": 1, "1,0,0": 1}
    assert 0 < affinity["cut_edges"]["share"]["0,1,0"] < 0.3
    assert mitochondria["channels"]["0"]["f1_best"] == 1
    assert mitochondria["channels"]["0"]["f1_best_threshold"] == pytest.approx(0.6)
    assert mitochondria["channels"]["0"]["f1_at_0.5"] == 1


def test_a_prediction_elsewhere_does_not(folder):
    with h5py.File(folder / "mit_9.h5", "r+") as top:
        top["main"].attrs["offset"] = [1, 2, 4]
    (result,) = evaluate.score_all([folder / "mit_9.h5"], folder)
    assert result["channels"]["0"]["auc"] < 0.6


def test_a_mask_hides_what_is_wrong(folder):
    mask = np.ones(slabs().shape, np.uint8)
    mask[3] = 0
    with h5py.File(folder / "mit_9.h5", "r+") as top:
        top["main"][:, 2] = 0.9
    bad, good = (
        evaluate.score_all([folder / "mit_9.h5"], folder / "mit.h5", counts)[0]
        for counts in (None, write(folder / "msk.h5", mask))
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
            evaluate.score_all([folder / name], folder, counts, "components") for counts in (flat, deep, None)
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
    monkeypatch.setattr(evaluate, "score_binary", lambda *_: pytest.fail("the work was done first"))
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
    (result,) = evaluate.score_all([file], folder)
    assert result["channels"]["0"]["auc"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": "xyzc"}, "axes 'xyzc'"),
        ({"edges": NEAREST[:2]}, "2 edges for 3 channels"),
        ({"tasks": '["aff", "mit"]'}, "tasks ['aff', 'mit']"),
        ({"offset": [4, 0, 0]}, "voxels (4, 0, 0) to (9, 10, 10)"),
        ({"voxel_size_nm": [10.0, 10.0, 10.0]}, "voxels of [10.0, 10.0, 10.0] nm"),
        ({"offset": None}, "no attribute offset"),
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


def test_classes_are_scored_one_by_one():
    """Worked out by hand: rows are true classes, columns what was found; class 3 is nowhere."""
    truth = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 1]).reshape(1, 2, 5)
    found = np.array([0, 0, 1, 1, 0, 2, 2, 2, 1, 3]).reshape(1, 2, 5)
    mask = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0]).reshape(1, 2, 5)
    counts = scoring.confusion(found, truth, 4, mask)
    np.testing.assert_array_equal(counts, [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 3, 0], [0, 0, 0, 0]])
    rows = scoring.by_class(counts)
    assert [row["precision"] for row in rows[:3]] == pytest.approx([2 / 3, 1 / 3, 1])
    assert [row["recall"] for row in rows[:3]] == pytest.approx([2 / 3, 1 / 2, 3 / 4])
    assert [row["iou"] for row in rows[:3]] == pytest.approx([2 / 4, 1 / 4, 3 / 4])
    assert [row["share"] for row in rows] == pytest.approx([3 / 9, 2 / 9, 4 / 9, 0])
    assert all(np.isnan(rows[3][name]) for name in ("precision", "recall", "iou"))
    assert scoring.confusion(found, truth, 4)[1, 3] == 1
