"""Expected run length, against cases worked out by hand and a walk along every skeleton."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem import evaluate
from deepem.utils.errors import InputError
from tests.evaluate.drawn import cuts, same


def line(y: int, n: int, step: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """A skeleton along x: n nodes at (0, y, 0), (0, y, step), ..."""
    nodes = np.stack([np.zeros(n), np.full(n, y * step), np.arange(n) * step], 1)
    return nodes, np.stack([np.arange(n - 1), np.arange(1, n)], 1)


def rows(*lines) -> np.ndarray:
    return np.array([lines], np.uint64)


TWO = {10: line(0, 5), 20: line(1, 3)}


class TestWorkedOut:
    def test_a_perfect_segmentation(self):
        found = evaluate.erl(TWO, rows([7] * 5, [9] * 5), merge_threshold=1)
        assert (found["erl"], found["nerl"]) == ((16 + 4) / 6, 1)
        assert found["best_erl"] == found["erl"]
        assert (found["merge_threshold"], found["skeletons"]) == (1, 2)

    def test_a_split_loses_the_edge_over_it(self):
        found = evaluate.erl(TWO, rows([7, 7, 7, 8, 8], [9] * 5), merge_threshold=1)
        assert found["erl"] == (2**2 + 1 + 2**2) / 6
        assert (found["split_edges"], found["missed_edges"]) == (1, 0)

    def test_pieces_of_one_segment_are_one_run(self):
        found = evaluate.erl({1: line(0, 6)}, rows([5, 5, 9, 5, 5, 5]), merge_threshold=1)
        assert found["erl"] == 3**2 / 5

    def test_a_merger_loses_its_segment_only(self):
        found = evaluate.erl(TWO, rows([5, 5, 99, 99, 99], [99] * 5), merge_threshold=1)
        assert found["erl"] == 1 / 6
        assert found["merged_segments"] == [99]

    def test_nodes_that_make_a_merger(self):
        segmentation = rows([5, 5, 5, 5, 9], [9] * 5)
        found = [evaluate.erl(TWO, segmentation, merge_threshold=n)["erl"] for n in (1, 2)]
        assert found == [9 / 6, (9 + 4) / 6]

    def test_no_segment_is_followed_by_nobody_and_merges_nothing(self):
        found = evaluate.erl(TWO, rows([0] * 5, [9] * 5), merge_threshold=1)
        assert (found["erl"], found["missed_edges"], found["merged_segments"]) == (4 / 6, 4, [])

    def test_a_segment_that_must_not_touch_a_skeleton(self):
        found = evaluate.erl(TWO, rows([7] * 5, [9] * 5), merge_threshold=1, no_merge=[9])
        assert found["erl"] == 16 / 6

    def test_nodes_are_in_nm_and_the_segmentation_begins_at_an_offset(self):
        nodes, pairs = line(1, 4, 8.0)
        nodes[:, 0] = 40 * 3
        segmentation = np.zeros((2, 2, 5), int)
        segmentation[1, 0, 1:] = 2**62 + 1
        found = evaluate.erl(
            {1: (nodes, pairs)}, segmentation, merge_threshold=1, voxel_size_nm=(40, 8, 8), offset=(2, 1, -1)
        )
        assert (found["erl"], found["nerl"]) == (24, 1)

    def test_a_skeleton_of_one_node_has_no_run(self):
        found = evaluate.erl({1: (np.zeros((1, 3)), np.zeros((0, 2), int))}, rows([1]), merge_threshold=1)
        assert math.isnan(found["erl"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.data())
def test_by_walking_along_every_skeleton_and_block_by_block(seed, threshold, data):
    rng = np.random.default_rng(seed)
    segmentation = rng.choice(np.array([0, 1, 2, 3, 2**53, 2**53 + 1], np.uint64), (3, 4, 5))
    skeletons = {}
    for name in (3, 2**40, 5):
        n = int(rng.integers(2, 6))
        nodes = rng.integers(0, segmentation.shape, (n, 3)).astype(float)
        skeletons[name] = nodes, np.array([(int(rng.integers(0, i)), i) for i in range(1, n)])
    held: dict[int, list[int]] = {}
    segment = {k: [int(segmentation[tuple(at)]) for at in nodes.astype(int)] for k, (nodes, _) in skeletons.items()}
    for segments in segment.values():
        for s in set(segments) - {0}:
            if segments.count(s) >= threshold:
                held.setdefault(s, []).append(1)
    merged = {s for s, some in held.items() if len(some) > 1}
    run = total = best = 0.0
    for k, (nodes, pairs) in skeletons.items():
        runs: dict[int, float] = {}
        length = 0.0
        for u, v in pairs:
            d = math.dist(nodes[u], nodes[v])
            length += d
            a, b = segment[k][u], segment[k][v]
            if a == b != 0 and a not in merged:
                runs[a] = runs.get(a, 0) + d
        run, total, best = run + sum(r * r for r in runs.values()), total + length, best + length**2
    found = evaluate.erl(skeletons, segmentation, merge_threshold=threshold)
    assert found["merged_segments"] == sorted(merged)
    if total:
        assert found["erl"] == pytest.approx(run / total)
        assert found["nerl"] == pytest.approx(run / best)
    score = evaluate.Erl(skeletons, merge_threshold=threshold)
    for begin, block in data.draw(cuts(segmentation.shape)):
        score.add(segmentation[block], begin=begin)
    assert same(score.result(), found)


@pytest.mark.parametrize(
    ("skeleton", "says"),
    [
        (line(1, 4), "skeletons: got 4 nodes outside, the first at .* wants nodes .* inside"),
        ((np.zeros((2, 2)), np.zeros((0, 2))), r"skeleton 4: got nodes of shape \(2, 2\), wants \(N, 3\)"),
        ((np.zeros((2, 3)), np.array([[0, 2]])), "skeleton 4: got pairs of nodes up to 2, wants indices below 2"),
    ],
)
def test_skeletons_that_do_not_fit_are_refused(skeleton, says):
    with pytest.raises(InputError, match=says):
        evaluate.erl({4: skeleton}, rows([1] * 5), merge_threshold=1)


def test_a_merge_threshold_below_one_is_refused():
    with pytest.raises(InputError, match="merge_threshold: got 0"):
        evaluate.erl(TWO, rows([1] * 5), merge_threshold=0)


def test_skeletons_of_the_truth_follow_it():
    pytest.importorskip("bioimage_cpp.skeleton", reason="needs bioimage-cpp")
    truth = np.zeros((12, 14, 60), np.uint64)
    truth[1:6, 2:7], truth[7:11, 8:13], truth[11, 13, 59] = 2**53, 2**53 + 1, 5
    skeletons = evaluate.skeletons_of(truth, voxel_size_nm=(40, 8, 8), offset=(3, 0, 2), min_voxels=100)
    assert sorted(skeletons) == [2**53, 2**53 + 1]
    found = evaluate.erl(skeletons, truth, merge_threshold=1, voxel_size_nm=(40, 8, 8), offset=(3, 0, 2))
    assert found["nerl"] == 1
    assert found["erl"] > 300
    cut = truth.copy()
    cut[..., 30:] += np.where(cut[..., 30:] > 0, np.uint64(10), np.uint64(0))
    found = evaluate.erl(skeletons, cut, merge_threshold=1, voxel_size_nm=(40, 8, 8), offset=(3, 0, 2))
    assert 0.4 < found["nerl"] < 0.6
