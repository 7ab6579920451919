"""Scores of segmentations against counts of every pair of voxels."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem import evaluate
from deepem.utils.errors import InputError
from tests.evaluate.drawn import cuts, pairs_of_volumes, same

CLASSES = [evaluate.AdaptedRand, evaluate.Voi, evaluate.Cremi, evaluate.OracleMerge, evaluate.Objects]
FUNCTIONS = [evaluate.adapted_rand, evaluate.voi, evaluate.cremi, None, evaluate.objects]


def by_every_pair(segmentation, truth) -> tuple[float, float, float]:
    """(error, precision, recall) of all ordered pairs of voxels, a voxel with itself too."""
    voxels = [(s, t) for s, t in zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True) if t]
    in_segment = in_truth = both = 0
    for (i, (s, t)), (j, (s2, t2)) in itertools.product(enumerate(voxels), repeat=2):
        a, b = i == j or s == s2 != 0, t == t2
        in_segment, in_truth, both = in_segment + a, in_truth + b, both + (a and b)
    precision, recall = both / in_segment, both / in_truth
    return 1 - 2 * precision * recall / (precision + recall), precision, recall


def entropies(segmentation, truth) -> tuple[float, float]:
    """(H(segmentation | truth), H(truth | segmentation)) in bits, from joint entropies."""
    pairs = [(s, t) for s, t in zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True) if t]

    def entropy(values) -> float:
        return -sum(n / len(pairs) * math.log2(n / len(pairs)) for n in Counter(values).values())

    joint = entropy(pairs)
    return joint - entropy([t for _, t in pairs]), joint - entropy([s for s, _ in pairs])


def slabs(shape=(6, 12, 14)) -> np.ndarray:
    """Ids of three touching pieces and a background, different along every axis."""
    ids = np.full(shape, 1)
    ids[:, 5:, :] = 2
    ids[2:, 5:, 6:] = 300
    ids[:2, :3, 9:] = 0
    return ids


class TestWorkedOut:
    def test_merging_costs_precision(self):
        truth, one = np.array([[1, 2], [3, 2]]), np.ones((2, 2), int)
        found = evaluate.adapted_rand(one, truth)
        assert found == {"error": pytest.approx(5 / 11), "precision": 0.375, "recall": 1}
        found = evaluate.adapted_rand(truth, one)
        assert found == {"error": pytest.approx(5 / 11), "precision": 1, "recall": 0.375}

    def test_what_is_left_out_counts_as_segments_of_one_voxel(self):
        found = evaluate.adapted_rand(np.array([1, 1, 0, 0]), np.ones(4, int))
        assert found == {"error": pytest.approx(5 / 11), "precision": 1, "recall": 6 / 16}

    def test_variation_of_information_ignores_what_the_truth_leaves_out_only(self):
        found = evaluate.voi(np.array([1, 1, 0]), np.array([1, 2, 3]))
        assert found == {"split": 0, "merge": pytest.approx(2 / 3)}
        found = evaluate.voi(np.array([1, 1, 0, 5]), np.array([1, 2, 0, 0]))
        assert found == {"split": 0, "merge": 1}

    def test_a_segmentation_cut_in_half(self):
        truth, half = np.ones(8, int), np.repeat([4, 9], 4)
        assert evaluate.voi(half, truth) == {"split": 1, "merge": 0}
        found = evaluate.cremi(half, truth)
        assert found["adapted_rand"] == pytest.approx(1 - 2 * 0.5 / 1.5)
        assert found["score"] == pytest.approx(math.sqrt(1 / 3))
        assert "sqrt" in found["formula"]

    def test_nothing_labelled_has_no_score(self):
        nothing = np.zeros((2, 2, 2), int)
        for function in (evaluate.adapted_rand, evaluate.voi):
            assert all(math.isnan(value) for value in function(nothing + 1, nothing).values())
        assert math.isnan(evaluate.cremi(nothing, nothing)["score"])

    def test_a_mask_hides_what_is_wrong(self):
        truth = slabs()
        wrong, mask = truth.copy(), np.ones(truth.shape, np.uint8)
        wrong[3], mask[3] = 7, 0
        assert evaluate.adapted_rand(wrong, truth)["error"] > 0.01
        assert evaluate.adapted_rand(wrong, truth, mask=mask)["error"] == 0
        wrong[3] = np.where(wrong[3] % 2, 0, 9)
        assert sum(evaluate.voi(wrong, truth, mask=mask).values()) == 0


class TestProperties:
    @settings(max_examples=40, deadline=None)
    @given(pairs_of_volumes(), st.integers(0, 2**32))
    def test_masked_voxels_are_as_if_not_labelled(self, volumes, seed):
        segmentation, truth = volumes
        mask = np.random.default_rng(seed).integers(0, 3, truth.shape)
        hidden = np.where(mask == 0, 0, truth)
        for function in (evaluate.adapted_rand, evaluate.voi, evaluate.objects):
            assert same(function(segmentation, truth, mask=mask), function(segmentation, hidden))

    @settings(max_examples=60, deadline=None)
    @given(pairs_of_volumes(most=3))
    def test_by_looking_at_every_pair_of_voxels(self, volumes):
        segmentation, truth = volumes
        found, information = evaluate.adapted_rand(segmentation, truth), evaluate.voi(segmentation, truth)
        if not truth.any():
            assert math.isnan(found["error"])
            return
        assert tuple(found.values()) == pytest.approx(by_every_pair(segmentation, truth), abs=1e-12)
        assert tuple(information.values()) == pytest.approx(entropies(segmentation, truth), abs=1e-12)

    @settings(max_examples=60, deadline=None)
    @given(st.data(), pairs_of_volumes())
    def test_blocks_give_the_same_digits(self, data, volumes):
        segmentation, truth = volumes
        blocks = data.draw(cuts(truth.shape))
        for kind, function in zip(CLASSES, FUNCTIONS, strict=True):
            score = kind()
            for begin, block in blocks:
                where = {"begin": begin} if kind is evaluate.Objects else {}
                score.add(segmentation[block], truth[block], **where)
            whole = kind()
            whole.add(segmentation, truth)
            assert same(score.result(), whole.result())
            assert function is None or same(score.result(), function(segmentation, truth))

    @settings(max_examples=40, deadline=None)
    @given(pairs_of_volumes(), st.integers(0, 2**32))
    def test_names_do_not_matter(self, volumes, seed):
        segmentation, truth = volumes
        renamed = []
        for ids in (segmentation, truth):
            names = [name for name in np.unique(ids).tolist() if name]
            drawn = np.random.default_rng(seed).integers(1, 2**64, len(names), np.uint64).tolist()
            others = dict(zip(names, drawn, strict=True)) | {0: 0}
            renamed.append(np.array([others[i] for i in ids.ravel().tolist()], np.uint64).reshape(ids.shape))
        assert same(evaluate.adapted_rand(*renamed), evaluate.adapted_rand(segmentation, truth))
        for a, b in zip(evaluate.voi(*renamed).values(), evaluate.voi(segmentation, truth).values(), strict=True):
            assert a == pytest.approx(b, abs=1e-14, nan_ok=True)

    @settings(max_examples=40, deadline=None)
    @given(pairs_of_volumes(ids=[1, 2, 3, 2**63, 2**53, 2**53 + 1]))
    def test_exchanging_the_two_exchanges_splits_and_merges(self, volumes):
        a, b = volumes
        one, other = evaluate.adapted_rand(a, b), evaluate.adapted_rand(b, a)
        assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])
        assert one["error"] == other["error"]
        assert evaluate.voi(a, b)["split"] == pytest.approx(evaluate.voi(b, a)["merge"], abs=1e-14)
        assert evaluate.adapted_rand(a, a)["error"] == 0 == sum(evaluate.voi(b, b).values())

    @settings(max_examples=30, deadline=None)
    @given(pairs_of_volumes())
    def test_the_truth_of_fragments_is_reached_by_the_oracle(self, volumes):
        other, truth = volumes
        cut = np.unique(np.stack([truth.ravel(), other.ravel()]), axis=1, return_inverse=True)[1].reshape(truth.shape)
        fragments = np.where(truth == 0, 0, cut + 1)
        assert (evaluate.oracle_merge(fragments, truth) == truth).all()

    @settings(max_examples=30, deadline=None)
    @given(pairs_of_volumes(most=4))
    def test_no_other_merge_is_better_than_the_oracle(self, volumes):
        fragments, truth = volumes
        oracle = evaluate.OracleMerge()
        oracle.add(fragments, truth)
        labels = evaluate.oracle_merge(fragments, truth)
        assert labels.dtype == np.uint64
        assert (oracle.labels(fragments) == labels).all()
        assert same(oracle.scores(), {**evaluate.adapted_rand(labels, truth), **evaluate.voi(labels, truth)})
        for name, best in oracle.result().items():
            shared = Counter(truth[(fragments == np.uint64(name)) & (truth != 0)].tolist())
            if name and shared:
                assert best == min(shared, key=lambda t: (-shared[t], t))
            else:
                assert best == 0


class TestEqualToOthers:
    def test_scikit_image_where_definitions_agree(self):
        metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
        rng = np.random.default_rng(0)
        truth, ids = rng.integers(0, 6, (2, 5, 8, 8))
        split, merge = metrics.variation_of_information(truth, ids, ignore_labels=(0,))
        assert evaluate.voi(ids, truth) == {"split": pytest.approx(split), "merge": pytest.approx(merge)}
        # scikit-image leaves pairs of a voxel with itself out, takes predicted 0 as one segment, swaps the two names.
        n, found = np.count_nonzero(truth), evaluate.adapted_rand(ids + 1, truth)
        error, in_truth, in_segments = metrics.adapted_rand_error(truth, ids + 1, ignore_labels=(0,))
        counts = [np.unique(x[truth != 0], return_counts=True)[1] for x in (truth, ids)]
        pairs = [int((c**2).sum()) - n for c in counts]
        together = in_truth * pairs[0]
        assert together == pytest.approx(in_segments * pairs[1])
        assert error == pytest.approx(1 - 2 * together / sum(pairs))
        assert found["recall"] == pytest.approx((together + n) / (pairs[0] + n))
        assert found["precision"] == pytest.approx((together + n) / (pairs[1] + n))

    def test_scikit_image_on_tissue(self, shared):
        metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
        h5py = pytest.importorskip("h5py")
        with h5py.File(shared / "data" / "gala" / "seg.h5") as file:
            truth = file["main"][:].astype(np.int64)
        ids = truth // 3 + np.arange(truth.shape[1])[:, None] // 40 * 1000
        split, merge = metrics.variation_of_information(truth, ids, ignore_labels=(0,))
        found = evaluate.voi(ids, truth)
        assert found == {"split": pytest.approx(split), "merge": pytest.approx(merge)}
        assert min(split, merge) > 0.3


class TestIds:
    def test_of_any_type_without_a_table_of_their_size(self):
        truth = slabs()
        names = np.arange(301, dtype=np.uint64) * np.uint64(2**55) + np.uint64(2**53 + 1)
        tracemalloc.start()
        assert evaluate.adapted_rand(names[truth], truth)["error"] == 0
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()
        near = np.where(truth == 2, np.uint64(2**53), np.uint64(2**53 + 1))
        assert evaluate.voi(near, (truth == 2).astype(np.int64) + 1) == {"split": 0, "merge": 0}

    def test_blocks_of_mixed_types_are_one_table(self):
        score = evaluate.AdaptedRand()
        score.add(np.array([2**53, 2**53 + 1], np.int64), np.array([1, 2], np.uint8))
        score.add(np.array([2**53, 2**53 + 1], np.uint64), np.array([1, 2], np.int64))
        assert score.result()["error"] == 0

    def test_views_of_any_layout_count_alike(self):
        truth = slabs()
        turned, mirrored = np.asfortranarray(truth), truth[:, ::-1][:, ::-1]
        assert evaluate.adapted_rand(turned, mirrored)["error"] == 0
        assert evaluate.objects(truth.T, np.ascontiguousarray(truth.T))["splits"] == []

    @pytest.mark.parametrize(
        ("segmentation", "truth", "says"),
        [
            (np.zeros((2, 2)), np.zeros((2, 2), int), "segmentation: got an array of float64"),
            (np.zeros((2, 2), int), np.zeros((2, 3), int), r"segmentation: got shape \(2, 2\), wants that of the"),
            (np.zeros((2, 2), int), np.full((2, 2), -1), "truth: got the id -1, wants ids from 0"),
        ],
    )
    def test_what_is_no_pair_of_segmentations_is_refused(self, segmentation, truth, says):
        with pytest.raises(InputError, match=says):
            evaluate.adapted_rand(segmentation, truth)

    def test_many_pieces_are_summed_on_the_way(self, monkeypatch):
        monkeypatch.setattr("deepem.evaluate.overlaps.PENDING", 50)
        rng = np.random.default_rng(0)
        segmentation, truth = rng.integers(0, 9, (2, 40, 6, 7))
        score = evaluate.Voi()
        for s, t in zip(segmentation, truth, strict=True):
            score.add(s, t)
        assert score.result() == evaluate.voi(segmentation, truth)

    def test_scores_share_one_table(self):
        rng = np.random.default_rng(0)
        segmentation, truth = rng.integers(0, 9, (2, 4, 6, 7))
        overlaps = evaluate.Overlaps(places=True)
        overlaps.add(segmentation, truth)
        for kind, function in zip(CLASSES, FUNCTIONS, strict=True):
            score = kind(overlaps=overlaps)
            assert function is None or score.result() == function(segmentation, truth)
        row = evaluate.row_of(overlaps, threshold=0.5)
        (other,) = evaluate.curve([(0.5, segmentation)], truth)
        assert row == other
        assert (row["segments"], row["objects"]) == (8, 8)

    def test_tables_of_two_processes_add_up(self):
        rng = np.random.default_rng(0)
        segmentation, truth = rng.integers(0, 9, (2, 40, 6, 7))
        one, other = evaluate.Cremi(), evaluate.Cremi()
        one.add(segmentation[:13], truth[:13]), other.add(segmentation[13:], truth[13:])
        one.overlaps.merge(other.overlaps)
        assert one.result() == evaluate.cremi(segmentation, truth)


class TestObjects:
    def test_worst_split_and_merge_with_their_boxes(self):
        truth = np.zeros((3, 4, 10), int)
        truth[:, :2], truth[:, 2:, :7] = 5, 6
        found = np.where(truth == 5, 1, 0)
        found[:, :2, 8:] = 2
        found[1:, 2:, 3:6] = 1
        result = evaluate.objects(found, truth)
        other, split = result["splits"]
        assert (other["object"], other["voxels"], other["parts"]) == (5, 60, 2)
        assert (split["object"], split["voxels"], split["parts"]) == (6, 42, 2)
        assert split["largest"][0] == {"segment": 0, "voxels": 30, "begin": [0, 2, 0], "end": [3, 4, 7]}
        assert split["largest"][1] == {"segment": 1, "voxels": 12, "begin": [1, 2, 3], "end": [3, 4, 6]}
        assert (split["begin"], split["end"]) == ([0, 2, 0], [3, 4, 7])
        (merge,) = result["merges"]
        assert (merge["segment"], [part["object"] for part in merge["largest"]]) == (1, [5, 6])
        assert (merge["begin"], merge["end"]) == ([0, 0, 0], [3, 4, 8])
        assert result["missing"] == []
        bits = evaluate.voi(found, truth)
        assert sum(row["bits"] for row in result["splits"]) == pytest.approx(bits["split"])
        assert sum(row["bits"] for row in result["merges"]) == pytest.approx(bits["merge"])

    def test_an_object_that_no_segment_touches_is_missing(self):
        truth = np.array([[[1, 1, 2, 3]]])
        assert evaluate.objects(np.array([[[4, 0, 0, 4]]]), truth)["missing"] == [2]

    @settings(max_examples=30, deadline=None)
    @given(pairs_of_volumes())
    def test_boxes_hold_every_voxel_of_a_part(self, volumes):
        segmentation, truth = volumes
        for row in evaluate.objects(segmentation, truth)["splits"]:
            for part in row["largest"]:
                both = (truth == np.uint64(row["object"])) & (segmentation == np.uint64(part["segment"]))
                at = np.argwhere(both)
                assert (at.min(0).tolist(), (at.max(0) + 1).tolist()) == (part["begin"], part["end"])
                assert both.sum() == part["voxels"]


class TestBorders:
    @settings(max_examples=40, deadline=None)
    @given(pairs_of_volumes(ids=[0, 1, 2**53, 2**53 + 1]), st.tuples(*[st.integers(0, 2)] * 3))
    def test_by_looking_at_every_neighbourhood(self, volumes, reach):
        truth = volumes[1]
        kept = evaluate.inside(truth, reach)
        for at in np.ndindex(truth.shape):
            near = truth[tuple(slice(max(a - r, 0), a + r + 1) for a, r in zip(at, reach, strict=True))]
            assert kept[at] == (near == truth[at]).all()


class TestChoice:
    def test_a_curve_and_the_best_of_it(self):
        truth = slabs()
        one = np.ones_like(truth)
        pieces = np.arange(truth.size).reshape(truth.shape)
        rows = evaluate.curve([(0.9, pieces), (0.5, truth), (0.1, one)], truth, decoder="components")
        assert [row["threshold"] for row in rows] == [0.9, 0.5, 0.1]
        assert rows[0]["split"] > 5 > rows[2]["split"] == 0
        assert rows[2]["merge"] > 0.5 > rows[0]["merge"] == 0
        for by in ("adapted_rand", "voi", "cremi"):
            best = evaluate.choose(rows, by)
            assert (best["threshold"], best["decoder"], best["chosen_by"]) == (0.5, "components", by)
        assert "chosen_by" not in rows[1]

    def test_what_was_chosen_on_one_volume_is_reported_on_another(self):
        tune = [{"threshold": t, "decoder": "mutex", "error": e} for t, e in ((0.1, 0.2), (0.2, 0.1))]
        test = [{"threshold": t, "decoder": d, "error": t} for t in (0.1, 0.2) for d in ("mutex", "components")]
        chosen = evaluate.choose(tune)
        assert chosen["own_truth"]
        found = evaluate.reported(test, chosen)
        assert found == {**test[2], "chosen_by": "adapted_rand", "own_truth": False}
        with pytest.raises(InputError, match=r"curve: got 0 rows of .*'threshold': 0.2"):
            evaluate.reported(test[:2], chosen)

    def test_the_highest_of_what_is_best_when_high_and_the_first_of_equals(self):
        rows = [{"threshold": t, "f1": f} for t, f in ((0.1, 0.3), (0.2, 0.8), (0.3, 0.8), (0.4, math.nan))]
        assert evaluate.choose(rows, "f1")["threshold"] == 0.2

    @pytest.mark.parametrize(
        ("rows", "by", "says"),
        [
            ([{"error": 0.1}], "luck", "by: got luck, wants one of adapted_rand, voi"),
            ([{"error": 0.1}], "voi", "curve: got a row without 'split'"),
            ([{"error": math.nan}], "adapted_rand", "curve: got 1 rows without a score"),
            ([], "adapted_rand", "curve: got 0 rows without a score"),
        ],
    )
    def test_what_cannot_be_chosen_from_is_refused(self, rows, by, says):
        with pytest.raises(InputError, match=says):
            evaluate.choose(rows, by)
