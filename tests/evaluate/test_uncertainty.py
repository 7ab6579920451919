"""What a model does not know, and which boxes are chosen for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepem.evaluate import uncertainty
from deepem.utils.geometry import Box


def test_entropy_in_bits() -> None:
    p = np.array([0, 0.5, 1, 0.25], np.float32).reshape(1, 1, 1, 4)
    assert np.allclose(uncertainty.entropy(p), [0, 1, 0, 0.811278], atol=1e-5)
    two = np.concatenate([p, np.zeros_like(p)])
    assert np.allclose(uncertainty.entropy(two), [0, 0.5, 0, 0.405639], atol=1e-5)
    classes = np.full((4, 1, 1, 1), 0.25, np.float32)
    assert uncertainty.entropy(classes, classes=True) == pytest.approx(1)


def test_disagreement_is_the_variance_over_predictions() -> None:
    rng = np.random.default_rng(0)
    made = [rng.random((2, 3, 4, 5)).astype(np.float32) for _ in range(4)]
    assert np.allclose(uncertainty.disagreement(made), np.var(made, 0).mean(0), atol=1e-6)
    assert (uncertainty.disagreement(made[:1] * 3) < 1e-12).all()


def test_where_two_segmentations_cut_differently() -> None:
    one = np.ones((1, 1, 6), np.uint64)
    other = np.array([[[1, 1, 1, 2, 2, 0]]], np.uint64)
    assert np.allclose(uncertainty.split_or_joined(one, other) * 3, [[[0, 0, 0, 1, 0, 1]]])
    assert not uncertainty.split_or_joined(other, other * 7).any()


def test_candidates_cover_without_overlap() -> None:
    boxes = uncertainty.candidates((4, 7, 6), (2, 3, 3))
    assert len(boxes) == 2 * 2 * 2
    hits = np.zeros((4, 7, 6), int)
    for box in boxes:
        hits[box.slices()] += 1
    assert hits[:, :6].min() == hits.max() == 1
    assert uncertainty.candidates((1, 9, 9), (2, 3, 3)) == []


BOXES = uncertainty.candidates((4, 16, 16), (4, 4, 4))


def test_the_best_come_first_apart_from_each_other_and_from_what_was_taken() -> None:
    scores = [float(n) for n in range(16)]  # box n is at y, x = 4 * (n // 4), 4 * (n % 4)
    assert uncertainty.choose(scores, BOXES, 3) == [15, 14, 13]
    assert uncertainty.choose(scores, BOXES, 3, distance=5) == [15, 13, 10]
    assert uncertainty.choose(scores, BOXES, 2, taken=[Box((0, 13, 13), (4, 15, 15))]) == [14, 13]
    assert uncertainty.choose(scores, BOXES, 99) == list(range(15, -1, -1))
    assert uncertainty.choose(scores, BOXES, 9, distance=12, voxel_size=(1, 4, 1)) == [15, 12, 11, 8, 7, 4, 3, 0]


def test_of_the_upper_ones_those_that_differ_are_taken() -> None:
    scores = [0.0] * 10 + [0.9, 0.95, 1.0, 0.99, 0.98, 0.97]
    features = np.zeros((16, 1))
    features[:, 0] = [50] * 10 + [5, 9, 0, 0.1, 0.2, 0.3]
    assert uncertainty.choose(scores, BOXES, 2, features=features) == [12, 11]
    assert uncertainty.choose(scores, BOXES, 3, features=features)[0] == 12


@given(
    scores=st.lists(st.floats(0, 1), min_size=16, max_size=16),
    count=st.integers(1, 20),
    distance=st.floats(0, 20),
    diverse=st.booleans(),
)
def test_choices_are_distinct_and_apart(scores: list[float], count: int, distance: float, diverse: bool) -> None:
    features = np.random.default_rng(0).random((16, 3)) if diverse else None
    found = uncertainty.choose(scores, BOXES, count, distance=distance, features=features)
    assert 0 < len(found) <= count
    assert len(set(found)) == len(found)
    centres = [np.add(BOXES[i].begin, BOXES[i].end) / 2 for i in found]
    gaps = [np.linalg.norm(a - b) for n, a in enumerate(centres) for b in centres[:n]]
    assert min(gaps, default=distance) >= distance
    assert scores[found[0]] == max(scores)


def test_features_that_never_change_do_not_count() -> None:
    made = uncertainty.standardised(np.array([[1.0, 5], [3, 5]]))
    assert np.allclose(made, [[-1, 0], [1, 0]])
