"""Scores of instances and detections, against brute force over masks, and cases worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem import evaluate
from deepem.evaluate.box_overlap import bounding_boxes
from deepem.evaluate.matching import coco_precision, matched, precision_recall
from deepem.utils.errors import InputError
from tests.evaluate.drawn import cuts, pairs_of_volumes, same

IDS = [0, 1, 2, 3, 2**53, 2**53 + 1, 2**64 - 1]


def ids_of(volume) -> list[int]:
    return [name for name in np.unique(volume).tolist() if name]


def mask_overlaps(labels, truth) -> np.ndarray:
    """IoU of every predicted with every true mask."""
    masks = [[volume == np.uint64(name) for name in ids_of(volume)] for volume in (labels, truth)]
    return np.array([[(a & b).sum() / (a | b).sum() for b in masks[1]] for a in masks[0]]).reshape(
        len(masks[0]), len(masks[1])
    )


def box_overlaps(labels, truth) -> np.ndarray:
    """IoU of every predicted with every true bounding box, filled in voxel by voxel."""
    filled = []
    for volume in (labels, truth):
        filled.append([])
        for name in ids_of(volume):
            at = np.argwhere(volume == np.uint64(name))
            box = np.zeros(volume.shape, bool)
            box[tuple(slice(a, b + 1) for a, b in zip(at.min(0), at.max(0), strict=True))] = True
            filled[-1].append(box)
    return np.array([[(a & b).sum() / (a | b).sum() for b in filled[1]] for a in filled[0]]).reshape(
        len(filled[0]), len(filled[1])
    )


def most_pairs(iou, threshold) -> tuple[int, float]:
    """(number, summed IoU) of the best one-to-one choice, by trying all of them."""
    if min(iou.shape) == 0:
        return 0, 0.0
    wide = iou if iou.shape[0] <= iou.shape[1] else iou.T
    best = (0, 0.0)
    for order in itertools.permutations(range(wide.shape[1]), wide.shape[0]):
        values = [wide[i, j] for i, j in enumerate(order) if wide[i, j] >= threshold]
        best = max(best, (len(values), sum(values)))
    return best


class TestInstances:
    @pytest.mark.parametrize(
        ("function", "overlaps"), [(evaluate.instances, mask_overlaps), (evaluate.boxes, box_overlaps)]
    )
    @settings(max_examples=40, deadline=None)
    @given(volumes=pairs_of_volumes(ids=IDS, most=3), threshold=st.sampled_from([0.1, 0.25, 0.5, 0.75, 1]))
    def test_by_trying_every_choice_of_pairs(self, function, overlaps, volumes, threshold):
        labels, truth = volumes
        iou = overlaps(labels, truth)
        n, m = iou.shape
        found = function(labels, truth, thresholds=(threshold,))
        assert (found["predicted"], found["objects"]) == (n, m)
        if n + m == 0:
            assert math.isnan(found["ap_mean"])
            return
        hits, _ = most_pairs(iou, threshold)
        assert found["ap"] == {threshold: hits / (n + m - hits)}
        hits, total = most_pairs(iou, 0.5)
        assert found["f1"] == 2 * hits / (n + m)
        assert found["pq"] == pytest.approx(total / (hits + (n - hits) / 2 + (m - hits) / 2))
        mean = [most_pairs(iou, t / 100)[0] for t in range(50, 100, 5)]
        assert found["ap_mean"] == pytest.approx(np.mean([h / (n + m - h) for h in mean]))

    @pytest.mark.parametrize("kind", [evaluate.Instances, evaluate.Boxes])
    @settings(max_examples=30, deadline=None)
    @given(data=st.data(), volumes=pairs_of_volumes(ids=IDS))
    def test_blocks_give_the_same_digits(self, kind, data, volumes):
        labels, truth = volumes
        scores = {name: data.draw(st.integers(0, 3)) / 3 for name in ids_of(labels)}
        score, whole = kind(), kind()
        for begin, block in data.draw(cuts(truth.shape)):
            score.add(labels[block], truth[block], begin=begin, scores=scores)
        whole.add(labels, truth, scores=list(scores.values()))
        assert same(score.result(), whole.result())

    def test_worked_out(self):
        truth, labels = np.zeros((1, 4, 12), int), np.zeros((1, 4, 12), int)
        truth[..., :4], truth[..., 4:8], truth[0, :2, 8:] = 1, 2, 3
        labels[..., :4], labels[..., 5:8], labels[0, 3, 9:] = 7, 8, 9
        found = evaluate.instances(labels, truth, thresholds=(0.5, 0.75, 0.9))
        assert found["ap"] == {0.5: 2 / 4, 0.75: 2 / 4, 0.9: 1 / 5}
        assert found["f1"] == pytest.approx(4 / 6)
        assert found["pq"] == pytest.approx(1.75 / 3)
        assert found["ap_mean"] == pytest.approx((6 * 0.5 + 4 * 0.2) / 10)

    def test_an_overlap_of_exactly_the_threshold_counts_once(self):
        truth, labels = np.ones((1, 1, 2), int), np.array([[[4, 5]]])
        found = evaluate.instances(labels, truth, thresholds=(0.5,))
        assert (found["ap"][0.5], found["pq"]) == (0.5, pytest.approx(0.5 / 1.5))
        labels, truth = np.zeros((1, 1, 20), int), np.zeros((1, 1, 20), int)
        labels[..., :11], truth[...] = 1, 1
        assert evaluate.instances(labels, truth)["ap_mean"] == pytest.approx(0.2)

    def test_boxes_end_one_beyond_the_last_voxel(self):
        labels = np.zeros((5, 9, 9), int)
        labels[:4, 4:8, 4:8] = 1
        box = np.array([[0, 4, 4, 4, 8, 8]])
        assert evaluate.boxes(box, box)["ap"][0.9] == 1
        part = np.array([[0, 4, 4, 4, 8, 6]])
        assert evaluate.boxes(part, box, thresholds=(0.5,))["ap"] == {0.5: 1}
        assert evaluate.boxes(part, box, thresholds=(0.51,))["ap"] == {0.51: 0}
        assert evaluate.boxes(labels, np.where(labels == 1, 5, 0))["pq"] == 1

    @pytest.mark.parametrize(
        ("shape", "at", "box"),
        [
            ((4, 8, 8), (slice(0, 4), slice(4, 8), slice(4, 8)), [0, 4, 4, 4, 8, 8]),
            ((4, 6, 12), (slice(0, 1), slice(2, 4), slice(5, 9)), [0, 2, 5, 1, 4, 9]),
            ((3, 3, 3), (slice(2, 3), slice(1, 2), slice(0, 1)), [2, 1, 0, 3, 2, 1]),
        ],
    )
    def test_boxes_are_z_y_x_and_half_open(self, shape, at, box):
        overlaps = evaluate.Overlaps(places=True)
        labels = np.zeros(shape, int)
        labels[at] = 7
        overlaps.add(labels, np.zeros(shape, int), begin=(0, 0, 0))
        ids, found = bounding_boxes(overlaps.table(), truth=False)
        assert (ids.tolist(), found.tolist()) == ([7], [box])
        assert bounding_boxes(overlaps.table(), truth=True)[1].shape == (0, 6)

    def test_boxes_of_zero_size_match_nothing(self):
        empty = np.array([[2, 2, 2, 2, 5, 5.0]])
        found = evaluate.boxes(empty, empty)
        assert (found["ap"][0.5], found["predicted"], found["objects"]) == (0, 1, 1)
        none = np.zeros((0, 6))
        assert evaluate.boxes(none, empty, scores=[])["ap_ranked"][0.5] == 0
        assert math.isnan(evaluate.boxes(none, none)["f1"])


def brute_force_coco(volumes, threshold) -> float:
    """101-point average precision of (IoU matrix, scores) pairs, as pycocotools computes it."""
    rows, there = [], 0
    for iou, scores in volumes:
        there += iou.shape[1]
        free = set(range(iou.shape[1]))
        for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
            options = [j for j in free if iou[i, j] >= threshold]
            best = max(sorted(options), key=lambda j: iou[i, j], default=None)
            free -= {best}
            rows.append((scores[i], best is not None))
    rows.sort(key=lambda row: -row[0])
    points = []
    for n in range(1, len(rows) + 1):
        hits = sum(hit for _, hit in rows[:n])
        points.append((hits / there, hits / n))
    return sum(max((p for r, p in points if r >= i / 100), default=0) for i in range(101)) / 101


class TestRanked:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(pairs_of_volumes(ids=IDS, most=3), min_size=1, max_size=3), st.integers(0, 99), st.randoms())
    def test_as_coco_over_several_volumes_in_any_order(self, volumes, seed, random):
        rng = np.random.default_rng(seed)
        counts = [len(ids_of(labels)) for labels, _ in volumes]
        given_scores = [rng.permutation(1000)[:n] / 1000 + i * 1e-6 for i, n in enumerate(counts)]
        order = list(range(len(volumes)))
        random.shuffle(order)
        score = evaluate.Instances(thresholds=(0.25, 0.5))
        for i in order:
            score.add(*volumes[i], scores=given_scores[i], volume=i)
        pairs = [(mask_overlaps(*v), s) for v, s in zip(volumes, given_scores, strict=True)]
        for threshold, value in score.result()["ap_ranked"].items():
            if any(truth.any() for _, truth in volumes):
                assert value == pytest.approx(brute_force_coco(pairs, threshold))
            else:
                assert math.isnan(value)

    def test_volumes_without_a_prediction_or_without_an_object_count(self):
        nothing, one = np.zeros((1, 3, 3), int), np.pad(np.ones((1, 1, 1), int), ((0, 0), (1, 1), (1, 1)))
        volumes = {"hit": (one, one, [0.5]), "missed": (nothing, one, []), "false": (one, nothing, [0.9])}
        for order in itertools.permutations(volumes):
            score = evaluate.Instances()
            for name in order:
                labels, truth, scores = volumes[name]
                score.add(labels, truth, scores=scores, volume=name)
            assert score.result()["ap_ranked"][0.5] == pytest.approx(0.2525, abs=1e-4)
        score = evaluate.Instances()
        for name in ("hit", "missed"):
            labels, truth, scores = volumes[name]
            score.add(labels, truth, scores=scores, volume=name)
        assert score.result()["ap_ranked"][0.5] == pytest.approx(0.505, abs=1e-4)
        assert score.curves((0.5,)) == {0.5: {"recall": [0.5], "precision": [1.0]}}

    def test_equal_scores_are_one_point(self):
        recall, precision = precision_recall(np.array([0.5, 0.5, 0.5, 0.9]), np.array([1, 0, 1, 0], bool), 4)
        assert (recall, precision) == ([0, 0.5], [0, 0.5])
        assert coco_precision(recall, precision) == pytest.approx(51 / 101 / 2)

    @pytest.mark.parametrize(
        ("scores", "says"),
        [([0.1], "scores: got 1 scores, wants one for each of 2"), ({1: 0.3}, "scores: got none for the object 2")],
    )
    def test_an_object_without_a_score_is_refused(self, scores, says):
        labels = np.array([[[1, 2, 0]]])
        with pytest.raises(InputError, match=says):
            evaluate.instances(labels, labels, scores=scores)

    def test_a_threshold_that_is_no_overlap_is_refused(self):
        with pytest.raises(InputError, match=r"thresholds: got 50, wants overlaps above 0"):
            evaluate.instances(np.zeros((1, 1, 1), int), np.zeros((1, 1, 1), int), thresholds=(50,))


class TestMatching:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
    def test_as_many_as_possible_then_the_best(self, n, m, seed):
        quality = np.round(np.random.default_rng(seed).random((n, m)), 2)
        a, b = np.nonzero(quality > 0.5)
        chosen = matched(a + 7, b + 11, quality[a, b])
        assert len({*a[chosen]}) == len({*b[chosen]}) == len(chosen)
        assert (len(chosen), quality[a, b][chosen].sum()) == pytest.approx(most_pairs(quality, 0.5 + 1e-9))


class TestDetections:
    def volume(self):
        truth, labels = np.zeros((4, 4, 30), int), np.zeros((4, 4, 30), int)
        truth[1, 1, 2:6], truth[1, 1, 10:14], truth[2, 2, 20:24] = 1, 2, 2**40
        labels[1, 1, 5:12], labels[2, 2, 25:27], labels[0, 0, 28] = 4, 5, 6
        return labels, truth

    def test_by_overlap_one_detection_finds_one_object(self):
        found = evaluate.detections(*self.volume())
        assert (found["found"], found["missed"], found["false_alarms"]) == (1, [1, 2**40], [5, 6])
        assert (found["precision"], found["recall"], found["f1"]) == (1 / 3, 1 / 3, 1 / 3)
        assert evaluate.detections(*self.volume(), min_overlap=3)["found"] == 0

    def test_by_distance_between_centroids(self):
        found = evaluate.detections(*self.volume(), distance_nm=17, voxel_size_nm=(40, 4, 4))
        assert (found["found"], found["missed"], found["false_alarms"]) == (2, [1], [6])
        assert evaluate.detections(*self.volume(), distance_nm=15, voxel_size_nm=(40, 4, 4))["found"] == 1

    @settings(max_examples=30, deadline=None)
    @given(st.data(), pairs_of_volumes(ids=IDS), st.sampled_from([None, 1.5]))
    def test_blocks_give_the_same_digits(self, data, volumes, distance):
        labels, truth = volumes
        score = evaluate.Detections(distance_nm=distance)
        for begin, block in data.draw(cuts(truth.shape)):
            score.add(labels[block], truth[block], begin=begin)
        assert same(score.result(), evaluate.detections(labels, truth, distance_nm=distance))

    def test_nothing_there_and_nothing_found(self):
        nothing = np.zeros((2, 2, 2), int)
        for distance in (None, 5):
            found = evaluate.detections(nothing, nothing, distance_nm=distance)
            assert (found["found"], math.isnan(found["f1"])) == (0, True)
