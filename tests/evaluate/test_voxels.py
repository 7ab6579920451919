"""Scores of binary maps, classes and affinities, against slow and obvious definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem import evaluate
from deepem.evaluate.ranking import Ranking
from deepem.utils.errors import InputError
from tests.evaluate.drawn import cuts, pairs_of_volumes, same

NEAREST = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
EDGES = [*NEAREST, (0, 0, -1), (-1, 0, 0), (2, -1, 3)]
RANKED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30)
FLOATS = st.lists(st.tuples(st.floats(-1e300, 1e300), st.booleans()), min_size=1, max_size=30)


def average_precision(score, event) -> float:
    """By calling at every score."""
    average = before = 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        called = score >= threshold
        recall, precision = event[called].sum() / event.sum(), event[called].mean()
        average, before = average + (recall - before) * precision, recall
    return average


class TestRanking:
    @given(RANKED | FLOATS)
    def test_auc_is_the_chance_that_an_event_outranks_the_rest(self, rows):
        score, event = (np.array(x) for x in zip(*rows, strict=True))
        wins = [(a > b) + (a == b) / 2 for a in score[event] for b in score[~event]]
        assert evaluate.binary(score.astype(float), event)["auc"] == pytest.approx(
            np.mean(wins) if wins else math.nan, nan_ok=True
        )

    @given(RANKED | FLOATS)
    def test_average_precision_by_calling_at_every_score(self, rows):
        score, event = (np.array(x) for x in zip(*rows, strict=True))
        expected = average_precision(score, event) if event.any() else math.nan
        assert evaluate.binary(score.astype(float), event)["average_precision"] == pytest.approx(expected, nan_ok=True)

    def test_a_constant_score_is_as_good_as_chance(self):
        found = evaluate.binary(np.full(10000, 0.3), np.arange(10000) == 77)
        assert (found["average_precision"], found["auc"], found["share"]) == (0.0001, 0.5, 0.0001)

    def test_scores_outside_of_0_to_1_are_taken_as_they_are_in_every_batch(self):
        whole = evaluate.binary(np.array([-1.0, 0.0, 1.0]), np.array([1, 0, 1]))
        batches = evaluate.Binary()
        for score, event in ((-1.0, 1), (0.0, 0), (1.0, 1)):
            batches.add(np.array([score]), np.array([event]))
        assert whole["auc"] == 0.5
        assert same(batches.result(), whole)

    def test_neighbouring_float32_and_zeros_of_both_signs(self):
        close = np.array([1, np.nextafter(np.float32(1), np.float32(0))], np.float32)
        assert evaluate.binary(close, np.array([0, 1]))["auc"] == 0
        assert evaluate.binary(np.array([0.0, -0.0]), np.array([1, 0]))["auc"] == 0.5

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20), st.data())
    def test_rounding_does_not_depend_on_the_order(self, rows, limit, data):
        score, event = (np.array(x) for x in zip(*rows, strict=True))
        cut = data.draw(st.integers(0, len(rows)))
        whole, parts, merged = Ranking(limit), Ranking(limit), Ranking(limit)
        whole.add(score, event)
        for some in (slice(cut, None), slice(cut)):
            parts.add(score[some], event[some])
            other = Ranking(limit)
            other.add(score[some], event[some])
            merged.merge(other)
        for ranking in (parts, merged):
            for a, b in zip(ranking.falling(), whole.falling(), strict=True):
                assert a.tolist() == b.tolist()
        assert len(whole.falling()[0]) <= limit

    def test_no_more_bits_are_given_up_than_the_limit_asks_for(self):
        for limit, kept in ((4, [1.75, 1.5, 1.25, 1]), (3, [1.5, 1]), (2, [1.5, 1]), (1, [1])):
            ranking = Ranking(limit)
            ranking.add(np.array([1, 1.25, 1.5, 1.75]), np.array([True, False, True, True]))
            assert ranking.falling()[0].tolist() == kept

    def test_rounding_many_scores_hardly_matters(self):
        rng = np.random.default_rng(0)
        event = rng.random(20000) < 0.1
        score = np.clip(rng.normal(0.3 + 0.3 * event, 0.2), 0, 1)
        exact, rounded = Ranking(), Ranking(2000)
        exact.add(score, event), rounded.add(score, event)
        assert len(rounded.falling()[0]) <= 2000 < len(exact.falling()[0])
        assert rounded.auc() == pytest.approx(exact.auc(), abs=1e-3)
        assert rounded.average_precision() == pytest.approx(exact.average_precision(), abs=1e-2)


class TestBinary:
    def test_counts_at_a_threshold(self):
        probability, truth = np.array([0.9, 0.6, 0.5, 0.4, 0.1]), np.array([1, 0, 7, 1, 0])
        found = evaluate.binary(probability, truth)
        assert (found["precision"], found["recall"], found["f1"], found["jaccard"]) == (2 / 3, 2 / 3, 2 / 3, 0.5)
        found = evaluate.binary(probability, truth, threshold=0.95)
        assert math.isnan(found["precision"])
        assert (found["recall"], found["f1"], found["threshold"]) == (0, 0, 0.95)

    def test_a_mask_hides_what_is_wrong(self):
        truth = np.arange(20).reshape(1, 4, 5) % 3 == 0
        probability, mask = truth * 0.8, np.ones(truth.shape, int)
        probability[0, 2], mask[0, 2] = 0.9, 0
        assert evaluate.binary(probability, truth)["auc"] < 1
        found = evaluate.binary(probability, truth, mask=mask)
        assert (found["auc"], found["f1"], found["average_precision"]) == (1, 1, 1)

    @settings(max_examples=30, deadline=None)
    @given(st.data(), pairs_of_volumes())
    def test_blocks_give_the_same_digits(self, data, volumes):
        probability, truth = (volumes[0] % 7 / 7).astype(np.float32), volumes[1] % 2
        score = evaluate.Binary(0.4)
        for _, block in data.draw(cuts(truth.shape)):
            score.add(probability[block], truth[block])
        assert same(score.result(), evaluate.binary(probability, truth, threshold=0.4))

    @pytest.mark.parametrize(
        ("probability", "says"),
        [
            (np.array([0, 255], np.uint8), "probability: got uint8 up to 255, wants numbers in .* divide uint8 by 255"),
            (np.array([0.5, np.nan]), "probability: got NaN"),
            (np.array([0.5]), r"probability: got shape \(1,\), wants that of the truth, \(2,\)"),
        ],
    )
    def test_what_is_no_probability_is_refused(self, probability, says):
        with pytest.raises(InputError, match=says):
            evaluate.binary(probability, np.array([0, 1]))


class TestSemantic:
    def test_every_class_is_counted_with_class_0(self):
        truth, found = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
        result = evaluate.semantic(found, truth)
        assert result["classes"][0] == {"iou": 2 / 3, "precision": 1, "recall": 2 / 3, "f1": 0.8, "voxels": 3}
        assert [row["iou"] for row in result["classes"].values()] == [2 / 3, 1 / 3, 1 / 2]
        assert result["iou_mean"] == pytest.approx(0.5)
        assert result["accuracy"] == pytest.approx(4 / 6)

    def test_a_class_that_the_truth_lacks_does_not_enter_the_mean(self):
        result = evaluate.semantic(np.array([0, 3]), np.array([0, 0]), classes=range(5))
        assert list(result["classes"]) == [0, 1, 2, 3, 4]
        assert result["classes"][3]["precision"] == 0
        assert math.isnan(result["classes"][1]["iou"])
        assert result["iou_mean"] == 0.5

    @settings(max_examples=30, deadline=None)
    @given(st.data(), pairs_of_volumes(ids=[0, 1, 2, 3]))
    def test_probabilities_and_blocks_give_the_same_digits(self, data, volumes):
        found, truth = volumes
        one_hot = np.stack([found == i for i in range(4)]) * 0.7
        score = evaluate.Semantic()
        for _, block in data.draw(cuts(truth.shape)):
            score.add(one_hot[(slice(None), *block)], truth[block])
        assert same(score.result(), evaluate.semantic(found, truth))
        for name, row in score.result()["classes"].items():
            a, b = found == name, truth == name
            assert row["iou"] == (a & b).sum() / (a | b).sum()


def oracle(ids, edges) -> np.ndarray:
    """The affinities of ids, one voxel at a time; -9 where a voxel has no partner."""
    found = np.full((len(edges), *ids.shape), -9, np.float32)
    for channel, edge in zip(found, edges, strict=True):
        for v in np.ndindex(ids.shape):
            u = tuple(a - d for a, d in zip(v, edge, strict=True))
            if all(0 <= a < n for a, n in zip(u, ids.shape, strict=True)):
                channel[v] = ids[v] == ids[u] != 0
    return found


def slabs(shape=(6, 9, 10)) -> np.ndarray:
    ids = np.full(shape, 1)
    ids[:, 5:, :] = 2
    ids[2:, 5:, 6:] = 300
    ids[:2, :3, 7:] = 0
    return ids


class TestAffinity:
    def test_an_oracle_finds_all_cut_edges(self):
        result = evaluate.affinity(oracle(slabs(), EDGES), slabs(), edges=EDGES)
        assert result["average_precision"] == 1
        assert list(result["edges"])[-1] == "2,-1,3"
        assert 0 < result["edges"]["0,1,0"]["share"] < 0.4

    @pytest.mark.parametrize("kind", [bool, np.uint8, np.float16])
    def test_affinities_of_any_type_rank_alike(self, kind):
        affinities = (oracle(slabs(), NEAREST) == 1).astype(kind)
        assert evaluate.affinity(affinities, slabs(), edges=NEAREST)["average_precision"] == 1

    def test_an_edge_read_the_wrong_way_is_noticed(self):
        wrong = evaluate.affinity(oracle(slabs(), [(0, 0, -1), (0, -1, 0)]), slabs(), edges=[(0, 0, 1), (0, 1, 0)])
        assert wrong["average_precision"] < 0.9

    def test_by_looking_at_every_pair(self):
        ids, rng = slabs(), np.random.default_rng(0)
        predicted = rng.integers(0, 9, (1, *ids.shape)) / np.float32(8)
        mask = rng.random(ids.shape) < 0.8
        score, event = [], []
        for v in np.ndindex(ids.shape):
            u = (v[0] - 1, v[1], v[2] + 1)
            if u[0] >= 0 and u[2] < ids.shape[2] and mask[v] and mask[u]:
                score.append(-predicted[(0, *v)])
                event.append(not (ids[v] == ids[u] != 0))
        result = evaluate.affinity(predicted, ids, edges=[(1, 0, -1)], mask=mask)
        expected = average_precision(np.array(score), np.array(event))
        assert result["edges"]["1,0,-1"] == {
            "average_precision": pytest.approx(expected),
            "share": pytest.approx(np.mean(event)),
        }

    @settings(max_examples=30, deadline=None)
    @given(st.data(), pairs_of_volumes())
    def test_blocks_that_know_their_surroundings_give_the_same_digits(self, data, volumes):
        truth = volumes[0]
        predicted = np.random.default_rng(0).random((len(EDGES), *truth.shape)).astype(np.float32)
        score = evaluate.Affinity(EDGES)
        halo = 3
        for begin, block in data.draw(cuts(truth.shape)):
            low = [max(b - halo, 0) for b in begin]
            around = tuple(slice(a, s.stop + halo) for a, s in zip(low, block, strict=True))
            at = [b - a for b, a in zip(begin, low, strict=True)]
            score.add(predicted[(slice(None), *block)], truth[around], at=at)
        assert same(score.result(), evaluate.affinity(predicted, truth, edges=EDGES))

    def test_shapes_that_do_not_fit_are_refused(self):
        ids = slabs()
        with pytest.raises(InputError, match=r"affinity: got shape .* wants 3 channels"):
            evaluate.affinity(np.zeros((2, *ids.shape), np.float32), ids, edges=NEAREST)
        with pytest.raises(InputError, match="truth: got shape"):
            evaluate.Affinity(NEAREST).add(np.zeros((3, *ids.shape), np.float32), ids, at=(1, 0, 0))
