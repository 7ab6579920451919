"""Boxes of volumes: overlap and suppression against recorded figures, brute force and worked-out cases."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.models.detection import boxes as b
from deepem.utils.errors import InputError

whole = st.integers(0, 6)
box = st.tuples(whole, whole, whole, whole, whole, whole).map(
    lambda v: [min(v[0], v[3]), min(v[1], v[4]), min(v[2], v[5]), max(v[0], v[3]), max(v[1], v[4]), max(v[2], v[5])]
)


def voxels(one):
    return set(itertools.product(*(range(int(one[a]), int(one[a + 3])) for a in range(3))))


def greedy(boxes, scores, threshold):
    """The suppression as its definition has it, one box at a time."""
    overlap, kept = b.box_iou(boxes, boxes), []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(overlap[i, k] <= threshold for k in kept):
            kept.append(i)
    return kept


@given(st.lists(box, min_size=1, max_size=4), st.lists(box, min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_overlaps_are_those_of_the_voxels(first, second):
    found = b.box_iou(torch.tensor(first), torch.tensor(second))
    general = b.generalized_box_iou(torch.tensor(first), torch.tensor(second))
    for (i, one), (j, other) in itertools.product(enumerate(first), enumerate(second)):
        union, inter = voxels(one) | voxels(other), voxels(one) & voxels(other)
        iou = len(inter) / len(union) if union else 0
        assert found[i, j] == pytest.approx(iou)
        around = [min(p) for p in zip(one[:3], other[:3], strict=True)]
        around += [max(p) for p in zip(one[3:], other[3:], strict=True)]
        wasted = (len(voxels(around)) - len(union)) / len(voxels(around)) if voxels(around) else 0
        assert general[i, j] == pytest.approx(iou - wasted, abs=1e-6)
    assert b.box_volume(torch.tensor(first)).tolist() == [len(voxels(one)) for one in first]


def test_overlaps_and_suppression_equal_the_recorded_ones(recorded, to_3d):
    found = recorded("boxes2d")
    boxes = to_3d(found["boxes_xyxy"])
    torch.testing.assert_close(b.box_iou(boxes, boxes), found["iou"])
    torch.testing.assert_close(b.generalized_box_iou(boxes, boxes), found["giou"])
    for percent in (30, 50, 70):
        assert torch.equal(b.nms(boxes, found["scores"], percent / 100), found[f"nms_{percent}"])
    assert torch.equal(b.batched_nms(boxes, found["scores"], found["classes"], 0.5), found["batched_50"])


@pytest.mark.parametrize("block", [1, 3, 16, 1024])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 1.0])
def test_suppression_does_not_depend_on_its_blocks(boxes_at, monkeypatch, block, threshold):
    monkeypatch.setitem(b.BLOCKS, "cpu", (block, 2 * block))
    boxes = boxes_at(120, side=30)
    scores = (torch.rand(120, generator=torch.Generator().manual_seed(1)) * 20).round()  # many of the same
    assert b.nms(boxes, scores, threshold).tolist() == greedy(boxes, scores, threshold)


def test_a_long_chain_of_suppressions_is_followed_to_its_end():
    boxes = torch.tensor([[0, 0, 2.0 * i, 4, 4, 2.0 * i + 6] for i in range(40)])
    scores = torch.arange(40, 0, -1.0)
    kept = b.nms(boxes, scores, 0.3)  # each overlaps the next by half: every second one stays
    assert kept.tolist() == list(range(0, 40, 2))


def test_classes_do_not_suppress_each_other():
    boxes = torch.tensor([[0.0, 0, 0, 4, 4, 4]] * 4)
    kept = b.batched_nms(boxes, torch.tensor([0.1, 0.9, 0.5, 0.7]), torch.tensor([0, 0, 7, 7]), 0.5)
    assert kept.tolist() == [1, 3]


def test_nothing_and_boxes_without_volume_are_let_through():
    none = torch.zeros(0, 6)
    assert b.nms(none, torch.zeros(0), 0.5).shape == b.batched_nms(none, torch.zeros(0), torch.zeros(0), 0.5).shape
    flat = torch.tensor([[1.0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 2, 2, 2]])
    assert b.nms(flat, torch.tensor([3.0, 2, 1]), 0.5).tolist() == [0, 1, 2]
    assert b.box_iou(flat, flat).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert not b.generalized_box_iou(flat, flat).isnan().any()


def test_boxes_of_half_precision_do_not_overflow():
    boxes = torch.tensor([[0, 0, 0, 200, 200, 200], [0, 0, 0, 200, 200, 100]], dtype=torch.float16)
    assert b.box_iou(boxes, boxes)[0, 1] == 0.5
    assert b.nms(boxes, torch.tensor([1.0, 0.5], dtype=torch.float16), 0.4).tolist() == [0]


def test_boxes_of_masks_end_behind_the_last_voxel():
    masks = torch.zeros(3, 4, 8, 8, dtype=torch.bool)
    masks[0, 0:4, 4:8, 4:8] = True
    masks[1, 2, 3, 5] = True
    found = b.masks_to_boxes(masks)
    assert found.tolist() == [[0, 4, 4, 4, 8, 8], [2, 3, 5, 3, 4, 6], [0, 0, 0, 0, 0, 0]]
    assert b.box_volume(found).tolist() == [64, 1, 0]
    assert b.masks_to_boxes(masks[:0]).shape == (0, 6)


def test_a_box_has_its_axes_in_the_order_of_the_array():
    mask = torch.zeros(1, 4, 6, 12, dtype=torch.uint8)
    mask[0, 0:1, 2:4, 5:9] = 1
    [found] = b.masks_to_boxes(mask).long().tolist()
    assert found == [0, 2, 5, 1, 4, 9]
    again = torch.zeros_like(mask)
    again[0, found[0] : found[3], found[1] : found[4], found[2] : found[5]] = 1
    assert torch.equal(again, mask)
    assert b.masks_to_boxes(mask[:, :, 3:, 6:8]).long().tolist() == [[0, 0, 0, 1, 1, 2]]


@pytest.mark.parametrize(("length", "begin", "end", "flipped"), [(10, 2, 5, (5, 8)), (1, 0, 1, (0, 1))])
def test_a_flipped_mask_has_the_flipped_box(length, begin, end, flipped):
    mask = torch.zeros(1, 1, 1, length)
    mask[..., begin:end] = 1
    assert b.masks_to_boxes(mask.flip(3))[0].tolist() == [0, 0, flipped[0], 1, 1, flipped[1]]


def test_boxes_are_cut_at_the_faces_and_small_ones_found():
    boxes = torch.tensor([[-1.0, -2, 3, 5, 9, 30], [1, 1, 1, 1.5, 4, 4], [8, 8, 8, 9, 9, 9]])
    cut = b.clip_boxes_to_volume(boxes, (4, 8, 16))
    assert cut.tolist() == [[0, 0, 3, 4, 8, 16], [1, 1, 1, 1.5, 4, 4], [4, 8, 8, 4, 8, 9]]
    assert b.remove_small_boxes(cut, 1).tolist() == [0]
    assert boxes[0, 0] == -1


@pytest.mark.parametrize(
    "made", [lambda: b.box_iou(torch.zeros(2, 4), torch.zeros(2, 6)), lambda: b.masks_to_boxes(torch.zeros(2, 4))]
)
def test_what_has_another_shape_is_refused(made):
    with pytest.raises(InputError, match="shape"):
        made()
